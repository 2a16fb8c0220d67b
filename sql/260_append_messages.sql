-- The fast path of writing: what the SDK calls on a direct connection, and add_messages for all
-- others (of a lone message both call append_message). One bad message does not spoil the others: it gets
-- a SQLSTATE in failures.
create or replace function haive_private.append_messages(
  p_tenant text,
  p_conversation_ids uuid[],
  p_ids uuid[],
  p_roles text[],
  p_contents text[],
  p_parts jsonb[] default null,
  p_metadata jsonb[] default null,
  p_input_tokens int[] default null,
  p_output_tokens int[] default null,
  p_models text[] default null,
  p_costs numeric[] default null,
  p_created_at timestamptz[] default null,
  p_sealed bytea[] default null,
  p_sealed_with text[] default null,
  out seqs bigint[],
  out times timestamptz[],
  out failures text[] -- null: all were written
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
begin
  begin
    select w.seqs, w.times into seqs, times
    from haive_private.insert_messages(
      v_caller.tenant, v_caller.actor, p_conversation_ids, p_ids, p_roles, p_contents, p_parts,
      p_metadata, p_input_tokens, p_output_tokens, p_models, p_costs, p_created_at,
      p_sealed, p_sealed_with
    ) as w;
    if array_position(seqs, null) is not null then
      failures := array(
        select case when u.seq is null then 'PT404' end
        from unnest(seqs) with ordinality as u (seq, place)
        order by u.place
      );
    end if;
  exception
    when unique_violation or sqlstate 'PT412' or sqlstate 'PT507' then
      -- A session that has closed or filled up since knows the messages that it has already.
      if sqlstate in ('PT412', 'PT507') and not exists (
        select from unnest(p_ids, p_conversation_ids) as u (id, conversation_id)
        join haive.messages as m
          on m.id = u.id and m.tenant_id = v_caller.tenant and m.conversation_id = u.conversation_id
      ) then
        raise;
      end if;
      select w.seqs, w.times, w.failures into seqs, times, failures
      from haive_private.replay_messages(
        v_caller.tenant, v_caller.actor, p_conversation_ids, p_ids, p_roles, p_contents, p_parts,
        p_metadata, p_input_tokens, p_output_tokens, p_models, p_costs, p_created_at,
        p_sealed, p_sealed_with
      ) as w;
  end;
end;
$$;

alter function haive_private.append_messages(
  text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
) owner to haive_writer;

comment on function haive_private.append_messages(
  text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
) is 'Writes messages of any conversations; those that exist already are answered as they are.';
