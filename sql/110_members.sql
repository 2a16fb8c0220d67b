create table haive.members (
  tenant_id text storage plain collate "C" not null,
  user_id haive_private.name storage plain not null,
  role text storage plain not null default 'member',
  created_at timestamptz not null default now(),
  constraint members_pkey primary key (tenant_id, user_id),
  constraint members_tenant_fkey foreign key (tenant_id)
  references haive.tenants (tenant_id) on delete cascade,
  constraint members_role_is_known check (role in ('owner', 'admin', 'member', 'reader'))
);

comment on table haive.members is 'Which user (the "sub" of a token) belongs to which tenant, and as what.';
comment on column haive.members.role is
'owner and admin see all of the tenant; member writes and reader reads where they take part.';

-- Serves: the tenants of the caller, asked by every policy.
create index members_user_idx on haive.members (user_id);
