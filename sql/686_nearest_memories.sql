-- The nearest vectors, by a way that was chosen by counting and not by the planner's luck:
--  * all that pass are compared where they are few: the answer is exact, and a filter loses nothing;
--  * else the index is read, on and on until enough rows have passed the filter (iterative scan). A
--    tenant with many rows, and yet few of all, has an index of its own, which plan_memory_indexes
--    made: reading on in the one of all would lose half of them;
--  * where even that found less than was asked for, all are compared after all.
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
  c_few constant bigint := 10000; -- 10,000 of 384 dimensions are compared in 20 ms
  v_vectors text := haive_private.vector_schema();
  v_relation text := format('vecs.%I', p_collection.table_name);
  v_distance text;
  v_order text;
  v_found text[];
  v_tenant_rows bigint;
  v_all bigint;
  v_share double precision;
  v_few boolean := true;
  v_recalls jsonb;
  v_ef int;
  v_wide int := p_limit;
  v_settings text[];
  v_done text;
begin
  v_distance := format(
    't.vec operator(%1$s.%2$s) %3$L::%1$s.%4$I', v_vectors,
    case p_collection.metric when 'cosine' then '<=>' when 'l2' then '<->' else '<#>' end,
    p_vector, p_collection.storage
  );
  -- Of the tenant, exactly; of all, as the last analyze left it.
  select coalesce(sum(s.memories), 0), min(s.recalls::text)::jsonb into v_tenant_rows, v_recalls
  from haive_private.memory_sizes as s
  where s.tenant_id = p_tenant and s.collection = p_collection.name;
  if p_collection.index_type <> 'flat' and p_recall < 1 and v_tenant_rows > c_few then
    v_few := false;
    if p_filtered then
      select greatest(c.reltuples, v_tenant_rows)::bigint into v_all
      from pg_class as c where c.oid = v_relation::regclass;
      -- Some 2,000 rows tell a broad filter; where they do not, counting goes no further than it must.
      execute format(
        'select avg(((%s) is true)::int) from %s as t tablesample system (%s) repeatable (1)',
        p_condition, v_relation, least(100, greatest(0.01, 200000.0 / v_all))
      ) into v_share;
      if coalesce(v_share, 0) * v_all < 3 * c_few then
        execute format(
          'select count(*) <= %s from (select from %s as t where %s limit %1$s + 1) as p',
          c_few, v_relation, p_condition
        ) into v_few;
      end if;
    end if;
  end if;

  if not v_few then
    -- As it was measured, on a sample, so with something in hand; else as it usually is.
    select min(m.candidates::int) into v_ef
    from jsonb_each_text(v_recalls) as m (candidates, recall)
    where m.recall::double precision >= (1 + 2 * p_recall) / 3;
    v_ef := case
      when p_candidates is not null then p_candidates
      when v_ef is not null then v_ef
      when v_recalls is not null then 1000
      when p_recall <= 0.95 then 40 when p_recall <= 0.975 then 64 when p_recall <= 0.985 then 100
      when p_recall <= 0.99 then 160 when p_recall <= 0.995 then 250 else 500
    end;
    -- By the bits is not quite by distance: more are fetched, and sorted again.
    if p_collection.index_type = 'binary' then
      v_wide := greatest(
        p_limit,
        case
          when p_candidates is not null or v_recalls is not null then v_ef
          when p_recall > 0.97 then 400
          else 200
        end
      );
      v_order := format(
        '%1$s.binary_quantize(t.vec)::bit(%2$s) operator(%1$s.<~>) '
        '%1$s.binary_quantize(%3$L::%1$s.%4$I)::bit(%2$s)',
        v_vectors, p_collection.dimensions, p_vector, p_collection.storage
      );
    else
      v_order := v_distance;
    end if;
    v_settings := array[
      current_setting('enable_seqscan'), current_setting('enable_bitmapscan'),
      current_setting('enable_sort'), current_setting('jit')
    ];
    v_done := set_config('enable_seqscan', 'off', true);
    v_done := set_config('enable_bitmapscan', 'off', true);
    v_done := set_config('enable_sort', 'off', true);
    v_done := set_config('jit', 'off', true);
    if p_collection.index_type = 'ivfflat' then
      v_done := set_config('ivfflat.probes', greatest(1, v_ef / 4)::text, true);
      v_done := set_config('ivfflat.iterative_scan', 'relaxed_order', true);
    else
      v_done := set_config('hnsw.ef_search', least(1000, greatest(v_ef, v_wide))::text, true);
      v_done := set_config('hnsw.iterative_scan', 'relaxed_order', true);
      v_done := set_config('hnsw.max_scan_tuples', 40000::text, true);
    end if;
    execute format(
      $q$
        with wide as materialized (
          select t.id, %1$s as distance from %2$s as t
          where %3$s and t.vec is not null
          order by %4$s
          limit %5$s
        )
        select array_agg(n.id order by n.distance, n.id)
        from (select w.* from wide as w order by w.distance, w.id limit %6$s) as n
      $q$, v_distance, v_relation, p_condition, v_order, v_wide, p_limit
    ) into v_found;
    v_done := set_config('enable_seqscan', v_settings[1], true);
    v_done := set_config('enable_bitmapscan', v_settings[2], true);
    v_done := set_config('enable_sort', v_settings[3], true);
    v_done := set_config('jit', v_settings[4], true);
    if cardinality(v_found) >= p_limit then
      return v_found;
    end if;
  end if;

  -- The sum keeps any index of vectors out of it.
  execute format(
    $q$
      select coalesce(array_agg(n.id order by n.distance, n.id), '{}')
      from (
        select t.id, (%1$s) + 0.0 as distance from %2$s as t
        where %3$s and t.vec is not null
        order by 2, 1
        limit %4$s
      ) as n
    $q$, v_distance, v_relation, p_condition, p_limit
  ) into v_found;
  return v_found;
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
