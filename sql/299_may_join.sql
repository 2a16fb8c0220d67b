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
  v_schema text := split_part(p_topic, ':', 1);
  v_tenant text := split_part(p_topic, ':', 2);
  v_channel text := substr(p_topic, length(v_schema) + length(v_tenant) + 3);
  v_actor text := haive.current_actor();
  v_single text := '^(session|conversation):[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
  v_role text;
  v_done text;
  v_may boolean := false;
begin
  if v_actor is null then
    return false;
  elsif v_schema <> 'haive' then
    -- The policies are of the installation: of a tenant with a schema of its own, that one knows.
    if exists (
      select from haive.tenants as t
      where
        t.tenant_id = v_tenant and t.isolation = 'schema' and t.location = v_schema
        and t.status in ('active', 'moving')
    ) then
      execute format('select %I.may_join($1, $2, $3)', v_schema || '_private')
      into v_may using p_topic, p_extension, p_write;
    end if;
    return v_may;
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
  v_done := set_config('persistence.tenant', v_tenant, true);
  -- In a session they are seen, and send, where nobody is left who was removed from it: in its room.
  if (p_write or p_extension = 'presence') and v_channel ~ v_single then
    if
      v_channel ^@ 'session'
      or exists (
        select from haive.sessions as s
        where s.tenant_id = v_tenant and s.id = split_part(v_channel, ':', 2)::uuid
      )
    then
      return false;
    end if;
  end if;
  -- Whoever may hear may be seen; only who may write may send.
  p_write := p_write and p_extension is distinct from 'presence';
  if p_write and v_role = 'reader' then
    return false;
  end if;
  return haive_private.may_watch(
    v_tenant,
    case when v_role not in ('owner', 'admin') then v_actor end,
    v_channel,
    p_write
  );
end;
$$;

alter function haive_private.may_join(text, text, boolean) owner to haive_writer;

comment on function haive_private.may_join(text, text, boolean) is
'Whether the user of the token may join a realtime topic, or send on it (extension broadcast) and '
'be seen there (presence).';
