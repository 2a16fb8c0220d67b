-- Meters and limits: as in 900_grants, nobody has anything that is not written here.
revoke all on table
haive_private.meters,
haive_private.meter_days,
haive_private.request_buckets
from public, anon, authenticated, service_role, haive_client, haive_writer;
revoke all on function
haive.tenant_usage(text),
haive.reconcile_usage(text),
haive.tenant_analytics(text[], text[], int, timestamptz, timestamptz)
from public, anon, authenticated, service_role, haive_client;
revoke all on function
haive_private.message_bytes(text, jsonb, jsonb),
haive_private.conversation_bytes(text, text[], jsonb, text[], jsonb),
haive_private.checkpoint_bytes(bytea, bytea, jsonb, text[], jsonb),
haive_private.merge_bytes(int, jsonb, jsonb, jsonb),
haive_private.count_rows(text),
haive_private.refuse_over_quota(text, text, bigint, bigint, timestamptz),
haive_private.month_end(text, date),
haive_private.take_request(text, bigint),
haive_private.meter_facts(haive.tenants),
haive_private.turn_meter(text, int, date),
haive_private.metered_use(text, date),
haive_private.judge_use(text, date, bigint[], bigint[], bigint[]),
haive_private.meter(text, bigint, bigint, bigint, bigint, bigint, numeric),
haive_private.recount_tenant(text),
haive_private.rearm_warnings(text, date),
haive_private.usage_doc(bigint, bigint, timestamptz),
haive_private.analytics_doc(text, text[], int, timestamptz, timestamptz),
haive_private.get_conversation(uuid, int, text),
haive_private.get_messages(uuid, bigint, bigint, int, boolean, text),
haive_private.query_conversations(jsonb, text, boolean, int, text, int, text),
haive_private.find_checkpoints(
  text, text, text, uuid, text[], boolean, timestamptz, timestamptz, jsonb, jsonb, uuid, bigint,
  int, boolean, boolean, boolean, text, text
),
haive_private.tenant_usage(text),
haive_private.reconcile_usage(text),
haive_private.tenant_analytics(text[], text[], int, timestamptz, timestamptz),
haive_private.meter_messages(),
haive_private.meter_conversations(),
haive_private.meter_checkpoints(),
haive_private.meter_checkpoint_writes(),
haive_private.meter_checkpoint_schemas(),
haive_private.meter_branches(),
haive_private.meter_merges()
from public, anon, authenticated, service_role, haive_client;

revoke create on schema haive_private from haive_writer;

grant execute on function
haive.tenant_usage(text),
haive_private.tenant_usage(text),
haive_private.get_conversation(uuid, int, text),
haive_private.get_messages(uuid, bigint, bigint, int, boolean, text),
haive_private.query_conversations(jsonb, text, boolean, int, text, int, text),
haive_private.find_checkpoints(
  text, text, text, uuid, text[], boolean, timestamptz, timestamptz, jsonb, jsonb, uuid, bigint,
  int, boolean, boolean, boolean, text, text
)
to authenticated, service_role, haive_client;
-- For those who run the platform.
grant execute on function
haive.reconcile_usage(text),
haive.tenant_analytics(text[], text[], int, timestamptz, timestamptz),
haive_private.reconcile_usage(text),
haive_private.tenant_analytics(text[], text[], int, timestamptz, timestamptz)
to service_role, haive_client;

-- What the definer functions do, they do as haive_writer.
grant select, insert, update, delete on
haive_private.meters, haive_private.meter_days, haive_private.request_buckets
to haive_writer;
grant execute on function
haive_private.message_bytes(text, jsonb, jsonb),
haive_private.conversation_bytes(text, text[], jsonb, text[], jsonb),
haive_private.checkpoint_bytes(bytea, bytea, jsonb, text[], jsonb),
haive_private.merge_bytes(int, jsonb, jsonb, jsonb),
haive_private.refuse_over_quota(text, text, bigint, bigint, timestamptz),
haive_private.meter_facts(haive.tenants),
haive_private.usage_doc(bigint, bigint, timestamptz)
to haive_writer;
