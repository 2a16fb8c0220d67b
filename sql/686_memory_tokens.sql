-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.memory_tokens(
  p_tenant text, p_collection text, p_ids text[]
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
      select coalesce(json_object_agg(t.id, encode(t.tokens, 'base64')), '{}')
      from %s as t
      where %s and t.id = any($1) and t.tokens is not null
    $q$, v.relation, v.own
  ) into v_answer using p_ids;
  if v.audit_reads then
    perform haive_private.audit_read(
      'memory_tokens', jsonb_build_object((v.collection).name, cardinality(p_ids)),
      cardinality(p_ids)
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.memory_tokens(text, text, text[]) owner to haive_writer;

comment on function haive_private.memory_tokens(text, text, text[]) is
'What haive.memory_tokens does, for a caller without rights on the tables.';

create or replace function haive.memory_tokens(
  collection text, ids text[], tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.memory_tokens(
    memory_tokens.tenant, memory_tokens.collection, memory_tokens.ids
  )
$$;

comment on function haive.memory_tokens(text, text[], text) is
'The vectors of words that memories were stored with, for reranking: base64 by id, without those that '
'have none.';
