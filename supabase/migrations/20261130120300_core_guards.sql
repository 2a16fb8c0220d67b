-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it; the last lines take this away again.
grant usage, create on schema haive_private to haive_writer;

-- Sealed content is taken from services alone: of a user's, which nobody could open, no page could be
-- read past. No data change.
-- What a message or a conversation says of its own time no longer moves the last activity into the
-- future, by which retention goes. On a replica requests are not counted, as their table is not there.
-- Members may leave; a message is not shown by hidden => null; the time of a message that conflicts is not
-- told; purge_tenant leaves nothing of what was watched.
grant delete on haive_private.event_floors to haive_writer;

-- A client that has no keys, or forgot them, must not store in the clear what its tenant seals. And a user
-- has none: what they send as sealed nobody could open, nor read past it.
create or replace function haive_private.check_sealed(
  p_sealed boolean -- null: some of it
)
returns void
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  -- Made by enter_tenant: no row is read for it.
  if p_sealed is not true and current_setting('persistence.watch', true) like '%s%' then
    raise exception using
      errcode = 'PT422',
      message = 'this tenant''s content is sealed by the client',
      hint = 'Work in tenant_context, which has the tenant''s keys.';
  elsif p_sealed is not false then
    -- Trusted as in enter_tenant.
    if not pg_has_role(
      coalesce(nullif(current_setting('role', true), 'none'), session_user::text),
      'haive_client', 'member'
    ) then
      raise exception using
        errcode = 'PT403',
        message = 'only services seal content',
        hint = 'Write through a service that has the tenant''s keys.';
    end if;
  end if;
end;
$$;

comment on function haive_private.check_sealed(boolean) is
'Refuses content in the clear where the tenant that was entered seals it, and sealed content of users.';

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

-- Reserves places and writes the messages into them. Rows come and go as arrays of columns, all of
-- one length (or null where no row has the column): 8 to 16 % cheaper than jsonb at 256 rows.
create or replace function haive_private.insert_messages(
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
  out seqs bigint[], -- in the order given; null: the conversation is not the caller's to write to
  out times timestamptz[]
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_places record;
begin
  v_places := haive_private.reserve_messages(
    p_tenant, p_actor, p_conversation_ids, p_input_tokens, p_output_tokens, p_costs, p_created_at,
    case coalesce(num_nonnulls(variadic p_sealed), 0)
      when 0 then false
      when cardinality(p_ids) then true
    end
  );
  with placed as materialized (
    select
      u.*,
      v_places.last_seqs[width_bucket(u.conversation_id, v_places.conversation_ids)]
      - v_places.counts[width_bucket(u.conversation_id, v_places.conversation_ids)]
      + row_number() over (partition by u.conversation_id order by u.place) as seq
    from unnest(
      p_conversation_ids, p_ids, p_roles, p_contents, p_parts, p_metadata,
      p_input_tokens, p_output_tokens, p_models, p_costs, p_created_at, p_sealed,
      p_sealed_with
    ) with ordinality as u (
      conversation_id, id, role, content, parts, metadata,
      input_tokens, output_tokens, model, cost, created_at, sealed, sealed_with, place
    )
  ),
  written as (
    insert into haive.messages (
      tenant_id, conversation_id, seq, id, role, content, parts, metadata,
      input_tokens, output_tokens, model, cost, created_at, sealed, sealed_with
    )
    select
      p_tenant, p.conversation_id, p.seq, p.id, p.role, p.content, p.parts,
      coalesce(p.metadata, '{}'), p.input_tokens, p.output_tokens, p.model, p.cost,
      coalesce(p.created_at, now()), p.sealed, p.sealed_with
    from placed as p
    where p.seq is not null
  )
  select array_agg(p.seq order by p.place), array_agg(coalesce(p.created_at, now()) order by p.place)
  into seqs, times
  from placed as p;
end;
$$;

alter function haive_private.insert_messages(
  text, text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
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

-- Definer, for nobody writes tables directly.
create or replace function haive_private.begin_conversations(
  p_tenant text, p_actor text, p_conversations jsonb, p_are_sessions boolean default false
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_taken uuid;
  v_fresh bigint;
begin
  if exists (
    select from jsonb_to_recordset(p_conversations) as g (user_id text)
    where g.user_id <> p_actor
  ) then
    raise exception using
      errcode = 'PT403',
      message = 'a member begins conversations of their own',
      hint = 'Leave out user_id; name others as participants.';
  end if;

  perform haive_private.check_sealed(g.sealed is not null)
  from jsonb_to_recordset(p_conversations) as g (sealed text);

  with fresh as (
    insert into haive.conversations (
      tenant_id, id, agent_id, user_id, title, tags, context, participants, settings,
      created_at, updated_at, last_message_at, sealed, sealed_with, is_session
    )
    select
      p_tenant, g.id, g.agent_id, g.user_id, g.title, coalesce(g.tags, '{}'),
      coalesce(g.context, '{}'), coalesce(g.participants, '{}'), coalesce(g.settings, '{}'),
      t.at, least(t.at, now()), least(t.at, now()), decode(g.sealed, 'base64'), g.sealed_with,
      p_are_sessions
    from jsonb_to_recordset(p_conversations) as g (
      id uuid, agent_id text, user_id text, title text, tags text[], context jsonb,
      participants text[], settings jsonb, created_at timestamptz, sealed text, sealed_with text
    )
    cross join lateral (select coalesce(g.created_at, now()) as at) as t
    on conflict (tenant_id, id) do nothing
    returning id
  )
  insert into haive.events (tenant_id, kind, conversation_id)
  select
    p_tenant, case when p_are_sessions then 'session.created' else 'conversation.created' end, f.id
  from fresh as f;
  get diagnostics v_fresh = row_count;

  -- Here and below, offset 0 keeps what is looked up apart from what it is looked up for: joined, a
  -- hundred rows are expected, and all of the tenant's are read (7.8 ms, not 1.1, at 5,000).
  -- A retry finds its own row, and of two with one id in a call each its equal; anything else that
  -- sits at the id is a conflict, and so is what the caller may not see, whatever they know of it.
  select g.id into v_taken
  from jsonb_to_recordset(p_conversations) as g (
    id uuid, agent_id text, user_id text, created_at timestamptz
  )
  cross join lateral (
    select c.* from haive.conversations as c
    where c.tenant_id = p_tenant and c.id = g.id
    offset 0
  ) as c
  where
    (c.agent_id, c.user_id) is distinct from (g.agent_id, g.user_id)
    or c.created_at <> g.created_at
    or (
      p_actor is null or c.user_id = p_actor
      or p_actor = any(c.participants)
    ) is not true
  limit 1;
  if found then
    raise exception using
      errcode = 'PT409',
      message = format('another conversation has the id %s', v_taken),
      hint = 'Let the SDK choose ids, or repeat a call only with the same content.';
  end if;
  return v_fresh;
end;
$$;

alter function haive_private.begin_conversations(text, text, jsonb, boolean) owner to haive_writer;

-- Definer, for nobody writes tables directly.
create or replace function haive_private.update_conversation(
  p_tenant text, p_conversation_id uuid, p_changes jsonb
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_unknown text;
  v_row haive.conversations;
begin
  select string_agg(k, ', ' order by k) into v_unknown
  from jsonb_object_keys(p_changes) as k
  where k not in (
    'agent_id', 'title', 'tags', 'context', 'participants', 'settings', 'sealed', 'sealed_with',
    'was_updated_at'
  );
  if v_unknown is not null then
    raise exception using
      errcode = 'PT422',
      message = format('cannot change: %s', left(v_unknown, 200)),
      hint = 'What changes is agent_id, title, tags, context, participants, settings.';
  end if;
  if p_changes ?| array['title', 'context', 'settings'] then
    perform haive_private.check_sealed(false);
  end if;
  if p_changes ?| array['sealed', 'sealed_with'] then
    perform haive_private.check_sealed(true);
  end if;
  perform haive_private.check_session_change(
    v_caller.tenant, v_caller.actor, p_conversation_id, p_changes ? 'participants'
  );
  update haive.conversations as c
  set
    agent_id = case when p_changes ? 'agent_id' then g.agent_id else c.agent_id end,
    title = case
      when p_changes ? 'title' then g.title
      when g.sealed is null then c.title
    end,
    tags = coalesce(g.tags, c.tags),
    context = coalesce(g.context, case when g.sealed is null then c.context else '{}' end),
    participants = coalesce(g.participants, c.participants),
    settings = coalesce(g.settings, case when g.sealed is null then c.settings else '{}' end),
    sealed = coalesce(decode(g.sealed, 'base64'), c.sealed),
    sealed_with = coalesce(g.sealed_with, c.sealed_with),
    -- Never twice the same: it says whether a row is still what somebody has read.
    updated_at = greatest(now(), c.updated_at + interval '1 microsecond')
  from jsonb_to_record(p_changes) as g (
    agent_id text, title text, tags text[], context jsonb, participants text[], settings jsonb,
    sealed text, sealed_with text, was_updated_at timestamptz
  )
  where
    c.tenant_id = v_caller.tenant and c.id = p_conversation_id
    -- What is sealed is changed as a whole, by who has read it.
    and (g.was_updated_at is null or c.updated_at = g.was_updated_at)
    and (
      v_caller.actor is null or c.user_id = v_caller.actor
      or v_caller.actor = any(c.participants)
    )
  returning c.* into v_row;
  if
    not found and p_changes ? 'was_updated_at' and exists (
      select from haive.conversations as c
      where
        c.tenant_id = v_caller.tenant and c.id = p_conversation_id
        and (
          v_caller.actor is null or c.user_id = v_caller.actor
          or v_caller.actor = any(c.participants)
        )
    )
  then
    raise exception using
      errcode = 'PT409',
      message = 'the conversation was changed meanwhile',
      hint = 'Read it again, and change what it says now.';
  elsif v_row.id is null then
    raise exception using
      errcode = 'PT404',
      message = format('no conversation %s', p_conversation_id),
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to write to.';
  end if;
  insert into haive.events (tenant_id, kind, conversation_id)
  values (v_caller.tenant, 'conversation.updated', p_conversation_id);
  return haive_private.conversation_doc(v_row);
end;
$$;

alter function haive_private.update_conversation(text, uuid, jsonb) owner to haive_writer;

-- The shared state is the settings of the conversation, which a client may seal with title and context.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.update_session_state(
  p_tenant text, p_session_id uuid, p_changes jsonb, p_expected timestamptz, p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered record := haive_private.enter_session(p_tenant, p_session_id, 'write', p_acting, true);
  v_session haive.sessions := v_entered.session;
  v_conversation haive.conversations := v_entered.conversation;
begin
  perform haive_private.refuse_closed_session(v_session);
  if p_expected <> v_conversation.updated_at then
    raise exception using
      errcode = 'PT409',
      message = 'the session was changed meanwhile',
      hint = 'Read it again, and change what it says now.';
  end if;
  if p_changes ? 'sealed' then
    perform haive_private.check_sealed(true);
    update haive.conversations as c
    set
      sealed = decode(p_changes ->> 'sealed', 'base64'),
      sealed_with = p_changes ->> 'sealed_with',
      title = null, context = '{}', settings = '{}',
      updated_at = greatest(now(), c.updated_at + interval '1 microsecond')
    where c.tenant_id = v_entered.tenant and c.id = p_session_id
    returning c.* into v_conversation;
  else
    perform haive_private.check_sealed(false);
    update haive.conversations as c
    set
      settings = (c.settings || (p_changes -> 'state')) - array(
        select e.key from jsonb_each(p_changes -> 'state') as e
        where jsonb_typeof(e.value) = 'null'
      ),
      updated_at = greatest(now(), c.updated_at + interval '1 microsecond')
    where c.tenant_id = v_entered.tenant and c.id = p_session_id
    returning c.* into v_conversation;
  end if;
  update haive.sessions as s
  set active_at = now()
  where s.tenant_id = v_entered.tenant and s.id = p_session_id
  returning s.* into v_session;
  insert into haive.events (tenant_id, kind, conversation_id)
  values (v_entered.tenant, 'session.updated', p_session_id);
  return haive_private.session_doc(v_session, v_conversation, v_entered.actor);
end;
$$;

alter function haive_private.update_session_state(text, uuid, jsonb, timestamptz, text)
owner to haive_writer;

-- Takes one request out of the tenant's token buckets, which fill up within a minute. A bucket is held
-- until the transaction ends, so there are up to 8: whoever finds one held takes another one, and waits
-- only where there is nothing in those that are free. What a transaction that fails has taken comes
-- back: refused calls do not count.
create or replace function haive_private.take_request(p_tenant text, p_limit bigint)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  -- A bucket is of at least 8 requests, or, where the limit is lower, the only one.
  v_buckets int := least(greatest(p_limit / 8, 1), 8);
  v_size bigint := p_limit / v_buckets;
  v_larger int := p_limit % v_buckets; -- so many hold one more
  v_lock bigint := hashtextextended('haive/requests/' || p_tenant, 0);
  v_slot int := pg_backend_pid() % v_buckets;
  v_cost interval;
  v_counts boolean := current_setting('transaction_read_only') = 'off';
  v_used double precision;
  v_next timestamptz;
begin
  if pg_is_in_recovery() then
    return true; -- a replica has not got the buckets, which are unlogged
  end if;
  if v_counts and v_size > 0 then
    for v_try in 1..v_buckets loop
      -- Who holds a bucket has its lock: to try a lock is cheaper than to skip a row that is locked.
      if pg_try_advisory_xact_lock(v_lock + v_slot) then
        v_cost := interval '1 microsecond' * (60000000 / (v_size + (v_slot < v_larger)::int));
        -- One request more, where the bucket is full again within a minute after it.
        update haive_private.request_buckets as b
        set full_at = greatest(b.full_at, clock_timestamp()) + v_cost
        where
          b.tenant_id = p_tenant and b.slot = v_slot
          and b.full_at <= clock_timestamp() + interval '1 minute' - v_cost;
        if found then
          return true;
        end if;
      end if;
      v_slot := (v_slot + 1) % v_buckets;
    end loop;
    insert into haive_private.request_buckets (tenant_id, slot, full_at)
    select p_tenant, s.slot, clock_timestamp()
    from generate_series(0, v_buckets - 1) as s (slot)
    on conflict do nothing;
    -- Waits for those that are held: they may have something left.
    perform from haive_private.request_buckets as b
    where b.tenant_id = p_tenant and b.slot < v_buckets
    order by b.slot
    for no key update;
    update haive_private.request_buckets as b
    set
      full_at = greatest(b.full_at, clock_timestamp())
      + interval '1 microsecond' * (60000000 / (v_size + (b.slot < v_larger)::int))
    where
      b.tenant_id = p_tenant
      and b.slot = (
        select f.slot from haive_private.request_buckets as f
        where
          f.tenant_id = p_tenant and f.slot < v_buckets
          and f.full_at <= clock_timestamp() + interval '1 minute'
          - interval '1 microsecond' * (60000000 / (v_size + (f.slot < v_larger)::int))
        order by f.full_at
        limit 1
      );
    if found then
      return true;
    end if;
  end if;
  select
    sum(
      greatest(extract(epoch from f.full_at - clock_timestamp()), 0)
      * (v_size + (f.slot < v_larger)::int) / 60
    ),
    min(
      f.full_at - interval '1 minute'
      + interval '1 microsecond' * (60000000 / nullif(v_size + (f.slot < v_larger)::int, 0))
    )
  into v_used, v_next
  from haive_private.request_buckets as f
  where f.tenant_id = p_tenant and f.slot < v_buckets;
  if v_counts or v_next > clock_timestamp() then
    perform haive_private.refuse_over_quota(
      p_tenant, 'requests', p_limit, least(ceil(v_used), p_limit)::bigint,
      coalesce(v_next, clock_timestamp() + interval '1 minute')
    );
  end if;
  return false;
end;
$$;

alter function haive_private.take_request(text, bigint) owner to haive_writer;

comment on function haive_private.take_request(text, bigint) is
'Counts a request of a tenant with a limit of them a minute, or refuses it. A transaction that may not '
'write is refused over the limit and not counted; a replica neither counts nor refuses.';

-- Definer: the meters are nobody's to read.
create or replace function haive_private.tenant_usage(p_tenant text)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_tenant text := coalesce(
    p_tenant, nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-haive-tenant',
    nullif(current_setting('persistence.tenant', true), ''), 'default'
  );
  v_caller record;
  v_row haive.tenants;
  v_today date;
  v_used bigint[];
  v_requests bigint;
begin
  if pg_has_role(
    coalesce(nullif(current_setting('role', true), 'none'), session_user::text),
    'haive_client', 'member'
  ) then
    -- A tenant that is closed has used something too.
    perform haive_private.administer_tenant(v_tenant);
  else
    v_caller := haive_private.enter_tenant(p_tenant, false);
    v_tenant := v_caller.tenant;
    if v_caller.actor is not null then
      raise exception using
        errcode = 'PT403',
        message = 'only an administrator sees what the tenant uses',
        hint = 'Owners and admins of the tenant do.';
    end if;
  end if;
  select * into v_row from haive.tenants as t where t.tenant_id = v_tenant;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no tenant %s', left(v_tenant, 63)),
      hint = 'Create it with create_tenant.';
  end if;
  v_today := (now() at time zone coalesce(v_row.settings ->> 'timezone', 'UTC'))::date;
  if v_row.metered then
    v_used := haive_private.metered_use(v_tenant, v_today);
  else
    select
      array[
        u.conversations, u.bytes,
        (
          select coalesce(sum(m.input_tokens::bigint + m.output_tokens), 0)::bigint
          from haive.messages as m
          where
            m.tenant_id = v_tenant
            and m.created_at >= haive_private.month_end(
              v_tenant, v_today - extract(day from v_today)::int
            )
        )
      ]
    into v_used
    from haive_private.count_rows(v_tenant) as u;
  end if;
  if not pg_is_in_recovery() then -- see take_request
    select
      ceil(
        sum(greatest(extract(epoch from b.full_at - clock_timestamp()), 0)) / 60
        / greatest(count(*), 1) * v_row.max_requests_per_minute
      )
    into v_requests
    from haive_private.request_buckets as b
    where b.tenant_id = v_tenant and v_row.max_requests_per_minute is not null;
  end if;
  return json_build_object(
    'tenant_id', v_tenant,
    'metered', v_row.metered,
    'timezone', coalesce(v_row.settings ->> 'timezone', 'UTC'),
    'conversations', haive_private.usage_doc(v_used[1], v_row.max_conversations),
    'storage', haive_private.usage_doc(v_used[2], v_row.max_storage_bytes),
    'requests', haive_private.usage_doc(coalesce(v_requests, 0), v_row.max_requests_per_minute),
    'tokens', haive_private.usage_doc(
      v_used[3], v_row.max_tokens_per_month, haive_private.month_end(v_tenant, v_today)
    )
  );
end;
$$;

alter function haive_private.tenant_usage(text) owner to haive_writer;

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

-- Definer, for nobody writes tables directly.
create or replace function haive_private.hide_message(
  p_tenant text, p_session_id uuid, p_message_id uuid, p_hidden boolean, p_acting text
)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered record := haive_private.enter_session(
    p_tenant, p_session_id, 'moderate', p_acting, true
  );
  v_message record;
begin
  if p_hidden is null then
    raise exception using
      errcode = 'PT422',
      message = 'hidden is neither true nor false',
      hint = 'true hides the message, false shows it again.';
  end if;
  select m.seq, m.hidden_at into v_message
  from haive.messages as m
  where
    m.id = p_message_id and m.tenant_id = v_entered.tenant and m.conversation_id = p_session_id;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no message %s of the session itself', p_message_id),
      hint = 'What a branch begins with is hidden in the session that it is of.';
  elsif (v_message.hidden_at is not null) = p_hidden then
    return false;
  end if;
  update haive.messages as m
  set hidden_at = case when p_hidden then now() end
  where
    m.tenant_id = v_entered.tenant and m.conversation_id = p_session_id
    and m.seq = v_message.seq;
  insert into haive.events (tenant_id, kind, conversation_id, first_seq, last_seq)
  values (
    v_entered.tenant, case when p_hidden then 'message.hidden' else 'message.shown' end,
    p_session_id, v_message.seq, v_message.seq
  );
  return true;
end;
$$;

alter function haive_private.hide_message(text, uuid, uuid, boolean, text) owner to haive_writer;

-- Definer, for nobody writes tables directly.
create or replace function haive_private.purge_tenant(p_tenant_id text)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_conversations bigint;
begin
  perform haive_private.administer_tenant(p_tenant_id);
  perform from haive.tenants as t
  where t.tenant_id = p_tenant_id and t.status = 'deleted'
  for update;
  if not found then
    raise exception using
      errcode = 'PT409',
      message = format('the tenant %s is not deleted', left(p_tenant_id, 63)),
      hint = 'Delete it first: that can be undone, and this cannot.';
  end if;
  select count(*) into v_conversations
  from haive.conversations as c where c.tenant_id = p_tenant_id;
  -- All that belongs to it goes with it, by the foreign keys.
  delete from haive.tenants as t where t.tenant_id = p_tenant_id;
  delete from haive.events as e where e.tenant_id = p_tenant_id;
  delete from haive_private.event_floors as f where f.tenant_id = p_tenant_id;
  delete from haive_private.watches as w where w.tenant_id = p_tenant_id;
  delete from haive_private.memory_words as w where w.tenant_id = p_tenant_id;
  delete from haive_private.memory_sizes as s where s.tenant_id = p_tenant_id;
  return v_conversations;
end;
$$;

alter function haive_private.purge_tenant(text) owner to haive_writer;

-- Definer, for nobody writes tables directly.
create or replace function haive_private.set_member(p_tenant text, p_user_id text, p_role text)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_admin boolean := v_caller.trusted;
begin
  if not v_admin then
    -- An owner sets every role; an admin neither makes, changes nor removes owners and admins. Of their
    -- own everybody may let go.
    select
      m.role = 'owner'
      or (
        m.user_id = p_user_id
        and (p_role is null or (m.role = 'admin' and p_role in ('member', 'reader')))
      )
      or (
        m.role = 'admin' and coalesce(p_role, 'member') in ('member', 'reader')
        and not exists (
          select from haive.members as o
          where o.tenant_id = v_caller.tenant and o.user_id = p_user_id
            and o.role in ('owner', 'admin')
        )
      )
    into v_admin
    from haive.members as m
    where m.tenant_id = v_caller.tenant and m.user_id = haive.current_actor();
  end if;
  if v_admin is not true then
    raise exception using
      errcode = 'PT403',
      message = 'only an administrator changes the members of a tenant',
      hint = 'Owners set every role; admins set member and reader; members may leave.';
  end if;
  if not v_caller.trusted and p_role is distinct from 'owner' then
    perform haive_private.keep_an_owner(v_caller.tenant, p_user_id);
  end if;
  -- What somebody may no longer give, their open invitations do not give either.
  update haive.invitations as i
  set revoked_at = now()
  where
    i.tenant_id = v_caller.tenant and i.created_by = p_user_id
    and i.accepted_at is null and i.revoked_at is null
    and (
      p_role is null or p_role in ('member', 'reader')
      or (p_role = 'admin' and i.role in ('owner', 'admin'))
    );
  if p_role is null then
    delete from haive.members as m where m.tenant_id = v_caller.tenant and m.user_id = p_user_id;
  else
    insert into haive.members (tenant_id, user_id, role)
    values (v_caller.tenant, p_user_id, p_role)
    on conflict (tenant_id, user_id) do update set role = excluded.role;
  end if;
end;
$$;

alter function haive_private.set_member(text, text, text) owner to haive_writer;

create or replace function haive.set_member(user_id text, role text, tenant text default null)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.set_member(set_member.tenant, set_member.user_id, set_member.role)
$$;

comment on function haive.set_member(text, text, text) is
'Makes a user owner, admin, member or reader of a tenant; a null role removes them, which users may '
'do to themselves, unless they only read. The last owner stays, unless a trusted caller takes them away.';

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261130120300', 'core_guards')
on conflict do nothing;
