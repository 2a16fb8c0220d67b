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
