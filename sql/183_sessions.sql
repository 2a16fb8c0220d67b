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
