-- The slow way in, taken when an id exists already: a retry after a lost answer. Under the locks
-- of the conversations it writes what is missing and compares the rest.
create or replace function haive_private.replay_messages(
  p_tenant text,
  p_actor text,
  p_conversation_ids uuid[],
  p_ids uuid[],
  p_roles text[],
  p_contents text[],
  p_parts jsonb[],
  p_metadata jsonb[],
  p_input_tokens int[],
  p_output_tokens int[],
  p_models text[],
  p_costs numeric[],
  p_created_at timestamptz[],
  p_sealed bytea[],
  p_sealed_with text[],
  out seqs bigint[],
  out times timestamptz[],
  out failures text[]
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_missing bigint[];
begin
  perform from haive.conversations as c
  where c.tenant_id = p_tenant and c.id = any(p_conversation_ids)
  order by c.id
  for no key update;

  v_missing := array(
    select min(u.place) from unnest(p_ids) with ordinality as u (id, place)
    where not exists (select from haive.messages as m where m.id = u.id and m.tenant_id = p_tenant)
    group by u.id
    order by min(u.place)
  );
  perform haive_private.insert_messages(
    p_tenant,
    p_actor,
    array(select p_conversation_ids[i] from unnest(v_missing) as i),
    array(select p_ids[i] from unnest(v_missing) as i),
    array(select p_roles[i] from unnest(v_missing) as i),
    array(select p_contents[i] from unnest(v_missing) as i),
    array(select p_parts[i] from unnest(v_missing) as i),
    array(select p_metadata[i] from unnest(v_missing) as i),
    array(select p_input_tokens[i] from unnest(v_missing) as i),
    array(select p_output_tokens[i] from unnest(v_missing) as i),
    array(select p_models[i] from unnest(v_missing) as i),
    array(select p_costs[i] from unnest(v_missing) as i),
    array(select p_created_at[i] from unnest(v_missing) as i),
    array(select p_sealed[i] from unnest(v_missing) as i),
    array(select p_sealed_with[i] from unnest(v_missing) as i)
  )
  where cardinality(v_missing) > 0;

  select
    array_agg(case when s.failure is null then s.seq end order by s.place),
    array_agg(case when s.failure is null then s.created_at end order by s.place),
    array_agg(s.failure order by s.place)
  into seqs, times, failures
  from (
    select
      u.place, m.seq, m.created_at,
      case
        when c.id is null then 'PT404'
        when m.id is null or (
          m.conversation_id, m.role, m.content, m.parts, m.metadata,
          m.input_tokens, m.output_tokens, m.model, m.cost, m.created_at, m.sealed, m.sealed_with
        ) is distinct from (
          u.conversation_id, u.role, u.content, u.parts, coalesce(u.metadata, '{}'),
          u.input_tokens, u.output_tokens, u.model, u.cost, coalesce(u.created_at, m.created_at),
          u.sealed, u.sealed_with
        ) then 'PT409'
      end as failure
    from unnest(
      p_conversation_ids, p_ids, p_roles, p_contents, p_parts, p_metadata,
      p_input_tokens, p_output_tokens, p_models, p_costs, p_created_at, p_sealed,
      p_sealed_with
    ) with ordinality as u (
      conversation_id, id, role, content, parts, metadata,
      input_tokens, output_tokens, model, cost, created_at, sealed, sealed_with, place
    )
    left join haive.conversations as c
      on c.tenant_id = p_tenant and c.id = u.conversation_id
      and (p_actor is null or c.user_id = p_actor or p_actor = any(c.participants))
    left join haive.messages as m on m.id = u.id and m.tenant_id = p_tenant
  ) as s;
end;
$$;

alter function haive_private.replay_messages(
  text, text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
) owner to haive_writer;

comment on function haive_private.replay_messages(
  text, text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
) is 'Writes those messages that are not there yet and answers for all.';
