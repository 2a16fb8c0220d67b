-- The statement is put together from the fixed fragments below, one for each filter in use, and
-- values go in as parameters: the planner sees only what is asked, and no text of the caller's.
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
stable
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(query_conversations.tenant, false);
  v_filters jsonb := coalesce(query_conversations.filters, '{}');
  v_fragments constant jsonb := $f${
    "user_id": "c.user_id = $2 ->> 'user_id'",
    "agent_id": "c.agent_id = $2 ->> 'agent_id'",
    "tags": "c.tags @> array(select jsonb_array_elements_text($2 -> 'tags'))",
    "any_tags": "c.tags && array(select jsonb_array_elements_text($2 -> 'any_tags'))",
    "participants": "c.participants @> array(select jsonb_array_elements_text($2 -> 'participants'))",
    "context": "c.context @> ($2 -> 'context')",
    "title": "strpos(lower(c.title), lower($2 ->> 'title')) > 0",
    "text": "(strpos(lower(c.title), lower($2 ->> 'text')) > 0 or exists (select from haive.messages as m where m.tenant_id = c.tenant_id and m.conversation_id = c.id and strpos(lower(m.content), lower($2 ->> 'text')) > 0))",
    "min_messages": "c.message_count >= ($2 ->> 'min_messages')::bigint",
    "max_messages": "c.message_count <= ($2 ->> 'max_messages')::bigint",
    "created_after": "c.created_at >= ($2 ->> 'created_after')::timestamptz",
    "created_before": "c.created_at < ($2 ->> 'created_before')::timestamptz",
    "updated_after": "c.updated_at >= ($2 ->> 'updated_after')::timestamptz",
    "updated_before": "c.updated_at < ($2 ->> 'updated_before')::timestamptz",
    "active_after": "c.last_message_at >= ($2 ->> 'active_after')::timestamptz and c.active_hour >= date_bin('1 hour', ($2 ->> 'active_after')::timestamptz, '2000-01-01 00:00:00+00')",
    "active_before": "c.last_message_at < ($2 ->> 'active_before')::timestamptz"
  }$f$;
  v_kinds constant jsonb := $k${
    "tags": "array", "any_tags": "array", "participants": "array", "context": "object",
    "min_messages": "number", "max_messages": "number"
  }$k$; -- all others are strings
  v_unknown text;
  v_type text;
  v_keys text;
  v_cursor_keys text;
  v_cursor text[];
  v_where text;
  v_result json;
begin
  select string_agg(k, ', ' order by k) into v_unknown
  from jsonb_object_keys(v_filters) as k
  where not v_fragments ? k;
  if v_unknown is not null then
    raise exception using
      errcode = 'PT422',
      message = format('unknown filter: %s', left(v_unknown, 200)),
      hint = (
        select 'Filters are ' || string_agg(k, ', ' order by k) || '.'
        from jsonb_object_keys(v_fragments) as k
      );
  end if;
  select string_agg(format('%s is no %s', f.key, coalesce(v_kinds ->> f.key, 'string')), ', ')
  into v_unknown
  from jsonb_each(v_filters) as f
  where jsonb_typeof(f.value) not in ('null', coalesce(v_kinds ->> f.key, 'string'))
    -- A time is a string that is one: the cast says so where it is not.
    or (f.key like '%\_after' or f.key like '%\_before') and (f.value #>> '{}')::timestamptz is null
    and jsonb_typeof(f.value) <> 'null';
  if v_unknown is not null then
    raise exception using
      errcode = 'PT422',
      message = format('wrong filter: %s', left(v_unknown, 200)),
      hint = 'Lists of text for tags, any_tags and participants; ISO 8601 for times.';
  end if;
  if query_conversations.page_size not between 1 and 1000
    or query_conversations.message_limit not between 0 and 1000
  then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000, or message_limit not between 0 and 1000',
      hint = 'Read on with page_after, and with get_messages.';
  end if;

  v_type := case query_conversations.order_by
    when 'message_count' then 'bigint'
    when 'last_message_at' then 'timestamptz'
    when 'created_at' then 'timestamptz'
    when 'updated_at' then 'timestamptz'
  end;
  if v_type is null then
    raise exception using
      errcode = 'PT422',
      message = format('unknown order_by: %s', left(query_conversations.order_by, 200)),
      hint = 'Orders are created_at, last_message_at, message_count, updated_at.';
  end if;
  v_keys := format('c.%I', query_conversations.order_by);
  v_cursor_keys := format('($3[1])::%s', v_type);
  if query_conversations.order_by = 'last_message_at' then
    -- The indexed hour first: the same order, and only the hours of the page are sorted.
    v_keys := 'c.active_hour, ' || v_keys;
    v_cursor_keys := 'date_bin(''1 hour'', ($3[1])::timestamptz, ''2000-01-01 00:00:00+00''), '
      || v_cursor_keys;
  end if;

  v_where := 'c.tenant_id = $1' || coalesce(
    (
      select string_agg(' and ' || f.value, '')
      from jsonb_each_text(v_fragments) as f
      where v_filters ? f.key and jsonb_typeof(v_filters -> f.key) <> 'null'
    ), ''
  );
  if query_conversations.page_after is not null then
    v_cursor := string_to_array(query_conversations.page_after, '/');
    if cardinality(v_cursor) <> 2 then
      raise exception using
        errcode = 'PT422',
        message = 'page_after is no cursor',
        hint = 'Pass next_page of the page before, with the same order.';
    end if;
    v_where := v_where || format(
      ' and (%s, c.id) %s (%s, ($3[2])::uuid)',
      v_keys, case when query_conversations.ascending then '>' else '<' end, v_cursor_keys
    );
  end if;

  execute format(
    $q$
      with page as (
        select c as conversation, c.id, c.message_count, c.%3$I as sort_key
        from haive.conversations as c
        where %1$s
        order by %2$s
        limit $4 + 1
      ),
      numbered as materialized (
        select p.*, row_number() over () as place from page as p
      )
      select json_build_object(
        'conversations', coalesce(json_agg(
          haive_private.conversation_doc(
            n.conversation,
            case
              when $5 > 0 then haive_private.message_docs($1, n.id, 0, n.message_count + 1, $5, true)
            end
          )
          order by n.place
        ) filter (where n.place <= $4), '[]'),
        'next_page', case
          when count(*) > $4 then (
            select n.sort_key || '/' || n.id from numbered as n where n.place = $4
          )
        end
      )
      from numbered as n
    $q$,
    v_where,
    (
      select string_agg(k || case when query_conversations.ascending then ' asc' else ' desc' end, ', ')
      from unnest(string_to_array(v_keys, ', ') || array['c.id']) as k
    ),
    query_conversations.order_by
  )
  into v_result
  using v_caller.tenant, v_filters, v_cursor, query_conversations.page_size,
    query_conversations.message_limit;
  return v_result;
end;
$$;

comment on function haive.query_conversations(jsonb, text, boolean, int, text, int, text) is
'A page of conversations by filters and order, with the last message_limit messages of each if '
'asked: {conversations, next_page}. Text filters read every candidate: narrow them by user or time.';
