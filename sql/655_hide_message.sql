-- Definer, for nobody writes tables directly.
create or replace function haive_private.hide_message(
  p_tenant text, p_session_id uuid, p_message_id uuid, p_hidden boolean, p_acting text
)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered record := haive_private.enter_session(
    p_tenant, p_session_id, 'moderate', p_acting, true
  );
  v_message record;
begin
  if p_hidden is null then
    raise exception using
      errcode = 'PT422',
      message = 'hidden is neither true nor false',
      hint = 'true hides the message, false shows it again.';
  end if;
  select m.seq, m.hidden_at into v_message
  from haive.messages as m
  where
    m.id = p_message_id and m.tenant_id = v_entered.tenant and m.conversation_id = p_session_id;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no message %s of the session itself', p_message_id),
      hint = 'What a branch begins with is hidden in the session that it is of.';
  elsif (v_message.hidden_at is not null) = p_hidden then
    return false;
  end if;
  update haive.messages as m
  set hidden_at = case when p_hidden then now() end
  where
    m.tenant_id = v_entered.tenant and m.conversation_id = p_session_id
    and m.seq = v_message.seq;
  insert into haive.events (tenant_id, kind, conversation_id, first_seq, last_seq)
  values (
    v_entered.tenant, case when p_hidden then 'message.hidden' else 'message.shown' end,
    p_session_id, v_message.seq, v_message.seq
  );
  return true;
end;
$$;

alter function haive_private.hide_message(text, uuid, uuid, boolean, text) owner to haive_writer;

comment on function haive_private.hide_message(text, uuid, uuid, boolean, text) is
'What haive.hide_message does, for a caller without rights on the tables.';

create or replace function haive.hide_message(
  session_id uuid,
  message_id uuid,
  hidden boolean default true,
  acting_user text default null,
  tenant text default null
)
returns boolean
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.hide_message(
    hide_message.tenant, hide_message.session_id, hide_message.message_id, hide_message.hidden,
    hide_message.acting_user
  )
$$;

comment on function haive.hide_message(uuid, uuid, boolean, text, text) is
'Hides a message of a session from all but those who moderate it, or shows it again; returns whether '
'that changed anything.';
