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
haive.find_stale_checkpoint_schemas(text, bytea, int, text),
haive.reseal_messages(jsonb, text),
haive.reseal_conversations(jsonb, text),
haive.reseal_checkpoint_schemas(jsonb, text),
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
haive_private.reseal_conversations(text, jsonb),
haive_private.reseal_checkpoint_schemas(text, jsonb)
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
haive.find_stale_checkpoint_schemas(text, bytea, int, text),
haive.reseal_messages(jsonb, text),
haive.reseal_conversations(jsonb, text),
haive.reseal_checkpoint_schemas(jsonb, text),
haive.count_sealed(text),
haive_private.list_tenant_keys(text),
haive_private.put_tenant_key(text, text, bytea, text, text, text),
haive_private.drop_tenant_key(text, text),
haive_private.destroy_tenant_keys(text),
haive_private.reseal_messages(text, jsonb),
haive_private.reseal_conversations(text, jsonb),
haive_private.reseal_checkpoint_schemas(text, jsonb)
to service_role, haive_client;

-- What the definer functions do, they do as haive_writer.
grant select, insert, update, delete on haive_private.tenant_keys to haive_writer;
grant update (content, parts, metadata, sealed, sealed_with) on haive.messages to haive_writer;
grant execute on function
haive_private.check_sealed(boolean),
haive_private.refuse_plain(),
haive_private.administer_tenant(text)
to haive_writer;
