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
  v_has_vectors boolean := (v.collection).model is not null and (v.collection).index_type <> 'flat';
  v_memories bigint;
  v_all bigint;
  v_tenant text;
  v_own text;
begin
  if v.actor is not null then
    raise exception using
      errcode = 'PT403',
      message = 'only services build indexes',
      hint = 'Call on a direct connection.';
  end if;
  select coalesce(sum(s.memories), 0) into v_memories
  from haive_private.memory_sizes as s
  where s.tenant_id = v.tenant and s.collection = (v.collection).name;
  select greatest(c.reltuples, 0)::bigint into v_all
  from pg_class as c where c.oid = v.relation::regclass;
  -- An index of all vectors loses the rows of a tenant that has few of them, reads twice as many for one that
  -- has half, and serves one that has most of them.
  if
    v_memories > coalesce(p_own_from, haive_private.few_memories((v.collection).dimensions))
    and v_memories * 4 < v_all * 3
  then
    v_tenant := v.tenant;
    v_own := haive_private.memory_index_name(v.collection, v_tenant);
  end if;
  return (
    select coalesce(
      json_agg(
        json_build_object('name', format('vecs.%I', i.name), 'statement', i.statement) order by i.place
      ),
      '[]'
    )
    from (
      select
        o.place, haive_private.memory_index_name(v.collection, o.tenant) as name,
        haive_private.memory_index(v.collection, o.tenant, true) as statement
      from (
        values
        (1, null),
        (2, v_tenant)
      ) as o (place, tenant)
      where v_has_vectors and (o.place = 1 or v_tenant is not null)
      union all
      -- In the lists of all, a search by words or by a value finds the rows of every tenant, and fetches them
      -- to see whose they are. The settings are those of the lists of all.
      select
        l.place, l.name, format(
          'create index concurrently if not exists %I on %s using gin %s where tenant_id = %L',
          l.name, v.relation, l.of, v_tenant
        )
      from (
        values
        (3, replace(v_own, 'ix_own_', 'ix_own_words_'), '(words)'),
        (
          4, replace(v_own, 'ix_own_', 'ix_own_data_'),
          '(metadata jsonb_path_ops) with (gin_pending_list_limit = 128)'
        )
      ) as l (place, name, of)
      where v_tenant is not null
    ) as i
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
'than three quarters of all, gets some of its own, of vectors, of words and of metadata; null: with more '
'than are compared one by one, 500 to 5,000.';
