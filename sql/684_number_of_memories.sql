-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.number_of_memories(
  p_tenant text, p_collection text, p_filter jsonb
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, false);
  v_answer bigint;
begin
  execute format(
    'select count(*) from %s as t where %s and %s', v.relation, v.own,
    haive_private.memory_condition(p_filter)
  ) into v_answer;
  if v.audit_reads then
    perform haive_private.audit_read(
      'count_memories', jsonb_build_object((v.collection).name, v_answer), v_answer
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.number_of_memories(text, text, jsonb) owner to haive_writer;

comment on function haive_private.number_of_memories(text, text, jsonb) is
'What haive.count_memories does, for a caller without rights on the tables.';

create or replace function haive.count_memories(
  collection text, filter jsonb default null, tenant text default null
)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.number_of_memories(
    count_memories.tenant, count_memories.collection, count_memories.filter
  )
$$;

comment on function haive.count_memories(text, jsonb, text) is
'How many memories pass a filter, archived and superseded ones among them.';
