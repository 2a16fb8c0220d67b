-- Nobody has anything that is not written here. Supabase's default privileges, and Postgres's own
-- for functions, are taken back by name first.
-- Objects are named one by one: the schema may be one that others use too, such as public.
revoke all on table
haive.tenants,
haive.members,
haive.conversations,
haive.messages,
haive.events
from public, anon, authenticated, service_role, haive_client, haive_writer;
revoke all on function
haive.error_catalogue(),
haive.current_actor(),
haive.current_tenant(text),
haive.schema_version(),
haive.create_conversations(jsonb, text),
haive.get_conversation(uuid, int, text),
haive.add_messages(jsonb, text),
haive.get_messages(uuid, bigint, bigint, int, boolean, text),
haive.query_conversations(jsonb, text, boolean, int, text, int, text),
haive.update_conversation(uuid, jsonb, text),
haive.delete_conversation(uuid, text),
haive.set_member(text, text, text)
from public, anon, authenticated, service_role, haive_client;
revoke all on all tables in schema haive_private
from public, anon, authenticated, service_role, haive_client, haive_writer;
revoke all on all functions in schema haive_private
from public, anon, authenticated, service_role, haive_client;
revoke all on schema haive_private from public, anon, haive_writer;

grant usage on schema haive to authenticated, service_role, haive_client, haive_writer;
grant usage on schema haive_private to authenticated, service_role, haive_client, haive_writer;

-- Tables are read; they are written by functions only.
grant select on haive.tenants, haive.members, haive.conversations, haive.messages
to authenticated, service_role, haive_client;
grant select on haive.events to service_role, haive_client;
grant select on haive_private.migrations to authenticated, service_role, haive_client;

-- The functions that callers use, and what those call as the caller.
grant execute on function
haive.error_catalogue(),
haive.current_actor(),
haive.current_tenant(text),
haive.schema_version(),
haive.create_conversations(jsonb, text),
haive.get_conversation(uuid, int, text),
haive.add_messages(jsonb, text),
haive.get_messages(uuid, bigint, bigint, int, boolean, text),
haive.query_conversations(jsonb, text, boolean, int, text, int, text),
haive.update_conversation(uuid, jsonb, text),
haive.delete_conversation(uuid, text),
haive.set_member(text, text, text),
haive_private.my_tenants(),
haive_private.my_admin_tenants(),
haive_private.enter_tenant(text, boolean),
haive_private.conversation_doc(haive.conversations, json),
haive_private.message_docs(text, uuid[], bigint[], bigint[]),
haive_private.message_columns(text, uuid[], bigint[], bigint[]),
haive_private.conversation_columns(haive.conversations[], text),
haive_private.find_conversation(uuid, int, text),
haive_private.read_conversation(uuid, int, text),
haive_private.message_range(uuid, bigint, bigint, int, boolean, text),
haive_private.read_messages(uuid, bigint, bigint, int, boolean, text),
haive_private.latest_conversations(text, text, text[], bigint, int),
haive_private.find_conversations(jsonb, text, boolean, int, text, int, text),
haive_private.read_conversations(jsonb, text, boolean, int, text, int, text),
haive_private.append_message(
  text, uuid, uuid, text, text, jsonb, jsonb, int, int, text, numeric, timestamptz, bytea,
  text
),
haive_private.append_messages(
  text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
),
haive_private.create_conversations(text, jsonb),
haive_private.update_conversation(text, uuid, jsonb),
haive_private.delete_conversation(text, uuid),
haive_private.set_member(text, text, text)
to authenticated, service_role, haive_client;

-- What the definer functions do, they do as haive_writer.
grant select on haive.tenants to haive_writer;
grant select, insert, update, delete on haive.members, haive.conversations to haive_writer;
grant select, insert on haive.messages to haive_writer;
grant insert on haive.events to haive_writer;
grant execute on function
haive.current_actor(),
haive_private.enter_tenant(text, boolean),
haive_private.conversation_doc(haive.conversations, json),
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
