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
