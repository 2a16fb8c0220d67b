-- Definer, for nobody writes tables directly.
create or replace function haive_private.delete_conversation(p_tenant text, p_conversation_id uuid)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_messages bigint;
begin
  delete from haive.conversations as c
  where
    c.tenant_id = v_caller.tenant and c.id = p_conversation_id
    and (v_caller.actor is null or c.user_id = v_caller.actor)
  returning c.message_count into v_messages;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no conversation %s', p_conversation_id),
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to delete.';
  end if;
  insert into haive.events (tenant_id, kind, conversation_id)
  values (v_caller.tenant, 'conversation.deleted', p_conversation_id);
  return v_messages;
end;
$$;

alter function haive_private.delete_conversation(text, uuid) owner to haive_writer;

comment on function haive_private.delete_conversation(text, uuid) is
'What haive.delete_conversation does, for a caller without rights on the table.';

create or replace function haive.delete_conversation(conversation_id uuid, tenant text default null)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.delete_conversation(
    delete_conversation.tenant, delete_conversation.conversation_id
  )
$$;

comment on function haive.delete_conversation(uuid, text) is
'Deletes a conversation with its messages and returns how many those were.';
