-- Definer: nobody else reads the heads.
create or replace function haive_private.audit_head(p_tenant text)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_tenant text := haive_private.enter_audit(p_tenant);
begin
  return (
    select json_build_object(
      'tenant', v_tenant, 'seq', coalesce(max(h.seq), 0),
      'hash', encode(coalesce((array_agg(h.hash))[1], ''), 'hex'), 'at', now()
    )
    from haive_private.audit_heads as h
    where h.tenant_id = v_tenant
  );
end;
$$;

alter function haive_private.audit_head(text) owner to haive_writer;

comment on function haive_private.audit_head(text) is
'What haive.audit_head does, for a caller without rights on the table.';

create or replace function haive.audit_head(tenant text default null)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.audit_head(audit_head.tenant)
$$;

comment on function haive.audit_head(text) is
'Where the audit log of a tenant ends, as {tenant, seq, hash, at}. Kept elsewhere it proves what the '
'log was.';
