create or replace function haive_private.read_conversations(
  filters jsonb default '{}',
  order_by text default 'last_message_at',
  ascending boolean default false,
  page_size int default 10,
  page_after text default null,
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
  v_page record := haive_private.find_conversations(
    read_conversations.filters, read_conversations.order_by, read_conversations.ascending,
    read_conversations.page_size, read_conversations.page_after,
    read_conversations.message_limit, read_conversations.tenant
  );
  v_rows haive.conversations[] := v_page.conversations;
begin
  return query select * from haive_private.conversation_columns(v_rows, v_page.next_page);
  if read_conversations.message_limit > 0 then
    return query
    select *
    from haive_private.message_columns(
      (v_rows[1]).tenant_id,
      array(select c.id from unnest(v_rows) as c),
      array(select c.message_count - read_conversations.message_limit + 1 from unnest(v_rows) as c),
      array(select c.message_count from unnest(v_rows) as c)
    );
  end if;
end;
$$;

comment on function haive_private.read_conversations(
  jsonb, text, boolean, int, text, int, text
) is 'What haive.query_conversations answers, by column.';
