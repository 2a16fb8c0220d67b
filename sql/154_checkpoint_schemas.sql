create table haive.checkpoint_schemas (
  tenant_id text collate "C" not null,
  hash bytea not null,
  payload haive_private.payload not null,
  key_id haive_private.key_id,
  created_at timestamptz not null default now(),
  constraint checkpoint_schemas_pkey primary key (tenant_id, hash),
  constraint checkpoint_schemas_tenant_fkey foreign key (tenant_id)
  references haive.tenants (tenant_id) on delete cascade
);

comment on table haive.checkpoint_schemas is
'The JSON Schemas of saved models, once each: what a restored state is validated against.';
