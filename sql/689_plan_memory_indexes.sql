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
