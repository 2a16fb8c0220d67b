-- Run after `services/platform.ts install`, as the superuser: owners, grants and helper functions
-- as on hosted. It fails where the installation, which reports no errors, has left a gap.

do $$
declare
  relation regclass;
begin
  for relation in
    select c.oid
    from pg_catalog.pg_class as c
    where c.relnamespace = 'auth'::regnamespace and c.relkind = 'r'
  loop
    execute format('alter table %s owner to supabase_auth_admin', relation);
  end loop;
end
$$;

alter table storage.buckets owner to supabase_storage_admin;
alter table storage.objects owner to supabase_storage_admin;

-- A migration may refer to users, react to them, and say who may do what with objects.
grant all on all tables in schema auth to postgres;
grant all on storage.buckets, storage.objects to postgres, anon, authenticated, service_role;
grant supabase_storage_admin to postgres;

do $$
begin
  assert to_regclass('auth.users') is not null
    and to_regclass('auth.identities') is not null
    and to_regclass('auth.sessions') is not null
    and to_regclass('auth.refresh_tokens') is not null
    and to_regprocedure('storage.foldername(text)') is not null
    and (select relrowsecurity from pg_catalog.pg_class where oid = 'storage.objects'::regclass),
    'the tables of Auth and Storage are incomplete';
end
$$;

-- Who is calling, from the claims that PostgREST puts into the transaction's settings. The
-- installation above brings versions of its own that know older settings only.
create or replace function auth.jwt() returns jsonb
language sql stable
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')
  )::jsonb
$$;

create or replace function auth.uid() returns uuid
language sql stable
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
  )::uuid
$$;

create or replace function auth.role() returns text
language sql stable
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.role', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
  )::text
$$;

create or replace function auth.email() returns text
language sql stable
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.email', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email'
  )::text
$$;
