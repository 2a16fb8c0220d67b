-- The one place that says who may hear of what. An actor of null sees all of the tenant.
create or replace function haive_private.may_watch(
  p_tenant text, p_actor text, p_channel text, p_write boolean default false
)
returns boolean
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  v_kind text := split_part(p_channel, ':', 1);
  v_name text := substr(p_channel, length(v_kind) + 2);
  v_room text := substring(v_name from '^[0-9a-f-]{36}:([0-9]{1,9})$');
begin
  if v_kind = 'session' and v_room is not null then
    v_name := left(v_name, 36);
  end if;
  if v_kind in ('conversation', 'session') and v_name ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
    return p_actor is null or exists (
      select from haive.conversations as c
      left join haive.sessions as s on s.tenant_id = c.tenant_id and s.id = c.id
      where
        c.tenant_id = p_tenant and c.id = v_name::uuid
        and (c.user_id = p_actor or p_actor = any(c.participants))
        -- Of a session readers hear, and writers send; one that is not live is read, not heard.
        and (
          (s.id is null and v_room is null)
          or (
            s.live and (not p_write or c.user_id = p_actor or p_actor = any(s.writers))
            and (v_room is null or v_room = s.room::text)
          )
        )
    );
  elsif v_kind = 'thread' and v_name <> '' and not p_write then
    return p_actor is null or exists (
      select from haive.threads as t
      where t.thread_id = v_name and t.tenant_id = p_tenant and t.user_id = p_actor
    );
  elsif p_channel in ('conversations', 'agent_states') then
    return not p_write; -- what they see of it is decided row by row
  end if;
  return p_channel = 'tenant' and p_actor is null and not p_write;
end;
$$;

alter function haive_private.may_watch(text, text, text, boolean) owner to haive_writer;

comment on function haive_private.may_watch(text, text, text, boolean) is
'Whether a user may hear of a channel of the tenant that was entered, or, to write, send on its '
'realtime topic: tenant, conversations, agent_states, conversation:ID, session:ID, session:ID:ROOM, thread:ID.';
