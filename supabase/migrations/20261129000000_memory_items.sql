-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it; the grants take this away again.
grant usage, create on schema haive_private to haive_writer;

-- A filter as SQL. Nothing of it reaches the statement but as a literal: names of keys and values are
-- quoted, operators are one of the list below.
-- Below a "not" a condition on a key that is missing must be false and not null; elsewhere null does
-- as well, and an index can be used.
create or replace function haive_private.memory_condition(
  p_filter jsonb, p_depth int default 0, p_exact boolean default false
)
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_op text := p_filter ->> 'op';
  v_value jsonb := p_filter -> 'value';
  v_path text[];
  v_at text; -- the value in the metadata, as jsonb
  v_test text;
  v_parts text[];
begin
  if p_filter is null or p_filter = 'null' then
    return 'true';
  end if;
  if p_depth > 40 or (p_depth = 0 and pg_column_size(p_filter) > 1048576) then
    raise exception using
      errcode = 'PT422',
      message = 'the filter is too large',
      hint = 'It has at most 10 levels, 200 comparisons and 1,000 values in a list.';
  end if;
  if v_op in ('and', 'or', 'not') then
    if jsonb_typeof(p_filter -> 'parts') is distinct from 'array' then
      raise exception using
        errcode = 'PT422',
        message = format('the filter has no parts for %s', v_op),
        hint = 'parts is a list of filters.';
    end if;
    v_parts := array(
      select haive_private.memory_condition(e.part, p_depth + 1, p_exact or v_op = 'not')
      from jsonb_array_elements(p_filter -> 'parts') as e (part)
    );
    return case v_op
      when 'and' then coalesce('(' || nullif(array_to_string(v_parts, ' and '), '') || ')', 'true')
      when 'or' then coalesce('(' || nullif(array_to_string(v_parts, ' or '), '') || ')', 'false')
      else format('not (%s)', coalesce(nullif(array_to_string(v_parts, ' and '), ''), 'true'))
    end;
  end if;

  if
    jsonb_typeof(p_filter -> 'path') is distinct from 'array'
    or jsonb_array_length(p_filter -> 'path') not between 1 and 20
  then
    raise exception using
      errcode = 'PT422',
      message = 'the filter has no path',
      hint = 'path is a list of 1 to 20 keys.';
  end if;
  v_path := array(select jsonb_array_elements_text(p_filter -> 'path'));
  -- Key by key, and not by #>, to which '0' is the first of a list.
  v_at := 't.metadata' || (
    select string_agg(format(' -> %L', u.key), '' order by u.place)
    from unnest(v_path) with ordinality as u (key, place)
  );
  case v_op
    when 'eq', 'in' then
      if v_op = 'eq' then
        v_value := jsonb_build_array(v_value);
      end if;
      if jsonb_typeof(v_value) is distinct from 'array' or jsonb_array_length(v_value) > 1000 then
        raise exception using
          errcode = 'PT422',
          message = 'the filter has no list for in',
          hint = 'value is a list of at most 1,000.';
      end if;
      if
        jsonb_array_length(v_value) <= 20
        and not jsonb_path_exists(
          v_value, 'strict $[*] ? (@.type() == "object" || @.type() == "array")'
        )
      then
        -- The index of the metadata answers these: the value itself, or a list with it.
        v_test := coalesce((
          select string_agg(
            format(
              't.metadata @> %L or t.metadata @> %L',
              haive_private.nested(v_path, e.value),
              haive_private.nested(v_path, jsonb_build_array(e.value))
            ),
            ' or '
          )
          from jsonb_array_elements(v_value) as e (value)
        ), 'false');
      else
        v_test := format(
          '(%1$s) = any(%2$L::jsonb[]) or case when jsonb_typeof(%1$s) = ''array'' then exists ('
          'select from jsonb_array_elements(%1$s) as e (value) where e.value = any(%2$L::jsonb[])) end',
          v_at, array(select jsonb_array_elements(v_value))
        );
      end if;
    when 'is' then
      -- What is equal contains the value, too: that the index of the metadata answers.
      v_test := format(
        't.metadata @> %L and %s = %L::jsonb', haive_private.nested(v_path, v_value), v_at, v_value
      );
    when 'type' then
      v_test := format('jsonb_typeof(%s) = %L', v_at, v_value #>> '{}');
    when 'ne' then
      return format('not (%s)', haive_private.memory_condition(
        p_filter || '{"op": "eq"}', p_depth + 1, true
      ));
    when 'nin' then
      return format('not (%s)', haive_private.memory_condition(
        p_filter || '{"op": "in"}', p_depth + 1, true
      ));
    when 'gt', 'gte', 'lt', 'lte' then
      v_test := case v_op when 'gt' then '>' when 'gte' then '>=' when 'lt' then '<' else '<=' end;
      v_test := case
        -- Between its bounds the column, which has an index and ends at them, compares the same.
        when v_path = array['importance'] and jsonb_typeof(v_value) = 'number'
          and v_value > '0' and v_value < '1' then
          format('t.importance %s %L::double precision', v_test, v_value)
        when jsonb_typeof(v_value) = 'number' then
          format(
            'case when jsonb_typeof(%1$s) = ''number'' then (%1$s)::numeric %2$s %3$L::numeric end',
            v_at, v_test, v_value
          )
        when jsonb_typeof(v_value) = 'string' then
          case
            when v_path = array['timestamp'] then
              format('t.happened_at %s %L collate "C"', v_test, v_value #>> '{}')
            -- As the index of items has it.
            when v_path = array['path'] then
              format('(t.metadata ->> ''path'') collate "C" %s %L', v_test, v_value #>> '{}')
            else format(
              'case when jsonb_typeof(%1$s) = ''string'' then (%1$s #>> ''{}'') collate "C" %2$s %3$L end',
              v_at, v_test, v_value #>> '{}'
            )
          end
        else 'false'
      end;
    when 'contains' then
      v_test := format(
        'case when jsonb_typeof(%1$s) = ''array'' then exists ('
        'select from jsonb_array_elements(%1$s) as e (value) where e.value = %2$L::jsonb) end',
        v_at, v_value
      );
      if jsonb_typeof(v_value) = 'string' then
        v_test := format(
          '%s or case when jsonb_typeof(%s) = ''string'' then strpos(%s #>> ''{}'', %L) > 0 end',
          v_test, v_at, v_at, v_value #>> '{}'
        );
      end if;
    when 'exists' then
      v_test := format('(%s) is %s null', v_at, case when v_value = 'true' then 'not' else '' end);
    else
      raise exception using
        errcode = 'PT422',
        message = format('the filter has an unknown operator %s', left(v_op, 40)),
        hint = 'Operators are eq, ne, is, gt, gte, lt, lte, in, nin, contains, exists, type, and, or, not.';
  end case;
  return case when p_exact then format('coalesce(%s, false)', v_test) else format('(%s)', v_test) end;
end;
$$;

comment on function haive_private.memory_condition(jsonb, int, boolean) is
'The document of a filter as a condition on t, a row of a collection.';

create or replace function haive_private.nested(p_path text[], p_value jsonb)
returns jsonb
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  for v_place in reverse cardinality(p_path)..1 loop
    p_value := jsonb_build_object(p_path[v_place], p_value);
  end loop;
  return p_value;
end;
$$;

comment on function haive_private.nested(text[], jsonb) is
'An object with a value at a path of keys.';

-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.write_memories(
  v record, -- as enter_collection answers to who writes
  p_memories jsonb,
  p_replace_only boolean
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_type text := format('%s.%I', haive_private.vector_schema(), (v.collection).storage);
  -- What is nobody's is everybody's to read, and not to replace.
  v_own text := v.own || case when v.actor is null then '' else ' and t.user_id is not null' end;
  v_changes constant text := $q$
    vec = coalesce(%1$s.vec, t.vec),
    metadata = %1$s.metadata,
    tokens = case when %1$s.vec is null then coalesce(%1$s.tokens, t.tokens) else %1$s.tokens end
  $q$;
  v_write text;
  v_given bigint;
  v_written bigint;
begin
  perform haive_private.refuse_sealed_memories();
  if jsonb_typeof(p_memories) is distinct from 'array' or jsonb_array_length(p_memories) > 10000 then
    raise exception using
      errcode = 'PT422',
      message = 'memories is no list of at most 10,000',
      hint = 'Each is {id, metadata, vector, tokens}.';
  end if;
  perform from jsonb_array_elements(p_memories) as m (memory)
  where
    (
      jsonb_typeof(m.memory -> 'id') = 'string' and length(m.memory ->> 'id') between 1 and 200
      and jsonb_typeof(m.memory -> 'metadata') = 'object'
      and coalesce(jsonb_typeof(m.memory -> 'vector'), 'null') in ('null', 'string')
      and coalesce(jsonb_typeof(m.memory -> 'tokens'), 'null') in ('null', 'string')
    ) is not true;
  if found then
    raise exception using
      errcode = 'PT422',
      message = 'a memory is not {id, metadata, vector, tokens}',
      hint = 'id is a text of 1 to 200 characters, metadata an object, vector a text such as [1,2], '
        'tokens base64; the last two may be left out.';
  end if;
  perform from jsonb_array_elements(p_memories) as m (memory)
  where
    pg_column_size(m.memory -> 'metadata') > 1048576
    or octet_length(m.memory ->> 'tokens') > 4194304;
  if found then
    raise exception using
      errcode = 'PT413',
      message = 'a memory is too large',
      hint = 'Metadata, its text included, is at most 1 MiB, and tokens 3 MiB.';
  end if;
  if v.actor is not null then
    perform from jsonb_array_elements(p_memories) as m (memory)
    -- A number is no user's id, and would make a memory of nobody's.
    where m.memory -> 'metadata' -> 'user_id' is distinct from to_jsonb(v.actor);
    if found then
      raise exception using
        errcode = 'PT403',
        message = 'members write memories of their own',
        hint = 'The user_id of each is the user''s; administrators and services write all.';
    end if;
  end if;
  if (v.collection).model is null and jsonb_path_exists(
    p_memories, '$[*].vector ? (@ != null)', '{}', true
  ) then
    raise exception using
      errcode = 'PT422',
      message = format('the collection %s has no vectors', (v.collection).name),
      hint = 'It was opened without a model.';
  end if;

  -- In one order, so that writers of the same memories do not wait in a circle. What is only replaced
  -- is locked first: it is there then, or somebody has removed it and it stays away.
  v_write := case
    when p_replace_only then format(
      $q$
        there as (
          select t.id from %1$s as t
          where %2$s and t.id in (select g.id from given as g)
          order by t.id
          for update
        ),
        written as (
          update %1$s as t set %3$s
          from given as g join there as h on h.id = g.id
          where t.id = g.id
          returning 1
        ),
        wanted as (
          select from written
          union all
          select from %1$s as t where t.id in (select g.id from given as g) and (%2$s) is not true
        )
      $q$, v.relation, v_own, format(v_changes, 'g')
    )
    else format(
      $q$
        written as (
          insert into %1$s as t (id, vec, metadata, tenant_id, tokens)
          select g.id, g.vec, g.metadata, $2, g.tokens from given as g order by g.id
          on conflict (id) do update set %3$s
          where %2$s
          returning 1
        ),
        wanted as (select from given)
      $q$, v.relation, v_own, format(v_changes, 'excluded')
    )
  end;
  perform set_config('persistence.putting', 'on', true);
  begin
    execute format(
      $q$
        with given as (
          select distinct on (m.memory ->> 'id')
            m.memory ->> 'id' as id, (m.memory ->> 'vector')::%1$s as vec,
            m.memory -> 'metadata' as metadata, decode(m.memory ->> 'tokens', 'base64') as tokens
          from jsonb_array_elements($1) with ordinality as m (memory, place)
          order by m.memory ->> 'id', m.place desc
        ),
        %2$s
        select (select count(*) from wanted), (select count(*) from written)
      $q$, v_type, v_write
    ) into v_given, v_written using p_memories, v.tenant;
  exception
    -- Of the values, and nothing else: what a trigger refuses has codes of ours.
    when data_exception or invalid_text_representation or numeric_value_out_of_range then
      raise exception using
        errcode = 'PT422',
        message = 'a vector or the tokens of a memory cannot be read',
        hint = format(
          'Vectors are of %s finite numbers, tokens base64.',
          coalesce((v.collection).dimensions::text, 'no')
        );
  end;
  perform set_config('persistence.putting', '', true);
  if v_written < v_given then
    raise exception using
      errcode = 'PT409',
      message = 'the id of a memory is taken',
      hint = 'It is another user''s or tenant''s. Give each memory an id of its own, a UUIDv7.';
  end if;
  return v_written;
end;
$$;

alter function haive_private.write_memories(record, jsonb, boolean) owner to haive_writer;

comment on function haive_private.write_memories(record, jsonb, boolean) is
'Writes memories to a collection that was entered.';

-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.put_memories(
  p_tenant text, p_collection text, p_memories jsonb, p_replace_only boolean
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  return haive_private.write_memories(
    haive_private.enter_collection(p_tenant, p_collection, true), p_memories, p_replace_only
  );
end;
$$;

alter function haive_private.put_memories(text, text, jsonb, boolean) owner to haive_writer;

comment on function haive_private.put_memories(text, text, jsonb, boolean) is
'What haive.put_memories does, for a caller without rights on the tables.';

create or replace function haive.put_memories(
  collection text, memories jsonb, tenant text default null, replace_only boolean default false
)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.put_memories(
    put_memories.tenant, put_memories.collection, put_memories.memories, put_memories.replace_only
  )
$$;

comment on function haive.put_memories(text, jsonb, text, boolean) is
'Writes memories, all or none, replacing those of the same id, and returns how many. Each is {id, '
'metadata, vector, tokens}: vector as text, [1,2,3]; tokens as base64. Without a vector the one that is '
'there stays, and without either the tokens too. With replace_only those that are not there (any more) '
'are left out: it does not bring back what was forgotten meanwhile.';

-- One round trip: candidates by words and by vectors, every signal for each of them, one order.
-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.rank_memories(
  v record, -- as enter_collection answers
  p_query jsonb
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  c_matched constant int := 4000; -- by words, before they are weighed
  c_weighed constant int := 600;
  v_language regconfig := 'pg_catalog.' || (v.collection).language;
  v_limit int;
  v_now timestamptz;
  v_recall double precision;
  v_half_life double precision;
  v_weights double precision[]; -- words, context, vector, speaker, recency, importance, neighbours
  v_vector text := p_query ->> 'vector';
  v_text text := left(coalesce(p_query ->> 'text', ''), 20000);
  v_spoken text;
  v_where text;
  v_as_of text;
  v_size record;
  v_terms record;
  v_rare text := ''; -- a tsquery of the words that candidates are found by
  v_common text := ''; -- of the others
  v_prescore text := '0 + 0';
  v_near text[] := '{}';
  v_alone boolean; -- whether nearness is all that there is to go by
  v_distance text;
  v_answer json;
begin
  perform haive_private.refuse_sealed_memories();
  begin
    v_limit := (p_query ->> 'limit')::int;
    v_now := coalesce((p_query ->> 'now')::timestamptz, now());
    v_as_of := to_char(
      coalesce((p_query ->> 'as_of')::timestamptz, v_now) at time zone 'UTC',
      'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
    );
    v_recall := coalesce((p_query ->> 'recall')::double precision, 0.97);
    v_half_life := coalesce((p_query -> 'weights' ->> 'recency_half_life')::double precision, 30);
    v_weights := array(
      select coalesce((p_query -> 'weights' ->> u.name)::double precision, u.usual)
      from unnest(
        array['words', 'context', 'vector', 'speaker', 'recency', 'importance', 'neighbours'],
        array[0.7, 1, 1, 1, 0, 0, 0.25]::double precision[]
      ) with ordinality as u (name, usual, place)
      order by u.place
    );
  exception
    when data_exception or invalid_text_representation then
      raise exception using
        errcode = 'PT422',
        message = 'a part of the query cannot be read',
        hint = 'limit is a whole number, weights and recall are numbers, now and as_of times.';
  end;
  if
    (v_limit between 1 and 1000 and v_recall > 0 and v_recall <= 1 and v_half_life > 0) is not true
    or exists (select from unnest(v_weights) as w where (w between 0 and 1e6) is not true)
  then
    raise exception using
      errcode = 'PT422',
      message = 'a part of the query is out of bounds',
      hint = 'limit is 1 to 1,000, recall above 0 and at most 1, weights are not negative.';
  elsif v_vector is not null and (v.collection).model is null then
    raise exception using
      errcode = 'PT422',
      message = format('the collection %s has no vectors', (v.collection).name),
      hint = 'It was opened without a model, and is searched by words.';
  end if;

  v_where := format(
    '%1$s and (t.valid_from is null or t.valid_from <= %2$L) and (t.valid_to is null or t.valid_to > %2$L)'
    ' and (t.expires_at is null or t.expires_at > %3$L) and %4$s and %5$s',
    v.own, v_as_of,
    to_char(v_now at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    case when p_query -> 'include_archived' = 'true' then 'true' else 'not t.archived' end,
    haive_private.memory_condition(p_query -> 'filter')
  );

  -- The words of the query, the rarest first; those that no memory has add nothing.
  v_size := haive_private.weigh_words(
    v.tenant, v.actor, v.collection, to_tsvector(v_language, v_text)
  );
  select
    coalesce(array_agg(f.lexeme order by f.in_all, f.lexeme), '{}') as lexemes,
    array_agg(ln(1 + greatest(v_size.memories - f.in_text + 0.5, 0.5) / (f.in_text + 0.5))
      order by f.in_all, f.lexeme) as of_text,
    array_agg(ln(1 + greatest(v_size.memories - f.in_all + 0.5, 0.5) / (f.in_all + 0.5))
      order by f.in_all, f.lexeme) as of_all,
    string_agg(quote_literal(f.lexeme), ' | ') filter (where f.before < c_matched) as rare,
    string_agg(quote_literal(f.lexeme), ' | ') filter (where f.before >= c_matched) as common,
    string_agg(
      format(
        '%s * (t.words @@ %L)::int',
        ln(1 + greatest(v_size.memories - f.in_all + 0.5, 0.5) / (f.in_all + 0.5)),
        quote_literal(f.lexeme)
      ), ' + '
    ) filter (where f.place <= 16) as prescore
  into v_terms
  from (
    select
      g.*,
      coalesce(sum(g.in_all) over (
        order by g.in_all, g.lexeme rows between unbounded preceding and 1 preceding
      ), 0) as before,
      row_number() over (order by g.in_all, g.lexeme) as place
    from unnest(v_size.lexemes, v_size.in_text, v_size.in_all) as g (lexeme, in_text, in_all)
  ) as f;
  if v_weights[1] + v_weights[2] > 0 and v_terms.rare is not null then
    v_rare := v_terms.rare;
    v_common := coalesce(v_terms.common, '');
    v_prescore := v_terms.prescore;
  end if;
  v_spoken := ' ' || btrim(regexp_replace(lower(v_text), '[^[:alnum:]]+', ' ', 'g')) || ' ';
  v_alone := v_rare = '' and (v_weights[4] = 0 or v_spoken = '  ') and v_weights[5] + v_weights[6] = 0;
  if v_alone then
    v_weights[7] := 0; -- a query of no words is about vectors, and not about a conversation
  end if;

  if v_vector is not null and v_weights[3] > 0 then
    begin
      v_near := haive_private.nearest_memories(
        v.collection, v_where,
        coalesce(p_query -> 'filter', 'null') <> 'null' or v.actor is not null, v.tenant, v_vector,
        -- Alone, the nearest are the answer; with other signals one that is not may be better.
        case when v_alone then v_limit else greatest(100, 3 * v_limit) end,
        v_recall
      );
    exception
      when data_exception or invalid_text_representation or numeric_value_out_of_range then
        raise exception using
          errcode = 'PT422',
          message = 'the vector of the query cannot be read',
          hint = format('It is a text such as [1,2] of %s finite numbers.', (v.collection).dimensions);
    end;
    v_distance := format(
      'nullif(%1$s(t.vec operator(%2$s.%3$s) %4$L::%2$s.%5$I), ''NaN'')',
      case when (v.collection).metric = 'cosine' then '1 - ' else '-' end,
      haive_private.vector_schema(),
      case (v.collection).metric when 'cosine' then '<=>' when 'l2' then '<->' else '<#>' end,
      v_vector, (v.collection).storage
    );
  end if;

  if v_alone and cardinality(v_near) = v_limit then
    -- What follows, without what is zero: half of the time would be its planning.
    execute format(
      $q$
        select coalesce(
          json_agg(
            case
              when $3 then json_build_object(
                'id', b.id, 'metadata', b.metadata, 'score', b.score, 'parts', json_build_object(
                  'words', 0, 'context', 0, 'vector', b.score, 'neighbours', 0, 'speaker', 0,
                  'recency', 0, 'importance', 0
                )
              )
              else json_build_object('id', b.id, 'metadata', b.metadata, 'score', b.score)
            end
            order by b.score desc, b.id
          ),
          '[]'
        )
        from (
          select
            s.id, s.metadata,
            $2 * coalesce(
              (s.vector - min(s.vector) over ())
              / nullif(max(s.vector) over () - min(s.vector) over (), 0),
              (s.vector is not null)::int
            ) as score
          from (
            -- The condition once more: what is read now may have been changed since they were found.
            select t.id, t.metadata, %2$s as vector from %1$s as t
            where t.id = any($1) and %3$s
          ) as s
        ) as b
      $q$, v.relation, v_distance, v_where
    ) into v_answer using v_near, v_weights[3], coalesce(p_query -> 'parts' = 'true', false);
  else
    execute format(
      $q$
        with matched as materialized (
          select t.id, t.words from %1$s as t
          where $1 <> '' and %2$s and t.words @@ $1::tsquery
          limit $2
        ),
        -- What is rare among all may be another's or fail the filter: then the common words are all
        -- that there is to go by. Not read where the rare ones found enough.
        more as materialized (
          select t.id, t.words from %1$s as t
          where $18 <> '' and (select count(*) from matched) < $5
            and %2$s and t.words @@ $18::tsquery and not t.words @@ $1::tsquery
          limit $2
        ),
        weighed as (
          select t.id
          from (select * from matched union all select * from more) as t
          order by %3$s desc, t.id
          limit $3
        ),
        found as materialized (
          select w.id from weighed as w
          union
          select t.id from %1$s as t where t.id = any($4) and %2$s
        ),
        -- A query that matches less than was asked for still gets what passes the filter.
        rest as (
          select t.id from %1$s as t
          where (select count(*) from found) < $5 and %2$s
          order by t.id desc
          limit $5
        ),
        candidates as (
          select f.id from found as f
          union
          select r.id from rest as r
        ),
        told as materialized (
          select
            c.id, p.name,
            -- A name or its first word, and no role.
            case
              when p.name not in ('', 'user', 'assistant', 'system', 'tool', 'human', 'ai', 'bot')
                and (
                  strpos($6, ' ' || p.name || ' ') > 0
                  or (
                    length(split_part(p.name, ' ', 1)) > 2
                    and strpos($6, ' ' || split_part(p.name, ' ', 1) || ' ') > 0
                  )
                )
                then 1
              else 0
            end as speaker
          from candidates as c
          join %1$s as t on t.id = c.id
          cross join lateral (
            select
              btrim(regexp_replace(
                lower(left(coalesce(t.metadata ->> 'speaker', ''), 200)), '[^[:alnum:]]+', ' ', 'g'
              )) as name
          ) as p
        ),
        -- Whom the query names the speaker's signal finds already, and others call them by that name:
        -- as a word it counts a quarter. It is rare among all users of a tenant, and not with one.
        names as (
          select
            case
              when $15[4] > 0
                then tsvector_to_array(to_tsvector($17, coalesce(string_agg(distinct d.name, ' '), '')))
              else '{}'
            end as lexemes
          from told as d
          where d.speaker = 1
        ),
        signals as materialized (
          select
            t.id,
            coalesce(b.words, 0) as words, coalesce(b.context, 0) as context,
            %4$s as vector,
            c.speaker,
            case
              -- A date, and neither now nor infinity.
              when coalesce(t.happened_at, t.metadata ->> 'created_at') ~ '^\d{4}-'
                and pg_input_is_valid(coalesce(t.happened_at, t.metadata ->> 'created_at'), 'timestamptz')
                then power(
                  0.5, least(1000, greatest(0, extract(epoch from (
                    $7 - coalesce(t.happened_at, t.metadata ->> 'created_at')::timestamptz
                  )) / 86400 / $8))::double precision
                )
              else 0
            end as recency,
            coalesce(t.importance, 0) as importance,
            case when t.metadata ->> 'kind' = 'turn' then t.metadata ->> 'conversation_id' end as talk,
            case
              -- Of an int, so that the one beside it is in bounds too.
              when pg_input_is_valid(t.metadata ->> 'seq', 'int')
                then (t.metadata ->> 'seq')::int::bigint
            end as seq
          from told as c
          join %1$s as t on t.id = c.id
          cross join names as n
          cross join lateral (
            -- BM25 of both at once, with the k1 and b of Trotman et al. 2014, Improvements to BM25.
            select
              sum(
                $10[x.term] * x.share * x.tf * 1.9
                / (x.tf + 0.9 * (0.6 + 0.4 * x.text_words * $14 / $12))
              ) as words,
              sum(
                $11[x.term] * x.share * x.tf_all * 1.9
                / (x.tf_all + 0.9 * (0.6 + 0.4 * x.all_words * $14 / $13))
              ) as context
            from (
              select
                array_position($9, u.lexeme) as term,
                case when u.lexeme = any(n.lexemes) then 0.25 else 1 end as share,
                cardinality(array_positions(u.weights, 'A'))::double precision as tf,
                cardinality(u.positions)::double precision as tf_all,
                sum(cardinality(array_positions(u.weights, 'A'))) over () as text_words,
                sum(cardinality(u.positions)) over () as all_words
              from unnest(t.words) as u
              where cardinality($9) > 0
            ) as x
            where x.term is not null
          ) as b
        ),
        scaled as (
          select
            s.id, s.talk, s.seq,
            $15[1] * coalesce(
              (s.words - min(s.words) over ()) / nullif(max(s.words) over () - min(s.words) over (), 0),
              (s.words > 0)::int
            ) as words,
            $15[2] * coalesce(
              (s.context - min(s.context) over ())
              / nullif(max(s.context) over () - min(s.context) over (), 0),
              (s.context > 0)::int
            ) as context,
            $15[3] * coalesce(
              (s.vector - min(s.vector) over ())
              / nullif(max(s.vector) over () - min(s.vector) over (), 0),
              (s.vector is not null)::int
            ) as vector,
            $15[4] * coalesce(
              (s.speaker - min(s.speaker) over ())::double precision
              / nullif(max(s.speaker) over () - min(s.speaker) over (), 0), s.speaker
            ) as speaker,
            $15[5] * coalesce(
              (s.recency - min(s.recency) over ())
              / nullif(max(s.recency) over () - min(s.recency) over (), 0), (s.recency > 0)::int
            ) as recency,
            $15[6] * coalesce(
              (s.importance - min(s.importance) over ())
              / nullif(max(s.importance) over () - min(s.importance) over (), 0),
              (s.importance > 0)::int
            ) as importance
          from signals as s
        ),
        -- A turn between others that fit is likely to be of the same matter.
        beside as (
          select
            s.*,
            $15[7] * (
              case
                when lag(s.seq) over talk = s.seq - 1
                  then lag(s.words + s.context + coalesce(s.vector, 0)) over talk
                else 0
              end
              + case
                when lead(s.seq) over talk = s.seq + 1
                  then lead(s.words + s.context + coalesce(s.vector, 0)) over talk
                else 0
              end
            ) * (s.talk is not null)::int as neighbours
          from scaled as s
          window talk as (partition by s.talk order by s.seq, s.id)
        ),
        best as (
          select
            s.*,
            s.words + s.context + s.vector + s.neighbours + s.speaker + s.recency + s.importance
              as score
          from beside as s
          order by score desc, s.id
          limit $5
        )
        select coalesce(
          json_agg(
            case
              when $16 then json_build_object(
                'id', b.id, 'metadata', t.metadata, 'score', b.score, 'parts', json_build_object(
                  'words', b.words, 'context', b.context, 'vector', b.vector,
                  'neighbours', b.neighbours, 'speaker', b.speaker, 'recency', b.recency,
                  'importance', b.importance
                )
              )
              else json_build_object('id', b.id, 'metadata', t.metadata, 'score', b.score)
            end
            order by b.score desc, b.id
          ),
          '[]'
        )
        from best as b
        join %1$s as t on t.id = b.id
      $q$, v.relation, v_where, v_prescore, coalesce(v_distance, 'null::double precision')
    ) into v_answer using
      v_rare, c_matched, c_weighed, v_near, v_limit, v_spoken, v_now, v_half_life,
      v_terms.lexemes, v_terms.of_text, v_terms.of_all, v_size.text_words, v_size.all_words,
      v_size.memories, v_weights, coalesce(p_query -> 'parts' = 'true', false), v_language,
      v_common;
  end if;
  return v_answer;
end;
$$;

alter function haive_private.rank_memories(record, jsonb) owner to haive_writer;

comment on function haive_private.rank_memories(record, jsonb) is
'The best memories of a collection that was entered, best first.';

-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.search_memories(
  p_tenant text, p_collection text, p_query jsonb
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, false);
  v_answer json := haive_private.rank_memories(v, p_query);
begin
  if v.audit_reads then
    perform haive_private.audit_read(
      'search_memories', jsonb_build_object((v.collection).name, json_array_length(v_answer)),
      json_array_length(v_answer)
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.search_memories(text, text, jsonb) owner to haive_writer;

comment on function haive_private.search_memories(text, text, jsonb) is
'What haive.search_memories does, for a caller without rights on the tables.';

create or replace function haive.search_memories(
  collection text, query jsonb, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.search_memories(
    search_memories.tenant, search_memories.collection, search_memories.query
  )
$$;

comment on function haive.search_memories(text, jsonb, text) is
'The best memories for {text, vector, limit, filter, weights, now, as_of, include_archived, recall, '
'parts}, of which limit is needed: a list of {id, metadata, score} and, where wanted, parts, best '
'first. weights has words, context, vector, speaker, recency and importance, each scaled to 0…1 over '
'the candidates; neighbours, the share of the first three that a turn has of those beside it; and '
'recency_half_life in days.';

-- Items are memories under a name of their own: a namespace, which is a list of labels, and a key. They
-- are memories of their collection in all else, and so what erases, meters, audits and counts those does
-- it to them.
-- The metadata of an item has namespace, path, key, value, parts, created_at and timestamp (of its last
-- change), and where it has them text, exact, ttl (in minutes), expires_at and user_id. One with more
-- texts than one has a memory for each; those after the first name it as their item.

-- The labels so that paths have the order of lists of labels, and those under a namespace are a range.
create or replace function haive_private.namespace_path(p_namespace jsonb)
returns text
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return coalesce((
    select
      string_agg(
        replace(replace(u.label, chr(2), chr(2) || chr(2)), chr(1), chr(2) || chr(1)) || chr(1),
        '' order by u.place
      )
    from jsonb_array_elements_text(p_namespace) with ordinality as u (label, place)
  ), '');
end;
$$;

comment on function haive_private.namespace_path(jsonb) is
'A namespace as text: each label ended by chr(1), and chr(1) and chr(2) in it behind a chr(2).';

-- The least path behind all that are under this one.
create or replace function haive_private.behind_path(p_path text)
returns text
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return left(p_path, -1) || chr(2);
end;
$$;

comment on function haive_private.behind_path(text) is
'Where the paths under one that is not empty end.';

create or replace function haive_private.time_text(p_time timestamptz)
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return to_char(p_time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
end;
$$;

comment on function haive_private.time_text(timestamptz) is
'A time as the metadata of memories has it, whose order as text is the order in time.';

-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.index_memory_items(p_tenant text, p_collection text)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, true);
  v_index record;
  v_made bigint := 0;
begin
  if v.actor is not null then
    raise exception using
      errcode = 'PT403',
      message = 'only services build indexes',
      hint = 'Call with a secret key, or on a direct connection.';
  end if;
  perform pg_advisory_xact_lock(hashtextextended('haive/memory collections', 0));
  for v_index in
    select 'ix_' || u.name || '_' || left(md5((v.collection).table_name), 16) as name, u.columns
    from (
      values
      ('path', '(tenant_id, ((metadata ->> ''path'') collate "C"), happened_at)'),
      ('expiry', '(tenant_id, expires_at) where expires_at is not null')
    ) as u (name, columns)
  loop
    -- "if not exists" would wait for writers before it looks.
    continue when to_regclass(format('vecs.%I', v_index.name)) is not null;
    execute format('create index %I on %s %s', v_index.name, v.relation, v_index.columns);
    v_made := v_made + 1;
  end loop;
  return v_made;
end;
$$;

alter function haive_private.index_memory_items(text, text) owner to haive_writer;

comment on function haive_private.index_memory_items(text, text) is
'What haive.index_memory_items does, for a caller without rights on the tables.';

create or replace function haive.index_memory_items(collection text, tenant text default null)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.index_memory_items(
    index_memory_items.tenant, index_memory_items.collection
  )
$$;

comment on function haive.index_memory_items(text, text) is
'Makes the indexes that items are found by in a collection, where they are not there, and returns how '
'many. For services only; all tenants of the installation share them.';

-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.put_memory_items(
  p_tenant text, p_collection text, p_items jsonb
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, true);
  v_ids text[];
  v_bucket int;
  v_there jsonb;
  v_now timestamptz;
  v_memories jsonb;
begin
  if jsonb_typeof(p_items) is distinct from 'array' or jsonb_array_length(p_items) > 1000 then
    raise exception using
      errcode = 'PT422',
      message = 'items is no list of at most 1,000',
      hint = 'Each is {id, namespace, key, value, exact, texts, ttl, user_id}.';
  end if;
  perform from jsonb_array_elements(p_items) as m (item)
  where
    (
      jsonb_typeof(m.item -> 'id') = 'string' and length(m.item ->> 'id') between 1 and 200
      and coalesce(jsonb_typeof(m.item -> 'value'), 'null') = 'null'
      or jsonb_typeof(m.item -> 'id') = 'string' and m.item ->> 'id' ~ '^[0-9a-f-]{36}$'
      and jsonb_typeof(m.item -> 'namespace') = 'array' and jsonb_typeof(m.item -> 'key') = 'string'
      and not jsonb_path_exists(m.item, 'strict $.namespace[*] ? (@.type() != "string")')
      and jsonb_typeof(m.item -> 'value') = 'object'
      and coalesce(jsonb_typeof(m.item -> 'exact'), 'null') in ('null', 'string')
      and coalesce(jsonb_typeof(m.item -> 'user_id'), 'null') in ('null', 'string')
      and jsonb_typeof(coalesce(m.item -> 'texts', '[]')) = 'array'
      and not jsonb_path_exists(m.item, 'lax $.texts[*] ? (!(@.text.type() == "string"))')
      and case jsonb_typeof(coalesce(m.item -> 'ttl', 'null'))
        when 'null' then true when 'number' then (m.item ->> 'ttl')::numeric between 0 and 1e9
      end
    ) is not true;
  if found then
    raise exception using
      errcode = 'PT422',
      message = 'an item is not {id, namespace, key, value, exact, texts, ttl, user_id}',
      hint = 'id is a UUID, namespace a list of texts, value an object, texts a list of {text, vector}, '
        'ttl 0 to 1e9 minutes. One without a value is removed.';
  end if;
  -- An index holds no longer ones.
  perform from jsonb_array_elements(p_items) as m (item)
  where octet_length(haive_private.namespace_path(m.item -> 'namespace')) > 2000;
  if found then
    raise exception using
      errcode = 'PT422',
      message = 'a namespace is too long',
      hint = 'Its labels are at most 2,000 bytes together, and one more for each.';
  end if;

  -- Of those who write an item at once, one after the other, from before it is there. By 64 locks and
  -- in their order, so that nobody waits in a circle and many items need no more.
  select array_agg(distinct m.item ->> 'id') into v_ids from jsonb_array_elements(p_items) as m (item);
  for v_bucket in
    select distinct hashtext(u.id) & 63 as n from unnest(v_ids) as u (id) order by 1
  loop
    perform pg_advisory_xact_lock(
      hashtextextended('haive/memory items/' || v.tenant || '/' || v_bucket, 0)
    );
  end loop;
  -- The first memory of an item before its others: so does who removes what has expired.
  execute format(
    $q$
      select coalesce(jsonb_object_agg(o.id, jsonb_build_object(
        'parts', o.parts, 'created_at', o.created_at
      )), '{}')
      from (
        select
          t.id, t.metadata -> 'parts' as parts,
          case when t.expires_at is null or t.expires_at > $2 then t.metadata ->> 'created_at' end
            as created_at
        from %s as t
        where %s and t.id = any($1)
        order by t.id
        for update
      ) as o
    $q$, v.relation, v.own
  ) into v_there using v_ids, haive_private.time_text(clock_timestamp());

  v_now := clock_timestamp();
  select
    jsonb_agg(jsonb_build_object(
      'id', haive_private.item_part(m.item ->> 'id', p.part),
      'vector', m.item -> 'texts' -> p.part -> 'vector',
      'metadata',
      jsonb_build_object(
        'kind', 'note', 'namespace', m.item -> 'namespace', 'key', m.item -> 'key',
        'path', haive_private.namespace_path(m.item -> 'namespace'), 'value', m.item -> 'value',
        'parts', m.parts, 'timestamp', m.at,
        'created_at', coalesce(v_there -> (m.item ->> 'id') ->> 'created_at', m.at)
      )
      || case
        when m.item -> 'texts' -> p.part is null then '{}'
        else jsonb_build_object('text', m.item -> 'texts' -> p.part -> 'text')
      end
      || case
        when m.item ->> 'exact' is null then '{}' else jsonb_build_object('exact', m.item -> 'exact')
      end
      || case
        when m.item ->> 'user_id' is null then '{}'
        else jsonb_build_object('user_id', m.item -> 'user_id')
      end
      || case
        when m.item ->> 'ttl' is null then '{}'
        else jsonb_build_object(
          'ttl', m.item -> 'ttl',
          'expires_at', haive_private.time_text(
            v_now + make_interval(secs => 60 * (m.item ->> 'ttl')::double precision)
          )
        )
      end
      || case
        when p.part = 0 then '{}'
        else jsonb_build_object('item', m.item -> 'id', 'sources', jsonb_build_array(m.item -> 'id'))
      end
    ))
  into v_memories
  from (
    select distinct on (e.item ->> 'id')
      e.item, greatest(1, jsonb_array_length(coalesce(e.item -> 'texts', '[]'))) as parts,
      haive_private.time_text(v_now + e.place * interval '1 microsecond') as at
    from jsonb_array_elements(p_items) with ordinality as e (item, place)
    order by e.item ->> 'id', e.place desc
  ) as m
  cross join lateral generate_series(0, m.parts - 1) as p (part)
  where jsonb_typeof(m.item -> 'value') = 'object';
  if v_memories is not null then
    perform haive_private.write_memories(v, v_memories, false);
  end if;

  -- What they were before, and are not any more.
  execute format(
    $q$
      delete from %s as t
      where %s and t.id = any(array(
        select haive_private.item_part(o.id, p.part)
        from jsonb_each($1) as o (id, item)
        cross join lateral generate_series(0, coalesce((o.item ->> 'parts')::int, 1) - 1) as p (part)
      )) and t.id <> all($2)
    $q$, v.relation, v.own || case when v.actor is null then '' else ' and t.user_id is not null' end
  ) using
    v_there, array(select w.memory ->> 'id' from jsonb_array_elements(v_memories) as w (memory));
  return cardinality(v_ids);
end;
$$;

alter function haive_private.put_memory_items(text, text, jsonb) owner to haive_writer;

comment on function haive_private.put_memory_items(text, text, jsonb) is
'What haive.put_memory_items does, for a caller without rights on the tables.';

create or replace function haive_private.item_part(p_item text, p_part int)
returns text
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return case when p_part = 0 then p_item else md5(p_item || '/' || p_part)::uuid::text end;
end;
$$;

comment on function haive_private.item_part(text, int) is
'The id of the memory for a text of an item; of the first one it is the item''s own.';

create or replace function haive.put_memory_items(
  collection text, items jsonb, tenant text default null
)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.put_memory_items(
    put_memory_items.tenant, put_memory_items.collection, put_memory_items.items
  )
$$;

comment on function haive.put_memory_items(text, jsonb, text) is
'Writes items, all or none, each in the place of the one of its id, and returns how many; the last one '
'of an id counts. Each is {id, namespace, key, value, exact, texts, ttl, user_id}: texts is what it is '
'found by, a list of {text, vector}; exact is kept beside the value. One without a value is removed. It '
'keeps the time it was made at, and expires ttl minutes from now.';

-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.get_memory_items(
  p_tenant text, p_collection text, p_ids text[], p_refresh boolean[]
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, false);
  v_answer json;
  v_used text[];
begin
  if cardinality(p_ids) > 10000 or cardinality(p_ids) <> cardinality(p_refresh) then
    raise exception using
      errcode = 'PT422',
      message = 'ids are more than 10,000, or not as many as refresh',
      hint = 'Ask for them in several calls.';
  end if;
  execute format(
    $q$
      select coalesce(json_agg(m.doc order by m.place), '[]'), array_agg(m.id) filter (where m.used)
      from (
        select u.place, t.id, u.refresh and t.metadata ? 'ttl' as used, %2$s as doc
        from unnest($1, $2) with ordinality as u (id, refresh, place)
        join %1$s as t on t.id = u.id
        where
          %3$s and t.metadata ? 'path' and not t.metadata ? 'item'
          and (t.expires_at is null or t.expires_at > $3)
      ) as m
    $q$, v.relation, haive_private.memory_item_doc('null'), v.own
  ) into v_answer, v_used using p_ids, p_refresh, haive_private.time_text(clock_timestamp());
  perform haive_private.refresh_memory_items(v, v_used);
  if v.audit_reads then
    perform haive_private.audit_read(
      'get_memory_items', jsonb_build_object((v.collection).name, json_array_length(v_answer)),
      json_array_length(v_answer)
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.get_memory_items(text, text, text[], boolean[])
owner to haive_writer;

comment on function haive_private.get_memory_items(text, text, text[], boolean[]) is
'What haive.get_memory_items does, for a caller without rights on the tables.';

create or replace function haive_private.memory_item_doc(p_score text)
returns text
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return format(
    'json_build_object(''id'', coalesce(t.metadata ->> ''item'', t.id), '
    '''namespace'', t.metadata -> ''namespace'', ''key'', t.metadata -> ''key'', '
    '''value'', case when t.metadata ? ''exact'' then ''{}'' else t.metadata -> ''value'' end, '
    '''exact'', t.metadata -> ''exact'', ''created_at'', t.metadata -> ''created_at'', '
    '''updated_at'', t.metadata -> ''timestamp'', ''score'', %s)', p_score
  );
end;
$$;

comment on function haive_private.memory_item_doc(text) is
'The expression that makes an item JSON, with an expression for its score.';

-- Reading is not refused because this cannot be done: where the caller may only read, the tenant is
-- about to be moved or recounted, or somebody changes the item, it expires as it would have. A write, with
-- all indexes, for each read would cost more than the hundredth of its time that is left out.
create or replace function haive_private.refresh_memory_items(
  v record, -- as enter_collection answers to who reads
  p_ids text[]
)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  if
    p_ids is null or current_setting('transaction_read_only') = 'on'
    or not pg_try_advisory_xact_lock_shared(hashtextextended('haive/writers/' || v.tenant, 0))
    or not exists (
      select from haive.tenants as t where t.tenant_id = v.tenant and t.status = 'active'
    )
    or exists (
      select from haive.members as m
      where m.tenant_id = v.tenant and m.user_id = haive.current_actor() and m.role = 'reader'
    )
  then
    return;
  end if;
  execute format(
    $q$
      with first as (
        select t.id, t.metadata from %1$s as t
        where
          %2$s and t.id = any($1) and t.metadata ? 'ttl'
          and t.expires_at > haive_private.time_text($2)
          and t.expires_at < haive_private.time_text(
            $2 + 0.99 * make_interval(secs => 60 * (t.metadata ->> 'ttl')::double precision)
          )
        order by t.id
        for update skip locked
      ),
      parts as (
        select haive_private.item_part(f.id, p.part) as id, f.metadata -> 'ttl' as ttl
        from first as f
        cross join lateral generate_series(0, (f.metadata ->> 'parts')::int - 1) as p (part)
      )
      update %1$s as t
      set metadata = t.metadata || jsonb_build_object(
        'expires_at', haive_private.time_text(
          $2 + make_interval(secs => 60 * (p.ttl #>> '{}')::double precision)
        )
      )
      from parts as p
      where t.id = p.id
    $q$, v.relation, v.own || case when v.actor is null then '' else ' and t.user_id is not null' end
  ) using p_ids, clock_timestamp();
end;
$$;

alter function haive_private.refresh_memory_items(record, text[]) owner to haive_writer;

comment on function haive_private.refresh_memory_items(record, text[]) is
'Lets items that were read live for their time from now on.';

create or replace function haive.get_memory_items(
  collection text, ids text[], refresh boolean[], tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.get_memory_items(
    get_memory_items.tenant, get_memory_items.collection, get_memory_items.ids,
    get_memory_items.refresh
  )
$$;

comment on function haive.get_memory_items(text, text[], boolean[], text) is
'Items by id in the order asked for, without those that are not there or have expired: a list of {id, '
'namespace, key, value, exact, created_at, updated_at, score}; one with exact has no value. Those with '
'refresh live for their time from now on.';

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
        v_ids := haive_private.nearest_memories(
          v.collection, v_where, true, v.tenant, v_vector, v_size, p_recall
        );
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

-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.list_memory_namespaces(
  p_tenant text, p_collection text, p_listings jsonb
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, false);
  v_listing jsonb;
  v_conditions jsonb;
  v_depth int;
  v_limit int;
  v_offset int;
  v_where text;
  v_begin text;
  v_namespaces json;
  v_answers json[] := '{}';
  v_count bigint := 0;
begin
  if jsonb_typeof(p_listings) is distinct from 'array' or jsonb_array_length(p_listings) > 100 then
    raise exception using
      errcode = 'PT422',
      message = 'listings is no list of at most 100',
      hint = 'Each is {conditions, max_depth, limit, offset, user_id}.';
  end if;
  for v_listing in select s.listing from jsonb_array_elements(p_listings) as s (listing) loop
    begin
      v_depth := coalesce((v_listing ->> 'max_depth')::int, 1000000);
      v_limit := (v_listing ->> 'limit')::int;
      v_offset := coalesce((v_listing ->> 'offset')::int, 0);
    exception
      when data_exception or invalid_text_representation then
        raise exception using
          errcode = 'PT422',
          message = 'a part of the listing cannot be read',
          hint = 'max_depth, limit and offset are whole numbers.';
    end;
    v_conditions := coalesce(nullif(v_listing -> 'conditions', 'null'), '[]');
    if
      (
        v_depth > 0 and v_limit between 0 and 10000 and v_offset between 0 and 1000000
        and jsonb_typeof(v_conditions) = 'array'
      ) is not true
      or jsonb_path_exists(v_conditions, 'strict $[*] ? (!(@.path.type() == "array"))')
      or jsonb_path_exists(
        v_conditions, 'strict $[*] ? (!(@.match_type == "prefix" || @.match_type == "suffix"))'
      )
    then
      raise exception using
        errcode = 'PT422',
        message = 'a part of the listing is out of bounds',
        hint = 'max_depth is 1 or more, limit is 0 to 10,000, offset to 1,000,000, conditions a list of '
          '{match_type, path} with prefix or suffix.';
    end if;
    -- The labels that all begin with, up to the first that may be any.
    select haive_private.namespace_path(coalesce(jsonb_agg(l.label order by l.place), '[]')) into v_begin
    from (
      select e.label, e.place, bool_or(e.label = '"*"') over (order by e.place) as any_label
      from (
        select c.condition from jsonb_array_elements(v_conditions) as c (condition)
        where c.condition ->> 'match_type' = 'prefix'
        limit 1
      ) as c
      cross join lateral jsonb_array_elements(c.condition -> 'path') with ordinality as e (label, place)
    ) as l
    where not l.any_label;
    v_where := format(
      '%s and (t.expires_at is null or t.expires_at > %L) and %s%s', v.own,
      haive_private.time_text(clock_timestamp()),
      case
        when coalesce(v_listing -> 'user_id', 'null') = 'null' then 't.user_id is null'
        else format('t.user_id = %L', v_listing ->> 'user_id')
      end,
      case
        when v_begin = '' then ''
        else format(' and (t.metadata ->> ''path'') collate "C" < %L', haive_private.behind_path(v_begin))
      end
    );
    -- From one namespace to the next by the index, however many items are in it, and past all that are
    -- cut to the same labels.
    execute format(
      $q$
        with recursive found as (
          (
            select
              t.metadata ->> 'path' as path, t.metadata -> 'namespace' as namespace,
              haive_private.matches_namespace(t.metadata -> 'namespace', $1) as matched
            from %1$s as t
            where %2$s and (t.metadata ->> 'path') collate "C" >= $2
            order by (t.metadata ->> 'path') collate "C"
            limit 1
          )
          union all
          select
            n.path, n.namespace, haive_private.matches_namespace(n.namespace, $1)
          from found as f
          cross join lateral (
            select t.metadata ->> 'path' as path, t.metadata -> 'namespace' as namespace
            from %1$s as t
            where
              %2$s and (t.metadata ->> 'path') collate "C" >= case
                when f.matched and jsonb_array_length(f.namespace) > $3 - 1
                  then haive_private.behind_path(
                    haive_private.namespace_path(haive_private.first_labels(f.namespace, $3))
                  )
                else f.path || chr(1)
              end
            order by (t.metadata ->> 'path') collate "C"
            limit 1
          ) as n
        )
        select coalesce(json_agg(l.namespace), '[]')
        from (
          select haive_private.first_labels(f.namespace, $3) as namespace
          from found as f
          where f.matched
          offset $4
          limit $5
        ) as l
      $q$, v.relation, v_where
    ) into v_namespaces using v_conditions, v_begin, v_depth, v_offset, v_limit;
    v_answers := v_answers || v_namespaces;
    v_count := v_count + json_array_length(v_namespaces);
  end loop;
  if v.audit_reads then
    perform haive_private.audit_read(
      'list_memory_namespaces', jsonb_build_object((v.collection).name, v_count), v_count
    );
  end if;
  return array_to_json(v_answers);
end;
$$;

alter function haive_private.list_memory_namespaces(text, text, jsonb) owner to haive_writer;

comment on function haive_private.list_memory_namespaces(text, text, jsonb) is
'What haive.list_memory_namespaces does, for a caller without rights on the tables.';

create or replace function haive_private.first_labels(p_namespace jsonb, p_count int)
returns jsonb
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  if jsonb_array_length(p_namespace) <= p_count then
    return p_namespace;
  end if;
  return (
    select jsonb_agg(e.label order by e.place)
    from jsonb_array_elements(p_namespace) with ordinality as e (label, place)
    where e.place <= p_count
  );
end;
$$;

comment on function haive_private.first_labels(jsonb, int) is
'A namespace cut to so many labels.';

create or replace function haive_private.matches_namespace(p_namespace jsonb, p_conditions jsonb)
returns boolean
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return not exists (
    select from jsonb_array_elements(p_conditions) as c (condition)
    cross join lateral (
      select jsonb_array_length(p_namespace) - jsonb_array_length(c.condition -> 'path') as more
    ) as d
    where
      d.more < 0
      or exists (
        select
        from jsonb_array_elements_text(c.condition -> 'path') with ordinality as p (label, place)
        where
          p.label <> '*'
          and p.label is distinct from p_namespace ->> (
            p.place - 1 + case when c.condition ->> 'match_type' = 'suffix' then d.more else 0 end
          )::int
      )
  );
end;
$$;

comment on function haive_private.matches_namespace(jsonb, jsonb) is
'Whether a namespace begins or ends as all conditions say; the label * in them is any.';

create or replace function haive.list_memory_namespaces(
  collection text, listings jsonb, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.list_memory_namespaces(
    list_memory_namespaces.tenant, list_memory_namespaces.collection,
    list_memory_namespaces.listings
  )
$$;

comment on function haive.list_memory_namespaces(text, jsonb, text) is
'The namespaces that have items, for each of {conditions, max_depth, limit, offset, user_id} a list, in '
'the order of their labels and each once after it was cut to max_depth labels. A condition is '
'{match_type, path}: prefix or suffix, and labels of which * is any.';

-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.expire_memory_items(
  p_tenant text, p_collection text, p_batch int
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, true);
  v_own text := v.own || case when v.actor is null then '' else ' and t.user_id is not null' end;
  v_answer bigint;
begin
  if (p_batch between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'batch is not between 1 and 10000',
      hint = 'Call again while as many were removed.';
  end if;
  -- The first memory of an item before its others, as who writes it. One that somebody else has is read,
  -- changed or removed just now.
  execute format(
    $q$
      with doomed as (
        select t.id, t.metadata from %1$s as t
        where
          %2$s and t.expires_at <= $1 and t.metadata ? 'path' and not t.metadata ? 'item'
        order by t.expires_at
        limit $2
        for update skip locked
      ),
      gone as (
        delete from %1$s as t
        using (
          select haive_private.item_part(d.id, p.part) as id
          from doomed as d
          cross join lateral generate_series(0, (d.metadata ->> 'parts')::int - 1) as p (part)
        ) as p
        where t.id = p.id and %2$s
      )
      select count(*) from doomed
    $q$, v.relation, v_own
  ) into v_answer using haive_private.time_text(clock_timestamp()), p_batch;
  return v_answer;
end;
$$;

alter function haive_private.expire_memory_items(text, text, int) owner to haive_writer;

comment on function haive_private.expire_memory_items(text, text, int) is
'What haive.expire_memory_items does, for a caller without rights on the tables.';

create or replace function haive.expire_memory_items(
  collection text, batch int default 1000, tenant text default null
)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.expire_memory_items(
    expire_memory_items.tenant, expire_memory_items.collection, expire_memory_items.batch
  )
$$;

comment on function haive.expire_memory_items(text, int, text) is
'Removes items that have expired, up to batch of them, and returns how many.';

-- Items of memory, as 990_memory_grants.
revoke all on function
haive.index_memory_items(text, text),
haive.put_memory_items(text, jsonb, text),
haive.get_memory_items(text, text[], boolean[], text),
haive.search_memory_items(text, jsonb, text),
haive.list_memory_namespaces(text, jsonb, text),
haive.expire_memory_items(text, int, text)
from public, anon, authenticated, service_role, haive_client;
revoke all on function
haive_private.write_memories(record, jsonb, boolean),
haive_private.rank_memories(record, jsonb),
haive_private.namespace_path(jsonb),
haive_private.behind_path(text),
haive_private.time_text(timestamptz),
haive_private.index_memory_items(text, text),
haive_private.put_memory_items(text, text, jsonb),
haive_private.item_part(text, int),
haive_private.get_memory_items(text, text, text[], boolean[]),
haive_private.memory_item_doc(text),
haive_private.refresh_memory_items(record, text[]),
haive_private.search_memory_items(text, text, jsonb),
haive_private.memory_item_filter(jsonb, jsonb),
haive_private.rank_memory_items(record, jsonb, int, int, double precision),
haive_private.list_memory_namespaces(text, text, jsonb),
haive_private.first_labels(jsonb, int),
haive_private.matches_namespace(jsonb, jsonb),
haive_private.expire_memory_items(text, text, int)
from public, anon, authenticated, service_role, haive_client;

revoke create on schema haive_private from haive_writer;

grant execute on function
haive.put_memory_items(text, jsonb, text),
haive.get_memory_items(text, text[], boolean[], text),
haive.search_memory_items(text, jsonb, text),
haive.list_memory_namespaces(text, jsonb, text),
haive.expire_memory_items(text, int, text),
haive_private.put_memory_items(text, text, jsonb),
haive_private.get_memory_items(text, text, text[], boolean[]),
haive_private.search_memory_items(text, text, jsonb),
haive_private.list_memory_namespaces(text, text, jsonb),
haive_private.expire_memory_items(text, text, int)
to authenticated, service_role, haive_client;
-- Indexes are of the whole installation.
grant execute on function
haive.index_memory_items(text, text),
haive_private.index_memory_items(text, text)
to service_role, haive_client;

-- What the definer functions do, they do as haive_writer.
grant execute on function
haive_private.namespace_path(jsonb),
haive_private.behind_path(text),
haive_private.time_text(timestamptz),
haive_private.item_part(text, int),
haive_private.memory_item_doc(text),
haive_private.memory_item_filter(jsonb, jsonb),
haive_private.first_labels(jsonb, int),
haive_private.matches_namespace(jsonb, jsonb)
to haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261129000000', 'memory_items')
on conflict do nothing;
