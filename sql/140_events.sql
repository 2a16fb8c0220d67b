create table haive.events (
  tenant_id text storage plain collate "C" not null,
  xid xid8 not null default pg_current_xact_id(),
  id bigint not null generated always as identity,
  kind haive_private.event_kind storage plain not null,
  conversation_id uuid,
  first_seq bigint,
  last_seq bigint,
  created_at timestamptz not null default now(),
  thread_key uuid,
  checkpoint_id uuid,
  constraint events_pkey primary key (tenant_id, xid, id)
);

comment on table haive.events is
'The outbox: one row a statement and conversation, written in the same transaction as the change.';
comment on column haive.events.xid is
'The transaction that wrote it. Readers remember which of them they have seen, so a row that '
'commits late is not skipped. Of one conversation, id is the order: a transaction has its number '
'before it waits for the row.';

-- Serves: read_events of a whole tenant, page by page of what is long.
create index events_order_idx on haive.events (tenant_id, id);
-- Two, where one over both would do: it would need an expression, which row level security keeps the
-- planner from using.
-- Serves: read_events of one conversation or session.
create index events_conversation_idx on haive.events (conversation_id, xid) where conversation_id is not null;
-- Serves: read_events of one thread.
create index events_thread_idx on haive.events (thread_key, xid) where thread_key is not null;
