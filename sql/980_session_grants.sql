-- Sessions: as in 900_grants, nobody has anything that is not written here.
revoke all on table haive.sessions, haive.session_segments, haive.session_merges
from public, anon, authenticated, service_role, haive_client, haive_writer;
revoke all on function
haive.create_session(jsonb, text),
haive.get_session(uuid, text, text),
haive.list_sessions(text, text, text, text[], uuid, int, text, text, boolean, text),
haive.session_messages(uuid, bigint, bigint, int, boolean, boolean, text, text),
haive.add_session_messages(uuid, jsonb, text, text),
haive.update_session(uuid, jsonb, text, text),
haive.update_session_state(uuid, jsonb, timestamptz, text, text),
haive.continue_session(uuid, jsonb, text, text),
haive.read_merge(uuid, uuid, text, text),
haive.merge_sessions(uuid, uuid, jsonb, text, text),
haive.undo_merge(uuid, uuid, text, text),
haive.list_merges(uuid, text, text),
haive.set_participant(uuid, text, text[], text, text),
haive.hide_message(uuid, uuid, boolean, text, text),
haive.expire_sessions(int, text),
haive.session_family(uuid, text, text)
from public, anon, authenticated, service_role, haive_client;
revoke all on function
haive_private.create_session(text, jsonb),
haive_private.get_session(text, uuid, text),
haive_private.list_sessions(text, text, text, text, text[], uuid, int, text, text, boolean),
haive_private.session_messages(text, uuid, bigint, bigint, int, boolean, boolean, text),
haive_private.update_session(text, uuid, jsonb, text),
haive_private.update_session_state(text, uuid, jsonb, timestamptz, text),
haive_private.continue_session(text, uuid, jsonb, text),
haive_private.read_merge(text, uuid, uuid, text),
haive_private.merge_sessions(text, uuid, uuid, jsonb, text),
haive_private.undo_merge(text, uuid, uuid, text),
haive_private.list_merges(text, uuid, text),
haive_private.set_participant(text, uuid, text, text[], text),
haive_private.hide_message(text, uuid, uuid, boolean, text),
haive_private.expire_sessions(text, int),
haive_private.session_family(text, uuid, text),
haive_private.moderates(text, uuid),
haive_private.begin_conversations(text, text, jsonb, boolean),
haive_private.check_session_write(text, text, uuid, text, bigint),
haive_private.check_session_change(text, text, uuid, boolean),
haive_private.session_status_now(haive.sessions),
haive_private.refuse_closed_session(haive.sessions),
haive_private.act_for(boolean, text, text),
haive_private.enter_session(text, uuid, text, text, boolean),
haive_private.session_line(text, uuid, int, bigint, bigint),
haive_private.session_doc(haive.sessions, haive.conversations, text),
haive_private.common_root(text, uuid, int, bigint, uuid, int, bigint),
haive_private.line_messages(text, uuid, int, bigint, bigint),
haive_private.merge_doc(haive.session_merges),
haive_private.message_places(jsonb),
haive_private.merge_record(jsonb, jsonb, jsonb, bigint)
from public, anon, authenticated, service_role, haive_client;

revoke create on schema haive_private from haive_writer;

grant select on haive.sessions, haive.session_segments, haive.session_merges
to authenticated, service_role, haive_client;
grant execute on function
haive.create_session(jsonb, text),
haive.get_session(uuid, text, text),
haive.list_sessions(text, text, text, text[], uuid, int, text, text, boolean, text),
haive.session_messages(uuid, bigint, bigint, int, boolean, boolean, text, text),
haive.add_session_messages(uuid, jsonb, text, text),
haive.update_session(uuid, jsonb, text, text),
haive.update_session_state(uuid, jsonb, timestamptz, text, text),
haive.continue_session(uuid, jsonb, text, text),
haive.read_merge(uuid, uuid, text, text),
haive.merge_sessions(uuid, uuid, jsonb, text, text),
haive.undo_merge(uuid, uuid, text, text),
haive.list_merges(uuid, text, text),
haive.set_participant(uuid, text, text[], text, text),
haive.hide_message(uuid, uuid, boolean, text, text),
haive.expire_sessions(int, text),
haive.session_family(uuid, text, text),
haive_private.create_session(text, jsonb),
haive_private.get_session(text, uuid, text),
haive_private.list_sessions(text, text, text, text, text[], uuid, int, text, text, boolean),
haive_private.session_messages(text, uuid, bigint, bigint, int, boolean, boolean, text),
haive_private.update_session(text, uuid, jsonb, text),
haive_private.update_session_state(text, uuid, jsonb, timestamptz, text),
haive_private.continue_session(text, uuid, jsonb, text),
haive_private.read_merge(text, uuid, uuid, text),
haive_private.merge_sessions(text, uuid, uuid, jsonb, text),
haive_private.undo_merge(text, uuid, uuid, text),
haive_private.list_merges(text, uuid, text),
haive_private.set_participant(text, uuid, text, text[], text),
haive_private.hide_message(text, uuid, uuid, boolean, text),
haive_private.expire_sessions(text, int),
haive_private.session_family(text, uuid, text),
haive_private.moderates(text, uuid)
to authenticated, service_role, haive_client;

-- What the definer functions do, they do as haive_writer.
grant select, insert, update, delete on
haive.sessions, haive.session_segments, haive.session_merges
to haive_writer;
grant update (author, hidden_at) on haive.messages to haive_writer;
grant execute on function
haive.add_messages(jsonb, text),
haive.add_session_messages(uuid, jsonb, text, text),
haive_private.message_docs(text, uuid[], bigint[], bigint[]),
haive_private.append_messages(
  text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
),
haive_private.begin_conversations(text, text, jsonb, boolean),
haive_private.session_status_now(haive.sessions),
haive_private.refuse_closed_session(haive.sessions),
haive_private.act_for(boolean, text, text),
haive_private.enter_session(text, uuid, text, text, boolean),
haive_private.session_line(text, uuid, int, bigint, bigint),
haive_private.session_doc(haive.sessions, haive.conversations, text),
haive_private.common_root(text, uuid, int, bigint, uuid, int, bigint),
haive_private.line_messages(text, uuid, int, bigint, bigint),
haive_private.merge_doc(haive.session_merges),
haive_private.message_places(jsonb),
haive_private.merge_record(jsonb, jsonb, jsonb, bigint),
haive_private.check_session_write(text, text, uuid, text, bigint),
haive_private.check_session_change(text, text, uuid, boolean)
to haive_writer;
