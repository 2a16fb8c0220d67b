-- As in 900_grants, for functions that have one argument more.
revoke all on function
haive_private.append_message(
  text, uuid, uuid, text, text, jsonb, jsonb, int, int, text, numeric, timestamptz, bytea,
  text
),
haive_private.append_messages(
  text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
),
haive_private.reserve_messages(
  text, text, uuid[], int[], int[], numeric[], timestamptz[], boolean
),
haive_private.insert_messages(
  text, text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
),
haive_private.replay_messages(
  text, text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
)
from public, anon, authenticated, service_role, haive_client;

grant execute on function
haive_private.append_message(
  text, uuid, uuid, text, text, jsonb, jsonb, int, int, text, numeric, timestamptz, bytea,
  text
),
haive_private.append_messages(
  text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
)
to authenticated, service_role, haive_client;
grant execute on function
haive_private.reserve_messages(
  text, text, uuid[], int[], int[], numeric[], timestamptz[], boolean
),
haive_private.insert_messages(
  text, text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
),
haive_private.replay_messages(
  text, text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
)
to haive_writer;

-- Tenants: as in 900_grants, nobody has anything that is not written here.
revoke all on function
haive.row_security(),
haive.create_tenant(text, text, jsonb, jsonb),
haive.get_tenant(text),
haive.list_tenants(int, text, text),
haive.update_tenant(text, jsonb),
haive.purge_tenant(text)
from public, anon, authenticated, service_role, haive_client;
revoke all on function
haive_private.enter_tenant(text, boolean),
haive_private.administer_tenant(text),
haive_private.tenant_doc(haive.tenants),
haive_private.check_tenant_settings(jsonb),
haive_private.create_tenant(text, text, jsonb, jsonb),
haive_private.get_tenant(text),
haive_private.list_tenants(int, text, text),
haive_private.update_tenant(text, jsonb),
haive_private.purge_tenant(text)
from public, anon, authenticated, service_role, haive_client;

revoke create on schema haive_private from haive_writer;

grant execute on function haive_private.enter_tenant(text, boolean)
to authenticated, service_role, haive_client, haive_writer;
grant execute on function haive.row_security() to authenticated, service_role, haive_client;
-- For those who run the platform: no user administers tenants.
grant execute on function
haive.create_tenant(text, text, jsonb, jsonb),
haive.get_tenant(text),
haive.list_tenants(int, text, text),
haive.update_tenant(text, jsonb),
haive.purge_tenant(text),
haive_private.create_tenant(text, text, jsonb, jsonb),
haive_private.get_tenant(text),
haive_private.list_tenants(int, text, text),
haive_private.update_tenant(text, jsonb),
haive_private.purge_tenant(text)
to service_role, haive_client;

-- What the definer functions do, they do as haive_writer.
grant insert, update, delete on haive.tenants to haive_writer;
grant select, delete on haive.events to haive_writer;
grant execute on function
haive_private.tenant_doc(haive.tenants),
haive_private.check_tenant_settings(jsonb)
to haive_writer;

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
  int, boolean, boolean, boolean, text
),
haive_private.tenant_usage(text),
haive_private.reconcile_usage(text),
haive_private.tenant_analytics(text[], text[], int, timestamptz, timestamptz),
haive_private.meter_messages(),
haive_private.meter_conversations(),
haive_private.meter_checkpoints(),
haive_private.meter_checkpoint_writes(),
haive_private.meter_checkpoint_schemas(),
haive_private.meter_branches()
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
  int, boolean, boolean, boolean, text
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
haive_private.refuse_over_quota(text, text, bigint, bigint, timestamptz),
haive_private.meter_facts(haive.tenants),
haive_private.usage_doc(bigint, bigint, timestamptz)
to haive_writer;

-- The audit log: as in 900_grants, nobody has anything that is not written here.
revoke all on table haive.audit_log, haive_private.audit_heads, haive_private.audit_queue
from public, anon, authenticated, service_role, haive_client, haive_writer;
revoke all on function
haive.audit_page(bigint, int, boolean, boolean, text),
haive.audit_head(text),
haive.verify_audit(bigint, text, bigint, text, int, text)
from public, anon, authenticated, service_role, haive_client;
revoke all on function
haive_private.audit_entry(haive.audit_log),
haive_private.audit_read(text, jsonb, bigint),
haive_private.enter_audit(text),
haive_private.is_audited(text),
haive_private.audit_page(text, bigint, int, boolean, boolean),
haive_private.audit_head(text),
haive_private.verify_audit(text, bigint, text, bigint, text, int),
haive_private.audit_messages(),
haive_private.audit_rows(),
haive_private.audit_row(),
haive_private.chain_audit(),
haive_private.refuse_audit_changes()
from public, anon, authenticated, service_role, haive_client;

revoke create on schema haive_private from haive_writer;

grant select on haive.audit_log to service_role, haive_client;
grant execute on function
haive.audit_page(bigint, int, boolean, boolean, text),
haive.audit_head(text),
haive.verify_audit(bigint, text, bigint, text, int, text),
haive_private.audit_read(text, jsonb, bigint),
haive_private.audit_page(text, bigint, int, boolean, boolean),
haive_private.audit_head(text),
haive_private.verify_audit(text, bigint, text, bigint, text, int)
to authenticated, service_role, haive_client;

-- What the definer functions do, they do as haive_writer.
grant select, insert on haive.audit_log to haive_writer;
grant select, insert, update on haive_private.audit_heads to haive_writer;
grant select, insert, delete on haive_private.audit_queue to haive_writer;
grant execute on function haive_private.audit_entry(haive.audit_log) to haive_writer;

-- Sealing: as in 900_grants, nobody has anything that is not written here.
revoke all on table haive_private.tenant_keys
from public, anon, authenticated, service_role, haive_client, haive_writer;
revoke all on function
haive.list_tenant_keys(text),
haive.put_tenant_key(text, bytea, text, text, text, text),
haive.drop_tenant_key(text, text),
haive.destroy_tenant_keys(text),
haive.find_stale_messages(text, uuid, bigint, int, text),
haive.find_stale_conversations(text, uuid, int, text),
haive.reseal_messages(jsonb, text),
haive.reseal_conversations(jsonb, text),
haive.count_sealed(text),
haive.find_messages(uuid[], text)
from public, anon, authenticated, service_role, haive_client;
revoke all on function
haive_private.check_sealed(boolean),
haive_private.refuse_plain(),
haive_private.list_tenant_keys(text),
haive_private.put_tenant_key(text, text, bytea, text, text, text),
haive_private.drop_tenant_key(text, text),
haive_private.destroy_tenant_keys(text),
haive_private.reseal_messages(text, jsonb),
haive_private.reseal_conversations(text, jsonb)
from public, anon, authenticated, service_role, haive_client;

revoke create on schema haive_private from haive_writer;

grant execute on function haive.find_messages(uuid[], text)
to authenticated, service_role, haive_client;
-- For those who run the platform: no user comes near a key.
grant execute on function
haive.list_tenant_keys(text),
haive.put_tenant_key(text, bytea, text, text, text, text),
haive.drop_tenant_key(text, text),
haive.destroy_tenant_keys(text),
haive.find_stale_messages(text, uuid, bigint, int, text),
haive.find_stale_conversations(text, uuid, int, text),
haive.reseal_messages(jsonb, text),
haive.reseal_conversations(jsonb, text),
haive.count_sealed(text),
haive_private.list_tenant_keys(text),
haive_private.put_tenant_key(text, text, bytea, text, text, text),
haive_private.drop_tenant_key(text, text),
haive_private.destroy_tenant_keys(text),
haive_private.reseal_messages(text, jsonb),
haive_private.reseal_conversations(text, jsonb)
to service_role, haive_client;

-- What the definer functions do, they do as haive_writer.
grant select, insert, update, delete on haive_private.tenant_keys to haive_writer;
grant update (content, parts, metadata, sealed, sealed_with) on haive.messages to haive_writer;
grant execute on function
haive_private.check_sealed(boolean),
haive_private.refuse_plain(),
haive_private.administer_tenant(text)
to haive_writer;

-- Members, invitations and data subjects: as in 900_grants, nobody has anything that is not written
-- here. Invitations and erasures are read by functions only.
revoke all on table haive.invitations, haive.erasures
from public, anon, authenticated, service_role, haive_client, haive_writer;
revoke all on function
haive.list_members(int, text, text),
haive.create_invitation(text, text, timestamptz, text),
haive.list_invitations(int, uuid, text),
haive.revoke_invitation(uuid, text),
haive.accept_invitation(text, text),
haive.apply_retention(int, text),
haive.erase_user(text, int, text),
haive.export_user(text, text, int, text, text)
from public, anon, authenticated, service_role, haive_client;
revoke all on function
haive_private.refuse_erased(text, text[]),
haive_private.refuse_erased_owner(),
haive_private.refuse_erased_participants(),
haive_private.check_tenant_switches(),
haive_private.enter_as_administrator(text, boolean),
haive_private.keep_an_owner(text, text),
haive_private.invitation_doc(haive.invitations, text),
haive_private.create_invitation(text, text, text, timestamptz),
haive_private.list_invitations(text, int, uuid),
haive_private.revoke_invitation(text, uuid),
haive_private.accept_invitation(text, text),
haive_private.drop_conversations(text, uuid[]),
haive_private.drop_threads(text, uuid[]),
haive_private.sum_counts(jsonb, jsonb),
haive_private.apply_retention(text, int),
haive_private.erase_user(text, text, int),
haive_private.export_user(text, text, text, int, text)
from public, anon, authenticated, service_role, haive_client;

revoke create on schema haive_private from haive_writer;

grant execute on function
haive.list_members(int, text, text),
haive.create_invitation(text, text, timestamptz, text),
haive.list_invitations(int, uuid, text),
haive.revoke_invitation(uuid, text),
haive.accept_invitation(text, text),
haive.apply_retention(int, text),
haive.erase_user(text, int, text),
haive.export_user(text, text, int, text, text),
haive_private.create_invitation(text, text, text, timestamptz),
haive_private.list_invitations(text, int, uuid),
haive_private.revoke_invitation(text, uuid),
haive_private.accept_invitation(text, text),
haive_private.apply_retention(text, int),
haive_private.erase_user(text, text, int),
haive_private.export_user(text, text, text, int, text)
to authenticated, service_role, haive_client;

-- What the definer functions do, they do as haive_writer.
grant select, insert, update, delete on haive.invitations to haive_writer;
grant select, insert, update on haive.erasures to haive_writer;
grant delete on haive.messages to haive_writer;
grant execute on function
haive_private.refuse_erased(text, text[]),
haive_private.enter_as_administrator(text, boolean),
haive_private.keep_an_owner(text, text),
haive_private.invitation_doc(haive.invitations, text),
haive_private.drop_conversations(text, uuid[]),
haive_private.drop_threads(text, uuid[]),
haive_private.sum_counts(jsonb, jsonb)
to haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261122123000', 'tenant_grants')
on conflict do nothing;
