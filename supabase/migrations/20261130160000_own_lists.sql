-- A tenant with many memories gets lists of its own of what they say and hold, beside its own index of
-- vectors: a search by words or by a value no longer fetches the rows of others.

grant usage, create on schema haive_private to haive_writer;

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

comment on function haive.plan_memory_indexes(text, bigint, text) is
'The indexes that a collection and the tenant in it should have, each {name, statement}: for services, '
'to be built by the owner on a direct connection. A tenant with more memories than own_from, and less '
'than three quarters of all, gets some of its own, of vectors, of words and of metadata; null: with more '
'than are compared one by one, 500 to 5,000.';

create or replace function haive_private.memory_stats(p_tenant text, p_collection text)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, false);
  v_size record;
  v_words bigint;
  v_vectors json;
begin
  if v.actor is not null then
    raise exception using
      errcode = 'PT403',
      message = 'only an administrator of the tenant sees how much there is of all',
      hint = 'count_memories counts what the user may see.';
  end if;
  select
    coalesce(sum(s.memories), 0) as memories, coalesce(sum(s.text_words), 0) as text_words
  into v_size
  from haive_private.memory_sizes as s
  where s.tenant_id = v.tenant and s.collection = (v.collection).name;
  select count(distinct w.lexeme) into v_words
  from haive_private.memory_words as w
  where w.tenant_id = v.tenant and w.collection = (v.collection).name;
  select json_agg(json_build_object(
    'name', c.relname, 'bytes', pg_relation_size(c.oid), 'valid', i.indisvalid
  ) order by c.relname) into v_vectors
  from pg_index as i
  join pg_class as c on c.oid = i.indexrelid
  where
    i.indrelid = v.relation::regclass and (
      c.relname = haive_private.memory_index_name(v.collection, null)
      or regexp_replace(c.relname, '^ix_own_(words|data)_', 'ix_own_')
      = haive_private.memory_index_name(v.collection, v.tenant)
    );
  return json_build_object(
    'collection', haive_private.memory_collection_doc(v.collection),
    'memories', v_size.memories,
    'words', v_size.text_words,
    'different_words', v_words,
    'indexes', coalesce(v_vectors, '[]'),
    'bytes', pg_total_relation_size(v.relation::regclass)
  );
end;
$$;

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261130160000', 'own_lists')
on conflict do nothing;
