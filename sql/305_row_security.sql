create or replace function haive.row_security()
returns json
language sql
stable
security invoker
set search_path = ''
as $$
  select json_build_object(
    'without', coalesce(
      json_agg(c.relname order by c.relname) filter (where not c.relrowsecurity), '[]'
    ),
    'binds', row_security_active('haive.conversations'::regclass),
    -- The REST API sets this; there a secret key is bound by the functions that it calls.
    'direct', nullif(current_setting('request.method', true), '') is null
  )
  from pg_class as c
  where
    c.relnamespace = 'haive'::regnamespace and c.relkind in ('r', 'p')
    -- The schema may be one that others use too, such as public.
    and exists (
      select from pg_attribute as a
      where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
    )
$$;

comment on function haive.row_security() is
'Which tables are without row level security, whether it binds the caller, and whether that one is '
'connected directly: {without, binds, direct}.';
