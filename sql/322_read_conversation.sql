create or replace function haive_private.read_conversation(
  conversation_id uuid,
  message_limit int default 0,
  tenant text default null
)
returns setof haive_private.stored_columns
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_row haive.conversations := haive_private.find_conversation(
    read_conversation.conversation_id, read_conversation.message_limit, read_conversation.tenant
  );
begin
  return query select * from haive_private.conversation_columns(array[v_row], null);
  if read_conversation.message_limit > 0 then
    return query
    select *
    from haive_private.message_columns(
      v_row.tenant_id, array[v_row.id],
      array[v_row.message_count - read_conversation.message_limit + 1],
      array[v_row.message_count]
    );
  end if;
end;
$$;

comment on function haive_private.read_conversation(uuid, int, text) is
'What haive.get_conversation answers, by column.';
