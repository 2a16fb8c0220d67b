create table haive.tenants (
  tenant_id text collate "C" not null,
  name text not null,
  settings jsonb not null default '{}',
  created_at timestamptz not null default now(),
  constraint tenants_pkey primary key (tenant_id),
  constraint tenants_id_is_a_slug check (tenant_id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  constraint tenants_name_is_bounded check (length(name) between 1 and 200),
  constraint tenants_settings_are_an_object check (jsonb_typeof(settings) = 'object')
);

comment on table haive.tenants is 'Whose data it is. The tenant "default" always exists.';
comment on column haive.tenants.tenant_id is 'A slug; collated "C" because it heads every key.';

insert into haive.tenants (tenant_id, name) values ('default', 'Default')
on conflict do nothing;
