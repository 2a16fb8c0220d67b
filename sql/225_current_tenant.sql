create or replace function haive.current_tenant(tenant text default null)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select json_build_object('tenant', e.tenant) from haive_private.enter_tenant(current_tenant.tenant, false) as e
$$;

comment on function haive.current_tenant(text) is
'The tenant that a call with this argument works in, as {tenant}: keys are made for one.';
