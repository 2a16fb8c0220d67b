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

create table haive_private.event_floors (
  tenant_id text collate "C" not null,
  xid xid8 not null,
  constraint event_floors_pkey primary key (tenant_id)
);

comment on table haive_private.event_floors is
'How far the outbox of a tenant was pruned: what reads on from before that has missed something.';
comment on column haive_private.event_floors.xid is
'The newest transaction of which an event was deleted for its age.';

-- Unlogged: after a crash every reader comes back and says anew what it watches.
create unlogged table haive_private.watches (
  tenant_id text collate "C" not null,
  channel text collate "C" not null,
  way text collate "C" not null,
  expires_at timestamptz not null,
  constraint watches_pkey primary key (tenant_id, channel, way),
  constraint watches_way_is_known check (way in ('notify', 'realtime'))
) with (fillfactor = 50); -- readers renew their rows in place

comment on table haive_private.watches is
'Which channels somebody listens to: hints are sent for these alone.';
comment on column haive_private.watches.way is
'notify: a direct connection listens; realtime: a client of Supabase Realtime does.';

insert into haive_private.migrations (version, name) values
  ('20261122150000', 'event_tables')
on conflict do nothing;
