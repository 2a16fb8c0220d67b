-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it; the last lines take this away again.
grant usage, create on schema haive_private to haive_writer;

-- A search of nothing but nearness was five statements, each planned anew, with the vector read wherever
-- it stood. Now what is nearest comes with its metadata by one, and only what reads the collection is planned at
-- each search. Of a million memories, tenants with 1 and 10 % found 0.96 of the nearest where 0.97 was wanted:
-- recall is measured farther away now, and a filter that few of the nearest pass is judged by the planner
-- too. No data change; the next `haive memory reindex` measures anew.
create type haive_private.near_memories as (
  ids text[],
  distances double precision[],
  documents jsonb[],
  passed bigint
);

comment on type haive_private.near_memories is
'Memories near a vector, as columns, nearest first. documents, their metadata, is null unless it was '
'wanted; passed says how many of those that an index was read for pass.';

-- Their answers and arguments grow; nothing but these functions calls them.
-- squawk-ignore ban-drop-function
drop function haive_private.compare_memories(
  haive_private.memory_collections, text, text, int, bigint
);
-- squawk-ignore ban-drop-function
drop function haive_private.walk_memories(
  haive_private.memory_collections, text, text, text, int, int, int
);
-- squawk-ignore ban-drop-function
drop function haive_private.nearest_memories(
  haive_private.memory_collections, text, boolean, text, text, int, double precision, int
);
-- squawk-ignore ban-drop-function
drop function haive_private.memory_distance(haive_private.memory_collections, text);

-- Of the server, not ours: another schema than extensions, where somebody made it there.
create or replace function haive_private.vector_schema()
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_schema oid;
begin
  select e.extnamespace into v_schema from pg_extension as e where e.extname = 'vector';
  if v_schema is null or not has_schema_privilege('haive_writer', v_schema, 'usage') then
    raise exception using
      errcode = 'PT422',
      message = 'this database has no vectors',
      hint = 'As the superuser: create extension vector with schema extensions; grant usage on schema '
        'extensions to haive_writer;';
  end if;
  return v_schema::regnamespace::text;
end;
$$;

comment on function haive_private.vector_schema() is
'Where pgvector is installed, quoted.';

-- The nearest vectors, by a way that was chosen by counting and not by the planner's luck:
--  * all that pass are compared where they are few: the answer is exact, and a filter loses nothing;
--  * else the index is read. A tenant with many rows, and yet few of all, has an index of its own, which
--    plan_memory_indexes made: reading on in the one of all would lose half of them;
--  * a filter is tried on the nearest ones first. The share of them that passes tells whether these are
--    the answer, how far the index has to be read, or that comparing all that pass is less work;
--  * where even that found less than was asked for, all are compared after all.

-- Fewer are compared in some milliseconds, each at a cost of its width.
create or replace function haive_private.few_memories(p_dimensions int)
returns bigint
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return greatest(500, least(5000, 1920000 / greatest(p_dimensions, 1)))::bigint;
end;
$$;

comment on function haive_private.few_memories(int) is
'So many memories are compared one by one before an index of their vectors is read.';

-- A row that is looked at in an index costs as much as some that are compared, and for each that passes
-- 1 / share are looked at: both ways meet where this many pass.
create or replace function haive_private.fewest_to_walk(p_rows bigint)
returns bigint
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return sqrt(160.0 * p_rows)::bigint;
end;
$$;

comment on function haive_private.fewest_to_walk(bigint) is
'Of so many rows in an index, how many must pass a filter for reading the index to be less work than '
'comparing all that pass.';

-- Definer, for it reads the tables in schema vecs: the condition has the tenant in it.
create or replace function haive_private.compare_memories(
  p_collection haive_private.memory_collections,
  p_condition text, -- on t, a row of the collection
  p_vector text,
  p_limit int,
  p_documents boolean, -- whether their metadata is wanted
  p_most bigint default null -- give up where more pass
)
returns haive_private.near_memories -- ids are null where it gave up
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_found haive_private.near_memories;
begin
  -- The sum keeps any index of vectors out of it.
  execute format(
    case
      when p_most is null then
        $q$
          select coalesce(array_agg(n.id), '{}'), array_agg(n.distance), array_agg(n.document)
          from (
            select t.id::text as id, (%1$s) + 0.0 as distance, %2$s as document from %3$s as t
            where %4$s and t.vec is not null
            order by 2, 1
            limit %5$s
          ) as n
        $q$
      else
        $q$
          with passing as materialized (
            select t.id::text as id, (%1$s) + 0.0 as distance, %2$s as document from %3$s as t
            where %4$s and t.vec is not null
            limit %6$s + 1
          )
          select
            case
              when (select count(*) from passing) <= %6$s then coalesce(array_agg(n.id), '{}')
            end,
            array_agg(n.distance), array_agg(n.document)
          from (select p.* from passing as p order by p.distance, p.id limit %5$s) as n
        $q$
    end,
    haive_private.memory_distance(p_collection),
    case when p_documents then 't.metadata' else 'null::jsonb' end,
    format('vecs.%I', p_collection.table_name), p_condition, p_limit, p_most
  ) into v_found.ids, v_found.distances, v_found.documents using p_vector;
  return v_found;
end;
$$;

alter function haive_private.compare_memories(
  haive_private.memory_collections, text, text, int, boolean, bigint
) owner to haive_writer;

comment on function haive_private.compare_memories(
  haive_private.memory_collections, text, text, int, boolean, bigint
) is 'The memories whose vectors are nearest, by comparing all that pass; null where there are too many.';

-- A parameter, and no literal: a thousand numbers are read once, and not wherever they stand.
create or replace function haive_private.memory_distance(
  p_collection haive_private.memory_collections
)
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return format(
    't.vec operator(%1$s.%2$s) $1::%1$s.%3$I', haive_private.vector_schema(),
    case p_collection.metric when 'cosine' then '<=>' when 'l2' then '<->' else '<#>' end,
    p_collection.storage
  );
end;
$$;

comment on function haive_private.memory_distance(haive_private.memory_collections) is
'How far the vector of t, a row of the collection, is from another, as SQL with that one as $1.';

-- Reads on until enough have been found (iterative scan). By its settings no plan but that of the index
-- is left.
-- Definer, for it reads the tables in schema vecs: the condition has the tenant in it.
create or replace function haive_private.walk_memories(
  p_collection haive_private.memory_collections,
  p_condition text, -- on t: what is fetched
  p_passes text, -- on t: what of it is answered; null: all
  p_vector text,
  p_limit int, -- of what is answered
  p_fetched int, -- rows to fetch, no fewer than limit
  p_ef int, -- candidates
  p_documents boolean -- whether their metadata is wanted
)
returns haive_private.near_memories
language plpgsql
volatile
security definer
set search_path = ''
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
declare
  v_distance text := haive_private.memory_distance(p_collection);
  v_order text := v_distance;
  v_document text := case when p_documents then 't.metadata' else 'null::jsonb' end;
  v_relation text := format('vecs.%I', p_collection.table_name);
  v_found haive_private.near_memories;
  v_done text;
begin
  -- By the bits is not quite by distance: more are fetched, and sorted again.
  if p_collection.index_type = 'binary' then
    v_order := format(
      '%1$s.binary_quantize(t.vec)::bit(%2$s) operator(%1$s.<~>) '
      '%1$s.binary_quantize($1::%1$s.%3$I)::bit(%2$s)',
      haive_private.vector_schema(), p_collection.dimensions, p_collection.storage
    );
  end if;
  if p_collection.index_type = 'ivfflat' then
    v_done := set_config('ivfflat.probes', greatest(1, p_ef / 4)::text, true)
      || set_config('ivfflat.iterative_scan', 'relaxed_order', true);
  else
    v_done := set_config('hnsw.ef_search', least(1000, p_ef)::text, true)
      || set_config('hnsw.iterative_scan', 'relaxed_order', true)
      || set_config('hnsw.max_scan_tuples', 40000::text, true);
  end if;
  if p_passes is null and p_fetched = p_limit then
    execute format(
      $q$
        select
          coalesce(array_agg(w.id order by w.distance, w.id), '{}'),
          array_agg(w.distance order by w.distance, w.id),
          array_agg(w.document order by w.distance, w.id)
        from (
          select t.id::text as id, %1$s as distance, %2$s as document from %3$s as t
          where %4$s and t.vec is not null
          order by %5$s
          limit %6$s
        ) as w
      $q$, v_distance, v_document, v_relation, p_condition, v_order, p_limit
    ) into v_found.ids, v_found.distances, v_found.documents using p_vector;
  else
    execute format(
      $q$
        with wide as materialized (
          select t.id::text as id, %1$s as distance, %2$s as document, %7$s as passes from %3$s as t
          where %4$s and t.vec is not null
          order by %5$s
          limit %6$s
        )
        select
          coalesce(array_agg(n.id), '{}'), array_agg(n.distance), array_agg(n.document),
          (select count(*) from wide as w where w.passes)
        from (
          select w.* from wide as w where w.passes order by w.distance, w.id limit %8$s
        ) as n
      $q$, v_distance, v_document, v_relation, p_condition, v_order, p_fetched,
      coalesce(p_passes, 'true'), p_limit
    ) into v_found using p_vector;
  end if;
  return v_found;
end;
$$;

alter function haive_private.walk_memories(
  haive_private.memory_collections, text, text, text, int, int, int, boolean
) owner to haive_writer;

comment on function haive_private.walk_memories(
  haive_private.memory_collections, text, text, text, int, int, int, boolean
) is 'The memories whose vectors are nearest, by the index: as many candidates as were asked for.';

-- Definer, for it reads the tables in schema vecs: the condition has the tenant in it.
create or replace function haive_private.nearest_memories(
  p_collection haive_private.memory_collections,
  p_condition text, -- on t, a row of the collection
  p_filtered boolean, -- whether it leaves out more than the tenant's archive
  p_tenant text,
  p_vector text,
  p_limit int,
  p_recall double precision,
  p_documents boolean default false, -- whether their metadata is wanted
  p_candidates int default null -- of the index, to measure what it finds
)
returns haive_private.near_memories
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  c_probe constant int := 100; -- of the nearest, to see which share of them passes
  c_sure constant int := 8; -- passed, and the share is known well enough
  v_own text := format('t.tenant_id = %L', p_tenant);
  v_enough int := p_limit + greatest(10, p_limit / 2); -- so many candidates that pass
  v_rows bigint; -- of the tenant, exactly
  v_indexed bigint; -- rows of the index that is read
  v_recalls jsonb;
  v_ef int;
  v_wide int;
  v_probe int;
  v_share double precision; -- of the index's rows, those that pass
  v_plan json;
  v_found haive_private.near_memories;
begin
  select
    coalesce(sum(s.memories), 0), (array_agg(s.recalls) filter (where s.recalls is not null))[1]
  into v_rows, v_recalls
  from haive_private.memory_sizes as s
  where s.tenant_id = p_tenant and s.collection = p_collection.name;
  if
    p_collection.index_type = 'flat' or p_recall >= 1
    or v_rows <= haive_private.few_memories(p_collection.dimensions)
  then
    return haive_private.compare_memories(p_collection, p_condition, p_vector, p_limit, p_documents);
  end if;

  v_indexed := v_rows;
  if to_regclass(
    format('vecs.%I', haive_private.memory_index_name(p_collection, p_tenant))
  ) is null then
    -- As the last analyze left it.
    select greatest(c.reltuples, v_rows)::bigint into v_indexed
    from pg_class as c where c.oid = format('vecs.%I', p_collection.table_name)::regclass;
    if v_rows < haive_private.fewest_to_walk(v_indexed) and p_candidates is null then
      return haive_private.compare_memories(p_collection, p_condition, p_vector, p_limit, p_documents);
    end if;
  end if;

  -- As it was measured, on a sample that begins at vectors which are there, so with something in hand (100
  -- candidates found 0.985 of it, and 0.964 of what was asked for otherwise); else as it usually is.
  select min(m.candidates::int) into v_ef
  from jsonb_each_text(v_recalls) as m (candidates, recall)
  where m.recall::double precision >= (2 + p_recall) / 3;
  v_ef := case
    when p_candidates is not null then p_candidates
    when v_ef is not null then v_ef
    when v_recalls is not null then 1000
    else least(1000, v_indexed / v_rows * case
      when p_recall <= 0.95 then 40 when p_recall <= 0.975 then 64 when p_recall <= 0.985 then 100
      when p_recall <= 0.99 then 160 when p_recall <= 0.995 then 250 else 500
    end)
  end;
  v_wide := case
    when p_collection.index_type <> 'binary' then p_limit
    when p_candidates is not null or v_recalls is not null then greatest(p_limit, v_ef)
    when p_recall > 0.97 then greatest(p_limit, 400)
    else greatest(p_limit, 200)
  end;

  if p_filtered then
    v_probe := greatest(c_probe, v_enough);
    v_found := haive_private.walk_memories(
      p_collection, v_own, format('(%s) is true', p_condition), p_vector, p_limit, v_probe,
      greatest(v_probe, v_ef), p_documents
    );
    v_share := greatest(v_found.passed, 0.5) / v_probe * v_rows / v_indexed;
    if
      v_found.passed < c_sure or v_share * v_indexed < haive_private.fewest_to_walk(v_indexed)
    then
      -- Whether what passes can be looked up, or each row of the tenant has to be tried.
      execute format(
        'explain (format json) select from %s as t where %s',
        format('vecs.%I', p_collection.table_name), p_condition
      ) into v_plan;
      if v_found.passed < c_sure then
        -- One more or less makes all the difference: what the planner expects is a second opinion.
        v_share := sqrt(
          v_share * least(1, (v_plan -> 0 -> 'Plan' ->> 'Plan Rows')::double precision / v_indexed)
        );
      end if;
      if
        v_share * v_indexed < haive_private.fewest_to_walk(v_indexed)
        and v_plan::text ~ '"Index Cond": "[^"]*\m(metadata|importance|happened_at|user_id)\M'
      then
        v_found := haive_private.compare_memories(
          p_collection, p_condition, p_vector, p_limit, p_documents,
          haive_private.fewest_to_walk(v_indexed)
        );
        if v_found.ids is not null then
          return v_found;
        end if;
      elsif v_share * v_indexed < 300 then
        return haive_private.compare_memories(p_collection, p_condition, p_vector, p_limit, p_documents);
      end if;
    elsif v_found.passed >= v_enough and p_collection.index_type <> 'binary' then
      return v_found;
    end if;
    v_ef := greatest(v_ef, least(1000, v_enough / v_share));
  end if;

  v_found := haive_private.walk_memories(
    p_collection, p_condition, null, p_vector, p_limit, v_wide, greatest(v_ef, v_wide), p_documents
  );
  if cardinality(v_found.ids) >= p_limit then
    return v_found;
  end if;
  return haive_private.compare_memories(p_collection, p_condition, p_vector, p_limit, p_documents);
end;
$$;

alter function haive_private.nearest_memories(
  haive_private.memory_collections, text, boolean, text, text, int, double precision,
  boolean, int
) owner to haive_writer;

comment on function haive_private.nearest_memories(
  haive_private.memory_collections, text, boolean, text, text, int, double precision,
  boolean, int
) is 'The memories whose vectors are nearest, nearest first.';

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

-- Recall does not carry over from one size, or kind of vectors, to another: so it is measured where it
-- is used. What is looked for lies beyond one of the tenant's own vectors, away from one that is near, by
-- half of the way between them: what is asked for later is near some of the memories, is none of
-- them, and is not amid them. It is looked for by comparing all and by the index; a search then looks at
-- as many candidates as the wanted recall took. The vector that it began at does not count: it is far
-- nearer than the rest, which makes it easy to find.
-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.measure_memory_recall(
  p_tenant text, p_collection text, p_samples int
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, true);
  v_memories bigint;
  v_ids text[];
  v_vectors text[];
  v_vector text;
  v_candidates int;
  v_exact text[];
  v_near text[];
  v_recalls jsonb := '{}';
begin
  if v.actor is not null then
    raise exception using
      errcode = 'PT403',
      message = 'only services measure a collection',
      hint = 'Call with a secret key, or on a direct connection.';
  elsif (p_samples between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'samples is not between 1 and 1000',
      hint = 'Each is compared with all memories of the tenant once.';
  end if;
  select coalesce(sum(s.memories), 0) into v_memories
  from haive_private.memory_sizes as s
  where s.tenant_id = v.tenant and s.collection = (v.collection).name;
  if
    (v.collection).model is null or (v.collection).index_type = 'flat'
    or v_memories <= haive_private.few_memories((v.collection).dimensions)
  then
    return '{}'; -- all are compared anyway
  end if;
  execute format(
    $q$
      select array_agg(s.id), array_agg(s.vec::text)
      from (
        select t.id::text as id, t.vec
        from %1$s as t tablesample bernoulli (%2$s) repeatable (1)
        where %3$s and t.vec is not null
        limit %4$s
      ) as s
    $q$, v.relation, least(100, 300.0 * p_samples / v_memories), v.own, p_samples
  ) into v_ids, v_vectors;
  for i in 1..coalesce(cardinality(v_ids), 0) loop
    v_vector := v_vectors[i];
    v_near := (haive_private.nearest_memories(
      v.collection, v.own, false, v.tenant, v_vector, 10, 0.5, false, 100
    )).ids;
    execute format(
      $q$
        select (
          g.vec operator(%1$s.+) ((g.vec operator(%1$s.-) t.vec) operator(%1$s.*) g.half)
        )::text
        from %4$s as t, (
          select %2$L::%1$s.%3$I as vec, array_fill(0.5::real, array[%5$s])::%1$s.%3$I as half
        ) as g
        where t.id = $1
      $q$, haive_private.vector_schema(), v_vector, (v.collection).storage, v.relation,
      (v.collection).dimensions
    ) into v_vector using v_near[cardinality(v_near)];
    v_exact := array_remove((haive_private.nearest_memories(
      v.collection, v.own, false, v.tenant, v_vector, 10, 1
    )).ids, v_ids[i]);
    foreach v_candidates in array
      array[20, 30, 40, 50, 64, 80, 100, 130, 160, 200, 250, 320, 400, 500, 640, 800, 1000]
    loop
      v_near := (haive_private.nearest_memories(
        v.collection, v.own, false, v.tenant, v_vector, 10, 0.5, false, v_candidates
      )).ids;
      v_recalls := v_recalls || jsonb_build_object(
        v_candidates::text,
        coalesce((v_recalls ->> v_candidates::text)::double precision, 0) + (
          select count(*) from unnest(v_exact) as e where e = any(v_near)
        )::double precision / greatest(cardinality(v_exact), 1) / cardinality(v_vectors)
      );
    end loop;
  end loop;
  perform pg_advisory_xact_lock(
    hashtextextended('haive/memory words/' || v.tenant || '/' || (v.collection).name, 0)
  );
  perform haive_private.gather_memory_words(v.tenant, (v.collection).name, 0);
  update haive_private.memory_sizes as s
  set recalls = v_recalls
  where s.tenant_id = v.tenant and s.collection = (v.collection).name and s.part = 0;
  return v_recalls;
end;
$$;

alter function haive_private.measure_memory_recall(text, text, int) owner to haive_writer;

comment on function haive_private.measure_memory_recall(text, text, int) is
'What haive.measure_memory_recall does, for a caller without rights on the tables.';

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

revoke all on function
haive_private.memory_distance(haive_private.memory_collections),
haive_private.compare_memories(
  haive_private.memory_collections, text, text, int, boolean, bigint
),
haive_private.walk_memories(
  haive_private.memory_collections, text, text, text, int, int, int, boolean
),
haive_private.nearest_memories(
  haive_private.memory_collections, text, boolean, text, text, int, double precision,
  boolean, int
)
from public, anon, authenticated, service_role, haive_client;
grant execute on function
haive_private.memory_distance(haive_private.memory_collections)
to haive_writer;

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261129110000', 'search_in_one_statement')
on conflict do nothing;
