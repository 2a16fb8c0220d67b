-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.delete_memories(
  p_tenant text, p_collection text, p_ids text[]
)
returns text[]
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, true);
  v_own text := v.own;
  v_answer text[];
begin
  if cardinality(p_ids) > 10000 then
    raise exception using
      errcode = 'PT422',
      message = 'ids are more than 10,000',
      hint = 'Delete them in several calls.';
  end if;
  if v.actor is not null then
    -- What is nobody's is everybody's to read, and not to remove.
    v_own := v_own || ' and t.user_id is not null';
  end if;
  execute format(
    $q$
      with doomed as (
        select t.id from %1$s as t where %2$s and t.id = any($1) order by t.id for update
      ),
      gone as (
        delete from %1$s as t using doomed as d where t.id = d.id returning t.id
      )
      select coalesce(array_agg(g.id::text order by array_position($1, g.id::text)), '{}')
      from gone as g
    $q$, v.relation, v_own
  ) into v_answer using p_ids;
  return v_answer;
end;
$$;

alter function haive_private.delete_memories(text, text, text[]) owner to haive_writer;

comment on function haive_private.delete_memories(text, text, text[]) is
'What haive.delete_memories does, for a caller without rights on the tables.';

create or replace function haive.delete_memories(
  collection text, ids text[], tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select to_json(haive_private.delete_memories(
    delete_memories.tenant, delete_memories.collection, delete_memories.ids
  ))
$$;

comment on function haive.delete_memories(text, text[], text) is
'Removes memories, and returns the ids of those that were there.';
