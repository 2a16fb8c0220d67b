create or replace function haive_private.get_conversation(
  conversation_id uuid,
  message_limit int default 0,
  tenant text default null
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_row haive.conversations := haive_private.find_conversation(
    get_conversation.conversation_id, get_conversation.message_limit, get_conversation.tenant
  );
begin
  if get_conversation.message_limit > 0 then
    return haive_private.conversation_doc(
      v_row,
      (
        haive_private.message_docs(
          v_row.tenant_id, array[v_row.id],
          array[v_row.message_count - get_conversation.message_limit + 1],
          array[v_row.message_count]
        )
      )[1]
    );
  end if;
  return haive_private.conversation_doc(v_row);
end;
$$;

comment on function haive_private.get_conversation(uuid, int, text) is
'What haive.get_conversation does, in one snapshot.';

-- Volatile, for a request is counted, and PostgREST lets no other function write; what it reads is read
-- in one snapshot all the same.
create or replace function haive.get_conversation(
  conversation_id uuid,
  message_limit int default 0,
  tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return haive_private.get_conversation(
    get_conversation.conversation_id, get_conversation.message_limit, get_conversation.tenant
  );
end;
$$;

comment on function haive.get_conversation(uuid, int, text) is
'One conversation, with its last message_limit messages if asked.';
