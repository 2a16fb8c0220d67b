-- Definer: a closed tenant is read too.
create or replace function haive_private.get_tenant(p_tenant_id text)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_row haive.tenants;
begin
  perform haive_private.administer_tenant(p_tenant_id);
  select t.* into v_row from haive.tenants as t where t.tenant_id = p_tenant_id;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no tenant %s', left(p_tenant_id, 63)),
      hint = 'Create it with create_tenant.';
  end if;
  return haive_private.tenant_doc(v_row);
end;
$$;

alter function haive_private.get_tenant(text) owner to haive_writer;

comment on function haive_private.get_tenant(text) is
'What haive.get_tenant does, for a caller without rights on the table.';

create or replace function haive.get_tenant(tenant_id text)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.get_tenant(get_tenant.tenant_id)
$$;

comment on function haive.get_tenant(text) is
'A tenant with its settings and limits, whatever its status; for trusted callers only.';
