-- What the hash of a row covers, as text: the writer, the check and the export read it here, so an
-- export can be verified where there is no database.
create or replace function haive_private.audit_entry(p_row haive.audit_log)
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return jsonb_build_array(
    p_row.tenant_id, p_row.seq,
    to_char(p_row.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    p_row.actor, p_row.login, p_row.role, p_row.action, p_row.object, p_row.rows, p_row.row_count,
    p_row.address, p_row.application, p_row.request_id
  )::text;
end;
$$;

comment on function haive_private.audit_entry(haive.audit_log) is
'A row of the log as canonical text, without its hash: a JSON array of the columns in their order.';
