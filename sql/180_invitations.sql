create table haive.invitations (
  tenant_id text storage plain collate "C" not null,
  id uuid not null default gen_random_uuid(),
  label haive_private.name storage plain,
  role text storage plain not null,
  token_hash bytea storage plain not null,
  created_by haive_private.name storage plain,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  accepted_at timestamptz,
  accepted_by haive_private.name storage plain,
  revoked_at timestamptz,
  constraint invitations_pkey primary key (tenant_id, id),
  constraint invitations_token_key unique (token_hash),
  constraint invitations_tenant_fkey foreign key (tenant_id)
  references haive.tenants (tenant_id) on delete cascade,
  constraint invitations_role_is_known check (role in ('owner', 'admin', 'member', 'reader')),
  constraint invitations_end_once check (num_nonnulls(accepted_at, revoked_at) <= 1)
);

comment on table haive.invitations is
'Who may become a member of a tenant: whoever has the token, once. Read and written by functions only.';
comment on column haive.invitations.label is 'Whom it is for, in the words of who invites: an address, a name.';
comment on column haive.invitations.token_hash is
'SHA-256 of the token, which is shown once and stored nowhere.';
comment on column haive.invitations.created_by is 'The user who invites; null: the platform.';
