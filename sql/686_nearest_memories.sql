-- The nearest vectors, by a way that was chosen by counting and not by the planner's luck:
--  * all that pass are compared where they are few: the answer is exact, and a filter loses nothing;
--  * else the index is read. A tenant with many rows, and yet few of all, has an index of its own, which
--    plan_memory_indexes made: reading on in the one of all would lose half of them;
--  * what passes a filter is compared first where the planner expects few and an index lists them; no more
--    than twice as many, or 1,000, are fetched for it;
--  * any other filter is tried on the nearest ones. The share of them that passes tells whether these are
--    the answer, how far the index has to be read, or that comparing all that pass is less work after all;
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
-- What a page in memory costs, and an entry of an index: else the planner reads 500,000 entries of a tenant, for
-- 45 ms, to fetch 5,000 rows fewer, which take 15.
set random_page_cost = 1.1
set cpu_index_tuple_cost = 0.03
as $$
declare
  c_probe constant int := 100; -- of the nearest, to see which share of them passes
  c_most constant int := 400; -- for which a walk takes little longer
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
  v_fewest bigint; -- have to pass for reading the index to be less work
  v_plan json;
  v_expected double precision; -- to pass
  v_listed boolean;
  v_compared bigint := 0; -- in vain, for more passed
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
    v_fewest := haive_private.fewest_to_walk(v_indexed);
    execute format(
      'explain (format json) select from %s as t where %s',
      format('vecs.%I', p_collection.table_name), p_condition
    ) into v_plan;
    v_expected := greatest(1, (v_plan -> 0 -> 'Plan' ->> 'Plan Rows')::double precision);
    -- Whether what passes can be looked up, or each row of the tenant has to be tried.
    v_listed := v_plan::text ~ '"Index Cond": "[^"]*\m(metadata|importance|happened_at|user_id)\M';
    if v_listed and v_expected < v_fewest then
      -- The planner may be far from right: not many more are fetched than it expects.
      v_compared := least(v_fewest, greatest(1000, 2 * v_expected));
      v_found := haive_private.compare_memories(
        p_collection, p_condition, p_vector, p_limit, p_documents, v_compared
      );
      if v_found.ids is not null then
        return v_found;
      end if;
    end if;

    -- Where one in ten is expected to pass, among so many more there are enough: one walk in place of two.
    v_probe := greatest(c_probe, v_enough);
    if p_collection.index_type <> 'binary' and 1.5 * v_enough * v_rows / v_expected <= c_most then
      v_probe := greatest(v_probe, 1.5 * v_enough * v_rows / v_expected);
    end if;
    v_found := haive_private.walk_memories(
      p_collection, v_own, format('(%s) is true', p_condition), p_vector, p_limit, v_probe,
      greatest(v_ef, least(1000, v_probe * v_indexed / v_rows)::int), p_documents
    );
    v_share := greatest(v_found.passed, 0.5) / v_probe * v_rows / v_indexed;
    if v_found.passed < c_sure or v_share * v_indexed < v_fewest then
      if v_found.passed < c_sure then
        -- One more or less makes all the difference: what the planner expects is a second opinion.
        v_share := sqrt(v_share * least(1, v_expected / v_indexed));
      end if;
      if v_listed and v_share * v_indexed < v_fewest and v_compared < v_fewest then
        v_found := haive_private.compare_memories(
          p_collection, p_condition, p_vector, p_limit, p_documents, v_fewest
        );
        if v_found.ids is not null then
          return v_found;
        end if;
      elsif not v_listed and v_share * v_indexed < 300 then
        return haive_private.compare_memories(p_collection, p_condition, p_vector, p_limit, p_documents);
      end if;
    elsif v_found.passed >= v_enough and p_collection.index_type <> 'binary' then
      return v_found;
    end if;
    v_ef := greatest(v_ef, least(1000, v_enough / v_share));
    -- The bits put others before one that is nearer, in proportion to how many there are.
    v_wide := greatest(
      least(v_wide, 10 * p_limit), v_wide * least(1, v_share * v_indexed / v_rows)
    )::int;
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
