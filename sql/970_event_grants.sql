-- Events: as in 900_grants, nobody has anything that is not written here.
revoke all on table haive_private.event_floors, haive_private.watches
from public, anon, authenticated, service_role, haive_client, haive_writer;
revoke all on function
haive.read_events(text, text, int, text, text),
haive_private.may_watch(text, text, text, boolean),
haive_private.may_join(text, text, boolean),
haive_private.event_rows(text, uuid[], pg_snapshot, pg_snapshot, bigint, text, text, int),
haive_private.cut_events(text, pg_snapshot),
haive_private.event_log(),
haive_private.keep_watch(text, text, text),
haive_private.read_events(text, text, text, int, text),
haive_private.send_hint(text, bigint),
haive_private.hint_events()
from public, anon, authenticated, service_role, haive_client;

revoke create on schema haive_private from haive_writer;

grant execute on function
haive.read_events(text, text, int, text, text),
haive_private.read_events(text, text, text, int, text),
haive_private.may_join(text, text, boolean)
to authenticated, service_role, haive_client;

-- What the definer functions do, they do as haive_writer.
grant select, insert, update, delete
on haive_private.event_floors, haive_private.watches to haive_writer;
grant execute on function haive_private.send_hint(text, bigint) to haive_writer;
