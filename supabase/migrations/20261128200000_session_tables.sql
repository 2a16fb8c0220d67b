-- squawk-ignore ban-drop-constraint
alter domain haive_private.event_kind drop constraint event_kind_is_known;
-- squawk-ignore ban-alter-domain-with-add-constraint
alter domain haive_private.event_kind add constraint event_kind_is_known check (
  value in (
    'conversation.created', 'conversation.updated', 'conversation.deleted', 'messages.added',
    'checkpoint.saved', 'checkpoint.changed', 'checkpoints.pruned', 'branch.created',
    'thread.copied', 'thread.deleted', 'quota.warning', 'session.created', 'session.updated',
    'session.merged', 'session.unmerged', 'participant.changed', 'message.hidden', 'message.shown'
  )
);

alter table haive.conversations add column is_session boolean not null default false;
comment on column haive.conversations.is_session is
'Whether it has a row in haive.sessions: then that says who may write to it, and how long.';

-- For rows to come: those that are there have no author.
alter table haive.messages
-- squawk-ignore adding-field-with-default
add column author haive_private.name default nullif(current_setting('persistence.author', true), ''),
add column hidden_at timestamptz;
comment on column haive.messages.author is
'The user who wrote it, where that is known for certain: who called with their token, or for whom a '
'service wrote to a session.';
comment on column haive.messages.hidden_at is
'When a moderator hid it: since then only moderators and services see it.';

-- Serves: what an erased user wrote in conversations of others.
create index messages_author_idx on haive.messages (author, tenant_id) where author is not null;
-- Serves: the places that a page of a session leaves out.
create index messages_hidden_idx on haive.messages (conversation_id, seq)
where hidden_at is not null;

create domain haive_private.session_status as text collate "C"
constraint session_status_is_known check (
  value in ('open', 'closed', 'expired', 'merged', 'continued')
);
comment on domain haive_private.session_status is
'open; closed by somebody; expired; merged into another; continued in its successor.';

create domain haive_private.json_list as jsonb
constraint json_list_is_bounded check (
  jsonb_typeof(value) = 'array' and pg_column_size(value) <= 8388608
)
constraint json_list_is_of_objects check (
  not jsonb_path_exists(value, 'strict $[*] ? (@.type() <> "object")')
);
comment on domain haive_private.json_list is 'A JSON array of objects, of at most 8 MiB.';

create domain haive_private.segment_number as int
constraint segment_number_is_counted check (value >= 0);
comment on domain haive_private.segment_number is
'Counts what happens to a session as a whole: its merges, and who was removed from it.';

create domain haive_private.positive as int
constraint positive_is_above_zero check (value > 0);
comment on domain haive_private.positive is 'A whole number above zero.';

create table haive.sessions (
  tenant_id text collate "C" not null,
  id uuid not null,
  parent_id uuid,
  parent_segment haive_private.segment_number,
  branch_index bigint not null default 0,
  segment haive_private.segment_number not null default 0,
  room haive_private.segment_number not null default 0,
  index_offset bigint not null default 0,
  status haive_private.session_status not null default 'open',
  live boolean not null default true,
  ttl haive_private.positive,
  max_messages haive_private.positive,
  predecessor_id uuid,
  successor_id uuid,
  active_at timestamptz not null default now(),
  closed_at timestamptz,
  writers haive_private.labels,
  moderators haive_private.labels,
  constraint sessions_pkey primary key (tenant_id, id),
  constraint sessions_conversation_fkey foreign key (tenant_id, id)
  references haive.conversations (tenant_id, id) on delete cascade,
  constraint sessions_branch_somewhere check (
    num_nulls(parent_id, parent_segment) <> 1 and branch_index >= 0
    and (parent_id is not null or branch_index = 0)
  )
) with (fillfactor = 80); -- every message moves active_at: leave room to do it in place

comment on table haive.sessions is
'What a conversation is more as a session: where it branched off, who may write, how long it lives. '
'Its messages, context and state are those of the conversation with its id.';
comment on column haive.sessions.parent_segment is 'The state of the parent that it branched off.';
comment on column haive.sessions.branch_index is
'How many messages of the parent it begins with. They stay where they are.';
comment on column haive.sessions.segment is
'0, and one more with each merge and each undoing: see haive.session_segments.';
comment on column haive.sessions.index_offset is
'The index of an own message is this and its seq; the session has this and message_count messages.';
comment on column haive.sessions.room is
'Which realtime topic its participants meet on: the next one with each who is removed, so that who was '
'there already stays behind.';
comment on column haive.sessions.live is 'Whether its changes can be watched.';
comment on column haive.sessions.ttl is 'Seconds that it stays open after active_at; null: for ever.';
comment on column haive.sessions.max_messages is 'At so many it goes on in a successor.';
comment on column haive.sessions.writers is
'Who may write, beside the owner (user_id of the conversation). Its participants may read.';
comment on column haive.sessions.moderators is
'Who may hide messages and change permissions, beside the owner.';

-- Serves: the branches of a session.
create index sessions_parent_idx on haive.sessions (parent_id) where parent_id is not null;
-- Serves: the job that closes what has expired. No message changes it.
create index sessions_open_idx on haive.sessions (tenant_id, id) where status = 'open';

create table haive.session_segments (
  tenant_id text collate "C" not null,
  session_id uuid not null,
  number haive_private.segment_number not null,
  base_segment haive_private.segment_number not null,
  base_count bigint not null,
  conversation_ids uuid [] not null default '{}',
  first_seqs bigint [] not null default '{}',
  last_seqs bigint [] not null default '{}',
  borrowed bigint not null default 0,
  start_seq bigint not null,
  constraint session_segments_pkey primary key (tenant_id, session_id, number),
  constraint session_segments_session_fkey foreign key (tenant_id, session_id)
  references haive.sessions (tenant_id, id) on delete cascade,
  constraint session_segments_build_on_earlier_ones check (
    number > base_segment and base_count >= 0 and borrowed >= 0 and start_seq >= 0
  ),
  constraint session_segments_lists_are_parallel check (
    cardinality(conversation_ids) = cardinality(first_seqs)
    and cardinality(conversation_ids) = cardinality(last_seqs)
  )
);

comment on table haive.session_segments is
'How the messages of a session follow each other after a merge, or after one was undone: the first '
'base_count messages of an earlier segment of it, then those listed, then its own after start_seq. '
'Segment 0 has no row: it is the beginning of the parent, then all that is its own.';
comment on column haive.session_segments.conversation_ids is
'With first_seqs and last_seqs: ranges of messages, wherever they are.';
comment on column haive.session_segments.borrowed is 'How many messages the ranges have.';

create table haive.session_merges (
  tenant_id text collate "C" not null,
  id uuid not null,
  session_id uuid not null,
  secondary_id uuid not null,
  segment haive_private.segment_number not null,
  before_segment haive_private.segment_number not null,
  before_count bigint not null,
  secondary_count bigint not null,
  secondary_status haive_private.session_status not null,
  strategy text not null,
  conflict_resolution text not null,
  root_count bigint not null,
  dropped haive_private.json_list not null default '[]',
  conflicts haive_private.json_list not null default '[]',
  summary_seq bigint,
  summary_of haive_private.json_list not null default '[]',
  created_at timestamptz not null default now(),
  undone_at timestamptz,
  constraint session_merges_pkey primary key (tenant_id, id),
  constraint session_merges_session_fkey foreign key (tenant_id, session_id)
  references haive.sessions (tenant_id, id) on delete cascade,
  constraint session_merges_strategy_is_known check (
    strategy in ('append', 'chronological', 'primary_wins', 'secondary_wins', 'intelligent')
  ),
  constraint session_merges_resolution_is_known check (
    conflict_resolution in ('primary_wins', 'secondary_wins', 'latest', 'keep_both')
  )
);

comment on table haive.session_merges is
'Which session was merged into which, what was left out and why: places of messages, no content. '
'What came from where is in the segment that the merge made.';
comment on column haive.session_merges.root_count is
'How many messages the two had in common at their beginning.';
comment on column haive.session_merges.before_segment is
'The segment of the session before, and before_count its messages: what undoing goes back to.';
comment on column haive.session_merges.secondary_status is 'What undoing gives back to the other.';
comment on column haive.session_merges.summary_of is
'The messages that the summary (of summary_seq) was drawn from.';

-- Serves: the merges of a session, and the last one that is not undone.
create index session_merges_session_idx on haive.session_merges (session_id, segment);
-- Serves: where a session was merged into.
create index session_merges_secondary_idx on haive.session_merges (secondary_id);

create type haive_private.session_pair as (
  session haive.sessions,
  conversation haive.conversations
);

comment on type haive_private.session_pair is 'A session and the conversation that it is.';

alter table haive.sessions enable row level security;
alter table haive.session_segments enable row level security;
alter table haive.session_merges enable row level security;

insert into haive_private.migrations (version, name) values
  ('20261128200000', 'session_tables')
on conflict do nothing;
