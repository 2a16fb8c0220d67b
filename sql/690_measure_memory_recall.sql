-- Recall does not carry over from one size, or kind of vectors, to another: so it is measured where it
-- is used. A sample of the tenant's own vectors is looked for, each by comparing all and by the index,
-- itself not counted; a search then looks at as many candidates as the wanted recall took.
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
  v_all bigint;
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
  if (v.collection).model is null or (v.collection).index_type = 'flat' or v_memories <= 10000 then
    return '{}'; -- all are compared anyway
  end if;
  select greatest(c.reltuples, v_memories)::bigint into v_all
  from pg_class as c where c.oid = v.relation::regclass;
  execute format(
    $q$
      select array_agg((s.vec operator(%1$s.+) s.vec operator(%1$s.+) s.other)::text)
      from (
        select t.vec, lag(t.vec, 1, t.vec) over (order by t.id desc) as other
        from %2$s as t tablesample bernoulli (%3$s) repeatable (1)
        where %4$s and t.vec is not null
        limit %5$s
      ) as s
    $q$, haive_private.vector_schema(), v.relation, least(100, 300.0 * p_samples / v_memories), v.own,
    p_samples
  ) into v_vectors;
  foreach v_vector in array coalesce(v_vectors, '{}') loop
    v_exact := haive_private.nearest_memories(
      v.collection, v.own, false, v.tenant, v_vector, 10, 1
    );
    foreach v_candidates in array array[40, 64, 100, 160, 250, 400, 640, 1000] loop
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
  collection text, samples int default 30, tenant text default null
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
'memories when it looks at 40 to 1,000 candidates, and keeps it: searches take as many as the wanted '
'recall needs. Returns {candidates: recall}; nothing where there are so few that all are compared.';
