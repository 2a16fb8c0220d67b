-- What query_conversations and read_conversations answer differently: a page, and what is on record.
-- Where latest_conversations does not find it, the statement is put together from the fixed fragments
-- below, one for each filter in use, and values go in as parameters: the planner sees only what is asked,
-- and no text of the caller's.
create or replace function haive_private.find_conversations(
  p_filters jsonb,
  p_order_by text,
  p_ascending boolean,
  p_page_size int,
  p_page_after text,
  p_message_limit int,
  p_tenant text,
  out conversations haive.conversations[],
  out next_page text
)
returns record
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, false);
  v_filter record;
  v_kind text;
  v_fragment text;
  v_type text;
  v_keys text;
  v_cursor_keys text;
  v_cursor text[];
  v_where text := 'c.tenant_id = $1';
  v_tags text[];
  v_any_tags text[];
  v_participants text[];
  -- Asked as most do: then the filters are as they should be, and there is a statement for them.
  v_usual boolean := coalesce(
    jsonb_typeof(p_filters -> 'user_id') = 'string'
    and p_filters - '{user_id,tags,min_messages}'::text[] = '{}'
    and coalesce(jsonb_typeof(p_filters -> 'tags'), 'array') = 'array'
    and coalesce(jsonb_typeof(p_filters -> 'min_messages'), 'number') = 'number'
    and p_order_by = 'last_message_at' and p_ascending is not true and p_page_after is null
    -- Whom row level security does not bind may find by an index of tags.
    and (not p_filters ? 'tags' or row_security_active('haive.conversations')),
    false
  );
  v_size int;
  v_last haive.conversations;
begin
  if (
    p_page_size between 1 and 1000
    and p_message_limit between 0 and 1000
  ) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000, or message_limit not between 0 and 1000',
      hint = 'Read on with page_after, and with get_messages.';
  end if;

  if v_usual then
    if p_filters ? 'tags' then
      v_tags := array(select jsonb_array_elements_text(p_filters -> 'tags'));
    end if;
    conversations := haive_private.latest_conversations(
      v_caller.tenant, p_filters ->> 'user_id', v_tags, (p_filters ->> 'min_messages')::bigint,
      p_page_size + 1
    );
  else
    for v_filter in
      select f.key, f.value
      from jsonb_each(coalesce(p_filters, '{}')) as f
      where jsonb_typeof(f.value) <> 'null'
      order by f.key
    loop
      v_kind := case
        when v_filter.key in ('tags', 'any_tags', 'participants') then 'array'
        when v_filter.key in ('min_messages', 'max_messages') then 'number'
        when v_filter.key = 'context' then 'object'
        else 'string'
      end;
      v_fragment := case v_filter.key
        when 'user_id' then 'c.user_id = $2 ->> ''user_id'''
        when 'agent_id' then 'c.agent_id = $2 ->> ''agent_id'''
        when 'tags' then 'c.tags @> $5'
        when 'any_tags' then 'c.tags && $6'
        when 'participants'
          then 'c.participants @> $7'
        when 'context' then 'c.context @> ($2 -> ''context'')'
        when 'title' then 'strpos(lower(c.title), lower($2 ->> ''title'')) > 0'
        when 'text' then $f$(
          strpos(lower(c.title), lower($2 ->> 'text')) > 0
          or exists (
            select from haive.messages as m
            where m.tenant_id = c.tenant_id and m.conversation_id = c.id
              and strpos(lower(m.content), lower($2 ->> 'text')) > 0
          )
        )$f$
        when 'min_messages' then 'c.message_count >= ($2 ->> ''min_messages'')::bigint'
        when 'max_messages' then 'c.message_count <= ($2 ->> ''max_messages'')::bigint'
        when 'created_after' then 'c.created_at >= ($2 ->> ''created_after'')::timestamptz'
        when 'created_before' then 'c.created_at < ($2 ->> ''created_before'')::timestamptz'
        when 'updated_after' then 'c.updated_at >= ($2 ->> ''updated_after'')::timestamptz'
        when 'updated_before' then 'c.updated_at < ($2 ->> ''updated_before'')::timestamptz'
        when 'active_after' then $f$
          c.last_message_at >= ($2 ->> 'active_after')::timestamptz
          and c.active_hour >= date_bin(
            '1 hour', ($2 ->> 'active_after')::timestamptz, '2000-01-01 00:00:00+00'
          )
        $f$
        when 'active_before' then 'c.last_message_at < ($2 ->> ''active_before'')::timestamptz'
      end;
      if v_fragment is null then
        raise exception using
          errcode = 'PT422',
          message = format('unknown filter: %s', left(v_filter.key, 200)),
          hint = 'Filters are user_id, agent_id, tags, any_tags, participants, context, title, text, '
            'min_messages, max_messages, and created_, updated_ and active_ with after and before.';
      elsif
        v_filter.key in ('context', 'title', 'text')
        and current_setting('persistence.watch', true) like '%s%'
      then
        raise exception using
          errcode = 'PT422',
          message = format('filter %s: this tenant''s content is sealed by the client', v_filter.key),
          hint = 'Filter by user_id, agent_id, tags, participants, counts and times.';
      elsif jsonb_typeof(v_filter.value) <> v_kind then
        raise exception using
          errcode = 'PT422',
          message = format('filter %s is no %s', v_filter.key, v_kind),
          hint = 'Lists of text for tags, any_tags and participants; ISO 8601 for times.';
      elsif v_filter.key like '%\_after' or v_filter.key like '%\_before' then
        -- A time is a string that is one: the cast says so where it is not.
        perform (v_filter.value #>> '{}')::timestamptz;
      elsif v_kind = 'array' then
        case v_filter.key
          when 'tags' then
            v_tags := array(select jsonb_array_elements_text(v_filter.value));
          when 'any_tags' then
            v_any_tags := array(select jsonb_array_elements_text(v_filter.value));
          else
            v_participants := array(select jsonb_array_elements_text(v_filter.value));
        end case;
      end if;
      v_where := v_where || ' and ' || v_fragment;
    end loop;

    v_type := case p_order_by
      when 'message_count' then 'bigint'
      when 'last_message_at' then 'timestamptz'
      when 'created_at' then 'timestamptz'
      when 'updated_at' then 'timestamptz'
    end;
    if v_type is null then
      raise exception using
        errcode = 'PT422',
        message = format('unknown order_by: %s', left(p_order_by, 200)),
        hint = 'Orders are created_at, last_message_at, message_count, updated_at.';
    end if;
    v_keys := 'c.' || p_order_by;
    v_cursor_keys := '($3[1])::' || v_type;
    if p_order_by = 'last_message_at' then
      -- The indexed hour first: the same order, and only the hours of the page are sorted.
      v_keys := 'c.active_hour, ' || v_keys;
      v_cursor_keys := 'date_bin(''1 hour'', ($3[1])::timestamptz, ''2000-01-01 00:00:00+00''), '
        || v_cursor_keys;
    end if;
    v_keys := v_keys || ', c.id';
    if p_page_after is not null then
      v_cursor := string_to_array(p_page_after, '/');
      if cardinality(v_cursor) <> 2 then
        raise exception using
          errcode = 'PT422',
          message = 'page_after is no cursor',
          hint = 'Pass next_page of the page before, with the same order.';
      end if;
      v_where := v_where || format(
        ' and (%s) %s (%s, ($3[2])::uuid)',
        v_keys, case when p_ascending then '>' else '<' end, v_cursor_keys
      );
    end if;
    if p_ascending is not true then
      v_keys := replace(v_keys, ',', ' desc,') || ' desc';
    end if;

    execute format(
      'select array(select c from haive.conversations as c where %s order by %s limit $4 + 1)',
      v_where, v_keys
    )
    into conversations
    using
      v_caller.tenant, p_filters, v_cursor, p_page_size,
      -- Known to the planner: of an array made in the statement it expects few rows, and reads all
      -- that have a tag (1.5 against 0.2 ms at 50,000 conversations).
      v_tags, v_any_tags, v_participants;
  end if;

  v_size := least(cardinality(conversations), p_page_size);
  if cardinality(conversations) > v_size then
    v_last := conversations[v_size];
    -- As JSON a time is ISO 8601, whatever the session's DateStyle.
    next_page := case p_order_by
      when 'message_count' then v_last.message_count::text
      when 'last_message_at' then to_json(v_last.last_message_at) #>> '{}'
      when 'created_at' then to_json(v_last.created_at::timestamptz) #>> '{}'
      else to_json(v_last.updated_at) #>> '{}'
    end || '/' || v_last.id;
    conversations := conversations[:v_size];
  end if;
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'query_conversations',
      (
        select jsonb_object_agg(
          c.id,
          case
            when least(p_message_limit, c.message_count) > 0
              then jsonb_build_array(
                greatest(c.message_count - p_message_limit + 1, 1), c.message_count
              )
          end
        )
        from unnest(conversations) as c
      ),
      v_size
    );
  end if;
end;
$$;

comment on function haive_private.find_conversations(
  jsonb, text, boolean, int, text, int, text
) is 'Enters the tenant, and finds a page of conversations by filters and order.';
