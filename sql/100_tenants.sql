create table haive.tenants (
  tenant_id text collate "C" not null,
  name text not null,
  settings jsonb not null default '{}',
  created_at timestamptz not null default now(),
  status haive_private.tenant_status not null default 'active',
  isolation haive_private.tenant_isolation not null default 'row',
  location haive_private.name,
  audit haive_private.audit_mode not null default 'off',
  encrypted boolean not null default false,
  metered boolean not null default false,
  max_conversations haive_private.tenant_limit,
  max_storage_bytes haive_private.tenant_limit,
  max_requests_per_minute haive_private.tenant_limit,
  max_tokens_per_month haive_private.tenant_limit,
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  warned text not null default '',
  constraint tenants_pkey primary key (tenant_id),
  constraint tenants_id_is_a_slug check (tenant_id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  constraint tenants_name_is_bounded check (length(name) between 1 and 200),
  constraint tenants_settings_are_an_object check (jsonb_typeof(settings) = 'object')
);

comment on table haive.tenants is 'Whose data it is. The tenant "default" always exists.';
comment on column haive.tenants.tenant_id is 'A slug; collated "C" because it heads every key.';
comment on column haive.tenants.settings is
'timezone, data_retention_days, compliance_mode, and what an application keeps of its own.';
comment on column haive.tenants.location is
'Where the rows are of a tenant that is isolated: the name of its schema or of its connection.';
comment on column haive.tenants.encrypted is
'Whether content is sealed by the client: then the functions take none in the clear.';
comment on column haive.tenants.warned is
'Of which limits 80 % are in use, as an event has told: conversations, storage, tokens-2026-11.';
comment on column haive.tenants.metered is 'Whether use is counted; a tenant with a limit is.';

insert into haive.tenants (tenant_id, name) values ('default', 'Default')
on conflict do nothing;
