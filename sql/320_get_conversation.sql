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
  v_caller record := haive_private.enter_tenant(get_conversation.tenant, false);
  v_doc json;
  v_count bigint;
begin
  if (get_conversation.message_limit between 0 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'message_limit is not between 0 and 1000',
      hint = 'Read on with get_messages.';
  end if;
  select
    haive_private.conversation_doc(
      c,
      case
        when get_conversation.message_limit > 0 then (
          haive_private.message_docs(
            c.tenant_id, array[c.id],
            array[c.message_count - get_conversation.message_limit + 1], array[c.message_count]
          )
        )[1]
      end
    ),
    c.message_count
  into v_doc, v_count
  from haive.conversations as c
  where c.tenant_id = v_caller.tenant and c.id = get_conversation.conversation_id;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no conversation %s', get_conversation.conversation_id),
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to see.';
  end if;
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'get_conversation',
      jsonb_build_object(
        get_conversation.conversation_id,
        case
          when least(get_conversation.message_limit, v_count) > 0
            then jsonb_build_array(
              greatest(v_count - get_conversation.message_limit + 1, 1), v_count
            )
        end
      ),
      1
    );
  end if;
  return v_doc;
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
