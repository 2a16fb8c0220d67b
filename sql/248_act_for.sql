-- Whose rights a call has: a service may lend itself a user's; a user has their own.
create or replace function haive_private.act_for(p_trusted boolean, p_actor text, p_acting text)
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  if p_acting is null then
    return p_actor;
  elsif p_trusted then
    return p_acting;
  elsif p_acting <> haive.current_actor() then
    raise exception using
      errcode = 'PT403',
      message = 'only services act for others',
      hint = 'Leave out acting_user: the token says who calls.';
  end if;
  return p_actor;
end;
$$;

comment on function haive_private.act_for(boolean, text, text) is
'Who acts where enter_tenant found p_actor, and the call names acting_user. Null: who may do all.';
