-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it; the last lines take this away again.
grant usage, create on schema haive_private to haive_writer;

-- What few pass was looked for in the index of vectors before those few were compared, and what one in ten
-- pass was looked for there twice. No data change.
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

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261130040000', 'few_that_pass_first')
on conflict do nothing;
