-- Where memories are: schema vecs, as Supabase's client of that name lays its collections out. Its
-- tables are made by haive_writer, at run time. In one block, since all installations of a database
-- share schema and extension.
do $$
declare
  v_schema text;
begin
  if not exists (select from pg_catalog.pg_extension where extname = 'vector') then
    begin
      create schema if not exists extensions;
      create extension if not exists vector with schema extensions;
    exception
      when insufficient_privilege or undefined_file or feature_not_supported then
        null; -- all else works without it, and open_memory_collection says what is missing
    end;
  end if;
  if not exists (select from pg_catalog.pg_namespace where nspname = 'vecs') then
    create schema vecs;
    comment on schema vecs is
    'Memories, a table a collection. For services: it is not exposed through PostgREST.';
  end if;
  if not pg_catalog.has_schema_privilege('haive_writer', 'vecs', 'create') then
    grant usage, create on schema vecs to haive_writer;
    grant usage on schema vecs to haive_client, authenticated, service_role;
  end if;
  select n.nspname into v_schema
  from pg_catalog.pg_extension as e
  join pg_catalog.pg_namespace as n on n.oid = e.extnamespace
  where e.extname = 'vector';
  if v_schema is not null and not pg_catalog.has_schema_privilege('haive_writer', v_schema, 'usage') then
    execute pg_catalog.format(
      'grant usage on schema %I to haive_writer, haive_client, authenticated, service_role', v_schema
    );
  end if;
end;
$$;
