create or replace function haive_private.query_conversations(
  filters jsonb default '{}',
  order_by text default 'last_message_at',
  ascending boolean default false,
  page_size int default 10,
  page_after text default null,
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
  v_page record := haive_private.find_conversations(
    query_conversations.filters, query_conversations.order_by, query_conversations.ascending,
    query_conversations.page_size, query_conversations.page_after,
    query_conversations.message_limit, query_conversations.tenant
  );
  v_rows haive.conversations[] := v_page.conversations;
  v_docs json;
begin
  if query_conversations.message_limit > 0 then
    select json_agg(haive_private.conversation_doc(v_rows[p.place], p.messages) order by p.place)
    into v_docs
    from unnest(
      haive_private.message_docs(
        (v_rows[1]).tenant_id,
        array(select c.id from unnest(v_rows) as c),
        array(select c.message_count - query_conversations.message_limit + 1 from unnest(v_rows) as c),
        array(select c.message_count from unnest(v_rows) as c)
      )
    ) with ordinality as p (messages, place);
  else
    select json_agg(haive_private.conversation_doc(v_rows[i]) order by i) into v_docs
    from generate_series(1, cardinality(v_rows)) as i;
  end if;
  return json_build_object(
    'conversations', coalesce(v_docs, '[]'), 'next_page', v_page.next_page
  );
end;
$$;

comment on function haive_private.query_conversations(jsonb, text, boolean, int, text, int, text) is
'What haive.query_conversations does, in one snapshot.';

-- Volatile, for a request is counted, and PostgREST lets no other function write; what it reads is read
-- in one snapshot all the same.
create or replace function haive.query_conversations(
  filters jsonb default '{}',
  order_by text default 'last_message_at',
  ascending boolean default false,
  page_size int default 10,
  page_after text default null,
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
  return haive_private.query_conversations(
    query_conversations.filters, query_conversations.order_by, query_conversations.ascending,
    query_conversations.page_size, query_conversations.page_after,
    query_conversations.message_limit, query_conversations.tenant
  );
end;
$$;

comment on function haive.query_conversations(jsonb, text, boolean, int, text, int, text) is
'A page of conversations by filters and order, with the last message_limit messages of each if '
'asked: {conversations, next_page}. Text filters read every candidate: narrow them by user or time.';
