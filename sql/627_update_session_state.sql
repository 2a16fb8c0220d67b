-- The shared state is the settings of the conversation, which a client may seal with title and context.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.update_session_state(
  p_tenant text, p_session_id uuid, p_changes jsonb, p_expected timestamptz, p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered record := haive_private.enter_session(p_tenant, p_session_id, 'write', p_acting, true);
  v_session haive.sessions := v_entered.session;
  v_conversation haive.conversations := v_entered.conversation;
begin
  perform haive_private.refuse_closed_session(v_session);
  if p_expected <> v_conversation.updated_at then
    raise exception using
      errcode = 'PT409',
      message = 'the session was changed meanwhile',
      hint = 'Read it again, and change what it says now.';
  end if;
  if p_changes ? 'sealed' then
    perform haive_private.check_sealed(true);
    update haive.conversations as c
    set
      sealed = decode(p_changes ->> 'sealed', 'base64'),
      sealed_with = p_changes ->> 'sealed_with',
      title = null, context = '{}', settings = '{}',
      updated_at = greatest(now(), c.updated_at + interval '1 microsecond')
    where c.tenant_id = v_entered.tenant and c.id = p_session_id
    returning c.* into v_conversation;
  else
    perform haive_private.check_sealed(false);
    update haive.conversations as c
    set
      settings = (c.settings || (p_changes -> 'state')) - array(
        select e.key from jsonb_each(p_changes -> 'state') as e
        where jsonb_typeof(e.value) = 'null'
      ),
      updated_at = greatest(now(), c.updated_at + interval '1 microsecond')
    where c.tenant_id = v_entered.tenant and c.id = p_session_id
    returning c.* into v_conversation;
  end if;
  update haive.sessions as s
  set active_at = now()
  where s.tenant_id = v_entered.tenant and s.id = p_session_id
  returning s.* into v_session;
  insert into haive.events (tenant_id, kind, conversation_id)
  values (v_entered.tenant, 'session.updated', p_session_id);
  return haive_private.session_doc(v_session, v_conversation, v_entered.actor);
end;
$$;

alter function haive_private.update_session_state(text, uuid, jsonb, timestamptz, text)
owner to haive_writer;

comment on function haive_private.update_session_state(text, uuid, jsonb, timestamptz, text) is
'What haive.update_session_state does, for a caller without rights on the tables.';

create or replace function haive.update_session_state(
  session_id uuid,
  changes jsonb,
  expected timestamptz default null,
  acting_user text default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.update_session_state(
    update_session_state.tenant, update_session_state.session_id, update_session_state.changes,
    update_session_state.expected, update_session_state.acting_user
  )
$$;

comment on function haive.update_session_state(uuid, jsonb, timestamptz, text, text) is
'Changes the state that the participants of a session share: {state}, whose keys are put on top of what '
'is there, and go where they are null; or {sealed, sealed_with}, all that a client has sealed. Refused '
'with 409 where the session (updated_at of its conversation) is not as expected.';
