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
  base_id uuid,
  constraint checkpoints_pkey primary key (tenant_id, branch_id, seq),
  -- id first: see the note on indexes at haive.conversations. A copied thread keeps its ids.
  constraint checkpoints_id_key unique (id, thread_key, tenant_id),
  constraint checkpoints_branch_fkey foreign key (tenant_id, branch_id)
  references haive.branches (tenant_id, branch_id) on delete cascade
)
-- What fits into a page stays in the row: another table for what is long has an index, a map of its
-- free space and more rows, and a chain of deltas is read with one lookup each.
with (toast_tuple_target = 8160);
-- Compressed already, and often sealed.
alter table haive.checkpoints
alter column payload set storage external,
alter column sealed set storage external;

comment on table haive.checkpoints is 'States of workflows, most of them as a delta against their parent.';
comment on column haive.checkpoints.base_id is
'What it is a delta against, where that is neither its parent nor nothing: a state further back.';
comment on column haive.checkpoints.seq is
'Rises along every branch, for it is given under the lock of the branch: the order of history.';
comment on column haive.checkpoints.depth is 'How many deltas lay between it and a whole state when it was saved; after pruning, at most so many.';
comment on column haive.checkpoints.size is 'Bytes of the state before it was packed.';
comment on column haive.checkpoints.search is
'What states are found by: an object of scalars; of a sealed one, a list of keyed hashes of them.';
comment on column haive.checkpoints.sealed is
'Metadata and tags of a sealed checkpoint, whose columns of these names are null.';

-- Serves: checkpoints of all threads by state, with a service key (see conversations_tags_idx).
create index checkpoints_search_idx on haive.checkpoints using gin (search jsonb_path_ops)
with (gin_pending_list_limit = 128);
