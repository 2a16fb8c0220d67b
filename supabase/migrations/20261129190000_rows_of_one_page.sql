-- Rows of these tables always fit into a page: their columns are never stored beside them. What that
-- spares, a table for what is long, is seen where they are made anew. No data change.
-- In the order in which calls use them, and rather not at all than while all others wait.
set local lock_timeout = '10s';

alter table haive.members
alter column tenant_id set storage plain,
alter column user_id set storage plain,
alter column role set storage plain;
alter table haive_private.memory_collections
alter column name set storage plain,
alter column table_name set storage plain,
alter column model set storage plain,
alter column storage set storage plain,
alter column metric set storage plain,
alter column language set storage plain,
alter column index_type set storage plain;
alter table haive_private.memory_words
alter column tenant_id set storage plain,
alter column collection set storage plain,
alter column lexeme set storage plain;
alter table haive.threads
alter column tenant_id set storage plain,
alter column thread_id set storage plain,
alter column namespace set storage plain,
alter column user_id set storage plain;
alter table haive.invitations
alter column tenant_id set storage plain,
alter column label set storage plain,
alter column role set storage plain,
alter column token_hash set storage plain,
alter column created_by set storage plain,
alter column accepted_by set storage plain;
alter table haive.events
alter column tenant_id set storage plain,
alter column kind set storage plain;
alter table haive_private.event_floors
alter column tenant_id set storage plain;
alter table haive_private.watches
alter column tenant_id set storage plain,
alter column channel set storage plain,
alter column way set storage plain;
alter table haive_private.meters
alter column tenant_id set storage plain,
alter column day_cost set storage plain;
alter table haive_private.meter_days
alter column tenant_id set storage plain,
alter column cost set storage plain;
alter table haive_private.request_buckets
alter column tenant_id set storage plain;
alter table haive_private.audit_heads
alter column tenant_id set storage plain,
alter column hash set storage plain;
alter table haive_private.migrations
alter column version set storage plain,
alter column name set storage plain;

-- A delta may be a splice.
comment on domain haive_private.codec is
'How a payload is packed: 0 as it is, 1 by zstd, 2 as a delta against the state of the parent, 3 as one '
'against that of base_id.';

insert into haive_private.migrations (version, name) values
  ('20261129190000', 'rows_of_one_page')
on conflict do nothing;
