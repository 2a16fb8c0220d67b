-- One message, what insert_messages does for a single row: 0.1 ms less than by arrays, which is what a
-- lone caller waits for. And what the table's triggers would find in the rows is known here: it is
-- counted and put on record without asking them, an eighth of what such a message takes.
create or replace function haive_private.append_message(
  p_tenant text,
  p_conversation_id uuid,
  p_id uuid,
  p_role text,
  p_content text,
  p_parts jsonb default null,
  p_metadata jsonb default null,
  p_input_tokens int default null,
  p_output_tokens int default null,
  p_model text default null,
  p_cost numeric default null,
  p_created_at timestamptz default null,
  p_sealed bytea default null,
  p_sealed_with text default null,
  out seq bigint,
  out created_at timestamptz,
  out failure text
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_watch text := current_setting('persistence.watch');
  v_replay record;
  v_done text;
  v_counted boolean;
begin
  if p_sealed is not null or v_watch <> '---' then
    perform haive_private.check_sealed(p_sealed is not null);
  end if;
  if v_watch <> '---' then
    v_done := set_config('persistence.watch', v_watch || '---', true); -- see meter_added
  end if;
  -- One statement in place of three: 4 to 8 % of the server's time. Its triggers run after all of it.
  with place as (
    update haive.conversations as c
    set
      message_count = c.message_count + 1,
      input_tokens = c.input_tokens + coalesce(p_input_tokens, 0),
      output_tokens = c.output_tokens + coalesce(p_output_tokens, 0),
      cost = c.cost + coalesce(p_cost, 0),
      last_message_at = greatest(c.last_message_at, least(p_created_at, now()))
    where
      c.tenant_id = v_caller.tenant and c.id = p_conversation_id
      and (
        v_caller.actor is null or c.user_id = v_caller.actor
        or v_caller.actor = any(c.participants)
      )
    returning c.message_count as seq, c.is_session, c.user_id
  ),
  told as (
    insert into haive.events (tenant_id, kind, conversation_id, first_seq, last_seq)
    select v_caller.tenant, 'messages.added', p_conversation_id, p.seq, p.seq
    from place as p
  ),
  written as (
    insert into haive.messages (
      tenant_id, conversation_id, seq, id, role, content, parts, metadata,
      input_tokens, output_tokens, model, cost, created_at, sealed, sealed_with
    )
    select
      v_caller.tenant, p_conversation_id, p.seq, p_id, p_role, p_content, p_parts,
      coalesce(p_metadata, '{}'), p_input_tokens, p_output_tokens, p_model, p_cost,
      coalesce(p_created_at, now()), p_sealed, p_sealed_with
    from place as p
    -- Of a session that is full or closed the writer hears that, before anything of the id.
    where
      case
        when p.is_session or current_setting('persistence.session', true) <> ''
          then haive_private.check_session_write(
            v_caller.tenant, v_caller.actor, p_conversation_id, p.user_id, p.seq
          ) is not null
        else true
      end
  )
  select p.seq, coalesce(p_created_at, now()) into seq, created_at
  from place as p;
  if not found then
    failure := 'PT404';
  end if;
  if v_watch <> '---' then
    v_done := set_config('persistence.watch', v_watch, true);
    if failure is null and v_watch like 'm%' then
      v_counted := haive_private.meter(
        v_caller.tenant, 0,
        haive_private.message_bytes(p_content, p_parts, coalesce(p_metadata, '{}'))
        + coalesce(octet_length(p_sealed), 0),
        1, coalesce(p_input_tokens, 0), coalesce(p_output_tokens, 0), coalesce(p_cost, 0)
      );
    end if;
    if failure is null and v_watch like '_w%' then
      insert into haive_private.audit_queue (tenant_id, action, object, rows, row_count)
      values (
        v_caller.tenant, 'insert', 'messages',
        jsonb_build_object(p_conversation_id, jsonb_build_array(seq, seq)), 1
      );
    end if;
  end if;
exception
  when unique_violation or sqlstate 'PT412' or sqlstate 'PT507' then
    -- A session that has closed or filled up since knows a message that it has already.
    if sqlstate in ('PT412', 'PT507') and not exists (
      select from haive.messages as m
      where
        m.id = p_id and m.tenant_id = v_caller.tenant and m.conversation_id = p_conversation_id
    ) then
      raise;
    end if;
    v_replay := haive_private.replay_messages(
      v_caller.tenant, v_caller.actor, array[p_conversation_id], array[p_id], array[p_role],
      array[p_content], array[p_parts], array[p_metadata], array[p_input_tokens],
      array[p_output_tokens], array[p_model], array[p_cost], array[p_created_at],
      array[p_sealed], array[p_sealed_with]
    );
    seq := v_replay.seqs[1];
    created_at := v_replay.times[1];
    failure := v_replay.failures[1];
end;
$$;

alter function haive_private.append_message(
  text, uuid, uuid, text, text, jsonb, jsonb, int, int, text, numeric, timestamptz, bytea,
  text
) owner to haive_writer;

comment on function haive_private.append_message(
  text, uuid, uuid, text, text, jsonb, jsonb, int, int, text, numeric, timestamptz, bytea,
  text
) is 'What append_messages does, for one message.';
