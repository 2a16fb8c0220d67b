-- For the policies on realtime.messages, which ask for the user of a verified token and the topic
-- that they want: schema:tenant:channel. Answers where enter_tenant would raise an error.
-- Definer, as enter_tenant is.
create or replace function haive_private.may_join(p_topic text, p_extension text, p_write boolean)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_tenant text := split_part(p_topic, ':', 2);
  v_actor text := haive.current_actor();
  v_role text;
  v_done text;
begin
  if v_actor is null or split_part(p_topic, ':', 1) <> 'haive' then
    return false;
  end if;
  select m.role into v_role
  from haive.members as m
  join haive.tenants as t on t.tenant_id = m.tenant_id
  where
    m.tenant_id = v_tenant and m.user_id = v_actor
    and t.status in ('active', 'moving') and t.isolation = 'row';
  if v_role is null then
    return false;
  end if;
  -- Whoever may hear may be seen; only who may write may send.
  p_write := p_write and p_extension is distinct from 'presence';
  if p_write and v_role = 'reader' then
    return false;
  end if;
  -- In a session they are seen where nobody is left who was removed from it: in its room.
  if p_extension = 'presence' and p_topic ~ ':session:[0-9a-f-]{36}$' then
    return false;
  end if;
  v_done := set_config('persistence.tenant', v_tenant, true);
  return haive_private.may_watch(
    v_tenant,
    case when v_role not in ('owner', 'admin') then v_actor end,
    substr(p_topic, length('haive') + length(v_tenant) + 3),
    p_write
  );
end;
$$;

alter function haive_private.may_join(text, text, boolean) owner to haive_writer;

comment on function haive_private.may_join(text, text, boolean) is
'Whether the user of the token may join a realtime topic, or send on it (extension broadcast) and '
'be seen there (presence).';
