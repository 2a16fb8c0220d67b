create table haive_private.event_floors (
  tenant_id text storage plain collate "C" not null,
  xid xid8 not null,
  log text storage plain collate "C",
  constraint event_floors_pkey primary key (tenant_id)
);

comment on table haive_private.event_floors is
'How far the outbox of a tenant was pruned: what reads on from before that has missed something.';
comment on column haive_private.event_floors.xid is
'The newest transaction of which an event was deleted for its age.';
comment on column haive_private.event_floors.log is
'The log that xid is a number of, as cursors name it: one that came with a dump is of another.';
