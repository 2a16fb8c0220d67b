-- Definer, for nobody writes tables directly.
create or replace function haive_private.set_participant(
  p_tenant text, p_session_id uuid, p_user_id text, p_permissions text[], p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered record := haive_private.enter_session(
    p_tenant, p_session_id,
    -- Everybody may leave.
    case
      when
        coalesce(p_permissions, '{}') = '{}'
        and coalesce(haive.current_actor(), p_acting) = p_user_id
        then 'read'
      else 'moderate'
    end,
    p_acting, true
  );
  v_session haive.sessions;
  v_conversation haive.conversations;
begin
  if not coalesce(p_permissions, '{}') <@ array['read', 'write', 'moderate'] then
    raise exception using
      errcode = 'PT422',
      message = 'an unknown permission',
      hint = 'Permissions are read, write, moderate; none removes the participant.';
  elsif (length(p_user_id) between 1 and 200) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'user_id is not 1 to 200 characters',
      hint = 'It is the "sub" of the user''s tokens.';
  elsif p_user_id = (v_entered.conversation).user_id then
    raise exception using
      errcode = 'PT422',
      message = 'the owner of a session may do everything',
      hint = 'Set permissions of others.';
  end if;
  update haive.conversations as c
  set
    participants = array_remove(c.participants::text[], p_user_id)
      || case when p_permissions <> '{}' then array[p_user_id] else '{}' end,
    updated_at = greatest(now(), c.updated_at + interval '1 microsecond')
  where c.tenant_id = v_entered.tenant and c.id = p_session_id
  returning c.* into v_conversation;
  update haive.sessions as s
  set
    room = s.room + (coalesce(p_permissions, '{}') = '{}')::int,
    writers = nullif(
      array_remove(coalesce(s.writers, '{}'), p_user_id)
      || case when 'write' = any(p_permissions) then array[p_user_id] else '{}' end,
      '{}'
    ),
    moderators = nullif(
      array_remove(coalesce(s.moderators, '{}'), p_user_id)
      || case when 'moderate' = any(p_permissions) then array[p_user_id] else '{}' end,
      '{}'
    )
  where s.tenant_id = v_entered.tenant and s.id = p_session_id
  returning s.* into v_session;
  insert into haive.events (tenant_id, kind, conversation_id)
  values (v_entered.tenant, 'participant.changed', p_session_id);
  return haive_private.session_doc(v_session, v_conversation, v_entered.actor);
end;
$$;

alter function haive_private.set_participant(text, uuid, text, text[], text)
owner to haive_writer;

comment on function haive_private.set_participant(text, uuid, text, text[], text) is
'What haive.set_participant does, for a caller without rights on the tables.';

create or replace function haive.set_participant(
  session_id uuid,
  user_id text,
  permissions text[] default '{}',
  acting_user text default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.set_participant(
    set_participant.tenant, set_participant.session_id, set_participant.user_id,
    set_participant.permissions, set_participant.acting_user
  )
$$;

comment on function haive.set_participant(uuid, text, text[], text, text) is
'Gives a user permissions in a session (read, write, moderate; each of them reads), by who moderates '
'it; none removes the user, who is cut off at once. Everybody may remove themselves.';
