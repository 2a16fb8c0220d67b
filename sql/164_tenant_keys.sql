create table haive_private.tenant_keys (
  tenant_id text collate "C" not null,
  key_id haive_private.key_id not null,
  wrapped bytea,
  kek_id haive_private.name not null,
  status haive_private.key_status not null,
  created_at timestamptz not null default now(),
  constraint tenant_keys_pkey primary key (tenant_id, key_id),
  constraint tenant_keys_tenant_fkey foreign key (tenant_id)
  references haive.tenants (tenant_id) on delete cascade,
  constraint tenant_keys_are_wrapped check (
    (wrapped is null) = (status = 'destroyed') and octet_length(wrapped) <= 65536
  )
);

comment on table haive_private.tenant_keys is
'The data keys of tenants, each wrapped by a key that this database does not have.';
comment on column haive_private.tenant_keys.wrapped is
'What only the key-encryption key opens; null once the key was destroyed.';
comment on column haive_private.tenant_keys.kek_id is 'The key-encryption key that wrapped it.';

-- Serves: at most one key seals, and at most one is next.
create unique index tenant_keys_turn_idx on haive_private.tenant_keys (tenant_id, status)
where status in ('next', 'active');
