-- Takes the next places of the conversations that messages go to: locks each conversation's row,
-- moves its counters and writes its event, in one statement each however many messages come.
-- Messages of a conversation that is unknown, or closed to the caller, get no place.
create or replace function haive_private.reserve_messages(
  p_tenant text,
  p_actor text,
  p_conversation_ids uuid[],
  p_input_tokens int[],
  p_output_tokens int[],
  p_costs numeric[],
  p_created_at timestamptz[],
  out conversation_ids uuid[], -- sorted, each once
  out last_seqs bigint[], -- of each, after the reservation
  out counts bigint[] -- of each, how many places were taken
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_inputs bigint[];
  v_outputs bigint[];
  v_costs numeric[];
  v_latest timestamptz[];
begin
  select
    array_agg(g.conversation_id), array_agg(g.n), array_agg(g.input_tokens),
    array_agg(g.output_tokens), array_agg(g.cost), array_agg(g.latest)
  into conversation_ids, counts, v_inputs, v_outputs, v_costs, v_latest
  from (
    select
      u.conversation_id,
      count(*) as n,
      coalesce(sum(u.input_tokens), 0) as input_tokens,
      coalesce(sum(u.output_tokens), 0) as output_tokens,
      coalesce(sum(u.cost), 0) as cost,
      max(coalesce(u.created_at, now())) as latest
    from unnest(p_conversation_ids, p_input_tokens, p_output_tokens, p_costs, p_created_at)
      as u (conversation_id, input_tokens, output_tokens, cost, created_at)
    group by u.conversation_id
    order by u.conversation_id
  ) as g;

  if cardinality(conversation_ids) = 1 then
    update haive.conversations as c
    set
      message_count = c.message_count + counts[1],
      input_tokens = c.input_tokens + v_inputs[1],
      output_tokens = c.output_tokens + v_outputs[1],
      cost = c.cost + v_costs[1],
      last_message_at = greatest(c.last_message_at, v_latest[1])
    where
      c.tenant_id = p_tenant and c.id = conversation_ids[1]
      and (p_actor is null or c.user_id = p_actor or p_actor = any(c.participants))
    returning array[c.message_count] into last_seqs;
    if not found then
      last_seqs := array[null::bigint];
    end if;
  else
    -- Planned anew each time, for a plan made while the table was empty reads all of it for ever.
    -- Its index scan finds the rows in the order of their ids, so two writers never wait for each
    -- other in a circle; width_bucket is the binary search for a row's place in the sorted array.
    execute $q$
      with grown as (
        update haive.conversations as c
        set
          message_count = c.message_count + $4[width_bucket(c.id, $3)],
          input_tokens = c.input_tokens + $5[width_bucket(c.id, $3)],
          output_tokens = c.output_tokens + $6[width_bucket(c.id, $3)],
          cost = c.cost + $7[width_bucket(c.id, $3)],
          last_message_at = greatest(c.last_message_at, $8[width_bucket(c.id, $3)])
        where
          c.tenant_id = $1 and c.id = any($3)
          and ($2 is null or c.user_id = $2 or $2 = any(c.participants))
        returning c.id, c.message_count
      )
      select array_agg(g.message_count order by u.id)
      from unnest($3) as u (id)
      left join grown as g on g.id = u.id
    $q$
    into last_seqs
    using p_tenant, p_actor, conversation_ids, counts, v_inputs, v_outputs, v_costs, v_latest;
  end if;

  insert into haive.events (tenant_id, kind, conversation_id, first_seq, last_seq)
  select p_tenant, 'messages.added', u.id, u.last_seq - u.n + 1, u.last_seq
  from unnest(conversation_ids, last_seqs, counts) as u (id, last_seq, n)
  where u.last_seq is not null;
end;
$$;

alter function haive_private.reserve_messages(
  text, text, uuid[], int[], int[], numeric[], timestamptz[]
) owner to haive_writer;

comment on function haive_private.reserve_messages(
  text, text, uuid[], int[], int[], numeric[], timestamptz[]
) is 'Gives places (seq) to messages that are about to be written in the same transaction.';
