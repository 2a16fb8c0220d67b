-- At the commit: gives what waits its place in the log of its tenant. The head of the chain is locked
-- from here to the end of the commit and no longer, and after it nothing else is.
create or replace function haive_private.chain_audit()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_head record;
begin
  -- No longer needed, and before the lock of the head.
  delete from haive_private.audit_queue as q where q.ctid = new.ctid;
  loop
    update haive_private.audit_heads as h
    set
      seq = h.seq + 1,
      hash = sha256(h.hash || convert_to(
        haive_private.audit_entry(row(
          new.tenant_id, h.seq + 1, new.at, new.actor, new.login, new.role, new.action,
          new.object, new.rows, new.row_count, new.address, new.application, new.request_id, null
        )::haive.audit_log),
        'UTF8'
      ))
    where h.tenant_id = new.tenant_id
    returning h.seq, h.hash into v_head;
    exit when found;
    insert into haive_private.audit_heads (tenant_id) values (new.tenant_id)
    on conflict do nothing;
  end loop;
  insert into haive.audit_log (
    tenant_id, seq, at, actor, login, role, action, object, rows, row_count, address,
    application, request_id, hash
  )
  values (
    new.tenant_id, v_head.seq, new.at, new.actor, new.login, new.role, new.action, new.object,
    new.rows, new.row_count, new.address, new.application, new.request_id, v_head.hash
  );
  return null;
end;
$$;

alter function haive_private.chain_audit() owner to haive_writer;

comment on function haive_private.chain_audit() is
'Moves a row from the queue to the end of its tenant''s log, chained to the row before it.';
