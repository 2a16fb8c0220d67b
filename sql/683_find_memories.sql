-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.find_memories(
  p_tenant text,
  p_collection text,
  p_filter jsonb,
  p_page_size int,
  p_page_after text,
  p_vectors boolean
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
  if (p_page_size between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 10000',
      hint = 'Read on with page_after, the last id of a page.';
  end if;
  execute format(
    $q$
      select coalesce(json_agg(%2$s order by t.id), '[]')
      from (
        select t.* from %1$s as t
        where %3$s and %4$s and ($2 is null or t.id > $2)
        order by t.id
        limit $1
      ) as t
    $q$, v.relation, haive_private.memory_doc(p_vectors), v.own,
    haive_private.memory_condition(p_filter)
  ) into v_answer using p_page_size, p_page_after;
  if v.audit_reads then
    perform haive_private.audit_read(
      'find_memories', jsonb_build_object((v.collection).name, json_array_length(v_answer)),
      json_array_length(v_answer)
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.find_memories(text, text, jsonb, int, text, boolean)
owner to haive_writer;

comment on function haive_private.find_memories(text, text, jsonb, int, text, boolean) is
'What haive.find_memories does, for a caller without rights on the tables.';

create or replace function haive.find_memories(
  collection text,
  filter jsonb default null,
  page_size int default 100,
  page_after text default null,
  vectors boolean default false,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.find_memories(
    find_memories.tenant, find_memories.collection, find_memories.filter, find_memories.page_size,
    find_memories.page_after, find_memories.vectors
  )
$$;

comment on function haive.find_memories(text, jsonb, int, text, boolean, text) is
'A page of the memories that pass a filter, by id: a list of {id, metadata} and, where wanted, vector. '
'Archived and superseded ones are among them. A filter is {op, path, value} or {op, parts}.';
