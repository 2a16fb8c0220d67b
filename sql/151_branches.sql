create table haive.branches (
  tenant_id text collate "C" not null,
  branch_id uuid not null,
  thread_key uuid not null,
  name haive_private.name not null,
  root_branch_id uuid,
  root_seq bigint,
  head_id uuid,
  metadata haive_private.json_object,
  sealed haive_private.payload,
  key_id haive_private.key_id,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint branches_pkey primary key (tenant_id, branch_id),
  constraint branches_name_key unique (thread_key, name, tenant_id),
  constraint branches_thread_fkey foreign key (tenant_id, thread_key)
  references haive.threads (tenant_id, thread_key) on delete cascade
) with (fillfactor = 70); -- every checkpoint moves the head: leave room to do it in place

comment on table haive.branches is
'Lines of checkpoints. Each has one head, which a save replaces only if it is the parent it names.';
comment on column haive.branches.root_seq is
'Where it left root_branch_id: of that branch, what is later is not in its history. Nothing is copied.';
comment on column haive.branches.head_id is 'Its last checkpoint; before the first, the one it begins at.';
