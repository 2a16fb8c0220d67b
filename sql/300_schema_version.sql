create or replace function haive.schema_version()
returns text
language sql
stable
security invoker
set search_path = ''
as $$
  select max(m.version) from haive_private.migrations as m
$$;

comment on function haive.schema_version() is
'The newest migration that this installation has.';
