-- Triggers are added: no row is touched, and the tables are locked for a moment, rather not at all than
-- while all others wait.
set local lock_timeout = '10s';

-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it; the last lines take this away again.
grant usage, create on schema haive_private to haive_writer;

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
  p_sealed boolean, -- all of them
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
      max(coalesce(u.created_at, now())) as latest
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
  if v_watch <> '---' then
    if p_sealed is null then
      perform haive_private.check_sealed(false);
    end if;
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
      last_message_at = greatest(c.last_message_at, coalesce(p_created_at, now()))
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

-- What stands between a message and a session, whichever way it comes: the row of the conversation is
-- locked already, and that lock always comes before the session's.
create or replace function haive_private.check_session_write(
  p_tenant text, p_actor text, p_session_id uuid, p_owner text, p_last_seq bigint
)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  -- For whom a service writes, if it says so.
  v_actor text := coalesce(p_actor, nullif(current_setting('persistence.acting', true), ''));
  v_row haive.sessions;
begin
  update haive.sessions as s
  set active_at = now()
  where
    s.tenant_id = p_tenant and s.id = p_session_id and s.status = 'open'
    and (s.ttl is null or s.active_at + s.ttl * interval '1 second' > now())
    and (s.max_messages is null or s.index_offset + p_last_seq <= s.max_messages)
    and (v_actor is null or v_actor = p_owner or v_actor = any(s.writers));
  if found then
    return;
  end if;
  select * into v_row from haive.sessions as s
  where s.tenant_id = p_tenant and s.id = p_session_id;
  if not found then
    -- A plain conversation, by the function that writes to sessions.
    raise exception using
      errcode = 'PT404',
      message = format('no session %s', p_session_id),
      hint = 'A conversation that is no session is written to with add_messages.';
  elsif
    v_actor is not null and v_actor is distinct from p_owner
    and v_actor <> all(coalesce(v_row.writers, '{}'))
  then
    perform from haive.conversations as c
    where c.tenant_id = p_tenant and c.id = p_session_id and v_actor = any(c.participants);
    if not found then
      raise exception using
        errcode = 'PT404',
        message = format('no session %s', p_session_id),
        hint = 'It was deleted, belongs to another tenant, or is not the user''s to see.';
    end if;
    raise exception using
      errcode = 'PT403',
      message = 'the user may not write to the session',
      hint = 'A moderator changes that with set_participant.';
  end if;
  perform haive_private.refuse_closed_session(v_row);
  raise exception using
    errcode = 'PT507',
    message = format('the session %s is at max_messages', p_session_id),
    hint = 'It goes on in a successor: continue_session.';
end;
$$;

alter function haive_private.check_session_write(text, text, uuid, text, bigint)
owner to haive_writer;

comment on function haive_private.check_session_write(text, text, uuid, text, bigint) is
'Refuses a message to a session that is closed, expired or full, or by who may not write to it, and '
'to what is none where a session is written to; else the session stays open for its ttl from now on.';

-- add_messages for a service that acts for a user: as whom it writes is told to the trigger of all
-- writes to sessions, and kept with the message. Users who call with their token are told apart anyway.
-- That it is a session they are told too: a plain conversation has nobody who is asked whether the user
-- may write.
create or replace function haive.add_session_messages(
  session_id uuid, messages jsonb, acting_user text default null, tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_user text := haive.current_actor();
  v_answer json;
begin
  if add_session_messages.acting_user <> v_user then
    raise exception using
      errcode = 'PT403',
      message = 'only services act for others',
      hint = 'Leave out acting_user: the token says who calls.';
  elsif v_user is null then
    perform
      set_config('persistence.author', coalesce(add_session_messages.acting_user, ''), true),
      set_config('persistence.acting', coalesce(add_session_messages.acting_user, ''), true);
  end if;
  perform set_config('persistence.session', 'on', true);
  select
    haive.add_messages(
      coalesce(
        jsonb_agg(
          u.doc || jsonb_build_object('conversation_id', add_session_messages.session_id)
          order by u.place
        ),
        '[]'
      ),
      add_session_messages.tenant
    )
  into v_answer
  from jsonb_array_elements(add_session_messages.messages) with ordinality as u (doc, place);
  perform
    set_config('persistence.author', '', true), set_config('persistence.acting', '', true),
    set_config('persistence.session', '', true);
  return v_answer;
end;
$$;

-- The first call writes the tombstone, which is what late writers meet; each one after it deletes a
-- batch, and the last one finds nothing. Whoever stops between two goes on with the next.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.erase_user(p_tenant text, p_user_id text, p_batch int)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_as_administrator(p_tenant, true);
  v_salt bytea;
  v_tomb haive.erasures;
  v_ids uuid[];
  v_counts jsonb := '{}';
  v_rows bigint;
  v_memories bigint;
  v_more boolean := true;
begin
  if (length(p_user_id) between 1 and 200) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'user_id is not 1 to 200 characters',
      hint = 'It is the "sub" of the user''s tokens, or what conversations have as user_id.';
  elsif (p_batch between 1 and 100000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'batch is not between 1 and 100000',
      hint = 'It is how many rows go in one transaction.';
  end if;
  if v_caller.role = 'admin' and exists (
    select from haive.members as m
    where
      m.tenant_id = v_caller.tenant and m.user_id = p_user_id and m.role in ('owner', 'admin')
  ) then
    raise exception using
      errcode = 'PT403',
      message = 'only an owner erases owners and admins',
      hint = 'Admins erase members, readers and users who are no members.';
  elsif v_caller.role <> 'platform' then
    perform haive_private.keep_an_owner(v_caller.tenant, p_user_id);
  end if;

  select e.salt into v_salt from haive.erasures as e where e.tenant_id = v_caller.tenant limit 1;
  select * into v_tomb from haive.erasures as e
  where
    e.tenant_id = v_caller.tenant
    and e.subject_hash = sha256(v_salt || convert_to(p_user_id, 'UTF8'))
  for update;
  if not found then
    -- All who looked before it was there have ended when this lock is granted, or are this transaction.
    perform
      pg_advisory_xact_lock(hashtextextended('erasures of ' || v_caller.tenant, 0)),
      set_config('persistence.not_erased', '', true);
    select e.salt into v_salt from haive.erasures as e where e.tenant_id = v_caller.tenant limit 1;
    v_salt := coalesce(v_salt, uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
    insert into haive.erasures (tenant_id, subject_hash, salt)
    values (v_caller.tenant, sha256(v_salt || convert_to(p_user_id, 'UTF8')), v_salt)
    on conflict (tenant_id, subject_hash) do update set tenant_id = excluded.tenant_id
    returning * into v_tomb;
    return json_build_object(
      'done', false, 'counts', v_tomb.counts, 'erased_at', v_tomb.erased_at, 'finished_at', null
    );
  end if;

  -- First, for what was made of their conversations is found by those.
  v_memories := haive_private.drop_memories(v_caller.tenant, p_user_id, null, p_batch);
  if v_memories > 0 then
    v_counts := jsonb_build_object('memories', v_memories);
  else
    -- A conversation goes whole, so that the last one may exceed the batch.
    v_ids := array(
      select s.id
      from (
        select c.id, sum(c.message_count + 1) over (order by c.id) - c.message_count - 1 as rows
        from haive.conversations as c
        where c.tenant_id = v_caller.tenant and c.user_id = p_user_id
      ) as s
      where s.rows < p_batch
      order by s.id
    );
    if cardinality(v_ids) > 0 then
      v_counts := haive_private.drop_conversations(v_caller.tenant, v_ids);
    else
      v_ids := array(
        select c.id from haive.conversations as c
        where c.tenant_id = v_caller.tenant and c.participants::text[] @> array[p_user_id]
        order by c.id
        limit p_batch
        for update
      );
      update haive.conversations as c
      set participants = array_remove(c.participants::text[], p_user_id), updated_at = now()
      where c.tenant_id = v_caller.tenant and c.id = any(v_ids);
      get diagnostics v_rows = row_count;
      update haive.sessions as s
      set
        room = s.room + 1,
        writers = nullif(array_remove(s.writers::text[], p_user_id), '{}'),
        moderators = nullif(array_remove(s.moderators::text[], p_user_id), '{}')
      where s.tenant_id = v_caller.tenant and s.id = any(v_ids);
      insert into haive.events (tenant_id, kind, conversation_id)
      select v_caller.tenant, 'conversation.updated', u.id from unnest(v_ids) as u (id);
      v_counts := jsonb_build_object('participations', v_rows);
    end if;
    if cardinality(v_ids) = 0 then
      -- What they wrote in sessions of others stays, without their name.
      v_ids := array(
        select m.id from haive.messages as m
        where m.author = p_user_id and m.tenant_id = v_caller.tenant
        limit p_batch
      );
      update haive.messages as m
      set author = null
      where m.id = any(v_ids) and m.tenant_id = v_caller.tenant;
      get diagnostics v_rows = row_count;
      v_counts := jsonb_build_object('authorships', v_rows);
    end if;
    if cardinality(v_ids) = 0 then
      v_ids := array(
        select t.thread_key from haive.threads as t
        where t.tenant_id = v_caller.tenant and t.user_id = p_user_id
        order by t.thread_key
        limit greatest(p_batch / 100, 1)
      );
      if cardinality(v_ids) > 0 then
        v_counts := haive_private.drop_threads(v_caller.tenant, v_ids);
      end if;
    end if;
    if cardinality(v_ids) = 0 then
      delete from haive.members as m
      where m.tenant_id = v_caller.tenant and m.user_id = p_user_id;
      get diagnostics v_rows = row_count;
      v_counts := v_counts || jsonb_build_object('members', v_rows);
      delete from haive.invitations as i
      where i.tenant_id = v_caller.tenant and (i.accepted_by = p_user_id or i.label = p_user_id);
      get diagnostics v_rows = row_count;
      v_counts := v_counts || jsonb_build_object('invitations', v_rows);
      update haive.invitations as i
      set
        created_by = null,
        revoked_at = case when i.accepted_at is null then coalesce(i.revoked_at, now()) end
      where i.tenant_id = v_caller.tenant and i.created_by = p_user_id;
      v_more := false;
    end if;
  end if;

  update haive.erasures as e
  set
    counts = haive_private.sum_counts(e.counts, v_counts),
    finished_at = case when not v_more then coalesce(e.finished_at, now()) end
  where e.tenant_id = v_caller.tenant and e.subject_hash = v_tomb.subject_hash
  returning e.* into v_tomb;
  return json_build_object(
    'done', not v_more, 'counts', v_tomb.counts, 'erased_at', v_tomb.erased_at,
    'finished_at', v_tomb.finished_at
  );
end;
$$;

alter function haive_private.erase_user(text, text, int) owner to haive_writer;

-- Many messages come at once, mostly of one author, who is looked for once in a transaction: the lock is
-- held until it ends, and meanwhile nobody else erases them.
create or replace function haive_private.refuse_erased_author()
returns trigger
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_author text := new.tenant_id || ' ' || new.author;
  v_done text;
begin
  if current_setting('persistence.not_erased', true) is distinct from v_author then
    perform haive_private.refuse_erased(new.tenant_id, array[new.author::text]);
    v_done := set_config('persistence.not_erased', v_author, true);
  end if;
  return null;
end;
$$;

comment on function haive_private.refuse_erased_author() is
'Refuses a message whose author was erased.';

revoke all on function haive_private.refuse_erased_author()
from public, anon, authenticated, service_role, haive_client;

-- Most messages have no author, and are not asked for it.
create trigger messages_refuse_erased after insert or update of author on haive.messages
for each row when (new.author is not null)
execute function haive_private.refuse_erased_author();

-- What a language model said of conflicts was put on record, in words of messages that may be sealed.
update haive.session_merges as m
set
  conflicts = (
    select jsonb_agg(
      case
        when u.doc ->> 'reason' in (
          'numbers', 'names', 'negation', 'yes / no', 'different answers'
        ) then u.doc
        else u.doc || '{"reason": "model"}'
      end
      order by u.place
    )
    from jsonb_array_elements(m.conflicts) with ordinality as u (doc, place)
  )
where exists (
  select from jsonb_array_elements(m.conflicts) as u (doc)
  where
    u.doc ->> 'reason' not in (
      'numbers', 'names', 'negation', 'yes / no', 'different answers', 'model'
    )
);

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261130050000', 'guarded_sessions')
on conflict do nothing;
