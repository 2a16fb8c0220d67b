-- Table by table and not by the foreign keys alone, to count what goes. The rows of the
-- conversations are locked first: who writes to one then finds it gone.
create or replace function haive_private.drop_conversations(p_tenant text, p_ids uuid[])
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_messages bigint;
  v_conversations bigint;
  v_events bigint;
begin
  perform from haive.conversations as c
  where c.tenant_id = p_tenant and c.id = any(p_ids)
  order by c.id
  for update;
  delete from haive.messages as m
  where m.tenant_id = p_tenant and m.conversation_id = any(p_ids);
  get diagnostics v_messages = row_count;
  delete from haive.conversations as c where c.tenant_id = p_tenant and c.id = any(p_ids);
  get diagnostics v_conversations = row_count;
  delete from haive.events as e where e.tenant_id = p_tenant and e.conversation_id = any(p_ids);
  get diagnostics v_events = row_count;
  -- Whoever keeps copies hears of it.
  insert into haive.events (tenant_id, kind, conversation_id)
  select p_tenant, 'conversation.deleted', u.id from unnest(p_ids) as u (id);
  return jsonb_build_object(
    'conversations', v_conversations, 'messages', v_messages, 'events', v_events
  );
end;
$$;

comment on function haive_private.drop_conversations(text, uuid[]) is
'Deletes conversations with their messages and events; returns how many rows of each table.';
