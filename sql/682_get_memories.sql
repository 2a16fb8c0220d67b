-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.get_memories(
  p_tenant text, p_collection text, p_ids text[], p_vectors boolean
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, false);
  v_answer json;
begin
  if cardinality(p_ids) > 10000 then
    raise exception using
      errcode = 'PT422',
      message = 'ids are more than 10,000',
      hint = 'Ask for them in several calls.';
  end if;
  execute format(
    $q$
      select coalesce(json_agg(m.doc order by m.place), '[]')
      from (
        select u.place, %2$s as doc
        from unnest($1) with ordinality as u (id, place)
        join %1$s as t on t.id = u.id
        where %3$s
      ) as m
    $q$, v.relation, haive_private.memory_doc(p_vectors), v.own
  ) into v_answer using p_ids;
  if v.audit_reads then
    perform haive_private.audit_read(
      'get_memories', jsonb_build_object((v.collection).name, json_array_length(v_answer)),
      json_array_length(v_answer)
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.get_memories(text, text, text[], boolean) owner to haive_writer;

comment on function haive_private.get_memories(text, text, text[], boolean) is
'What haive.get_memories does, for a caller without rights on the tables.';

create or replace function haive_private.memory_doc(p_vectors boolean)
returns text
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return case
    when p_vectors then
      'json_build_object(''id'', t.id, ''metadata'', t.metadata, ''vector'', t.vec::text)'
    else 'json_build_object(''id'', t.id, ''metadata'', t.metadata)'
  end;
end;
$$;

comment on function haive_private.memory_doc(boolean) is
'The expression that makes a memory JSON, with its vector as text where that is wanted.';

create or replace function haive.get_memories(
  collection text, ids text[], vectors boolean default false, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.get_memories(
    get_memories.tenant, get_memories.collection, get_memories.ids, get_memories.vectors
  )
$$;

comment on function haive.get_memories(text, text[], boolean, text) is
'Memories by id in the order asked for, without those that are not there: a list of {id, metadata} '
'and, where wanted, vector.';
