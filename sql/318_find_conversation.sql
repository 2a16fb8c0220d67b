-- What get_conversation and read_conversation answer differently.
create or replace function haive_private.find_conversation(
  p_conversation_id uuid, p_message_limit int, p_tenant text
)
returns haive.conversations
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, false);
  v_row haive.conversations;
begin
  if (p_message_limit between 0 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'message_limit is not between 0 and 1000',
      hint = 'Read on with get_messages.';
  end if;
  select * into v_row
  from haive.conversations as c
  where c.tenant_id = v_caller.tenant and c.id = p_conversation_id;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no conversation %s', p_conversation_id),
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to see.';
  end if;
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'get_conversation',
      jsonb_build_object(
        p_conversation_id,
        case
          when least(p_message_limit, v_row.message_count) > 0
            then jsonb_build_array(
              greatest(v_row.message_count - p_message_limit + 1, 1), v_row.message_count
            )
        end
      ),
      1
    );
  end if;
  return v_row;
end;
$$;

comment on function haive_private.find_conversation(uuid, int, text) is
'Enters the tenant, and finds a conversation.';
