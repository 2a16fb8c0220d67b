create domain haive_private.namespace as text collate "C"
constraint namespace_is_bounded check (octet_length(value) <= 1000);
comment on domain haive_private.namespace is
'Which part of a thread: empty for its main graph, else the path of a subgraph; at most 1,000 bytes.';

create domain haive_private.codec as smallint
constraint codec_is_known check (value between 0 and 2);
comment on domain haive_private.codec is
'How a payload is packed: 0 as it is, 1 by zstd, 2 by zstd against the state of the parent.';

create domain haive_private.payload as bytea
constraint payload_is_bounded check (octet_length(value) <= 67108864);
comment on domain haive_private.payload is 'At most 64 MiB; what is in it only the SDK knows.';

create domain haive_private.key_id as text collate "C"
constraint key_id_is_hexadecimal check (value ~ '^[0-9a-f]{8}$');
comment on domain haive_private.key_id is 'Names the key that something was sealed with.';

create domain haive_private.state_size as int
constraint state_size_is_bounded check (value between 0 and 67108864);
comment on domain haive_private.state_size is 'Bytes of a state before it is packed: at most 64 MiB.';

create domain haive_private.chain_depth as smallint
constraint chain_depth_is_positive check (value >= 0);
comment on domain haive_private.chain_depth is 'How many deltas lie between a state and a whole one, at most.';

create domain haive_private.write_place as int
constraint write_place_is_known check (value >= -1000);
comment on domain haive_private.write_place is
'A place among the writes of a task; below zero for errors, interrupts and the like.';

create table haive.threads (
  tenant_id text collate "C" not null,
  thread_key uuid not null default gen_random_uuid(),
  thread_id haive_private.name not null,
  namespace haive_private.namespace not null default '',
  user_id haive_private.name,
  created_at timestamptz not null default now(),
  constraint threads_pkey primary key (tenant_id, thread_key),
  constraint threads_name_key unique (thread_id, namespace, tenant_id),
  constraint threads_tenant_fkey foreign key (tenant_id)
  references haive.tenants (tenant_id) on delete cascade
);

comment on table haive.threads is
'What checkpoints belong to: a workflow by its name, and each subgraph of it by its namespace.';
comment on column haive.threads.thread_key is
'Stands for thread and namespace in the tables below, at 16 bytes a row.';
comment on column haive.threads.user_id is 'Whose it is: that user may see it; null: no user''s.';

-- Serves: the policy by which users read their own threads.
create index threads_user_idx on haive.threads (user_id) where user_id is not null;

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

create table haive.checkpoints (
  tenant_id text collate "C" not null,
  branch_id uuid not null,
  seq bigint not null generated always as identity,
  thread_key uuid not null,
  id uuid not null,
  parent_id uuid,
  created_at timestamptz not null default now(),
  size haive_private.state_size not null,
  codec haive_private.codec not null,
  depth haive_private.chain_depth not null,
  failed boolean not null default false,
  key_id haive_private.key_id,
  schema_hash bytea,
  tags haive_private.labels,
  metadata haive_private.json_object,
  search jsonb,
  sealed haive_private.payload,
  payload haive_private.payload not null,
  constraint checkpoints_pkey primary key (tenant_id, branch_id, seq),
  -- id first: see the note on indexes at haive.conversations. A copied thread keeps its ids.
  constraint checkpoints_id_key unique (id, thread_key, tenant_id),
  constraint checkpoints_branch_fkey foreign key (tenant_id, branch_id)
  references haive.branches (tenant_id, branch_id) on delete cascade
);
-- Compressed already, and often sealed.
alter table haive.checkpoints
alter column payload set storage external,
alter column sealed set storage external;

comment on table haive.checkpoints is 'States of workflows, most of them as a delta against their parent.';
comment on column haive.checkpoints.seq is
'Rises along every branch, for it is given under the lock of the branch: the order of history.';
comment on column haive.checkpoints.depth is 'How many deltas lay between it and a whole state when it was saved; after pruning, at most so many.';
comment on column haive.checkpoints.size is 'Bytes of the state before it was packed.';
comment on column haive.checkpoints.search is
'What states are found by: an object of scalars; of a sealed one, a list of keyed hashes of them.';
comment on column haive.checkpoints.sealed is
'Metadata and tags of a sealed checkpoint, whose columns of these names are null.';

-- Serves: checkpoints of all threads by state, with a service key (see conversations_tags_idx).
create index checkpoints_search_idx on haive.checkpoints using gin (search jsonb_path_ops);

create table haive.checkpoint_writes (
  tenant_id text collate "C" not null,
  thread_key uuid not null,
  checkpoint_id uuid not null,
  task_id uuid not null,
  idx haive_private.write_place not null,
  channel haive_private.name not null,
  task_path haive_private.namespace not null default '',
  size haive_private.state_size not null,
  codec haive_private.codec not null,
  key_id haive_private.key_id,
  payload haive_private.payload not null,
  constraint checkpoint_writes_pkey primary key (tenant_id, thread_key, checkpoint_id, task_id, idx),
  constraint checkpoint_writes_thread_fkey foreign key (tenant_id, thread_key)
  references haive.threads (tenant_id, thread_key) on delete cascade
);
alter table haive.checkpoint_writes alter column payload set storage external;

comment on table haive.checkpoint_writes is
'What the tasks after a checkpoint have written already: after a crash they need not run again.';
comment on column haive.checkpoint_writes.checkpoint_id is
'No foreign key: a task may be done before the checkpoint that it follows is saved.';
comment on column haive.checkpoint_writes.idx is
'Its place among the writes of the task; below zero for errors, interrupts and the like.';

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

-- Closed until the policies open them.
alter table haive.branches enable row level security;
alter table haive.checkpoint_schemas enable row level security;
alter table haive.checkpoint_writes enable row level security;
alter table haive.checkpoints enable row level security;
alter table haive.threads enable row level security;

insert into haive_private.migrations (version, name) values
  ('20261122110000', 'checkpoint_tables')
on conflict do nothing;
