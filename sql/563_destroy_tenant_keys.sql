-- What is left says that there were keys: a tenant that has lost them gets no new ones by mistake.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.destroy_tenant_keys(p_tenant text)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_count bigint;
begin
  perform haive_private.administer_tenant(p_tenant);
  perform from haive.tenants as t where t.tenant_id = p_tenant for update;
  update haive_private.tenant_keys as k
  set wrapped = null, status = 'destroyed'
  where k.tenant_id = p_tenant and k.status <> 'destroyed';
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

alter function haive_private.destroy_tenant_keys(text) owner to haive_writer;

comment on function haive_private.destroy_tenant_keys(text) is
'What haive.destroy_tenant_keys does, for a caller without rights on the table.';

create or replace function haive.destroy_tenant_keys(tenant text)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.destroy_tenant_keys(destroy_tenant_keys.tenant)
$$;

comment on function haive.destroy_tenant_keys(text) is
'Destroys the data keys of a tenant, so that nothing that they sealed can be read here any more, and '
'returns how many those were; for trusted callers only.';
