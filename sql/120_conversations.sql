create table haive.conversations (
  tenant_id text collate "C" not null,
  id uuid not null,
  agent_id haive_private.name not null,
  user_id haive_private.name,
  title haive_private.title,
  tags haive_private.labels not null default '{}',
  context haive_private.json_object not null default '{}',
  participants haive_private.labels not null default '{}',
  settings haive_private.json_object not null default '{}',
  message_count bigint not null default 0,
  input_tokens bigint not null default 0,
  output_tokens bigint not null default 0,
  cost numeric not null default 0,
  created_at haive_private.moment not null default now(),
  updated_at timestamptz not null default now(),
  last_message_at timestamptz not null default now(),
  active_hour timestamptz not null
  generated always as (date_bin('1 hour', last_message_at, '2000-01-01 00:00:00+00')) stored,
  sealed haive_private.sealed_content,
  sealed_with haive_private.key_id,
  is_session boolean not null default false,
  constraint conversations_pkey primary key (tenant_id, id),
  constraint conversations_tenant_fkey foreign key (tenant_id)
  references haive.tenants (tenant_id) on delete cascade,
  constraint conversations_are_sealed_whole check (
    num_nulls(sealed, sealed_with) <> 1
    and (sealed is null or (title is null and context = '{}' and settings = '{}'))
  )
) with (fillfactor = 70); -- every message rewrites its row: leave room to do it in place

comment on table haive.conversations is
'One row a conversation, with counters kept by the functions that write its messages.';
comment on column haive.conversations.message_count is
'How many messages there are, and the seq of the last one: seq has no gaps.';
comment on column haive.conversations.last_message_at is
'When the last message was written; while there is none, when the conversation began.';
comment on column haive.conversations.active_hour is
'The hour of last_message_at. Indexed in its place, so that a message changes no indexed column '
'and its update stays in place (40,000 against 33,000 messages a second).';
comment on column haive.conversations.sealed is
'Title, context and settings, sealed by the client: their own columns are empty then.';
comment on column haive.conversations.sealed_with is 'The key that it was sealed with.';
comment on column haive.conversations.is_session is
'Whether it has a row in haive.sessions: then that says who may write to it, and how long.';

-- Compressed already.
alter table haive.conversations alter column sealed set storage external;

-- No index below begins with tenant_id: as long as the table is small or new, the planner takes
-- such an index for as cheap as the key and reads the whole tenant to find one row
-- (8,000 against 40,000 messages a second).

-- Serves: the latest conversations of a user.
create index conversations_user_idx on haive.conversations (user_id, tenant_id, active_hour);
-- Serves: the latest conversations of all users.
create index conversations_active_idx on haive.conversations (active_hour);
-- Serves: a user's, agent's or tenant's conversations by age.
create index conversations_created_idx on haive.conversations (created_at);
-- Serves: the conversations of an agent.
create index conversations_agent_idx on haive.conversations (agent_id, tenant_id, active_hour);
-- Filters by lists use an index only for callers that row level security does not bind: for the
-- others they run after the policy, since their operators are not leakproof.
-- What is new waits in a list that each search reads through: at most 128 kB of it, 0.4 ms, where
-- Postgres would let it grow to 4 MB.
-- Serves: filters by tags with a service key.
create index conversations_tags_idx on haive.conversations using gin (tags)
with (gin_pending_list_limit = 128);
-- Serves: the policy by which a participant may read, and filters by them with a service key.
create index conversations_participants_idx on haive.conversations using gin (participants)
with (gin_pending_list_limit = 128);
