-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it; the last lines take this away again.
grant usage, create on schema haive_private to haive_writer;

-- The words of a candidate are summed up, and its own of the query picked, in one pass over them.
-- No data change.
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
  v_collection haive_private.memory_collections := v.collection;
  v_language regconfig := 'pg_catalog.' || v_collection.language;
  v_limit int;
  v_now timestamptz;
  v_recall double precision;
  v_half_life double precision;
  v_weights double precision[]; -- words, context, vector, speaker, recency, importance, neighbours
  v_vector text := p_query ->> 'vector';
  v_given jsonb := p_query -> 'weights';
  v_text text := left(coalesce(p_query ->> 'text', ''), 20000);
  v_spoken text := '  ';
  v_where text;
  v_as_of text;
  v_words tsvector;
  v_size record;
  v_memories double precision := 1;
  v_text_words double precision := 1;
  v_all_words double precision := 1;
  v_lexemes text[] := '{}'; -- the rarest first
  v_of_text double precision[];
  v_of_all double precision[];
  v_rare text; -- a tsquery of the words that candidates are found by
  v_common text; -- of the others
  v_prescore text;
  v_near haive_private.near_memories;
  v_ids text[]; -- of candidates, and in the end of the best
  v_documents tsvector[];
  v_vectors double precision[];
  v_speakers text[];
  v_times text[];
  v_importances double precision[];
  v_talks text[];
  v_seqs bigint[];
  v_scores double precision[];
  v_parts json[];
  v_base double precision; -- nearness is this less the distance
  v_worst double precision; -- of those found, the least nearness
  v_range double precision; -- between it and the best; null: none
  v_filtered boolean := coalesce(p_query -> 'filter', 'null') <> 'null';
  v_alone boolean; -- whether nearness is all that there is to go by
  v_answer json;
begin
  -- Each expression costs a microsecond, and each statement ten and more: what is seldom needed stands
  -- in an if.
  if current_setting('persistence.watch', true) like '%s%' then
    perform haive_private.refuse_sealed_memories();
  end if;
  begin
    v_limit := (p_query ->> 'limit')::int;
    v_now := coalesce((p_query ->> 'now')::timestamptz, now());
    v_as_of := to_char(
      coalesce((p_query ->> 'as_of')::timestamptz, v_now) at time zone 'UTC',
      'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
    );
    v_recall := coalesce((p_query ->> 'recall')::double precision, 0.97);
    v_half_life := coalesce((v_given ->> 'recency_half_life')::double precision, 30);
    v_weights := array[
      coalesce((v_given ->> 'words')::double precision, 0.7),
      coalesce((v_given ->> 'context')::double precision, 1),
      coalesce((v_given ->> 'vector')::double precision, 1),
      coalesce((v_given ->> 'speaker')::double precision, 1),
      coalesce((v_given ->> 'recency')::double precision, 0),
      coalesce((v_given ->> 'importance')::double precision, 0),
      coalesce((v_given ->> 'neighbours')::double precision, 0.25)
    ];
  exception
    when data_exception or invalid_text_representation then
      raise exception using
        errcode = 'PT422',
        message = 'a part of the query cannot be read',
        hint = 'limit is a whole number, weights and recall are numbers, now and as_of times.';
  end;
  if
    (v_limit between 1 and 1000 and v_recall > 0 and v_recall <= 1 and v_half_life > 0) is not true
    or not (0 <= all (v_weights) and 1e6 >= all (v_weights))
  then
    raise exception using
      errcode = 'PT422',
      message = 'a part of the query is out of bounds',
      hint = 'limit is 1 to 1,000, recall above 0 and at most 1, weights are not negative.';
  elsif v_vector is not null and v_collection.model is null then
    raise exception using
      errcode = 'PT422',
      message = format('the collection %s has no vectors', v_collection.name),
      hint = 'It was opened without a model, and is searched by words.';
  end if;

  v_where := format(
    '%1$s and (t.valid_from is null or t.valid_from <= %2$L) and (t.valid_to is null or t.valid_to > %2$L)'
    ' and (t.expires_at is null or t.expires_at > %3$L) and %4$s and %5$s',
    v.own, v_as_of,
    to_char(v_now at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    case when p_query -> 'include_archived' = 'true' then 'true' else 'not t.archived' end,
    case
      when v_filtered then haive_private.memory_condition(p_query -> 'filter') else 'true'
    end
  );

  -- The words of the query, the rarest first; those that no memory has add nothing.
  v_words := to_tsvector(v_language, v_text);
  if v_words <> '' and v_weights[1] + v_weights[2] > 0 then
    v_size := haive_private.weigh_words(v.tenant, v.actor, v_collection, v_words);
    v_memories := v_size.memories;
    v_text_words := v_size.text_words;
    v_all_words := v_size.all_words;
    select
      coalesce(array_agg(f.lexeme order by f.in_all, f.lexeme), '{}'),
      array_agg(ln(1 + greatest(v_memories - f.in_text + 0.5, 0.5) / (f.in_text + 0.5))
        order by f.in_all, f.lexeme),
      array_agg(ln(1 + greatest(v_memories - f.in_all + 0.5, 0.5) / (f.in_all + 0.5))
        order by f.in_all, f.lexeme),
      string_agg(quote_literal(f.lexeme), ' | ') filter (where f.before < c_matched),
      string_agg(quote_literal(f.lexeme), ' | ') filter (where f.before >= c_matched),
      string_agg(
        format(
          '%s * (t.words @@ %L)::int',
          ln(1 + greatest(v_memories - f.in_all + 0.5, 0.5) / (f.in_all + 0.5)),
          quote_literal(f.lexeme)
        ), ' + '
      ) filter (where f.place <= 16)
    into v_lexemes, v_of_text, v_of_all, v_rare, v_common, v_prescore
    from (
      select
        g.*,
        coalesce(sum(g.in_all) over (
          order by g.in_all, g.lexeme rows between unbounded preceding and 1 preceding
        ), 0) as before,
        row_number() over (order by g.in_all, g.lexeme) as place
      from unnest(v_size.lexemes, v_size.in_text, v_size.in_all) as g (lexeme, in_text, in_all)
    ) as f;
  end if;
  v_alone := v_rare is null and v_weights[5] + v_weights[6] = 0;
  if v_text <> '' then
    v_spoken := ' ' || btrim(regexp_replace(lower(v_text), '[^[:alnum:]]+', ' ', 'g')) || ' ';
    v_alone := v_alone and (v_weights[4] = 0 or v_spoken = '  ');
  end if;
  if v_alone then
    v_weights[7] := 0; -- a query of no words is about vectors, and not about a conversation
  end if;

  if v_vector is not null and v_weights[3] > 0 then
    begin
      v_near := haive_private.nearest_memories(
        v_collection, v_where,
        v_filtered or v.actor is not null, v.tenant, v_vector,
        -- Alone, the nearest are the answer; with other signals one that is not may be better.
        case when v_alone then v_limit else greatest(100, 3 * v_limit) end,
        v_recall, v_alone
      );
    exception
      when data_exception or invalid_text_representation or numeric_value_out_of_range then
        raise exception using
          errcode = 'PT422',
          message = 'the vector of the query cannot be read',
          hint = format('It is a text such as [1,2] of %s finite numbers.', v_collection.dimensions);
    end;
  end if;

  if v_alone and cardinality(v_near.ids) = v_limit then
    -- What follows, without what is zero, of what was read with the nearest. Of these the first is the
    -- best; a distance that is NaN comes last, and is no nearness.
    v_near.distances := array_replace(v_near.distances, 'NaN', null);
    v_base := case when v_collection.metric = 'cosine' then 1 else 0 end;
    v_worst := v_base - v_near.distances[
      v_limit - cardinality(array_positions(v_near.distances, null))
    ];
    v_range := nullif(v_base - v_near.distances[1] - v_worst, 0);
    select
      json_agg(
        case
          when p_query -> 'parts' = 'true' then json_build_object(
            'id', b.id, 'metadata', b.document, 'score', b.score, 'parts', json_build_object(
              'words', 0, 'context', 0, 'vector', b.score, 'neighbours', 0, 'speaker', 0,
              'recency', 0, 'importance', 0
            )
          )
          else json_build_object('id', b.id, 'metadata', b.document, 'score', b.score)
        end
        order by b.score desc, b.id
      )
    into v_answer
    from (
      select
        u.id collate "C" as id, u.document,
        v_weights[3] * coalesce(
          (v_base - u.distance - v_worst) / v_range, (u.distance is not null)::int
        ) as score
      from unnest(v_near.ids, v_near.distances, v_near.documents) as u (id, distance, document)
    ) as b;
    return v_answer;
  end if;

  -- What the candidates have, in columns. The scores are made of these by a statement that stays planned,
  -- for to plan it took as long as to run it.
  execute format(
    $q$
      with matched as materialized (
        select t.id, t.words from %1$s as t
        where $6 <> '' and %2$s and t.words @@ $6::tsquery
        limit $2
      ),
      -- What is rare among all may be another's or fail the filter: then the common words are all
      -- that there is to go by. Not read where the rare ones found enough.
      more as materialized (
        select t.id, t.words from %1$s as t
        where (select count(*) from matched) < $5
          and %2$s and t.words @@ $7::tsquery and not t.words @@ $6::tsquery
        limit $2
      ),
      weighed as (
        select t.id
        from (select * from matched %5$s) as t
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
      )
      select
        array_agg(t.id::text), array_agg(t.words), array_agg(%4$s),
        array_agg(left(coalesce(t.metadata ->> 'speaker', ''), 200)),
        array_agg(coalesce(t.happened_at, t.metadata ->> 'created_at')),
        array_agg(coalesce(t.importance, 0)),
        array_agg(
          case
            -- Two users may call a conversation alike.
            when t.metadata ->> 'kind' = 'turn' and t.metadata ->> 'conversation_id' is not null
              then json_build_array(t.user_id, t.metadata ->> 'conversation_id')::text
          end
        ),
        array_agg(
          case
            -- Of an int, so that the one beside it is in bounds too.
            when pg_input_is_valid(t.metadata ->> 'seq', 'int')
              then (t.metadata ->> 'seq')::int::bigint
          end
        )
      from candidates as c
      join %1$s as t on t.id = c.id
    $q$, v.relation, v_where, coalesce(v_prescore, '0 + 0'),
    case
      when v_near.ids is null then 'null::double precision'
      when v_collection.metric = 'cosine' then
        format('nullif(1 - (%s), ''NaN'')', haive_private.memory_distance(v_collection))
      else format('nullif(-(%s), ''NaN'')', haive_private.memory_distance(v_collection))
    end,
    case when v_common is not null then 'union all select * from more' end
  ) into v_ids, v_documents, v_vectors, v_speakers, v_times, v_importances, v_talks, v_seqs
  using
    v_vector, c_matched, c_weighed, coalesce(v_near.ids, '{}'), v_limit, coalesce(v_rare, ''),
    coalesce(v_common, '');

  with told as materialized (
    select
      c.*, p.name,
      -- A name or its first word, and no role.
      case
        when p.name not in ('', 'user', 'assistant', 'system', 'tool', 'human', 'ai', 'bot')
          and (
            strpos(v_spoken, ' ' || p.name || ' ') > 0
            or (
              length(split_part(p.name, ' ', 1)) > 2
              and strpos(v_spoken, ' ' || split_part(p.name, ' ', 1) || ' ') > 0
            )
          )
          then 1
        else 0
      end as speaker
    from unnest(
      v_ids, v_documents, v_vectors, v_speakers, v_times, v_importances, v_talks, v_seqs
    ) as c (id, document, vector, told_by, at, importance, talk, seq)
    cross join lateral (
      select btrim(regexp_replace(lower(c.told_by), '[^[:alnum:]]+', ' ', 'g')) as name
    ) as p
  ),
  -- Whom the query names the speaker's signal finds already, and others call them by that name:
  -- as a word it counts a quarter. It is rare among all users of a tenant, and not with one.
  names as (
    select
      case
        when v_weights[4] > 0
          then tsvector_to_array(
            to_tsvector(v_language, coalesce(string_agg(distinct d.name, ' '), ''))
          )
        else '{}'
      end as lexemes
    from told as d
    where d.speaker = 1
  ),
  signals as materialized (
    select
      c.id collate "C" as id,
      coalesce(b.words, 0) as words, coalesce(b.context, 0) as context,
      c.vector, c.speaker,
      case
        -- A date, and neither now nor infinity.
        when c.at ~ '^\d{4}-' and pg_input_is_valid(c.at, 'timestamptz')
          then power(
            0.5, least(1000, greatest(0, extract(epoch from (
              v_now - c.at::timestamptz
            )) / 86400 / v_half_life))::double precision
          )
        else 0
      end as recency,
      c.importance, c.talk, c.seq
    from told as c
    cross join names as n
    cross join lateral (
      select
        sum(cardinality(array_positions(u.weights, 'A'))) as text_words,
        sum(cardinality(u.positions)) as all_words,
        array_agg(array_position(v_lexemes, u.lexeme)) filter (where u.lexeme = any(v_lexemes))
          as terms,
        array_agg(cardinality(array_positions(u.weights, 'A'))::double precision)
          filter (where u.lexeme = any(v_lexemes)) as in_text,
        array_agg(cardinality(u.positions)::double precision)
          filter (where u.lexeme = any(v_lexemes)) as in_all
      from unnest(c.document) as u
      where cardinality(v_lexemes) > 0
    ) as l
    cross join lateral (
      -- BM25 of both at once, with the k1 and b of Trotman et al. 2014, Improvements to BM25.
      select
        sum(
          v_of_text[x.term] * x.share * x.tf * 1.9
          / (x.tf + 0.9 * (0.6 + 0.4 * l.text_words * v_memories / v_text_words))
        ) as words,
        sum(
          v_of_all[x.term] * x.share * x.tf_all * 1.9
          / (x.tf_all + 0.9 * (0.6 + 0.4 * l.all_words * v_memories / v_all_words))
        ) as context
      from (
        select
          y.term, y.tf, y.tf_all,
          case when v_lexemes[y.term] = any(n.lexemes) then 0.25 else 1 end as share
        from unnest(l.terms, l.in_text, l.in_all) as y (term, tf, tf_all)
      ) as x
    ) as b
  ),
  scaled as (
    select
      s.id, s.talk, s.seq,
      v_weights[1] * coalesce(
        (s.words - min(s.words) over ()) / nullif(max(s.words) over () - min(s.words) over (), 0),
        (s.words > 0)::int
      ) as words,
      v_weights[2] * coalesce(
        (s.context - min(s.context) over ())
        / nullif(max(s.context) over () - min(s.context) over (), 0),
        (s.context > 0)::int
      ) as context,
      v_weights[3] * coalesce(
        (s.vector - min(s.vector) over ())
        / nullif(max(s.vector) over () - min(s.vector) over (), 0),
        (s.vector is not null)::int
      ) as vector,
      v_weights[4] * coalesce(
        (s.speaker - min(s.speaker) over ())::double precision
        / nullif(max(s.speaker) over () - min(s.speaker) over (), 0), s.speaker
      ) as speaker,
      v_weights[5] * coalesce(
        (s.recency - min(s.recency) over ())
        / nullif(max(s.recency) over () - min(s.recency) over (), 0), (s.recency > 0)::int
      ) as recency,
      v_weights[6] * coalesce(
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
      v_weights[7] * (
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
    limit v_limit
  )
  select
    array_agg(b.id order by b.score desc, b.id), array_agg(b.score order by b.score desc, b.id),
    array_agg(
      case
        when p_query -> 'parts' = 'true' then json_build_object(
          'words', b.words, 'context', b.context, 'vector', b.vector, 'neighbours', b.neighbours,
          'speaker', b.speaker, 'recency', b.recency, 'importance', b.importance
        )
      end
      order by b.score desc, b.id
    )
  into v_ids, v_scores, v_parts
  from best as b;

  -- The condition once more: what is read now may have been changed since.
  execute format(
    $q$
      select coalesce(
        json_agg(
          case
            when b.parts is null
              then json_build_object('id', b.id, 'metadata', t.metadata, 'score', b.score)
            else json_build_object(
              'id', b.id, 'metadata', t.metadata, 'score', b.score, 'parts', b.parts
            )
          end
          order by b.place
        ),
        '[]'
      )
      from unnest($1, $2, $3) with ordinality as b (id, score, parts, place)
      join %s as t on t.id = b.id
      where %s
    $q$, v.relation, v_where
  ) into v_answer using v_ids, v_scores, v_parts;
  return v_answer;
end;
$$;

alter function haive_private.rank_memories(record, jsonb) owner to haive_writer;

comment on function haive_private.rank_memories(record, jsonb) is
'The best memories of a collection that was entered, best first.';

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261129114000', 'words_in_one_pass')
on conflict do nothing;
