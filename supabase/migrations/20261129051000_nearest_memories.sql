-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it; the last lines take this away again.
grant usage, create on schema haive_private to haive_writer;

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
language sql
immutable
security invoker
set search_path = ''
as $$
  select greatest(500, least(5000, 1920000 / greatest(p_dimensions, 1)))::bigint
$$;

comment on function haive_private.few_memories(int) is
'So many memories are compared one by one before an index of their vectors is read.';

-- A row that is looked at in an index costs as much as some that are compared, and for each that passes
-- 1 / share are looked at: both ways meet where this many pass.
create or replace function haive_private.fewest_to_walk(p_rows bigint)
returns bigint
language sql
immutable
security invoker
set search_path = ''
as $$
  select sqrt(160.0 * p_rows)::bigint
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
  p_most bigint default null -- give up where more pass
)
returns text[]
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_found text[];
begin
  -- The sum keeps any index of vectors out of it.
  execute format(
    case
      when p_most is null then
        $q$
          select coalesce(array_agg(n.id order by n.distance, n.id), '{}')
          from (
            select t.id, (%1$s) + 0.0 as distance from %2$s as t
            where %3$s and t.vec is not null
            order by 2, 1
            limit %4$s
          ) as n
        $q$
      else
        $q$
          with passing as materialized (
            select t.id, (%1$s) + 0.0 as distance from %2$s as t
            where %3$s and t.vec is not null
            limit %5$s + 1
          )
          select case
            when (select count(*) from passing) <= %5$s then (
              select coalesce(array_agg(n.id order by n.distance, n.id), '{}')
              from (select p.* from passing as p order by p.distance, p.id limit %4$s) as n
            )
          end
        $q$
    end,
    haive_private.memory_distance(p_collection, p_vector), format('vecs.%I', p_collection.table_name),
    p_condition, p_limit, p_most
  ) into v_found;
  return v_found;
end;
$$;

alter function haive_private.compare_memories(
  haive_private.memory_collections, text, text, int, bigint
) owner to haive_writer;

comment on function haive_private.compare_memories(
  haive_private.memory_collections, text, text, int, bigint
) is 'The memories whose vectors are nearest, by comparing all that pass; null where there are too many.';

create or replace function haive_private.memory_distance(
  p_collection haive_private.memory_collections, p_vector text
)
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return format(
    't.vec operator(%1$s.%2$s) %3$L::%1$s.%4$I', haive_private.vector_schema(),
    case p_collection.metric when 'cosine' then '<=>' when 'l2' then '<->' else '<#>' end,
    p_vector, p_collection.storage
  );
end;
$$;

comment on function haive_private.memory_distance(haive_private.memory_collections, text) is
'How far the vector of t, a row of the collection, is from another, as SQL.';

-- Reads on until enough have been found (iterative scan).
-- Definer, for it reads the tables in schema vecs: the condition has the tenant in it.
create or replace function haive_private.walk_memories(
  p_collection haive_private.memory_collections,
  p_condition text, -- on t: what is fetched
  p_passes text, -- on t: what of it is answered
  p_vector text,
  p_limit int, -- of what is answered
  p_fetched int, -- rows to fetch, no fewer than limit
  p_ef int, -- candidates
  out nearest text[],
  out passed bigint -- of those fetched
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_vectors text := haive_private.vector_schema();
  v_distance text := haive_private.memory_distance(p_collection, p_vector);
  v_order text := v_distance;
  v_settings text[] := array[
    current_setting('enable_seqscan'), current_setting('enable_bitmapscan'),
    current_setting('enable_sort'), current_setting('jit')
  ];
  v_done text;
begin
  -- By the bits is not quite by distance: more are fetched, and sorted again.
  if p_collection.index_type = 'binary' then
    v_order := format(
      '%1$s.binary_quantize(t.vec)::bit(%2$s) operator(%1$s.<~>) '
      '%1$s.binary_quantize(%3$L::%1$s.%4$I)::bit(%2$s)',
      v_vectors, p_collection.dimensions, p_vector, p_collection.storage
    );
  end if;
  v_done := set_config('enable_seqscan', 'off', true);
  v_done := set_config('enable_bitmapscan', 'off', true);
  v_done := set_config('enable_sort', 'off', true);
  v_done := set_config('jit', 'off', true);
  if p_collection.index_type = 'ivfflat' then
    v_done := set_config('ivfflat.probes', greatest(1, p_ef / 4)::text, true);
    v_done := set_config('ivfflat.iterative_scan', 'relaxed_order', true);
  else
    v_done := set_config('hnsw.ef_search', least(1000, p_ef)::text, true);
    v_done := set_config('hnsw.iterative_scan', 'relaxed_order', true);
    v_done := set_config('hnsw.max_scan_tuples', 40000::text, true);
  end if;
  execute format(
    $q$
      with wide as materialized (
        select t.id, %1$s as distance, %7$s as passes from %2$s as t
        where %3$s and t.vec is not null
        order by %4$s
        limit %5$s
      )
      select
        array(select w.id from wide as w where w.passes order by w.distance, w.id limit %6$s),
        (select count(*) from wide as w where w.passes)
    $q$, v_distance, format('vecs.%I', p_collection.table_name), p_condition, v_order, p_fetched,
    p_limit, p_passes
  ) into nearest, passed;
  v_done := set_config('enable_seqscan', v_settings[1], true);
  v_done := set_config('enable_bitmapscan', v_settings[2], true);
  v_done := set_config('enable_sort', v_settings[3], true);
  v_done := set_config('jit', v_settings[4], true);
end;
$$;

alter function haive_private.walk_memories(
  haive_private.memory_collections, text, text, text, int, int, int
) owner to haive_writer;

comment on function haive_private.walk_memories(
  haive_private.memory_collections, text, text, text, int, int, int
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
  p_candidates int default null -- of the index, to measure what it finds
)
returns text[]
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  c_probe constant int := 100; -- of the nearest, to see which share of them passes
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
  v_walk record;
  v_found text[];
begin
  select coalesce(sum(s.memories), 0), min(s.recalls::text)::jsonb into v_rows, v_recalls
  from haive_private.memory_sizes as s
  where s.tenant_id = p_tenant and s.collection = p_collection.name;
  if
    p_collection.index_type = 'flat' or p_recall >= 1
    or v_rows <= haive_private.few_memories(p_collection.dimensions)
  then
    return haive_private.compare_memories(p_collection, p_condition, p_vector, p_limit);
  end if;

  v_indexed := v_rows;
  if to_regclass(
    format('vecs.%I', haive_private.memory_index_name(p_collection, p_tenant))
  ) is null then
    -- As the last analyze left it.
    select greatest(c.reltuples, v_rows)::bigint into v_indexed
    from pg_class as c where c.oid = format('vecs.%I', p_collection.table_name)::regclass;
    if v_rows < haive_private.fewest_to_walk(v_indexed) and p_candidates is null then
      return haive_private.compare_memories(p_collection, p_condition, p_vector, p_limit);
    end if;
  end if;

  -- As it was measured, on a sample, so with something in hand; else as it usually is.
  select min(m.candidates::int) into v_ef
  from jsonb_each_text(v_recalls) as m (candidates, recall)
  where m.recall::double precision >= (1 + p_recall) / 2;
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
    v_walk := haive_private.walk_memories(
      p_collection, v_own, format('(%s) is true', p_condition), p_vector, p_limit, v_probe,
      greatest(v_probe, v_ef)
    );
    v_share := greatest(v_walk.passed, 0.5) / v_probe * v_rows / v_indexed;
    if v_share * v_indexed < haive_private.fewest_to_walk(v_indexed) then
      -- Whether what passes can be looked up, or each row of the tenant has to be tried.
      execute format(
        'explain (format json) select from %s as t where %s',
        format('vecs.%I', p_collection.table_name), p_condition
      ) into v_plan;
      if v_plan::text ~ '"Index Cond": "[^"]*\m(metadata|importance|happened_at|user_id)\M' then
        v_found := haive_private.compare_memories(
          p_collection, p_condition, p_vector, p_limit, haive_private.fewest_to_walk(v_indexed)
        );
      elsif v_share * v_indexed < 300 then
        return haive_private.compare_memories(p_collection, p_condition, p_vector, p_limit);
      end if;
      if v_found is not null then
        return v_found;
      end if;
    elsif v_walk.passed >= v_enough and p_collection.index_type <> 'binary' then
      return v_walk.nearest;
    end if;
    v_ef := greatest(v_ef, least(1000, v_enough / v_share));
  end if;

  v_walk := haive_private.walk_memories(
    p_collection, p_condition, 'true', p_vector, p_limit, v_wide, greatest(v_ef, v_wide)
  );
  if cardinality(v_walk.nearest) >= p_limit then
    return v_walk.nearest;
  end if;
  return haive_private.compare_memories(p_collection, p_condition, p_vector, p_limit);
end;
$$;

alter function haive_private.nearest_memories(
  haive_private.memory_collections, text, boolean, text, text, int, double precision,
  int
) owner to haive_writer;

comment on function haive_private.nearest_memories(
  haive_private.memory_collections, text, boolean, text, text, int, double precision,
  int
) is 'The memories whose vectors are nearest, nearest first.';

-- What builds an index concurrently cannot be done by a function: this says what to do, and whoever
-- owns the tables does it on a direct connection.
-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.plan_memory_indexes(
  p_tenant text, p_collection text, p_own_from bigint
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
  v_all bigint;
  v_tenant text;
begin
  if v.actor is not null then
    raise exception using
      errcode = 'PT403',
      message = 'only services build indexes',
      hint = 'Call on a direct connection.';
  end if;
  if (v.collection).model is null or (v.collection).index_type = 'flat' then
    return '[]';
  end if;
  select coalesce(sum(s.memories), 0) into v_memories
  from haive_private.memory_sizes as s
  where s.tenant_id = v.tenant and s.collection = (v.collection).name;
  select greatest(c.reltuples, 0)::bigint into v_all
  from pg_class as c where c.oid = v.relation::regclass;
  -- An index of all loses the rows of a tenant that has few of them, reads twice as many for one that has
  -- half, and serves one that has most of them.
  if
    v_memories > coalesce(p_own_from, haive_private.few_memories((v.collection).dimensions))
    and v_memories * 4 < v_all * 3
  then
    v_tenant := v.tenant;
  end if;
  return (
    select json_agg(json_build_object(
      'name', format('vecs.%I', haive_private.memory_index_name(v.collection, o.tenant)),
      'statement', haive_private.memory_index(v.collection, o.tenant, true)
    ))
    from (
      select null as tenant
      union all
      select v_tenant where v_tenant is not null
    ) as o
  );
end;
$$;

alter function haive_private.plan_memory_indexes(text, text, bigint) owner to haive_writer;

comment on function haive_private.plan_memory_indexes(text, text, bigint) is
'What haive.plan_memory_indexes does, for a caller without rights on the tables.';

create or replace function haive.plan_memory_indexes(
  collection text, own_from bigint default null, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.plan_memory_indexes(
    plan_memory_indexes.tenant, plan_memory_indexes.collection, plan_memory_indexes.own_from
  )
$$;

comment on function haive.plan_memory_indexes(text, bigint, text) is
'The indexes that a collection and the tenant in it should have, each {name, statement}: for services, '
'to be built by the owner on a direct connection. A tenant with more memories than own_from, and less '
'than three quarters of all, gets one of its own; null: with more than are compared one by one, 500 to 5,000.';

-- Recall does not carry over from one size, or kind of vectors, to another: so it is measured where it
-- is used. What is looked for lies beyond one of the tenant's own vectors, away from one that is near, by
-- a quarter of the way between them: what is asked for later is near some of the memories, is none of
-- them, and is not amid them. It is looked for by comparing all and by the index; a search then looks at
-- as many candidates as the wanted recall took.
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
      select array_agg(s.vec::text)
      from (
        select t.vec
        from %1$s as t tablesample bernoulli (%2$s) repeatable (1)
        where %3$s and t.vec is not null
        limit %4$s
      ) as s
    $q$, v.relation, least(100, 300.0 * p_samples / v_memories), v.own, p_samples
  ) into v_vectors;
  foreach v_vector in array coalesce(v_vectors, '{}') loop
    v_near := haive_private.nearest_memories(
      v.collection, v.own, false, v.tenant, v_vector, 10, 0.5, 100
    );
    execute format(
      $q$
        select (
          g.vec operator(%1$s.+) ((g.vec operator(%1$s.-) t.vec) operator(%1$s.*) g.quarter)
        )::text
        from %4$s as t, (
          select %2$L::%1$s.%3$I as vec, array_fill(0.25::real, array[%5$s])::%1$s.%3$I as quarter
        ) as g
        where t.id = $1
      $q$, haive_private.vector_schema(), v_vector, (v.collection).storage, v.relation,
      (v.collection).dimensions
    ) into v_vector using v_near[cardinality(v_near)];
    v_exact := haive_private.nearest_memories(
      v.collection, v.own, false, v.tenant, v_vector, 10, 1
    );
    foreach v_candidates in array
      array[20, 30, 40, 50, 64, 80, 100, 130, 160, 200, 250, 320, 400, 500, 640, 800, 1000]
    loop
      v_near := haive_private.nearest_memories(
        v.collection, v.own, false, v.tenant, v_vector, 10, 0.5, v_candidates
      );
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

create or replace function haive.measure_memory_recall(
  collection text, samples int default 100, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.measure_memory_recall(
    measure_memory_recall.tenant, measure_memory_recall.collection, measure_memory_recall.samples
  )
$$;

comment on function haive.measure_memory_recall(text, int, text) is
'Measures, for services, which share of the nearest the index of a collection finds of a tenant''s '
'memories when it looks at 20 to 1,000 candidates, and keeps it: searches take as many as the wanted '
'recall needs. Returns {candidates: recall}; nothing where there are so few that all are compared.';

revoke all on function
haive_private.few_memories(int),
haive_private.fewest_to_walk(bigint),
haive_private.memory_distance(haive_private.memory_collections, text),
haive_private.compare_memories(haive_private.memory_collections, text, text, int, bigint),
haive_private.walk_memories(haive_private.memory_collections, text, text, text, int, int, int)
from public, anon, authenticated, service_role, haive_client;
grant execute on function
haive_private.few_memories(int),
haive_private.fewest_to_walk(bigint),
haive_private.memory_distance(haive_private.memory_collections, text)
to haive_writer;

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261129051000', 'nearest_memories')
on conflict do nothing;
