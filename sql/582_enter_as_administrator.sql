-- The first step of what only administrators do. Definer, as enter_tenant is.
create or replace function haive_private.enter_as_administrator(
  p_tenant text,
  p_write boolean,
  out tenant text,
  out role text -- owner or admin; platform: a service key or a direct connection
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, p_write);
begin
  tenant := v_caller.tenant;
  if v_caller.trusted then
    role := 'platform';
    return;
  end if;
  select m.role into enter_as_administrator.role
  from haive.members as m
  where
    m.tenant_id = v_caller.tenant and m.user_id = haive.current_actor()
    and m.role in ('owner', 'admin');
  if not found then
    raise exception using
      errcode = 'PT403',
      message = 'only an administrator of the tenant does this',
      hint = 'Owners and admins do; an owner makes them with set_member.';
  end if;
end;
$$;

alter function haive_private.enter_as_administrator(text, boolean) owner to haive_writer;

comment on function haive_private.enter_as_administrator(text, boolean) is
'Enters a tenant for those who administer it, and says as what they do.';
