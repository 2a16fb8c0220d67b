-- What every hosted project has and a bare Postgres lacks. Run once, as the superuser
-- supabase_admin, into the template that all stacks are copied from; passwords are set per stack.
-- The tables of Auth and Storage come next, from services/platform.ts, then bootstrap_platform.sql
-- and bootstrap_realtime.sql.

-- Roles. On hosted, too, postgres is no superuser: what needs one must fail here as well.
create role postgres login nosuperuser createdb createrole replication bypassrls;
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role authenticator login noinherit;

-- The services own what is theirs.
create role supabase_auth_admin login;
create role supabase_storage_admin nologin;

grant anon, authenticated, service_role to authenticator;
-- With admin option: `alter role authenticator set pgrst.db_schemas` is documented for postgres.
grant anon, authenticated, service_role, authenticator to postgres with admin option;
-- One server does both: it works on the tables of both, and acts as the caller on Storage's.
grant anon, authenticated, service_role, supabase_storage_admin to supabase_auth_admin;
grant set on parameter pgrst.db_schemas, pgrst.db_extra_search_path, pgrst.db_max_rows,
  pgrst.db_pre_request, pgrst.db_aggregates_enabled, pgrst.db_plan_enabled, pgrst.openapi_mode
  to postgres;
-- As hosted's supautils lets postgres, too.
grant set on parameter session_replication_role to postgres;
grant pg_monitor, pg_read_all_data, pg_signal_backend to postgres;

alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';

alter database postgres owner to postgres;
alter database postgres set search_path = "$user", public, extensions;

-- Schemas. New tables and functions in public get no grants of their own, as on hosted since
-- 2026-10-30: no default privileges are altered here.
grant usage on schema public to postgres, anon, authenticated, service_role;

create schema extensions authorization postgres;
grant usage on schema extensions to anon, authenticated, service_role;

-- Owned by the superuser, not by postgres: `supabase db reset` drops what postgres owns.
create schema auth;
create schema storage;
grant usage on schema auth, storage
  to postgres, anon, authenticated, service_role, supabase_auth_admin, supabase_storage_admin;

-- Extensions that hosted has in place, and those that a migration asks for with
-- `create extension if not exists`: postgres may not create these here, so it finds them.
create extension vector with schema extensions;
create extension pg_trgm with schema extensions;
create extension pg_stat_statements with schema extensions;

-- PostgREST reloads its schema cache after DDL.
create function extensions.pgrst_ddl_watch() returns event_trigger
language plpgsql
set search_path = ''
as $$
begin
  if exists (
    select from pg_catalog.pg_event_trigger_ddl_commands() as command
    where command.schema_name is distinct from 'pg_temp'
      and command.command_tag ~
        '^(CREATE|ALTER|COMMENT|GRANT|REVOKE|SELECT INTO|IMPORT FOREIGN SCHEMA)'
  ) then
    perform pg_catalog.pg_notify('pgrst', 'reload schema');
  end if;
end
$$;

create function extensions.pgrst_drop_watch() returns event_trigger
language plpgsql
set search_path = ''
as $$
begin
  if exists (
    select from pg_catalog.pg_event_trigger_dropped_objects() as dropped
    where not dropped.is_temporary
      and dropped.object_type in (
        'schema', 'table', 'foreign table', 'view', 'materialized view', 'function', 'trigger',
        'type', 'rule'
      )
  ) then
    perform pg_catalog.pg_notify('pgrst', 'reload schema');
  end if;
end
$$;

create event trigger pgrst_ddl_watch on ddl_command_end
  execute function extensions.pgrst_ddl_watch();
create event trigger pgrst_drop_watch on sql_drop
  execute function extensions.pgrst_drop_watch();

-- Edge functions and cron get their own files when they come.
