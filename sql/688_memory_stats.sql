-- Definer: haive_writer owns the tables in schema vecs.
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

alter function haive_private.memory_stats(text, text) owner to haive_writer;

comment on function haive_private.memory_stats(text, text) is
'What haive.memory_stats does, for a caller without rights on the tables.';

create or replace function haive.memory_stats(collection text, tenant text default null)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.memory_stats(memory_stats.tenant, memory_stats.collection)
$$;

comment on function haive.memory_stats(text, text) is
'How much a tenant has in a collection, for its administrators: {collection, memories, words, '
'different_words, indexes, bytes}; bytes are of all tenants, indexes those that its searches may use.';
