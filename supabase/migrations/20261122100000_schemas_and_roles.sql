-- What users and PostgREST see, and what they do not.
create schema if not exists haive;
create schema if not exists haive_private;

comment on schema haive_private is
'Helpers of schema haive. Never expose it through PostgREST.';

-- Roles are shared by the whole server: several installations, and several databases, meet here.
-- The three API roles exist on Supabase; a plain Postgres gets them without a login.
do $$
declare
  wanted text;
begin
  foreach wanted in array array['anon', 'authenticated', 'service_role', 'haive_client', 'haive_writer'] loop
    begin
      if not exists (select from pg_catalog.pg_roles where rolname = wanted) then
        execute pg_catalog.format('create role %I nologin', wanted);
      end if;
    exception
      when duplicate_object or unique_violation then
        null; -- another installation created it between the look and the command
    end;
  end loop;
  -- The installer acts as both: it owns the schema and hands functions to haive_writer.
  if not pg_catalog.pg_has_role(current_user, 'haive_writer', 'set') then
    execute pg_catalog.format('grant haive_client, haive_writer to %I', current_user);
  end if;
  -- Trusted callers are the members of haive_client.
  if not pg_catalog.pg_has_role('service_role', 'haive_client', 'member') then
    -- Not to be taken on: else authenticator, and so the claim "role" of a token, could name it.
    grant haive_client to service_role with set false;
  end if;
end;
$$;

create table haive_private.migrations (
  version text collate "C" not null,
  name text not null,
  applied_at timestamptz not null default now(),
  constraint migrations_pkey primary key (version)
);

comment on table haive_private.migrations is
'Which migrations this installation has, whoever applied them.';

-- Closed until the policies open it.
alter table haive_private.migrations enable row level security;

insert into haive_private.migrations (version, name) values
  ('20261122100000', 'schemas_and_roles')
on conflict do nothing;
