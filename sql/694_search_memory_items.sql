-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.search_memory_items(
  p_tenant text, p_collection text, p_searches jsonb
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, false);
  v_search jsonb;
  v_limit int;
  v_offset int;
  v_recall double precision;
  v_filter jsonb;
  v_where text;
  v_found record;
  v_items json;
  v_used text[];
  v_answers json[] := '{}';
  v_count bigint := 0;
begin
  if jsonb_typeof(p_searches) is distinct from 'array' or jsonb_array_length(p_searches) > 100 then
    raise exception using
      errcode = 'PT422',
      message = 'searches is no list of at most 100',
      hint = 'Each is {namespace, filter, text, vector, recall, limit, offset, refresh, user_id}.';
  end if;
  for v_search in select s.search from jsonb_array_elements(p_searches) as s (search) loop
    begin
      v_limit := (v_search ->> 'limit')::int;
      v_offset := coalesce((v_search ->> 'offset')::int, 0);
      v_recall := coalesce((v_search ->> 'recall')::double precision, 0.97);
    exception
      when data_exception or invalid_text_representation then
        raise exception using
          errcode = 'PT422',
          message = 'a part of the search cannot be read',
          hint = 'limit and offset are whole numbers, recall is a number.';
    end;
    if
      (
        v_limit between 0 and 10000 and v_offset between 0 and 1000000 and v_recall > 0
        and v_recall <= 1 and jsonb_typeof(v_search -> 'namespace') = 'array'
      ) is not true
    then
      raise exception using
        errcode = 'PT422',
        message = 'a part of the search is out of bounds',
        hint = 'namespace is a list, limit is 0 to 10,000, offset to 1,000,000, recall above 0 to 1.';
    end if;
    v_filter := haive_private.memory_item_filter(v_search -> 'namespace', v_search -> 'user_id');
    if coalesce(v_search -> 'filter', 'null') <> 'null' then
      v_filter := jsonb_insert(v_filter, '{parts,-1}', v_search -> 'filter', true);
    end if;
    if coalesce(v_search ->> 'text', v_search ->> 'vector') is null then
      v_where := format(
        '%s and %s and (t.expires_at is null or t.expires_at > %L)', v.own,
        haive_private.memory_condition(v_filter), haive_private.time_text(clock_timestamp())
      );
      execute format(
        $q$
          select
            coalesce(json_agg(%2$s order by t.happened_at desc, t.id desc), '[]'),
            array_agg(t.id) filter (where t.metadata ? 'ttl')
          from (
            select t.* from %1$s as t
            where %3$s and not t.metadata ? 'item'
            order by t.happened_at desc, t.id desc
            offset $1
            limit $2
          ) as t
        $q$, v.relation, haive_private.memory_item_doc('null'), v_where
      ) into v_items, v_used using v_offset, v_limit;
    else
      v_found := haive_private.rank_memory_items(
        v, v_search || jsonb_build_object('filter', v_filter), v_limit, v_offset, v_recall
      );
      v_items := v_found.items;
      v_used := v_found.used;
    end if;
    if v_search -> 'refresh' = 'true' then
      perform haive_private.refresh_memory_items(v, v_used);
    end if;
    v_answers := v_answers || v_items;
    v_count := v_count + json_array_length(v_items);
  end loop;
  if v.audit_reads then
    perform haive_private.audit_read(
      'search_memory_items', jsonb_build_object((v.collection).name, v_count), v_count
    );
  end if;
  return array_to_json(v_answers);
end;
$$;

alter function haive_private.search_memory_items(text, text, jsonb) owner to haive_writer;

comment on function haive_private.search_memory_items(text, text, jsonb) is
'What haive.search_memory_items does, for a caller without rights on the tables.';

create or replace function haive_private.memory_item_filter(p_namespace jsonb, p_user_id jsonb)
returns jsonb
language plpgsql
immutable
security invoker
set search_path = ''
as $$
declare
  v_path text := haive_private.namespace_path(p_namespace);
  v_parts jsonb := jsonb_build_array(
    jsonb_build_object('op', 'gte', 'path', '["path"]'::jsonb, 'value', v_path)
  );
begin
  if v_path <> '' then
    v_parts := v_parts || jsonb_build_object(
      'op', 'lt', 'path', '["path"]'::jsonb, 'value', haive_private.behind_path(v_path)
    );
  end if;
  if coalesce(p_user_id, 'null') = 'null' then
    v_parts := v_parts || jsonb_build_object('op', 'not', 'parts', jsonb_build_array(
      jsonb_build_object('op', 'type', 'path', '["user_id"]'::jsonb, 'value', 'string')
    ));
  else
    v_parts := v_parts || jsonb_build_object(
      'op', 'eq', 'path', '["user_id"]'::jsonb, 'value', p_user_id
    );
  end if;
  return jsonb_build_object('op', 'and', 'parts', v_parts);
end;
$$;

comment on function haive_private.memory_item_filter(jsonb, jsonb) is
'The filter that the items of a user, or of nobody, under a namespace pass.';

-- An item is as good as the best of its texts. It may have taken the place of others with more than one
-- of them: then more are looked for.
create or replace function haive_private.rank_memory_items(
  v record, -- as enter_collection answers
  p_search jsonb,
  p_limit int,
  p_offset int,
  p_recall double precision,
  out items json,
  out used text[]
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  c_most constant int := 20000; -- memories, and by words as many as a search finds
  v_filter jsonb := jsonb_insert(
    p_search -> 'filter', '{parts,-1}', '{"op": "exists", "path": ["text"], "value": true}', true
  );
  v_now timestamptz := clock_timestamp();
  v_where text := format(
    '%s and %s and (t.expires_at is null or t.expires_at > %L)', v.own,
    haive_private.memory_condition(v_filter), haive_private.time_text(v_now)
  );
  v_vector text := p_search ->> 'vector';
  v_wanted int := greatest(p_offset + p_limit, 1);
  v_most int := case when v_vector is null then 1000 else c_most end;
  v_ids text[];
  v_scores double precision[];
  v_different bigint;
  v_size int;
begin
  perform haive_private.refuse_sealed_memories();
  if v_vector is not null and (v.collection).model is null then
    raise exception using
      errcode = 'PT422',
      message = format('the collection %s has no vectors', (v.collection).name),
      hint = 'It was opened without a model, and is searched by words.';
  end if;
  v_size := least(v_wanted, v_most);
  loop
    if v_vector is null then
      select
        coalesce(array_agg(h.id order by h.place), '{}'),
        coalesce(array_agg(h.score order by h.place), '{}')
      into v_ids, v_scores
      from (
        select e.hit ->> 'id' as id, (e.hit ->> 'score')::double precision as score, e.place
        from json_array_elements(haive_private.rank_memories(v, jsonb_build_object(
          'text', p_search ->> 'text', 'limit', v_size, 'now', v_now,
          'filter', jsonb_insert(
            v_filter, '{parts,-1}',
            jsonb_build_object('op', 'not', 'parts', jsonb_build_array(jsonb_build_object(
              'op', 'lte', 'path', '["expires_at"]'::jsonb, 'value', haive_private.time_text(v_now)
            ))),
            true
          ),
          'weights', '{"words": 1, "context": 0, "vector": 0, "speaker": 0, "neighbours": 0}'::jsonb
        ))) with ordinality as e (hit, place)
      ) as h;
    else
      begin
        v_ids := (haive_private.nearest_memories(
          v.collection, v_where, true, v.tenant, v_vector, v_size, p_recall
        )).ids;
      exception
        when data_exception or invalid_text_representation or numeric_value_out_of_range then
          raise exception using
            errcode = 'PT422',
            message = 'the vector of the query cannot be read',
            hint = format(
              'It is a text such as [1,2] of %s finite numbers.', (v.collection).dimensions
            );
      end;
    end if;
    execute format(
      'select count(distinct coalesce(t.metadata ->> ''item'', t.id)) from %s as t where t.id = any($1)',
      v.relation
    ) into v_different using v_ids;
    exit when v_different >= v_wanted or cardinality(v_ids) < v_size or v_size = v_most;
    v_size := least(2 * v_size, v_most);
  end loop;
  execute format(
    $q$
      select
        coalesce(json_agg(%2$s order by t.score desc, t.id), '[]'),
        array_agg(coalesce(t.metadata ->> 'item', t.id)) filter (where t.metadata ? 'ttl')
      from (
        select b.* from (
          select distinct on (coalesce(s.metadata ->> 'item', s.id)) s.*
          from (
            select t.id, t.metadata, %3$s as score
            from unnest($1, $2) as u (id, score)
            join %1$s as t on t.id = u.id
            where %4$s
          ) as s
          order by coalesce(s.metadata ->> 'item', s.id), s.score desc
        ) as b
        order by b.score desc, b.id
        offset $3
        limit $4
      ) as t
    $q$, v.relation, haive_private.memory_item_doc('t.score'),
    case
      when v_vector is null then 'u.score'
      else format(
        'coalesce(nullif(%1$s(t.vec operator(%2$s.%3$s) %4$L::%2$s.%5$I), ''NaN''), 0)',
        case when (v.collection).metric = 'cosine' then '1 - ' else '-' end,
        haive_private.vector_schema(),
        case (v.collection).metric when 'cosine' then '<=>' when 'l2' then '<->' else '<#>' end,
        v_vector, (v.collection).storage
      )
    end, v_where
  ) into items, used using v_ids, v_scores, p_offset, p_limit;
end;
$$;

alter function haive_private.rank_memory_items(record, jsonb, int, int, double precision)
owner to haive_writer;

comment on function haive_private.rank_memory_items(record, jsonb, int, int, double precision) is
'The items of a collection that was entered that answer a query best, by its vector or else its words.';

create or replace function haive.search_memory_items(
  collection text, searches jsonb, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.search_memory_items(
    search_memory_items.tenant, search_memory_items.collection, search_memory_items.searches
  )
$$;

comment on function haive.search_memory_items(text, jsonb, text) is
'Items under a namespace, for each of {namespace, filter, text, vector, recall, limit, offset, refresh, '
'user_id} a list of what get_memory_items answers: those nearest to the vector with their nearness as '
'score, else those with the words of the text and BM25 scaled to 0…1, else those changed last. By words '
'there are at most 1,000. Without user_id they are those of nobody.';
