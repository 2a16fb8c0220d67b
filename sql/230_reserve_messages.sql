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
  p_sealed boolean, -- null: some of them
  out conversation_ids uuid[], -- sorted, each once
  out last_seqs bigint[], -- of each, after the reservation
  out counts bigint[] -- of each, how many places were taken
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
-- One plan for all calls: planning each time is 1.5 of 25 µs a message, at 128 rows. The tables may
-- be empty when it is made, and it stays: without the other scans the key is what is left to it.
-- (Before 17, a plan made for an empty table reads the tenant's keys until autovacuum sees rows.)
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_ids uuid[]; -- as conversation_ids, a name that columns have
  v_inputs bigint[];
  v_outputs bigint[];
  v_costs numeric[];
  v_latest timestamptz[];
  v_owner text;
  v_is_session boolean := false;
begin
  perform haive_private.check_sealed(p_sealed);
  select
    array_agg(g.conversation_id), array_agg(g.n), array_agg(g.input_tokens),
    array_agg(g.output_tokens), array_agg(g.cost), array_agg(g.latest)
  into v_ids, counts, v_inputs, v_outputs, v_costs, v_latest
  from (
    select
      u.conversation_id,
      count(*) as n,
      coalesce(sum(u.input_tokens), 0) as input_tokens,
      coalesce(sum(u.output_tokens), 0) as output_tokens,
      coalesce(sum(u.cost), 0) as cost,
      least(max(coalesce(u.created_at, now())), now()) as latest -- no date to come keeps it longer
    from unnest(p_conversation_ids, p_input_tokens, p_output_tokens, p_costs, p_created_at)
      as u (conversation_id, input_tokens, output_tokens, cost, created_at)
    group by u.conversation_id
    order by u.conversation_id
  ) as g;

  if cardinality(v_ids) = 1 then
    update haive.conversations as c
    set
      message_count = c.message_count + counts[1],
      input_tokens = c.input_tokens + v_inputs[1],
      output_tokens = c.output_tokens + v_outputs[1],
      cost = c.cost + v_costs[1],
      last_message_at = greatest(c.last_message_at, v_latest[1])
    where
      c.tenant_id = p_tenant and c.id = v_ids[1]
      and (p_actor is null or c.user_id = p_actor or p_actor = any(c.participants))
    returning array[c.message_count], c.is_session, c.user_id
    into last_seqs, v_is_session, v_owner;
    if not found then
      last_seqs := array[null::bigint];
    elsif v_is_session or current_setting('persistence.session', true) <> '' then
      perform haive_private.check_session_write(p_tenant, p_actor, v_ids[1], v_owner, last_seqs[1]);
    end if;
  else
    -- The scan of the key finds the rows in the order of their ids, so two writers never wait for
    -- each other in a circle; width_bucket is the binary search for a row's place in the array.
    with grown as (
      update haive.conversations as c
      set
        message_count = c.message_count + counts[width_bucket(c.id, v_ids)],
        input_tokens = c.input_tokens + v_inputs[width_bucket(c.id, v_ids)],
        output_tokens = c.output_tokens + v_outputs[width_bucket(c.id, v_ids)],
        cost = c.cost + v_costs[width_bucket(c.id, v_ids)],
        last_message_at = greatest(c.last_message_at, v_latest[width_bucket(c.id, v_ids)])
      where
        c.tenant_id = p_tenant and c.id = any(v_ids)
        and (p_actor is null or c.user_id = p_actor or p_actor = any(c.participants))
      returning c.id, c.message_count, c.is_session
    )
    select array_agg(g.message_count order by u.id), bool_or(g.is_session)
    into last_seqs, v_is_session
    from unnest(v_ids) as u (id)
    left join grown as g on g.id = u.id;
    if v_is_session then
      perform haive_private.check_session_write(p_tenant, p_actor, c.id, c.user_id, c.message_count)
      from haive.conversations as c
      where c.tenant_id = p_tenant and c.id = any(v_ids) and c.is_session;
    end if;
  end if;

  insert into haive.events (tenant_id, kind, conversation_id, first_seq, last_seq)
  select p_tenant, 'messages.added', u.id, u.last_seq - u.n + 1, u.last_seq
  from unnest(v_ids, last_seqs, counts) as u (id, last_seq, n)
  where u.last_seq is not null;
  conversation_ids := v_ids;
end;
$$;

alter function haive_private.reserve_messages(
  text, text, uuid[], int[], int[], numeric[], timestamptz[], boolean
) owner to haive_writer;

comment on function haive_private.reserve_messages(
  text, text, uuid[], int[], int[], numeric[], timestamptz[], boolean
) is 'Gives places (seq) to messages that are about to be written in the same transaction.';
