-- Whether a user may cease to be an owner. Owners are locked in one order: of two who remove each
-- other at the same time, the second finds one owner left.
create or replace function haive_private.keep_an_owner(p_tenant text, p_user_id text)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_owners text[] := array(
    select m.user_id::text from haive.members as m
    where m.tenant_id = p_tenant and m.role = 'owner'
    order by m.user_id
    for update
  );
begin
  if v_owners = array[p_user_id] then
    raise exception using
      errcode = 'PT403',
      message = 'the last owner of a tenant stays',
      hint = 'Make somebody else an owner first.';
  end if;
end;
$$;

comment on function haive_private.keep_an_owner(text, text) is
'Refuses to take the last owner from a tenant.';
