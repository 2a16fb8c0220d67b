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

-- Definer: the table itself is closed.
create or replace function haive_private.list_invitations(
  p_tenant text, p_page_size int, p_page_after uuid
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_as_administrator(p_tenant, false);
  v_docs json;
begin
  if (p_page_size between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 10000',
      hint = 'Read on with page_after, the id of the last invitation of a page.';
  end if;
  v_docs := (
    select coalesce(json_agg(haive_private.invitation_doc(i.*) order by i.id), '[]')
    from (
      select o.* from haive.invitations as o
      where o.tenant_id = v_caller.tenant and (p_page_after is null or o.id > p_page_after)
      order by o.id
      limit p_page_size
    ) as i
  );
  if exists (
    select from haive.tenants as t where t.tenant_id = v_caller.tenant and t.audit = 'all'
  ) then
    perform haive_private.audit_read(
      'list_invitations',
      (
        select jsonb_object_agg(d.doc ->> 'id', d.doc ->> 'role')
        from json_array_elements(v_docs) as d (doc)
      ),
      json_array_length(v_docs)
    );
  end if;
  return v_docs;
end;
$$;

alter function haive_private.list_invitations(text, int, uuid) owner to haive_writer;

-- A session and its conversation in one call. A branch is one with a parent, and copies nothing of it:
-- what the parent is at this moment, its segment and its length, is read in one snapshot.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.create_session(p_tenant text, p_session jsonb)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_given record;
  v_id uuid;
  v_segment int;
  v_length bigint;
  v_parent haive.sessions;
  v_owner haive.conversations;
  v_found record;
begin
  select * into v_given
  from jsonb_to_record(p_session) as g (
    id uuid, agent_id text, user_id text, parent_id uuid, branch_index bigint, ttl int,
    max_messages int, participants text[], writers text[], moderators text[], live boolean
  );
  v_id := coalesce(v_given.id, gen_random_uuid());
  if v_given.parent_id is not null then
    select s as session, c as conversation into v_found
    from haive.conversations as c
    join haive.sessions as s on s.tenant_id = c.tenant_id and s.id = c.id
    where
      c.tenant_id = v_caller.tenant and c.id = v_given.parent_id and c.id <> v_id
      and (
        v_caller.actor is null or c.user_id = v_caller.actor
        or v_caller.actor = any(c.participants)
      );
    v_parent := v_found.session;
    v_owner := v_found.conversation;
    if v_parent.id is null then
      raise exception using
        errcode = 'PT404',
        message = format('no session %s', v_given.parent_id),
        hint = 'It was deleted, belongs to another tenant, or is not the caller''s to see.';
    end if;
    v_length := v_parent.index_offset + v_owner.message_count;
    v_given.branch_index := coalesce(v_given.branch_index, v_length);
    if v_given.branch_index not between 0 and v_length then
      raise exception using
        errcode = 'PT422',
        message = format('the index to branch at is not between 0 and %s', v_length),
        hint = 'It is how many messages of the parent the branch begins with.';
    end if;
    -- A service's branch is of the same people; a user's own is theirs alone.
    v_given.agent_id := coalesce(v_given.agent_id, v_owner.agent_id);
    if v_caller.trusted then
      v_given.user_id := coalesce(v_given.user_id, v_owner.user_id);
      if v_given.participants is null then
        v_given.participants := v_owner.participants;
        v_given.writers := v_parent.writers;
        v_given.moderators := v_parent.moderators;
      end if;
    end if;
  elsif v_given.branch_index <> 0 then
    raise exception using
      errcode = 'PT422',
      message = 'an index to branch at without a parent',
      hint = 'Name the session to branch off.';
  end if;
  if not (
    coalesce(v_given.writers, '{}') <@ coalesce(v_given.participants, '{}')
    and coalesce(v_given.moderators, '{}') <@ coalesce(v_given.participants, '{}')
  ) then
    raise exception using
      errcode = 'PT422',
      message = 'who writes or moderates takes part',
      hint = 'Name writers and moderators among the participants, too.';
  end if;

  if haive_private.begin_conversations(
    v_caller.tenant, v_caller.actor,
    jsonb_build_array(
      p_session || jsonb_build_object(
        'id', v_id, 'agent_id', v_given.agent_id, 'user_id', v_given.user_id,
        'participants', coalesce(v_given.participants, '{}')
      )
    ),
    true
  ) = 1 then
    insert into haive.sessions (
      tenant_id, id, parent_id, parent_segment, branch_index, index_offset, live, ttl,
      max_messages, writers, moderators
    )
    values (
      v_caller.tenant, v_id, v_given.parent_id, v_parent.segment,
      coalesce(v_given.branch_index, 0), coalesce(v_given.branch_index, 0),
      coalesce(v_given.live, true), v_given.ttl, v_given.max_messages,
      nullif(v_given.writers, '{}'), nullif(v_given.moderators, '{}')
    );
  elsif v_caller.audit_reads then
    perform haive_private.audit_read('create_session', jsonb_build_object(v_id, null), 1);
  end if;
  select s as session, c as conversation into v_found
  from haive.conversations as c
  join haive.sessions as s on s.tenant_id = c.tenant_id and s.id = c.id
  where c.tenant_id = v_caller.tenant and c.id = v_id;
  if not found or (v_found.session).parent_id is distinct from v_given.parent_id then
    raise exception using
      errcode = 'PT409',
      message = format('another conversation has the id %s', v_id),
      hint = 'Let the SDK choose ids, or repeat a call only with the same content.';
  end if;
  return haive_private.session_doc(v_found.session, v_found.conversation);
end;
$$;

alter function haive_private.create_session(text, jsonb) owner to haive_writer;

-- Two that find a session full at the same time come one after the other, and the second one is told the
-- successor that the first one made.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.continue_session(
  p_tenant text, p_session_id uuid, p_successor jsonb, p_acting text
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
  v_id uuid := v_session.successor_id;
  v_context jsonb;
begin
  if v_id is null then
    perform haive_private.refuse_closed_session(v_session);
    -- A successor has no parent: what a branch inherits is its own there.
    with recursive line as (
      select v_session.parent_id as parent_id, v_conversation.context::jsonb as context, 1 as depth
      union all
      select s.parent_id, c.context::jsonb || l.context, l.depth + 1
      from line as l
      join haive.sessions as s on s.tenant_id = v_entered.tenant and s.id = l.parent_id
      join haive.conversations as c on c.tenant_id = s.tenant_id and c.id = s.id
      where l.depth < 1000
    )
    select l.context into v_context from line as l order by l.depth desc limit 1;
    v_id := coalesce((p_successor ->> 'id')::uuid, gen_random_uuid());
    if haive_private.begin_conversations(
      v_entered.tenant, null,
      jsonb_build_array(
        case
          when p_successor ? 'sealed' then '{}'
          else jsonb_build_object(
            'title', v_conversation.title, 'context', v_context,
            'settings', v_conversation.settings
          )
        end
        || p_successor
        || jsonb_build_object(
          'id', v_id, 'agent_id', v_conversation.agent_id, 'user_id', v_conversation.user_id,
          'tags', v_conversation.tags, 'participants', v_conversation.participants
        )
      ),
      true
    ) = 0 then
      raise exception using
        errcode = 'PT409',
        message = format('another conversation has the id %s', v_id),
        hint = 'Let the SDK choose ids.';
    end if;
    insert into haive.sessions (
      tenant_id, id, live, ttl, max_messages, predecessor_id, writers, moderators
    )
    values (
      v_entered.tenant, v_id, v_session.live, v_session.ttl, v_session.max_messages, p_session_id,
      v_session.writers, v_session.moderators
    );
    update haive.sessions as s
    set status = 'continued', closed_at = now(), successor_id = v_id
    where s.tenant_id = v_entered.tenant and s.id = p_session_id;
    insert into haive.events (tenant_id, kind, conversation_id)
    values (v_entered.tenant, 'session.updated', p_session_id);
  elsif v_entered.audit_reads then
    perform haive_private.audit_read('continue_session', jsonb_build_object(v_id, null), 1);
  end if;
  return (
    select haive_private.session_doc(s, c)
    from haive.sessions as s
    join haive.conversations as c on c.tenant_id = s.tenant_id and c.id = s.id
    where s.tenant_id = v_entered.tenant and s.id = v_id
  );
end;
$$;

alter function haive_private.continue_session(text, uuid, jsonb, text) owner to haive_writer;

-- Places of messages as they are put on record, and nothing else that may be with them; null where one of
-- them is none.
create or replace function haive_private.message_places(p_places jsonb)
returns jsonb
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return (
    select
      case
        when p_places is not null and bool_and(num_nulls(d.conversation_id, d.seq) = 0) is not false
          then coalesce(jsonb_agg(to_jsonb(d) order by u.place), '[]')
      end
    from jsonb_array_elements(p_places) with ordinality as u (doc, place)
    cross join lateral jsonb_to_record(u.doc) as d (conversation_id uuid, seq bigint)
  );
end;
$$;

comment on function haive_private.message_places(jsonb) is
'A list of {conversation_id, seq}, or null where one has not both.';

-- A record is never sealed, and lies beside the messages: it has their places, and words that are known
-- here, and of each kind no more than there are messages.
create or replace function haive_private.merge_record(
  p_dropped jsonb,
  p_conflicts jsonb,
  p_summary_of jsonb,
  p_messages bigint, -- of both sides after the common beginning
  out dropped jsonb,
  out conflicts jsonb,
  out summary_of jsonb
)
returns record
language plpgsql
immutable
security invoker
set search_path = ''
as $$
declare
  v_dropped_are_known boolean;
  v_conflicts_are_known boolean;
  v_answers bigint;
begin
  select
    coalesce(
      jsonb_agg(
        jsonb_build_object(
          'conversation_id', d.conversation_id, 'seq', d.seq, 'side', d.side, 'reason', d.reason,
          'because_of', to_jsonb(b), 'similarity', d.similarity
        )
        order by u.place
      ),
      '[]'
    ),
    bool_and((
      num_nulls(d.conversation_id, d.seq, b.conversation_id, b.seq) = 0
      and d.side in ('primary', 'secondary')
      and d.reason in ('same_message', 'near_duplicate', 'conflict')
    ) is true)
  into dropped, v_dropped_are_known
  from jsonb_array_elements(p_dropped) with ordinality as u (doc, place)
  cross join lateral jsonb_to_record(u.doc) as d (
    conversation_id uuid, seq bigint, side text, reason text, because_of jsonb,
    similarity double precision
  )
  cross join lateral jsonb_to_record(coalesce(d.because_of, '{}')) as b (
    conversation_id uuid, seq bigint
  );
  select
    coalesce(
      jsonb_agg(
        jsonb_build_object(
          'primary', d.ours, 'secondary', d.theirs, 'kept', d.kept, 'reason', d.reason,
          'by', left(d.by, 200)
        )
        order by d.place
      ),
      '[]'
    ),
    bool_and((
      num_nulls(d.ours, d.theirs, d.by) = 0
      and d.kept in ('primary', 'secondary', 'both')
      and d.reason in (
        'numbers', 'names', 'negation', 'yes / no', 'different answers', 'model'
      )
    ) is true),
    greatest(sum(jsonb_array_length(d.ours)), sum(jsonb_array_length(d.theirs)))
  into conflicts, v_conflicts_are_known, v_answers
  from (
    select
      u.place, g.kept, g.reason, g.by, haive_private.message_places(g."primary") as ours,
      haive_private.message_places(g.secondary) as theirs
    from jsonb_array_elements(p_conflicts) with ordinality as u (doc, place)
    cross join lateral jsonb_to_record(u.doc) as g (
      "primary" jsonb, secondary jsonb, kept text, reason text, by text
    )
    offset 0 -- their places once
  ) as d;
  summary_of := haive_private.message_places(coalesce(p_summary_of, '[]'));
  if
    not v_dropped_are_known
    or not v_conflicts_are_known
    or summary_of is null
    or greatest(
      jsonb_array_length(dropped), jsonb_array_length(conflicts), v_answers,
      jsonb_array_length(summary_of)
    ) > p_messages
  then
    raise exception using
      errcode = 'PT422',
      message = 'the plan says what is not put on record of a merge',
      hint = 'It has places of messages, known reasons, and no more of them than there are messages.';
  end if;
end;
$$;

comment on function haive_private.merge_record(jsonb, jsonb, jsonb, bigint) is
'What a plan says of what is left out, of conflicts and of a summary, as it is put on record.';

-- Carries out a plan, all of it or nothing, if the two sessions still are what it was made from. It may
-- only order and leave out: whatever it says, nothing gets in that was in neither of them.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.merge_sessions(
  p_tenant text, p_primary_id uuid, p_secondary_id uuid, p_plan jsonb, p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered record := haive_private.enter_session(p_tenant, p_primary_id, 'write', p_acting, false);
  v_tenant text := v_entered.tenant;
  v_plan record;
  v_known haive.session_merges;
  v_primary haive.sessions;
  v_secondary haive.sessions;
  v_counts bigint[];
  v_root bigint;
  v_ids uuid[];
  v_first bigint[];
  v_last bigint[];
  v_borrowed bigint;
  v_start bigint;
  v_segment int;
  v_summary bigint;
  v_record record;
  v_merge haive.session_merges;
begin
  v_entered := haive_private.enter_session(p_tenant, p_secondary_id, 'write', p_acting, false);
  select * into v_plan
  from jsonb_to_record(p_plan) as g (
    id uuid, strategy text, conflict_resolution text, segments int[], counts bigint[],
    entries jsonb, dropped jsonb, conflicts jsonb, summary jsonb, summary_of jsonb
  );
  -- Conversations before sessions, and each in the order of ids: as all who lock several.
  perform from haive.conversations as c
  where c.tenant_id = v_tenant and c.id in (p_primary_id, p_secondary_id)
  order by c.id
  for no key update;
  perform from haive.sessions as s
  where s.tenant_id = v_tenant and s.id in (p_primary_id, p_secondary_id)
  order by s.id
  for no key update;
  select m.* into v_known from haive.session_merges as m
  where m.tenant_id = v_tenant and m.id = v_plan.id;
  if found and v_known.session_id = p_primary_id and v_known.secondary_id = p_secondary_id then
    if v_entered.audit_reads then
      perform haive_private.audit_read(
        'merge_sessions', jsonb_build_object(p_primary_id, null), 1
      );
    end if;
    return haive_private.merge_doc(v_known); -- a retry
  end if;
  select s.* into v_primary from haive.sessions as s
  where s.tenant_id = v_tenant and s.id = p_primary_id;
  select s.* into v_secondary from haive.sessions as s
  where s.tenant_id = v_tenant and s.id = p_secondary_id;
  perform haive_private.refuse_closed_session(v_primary);
  v_counts := array(
    select s.index_offset + c.message_count
    from haive.sessions as s
    join haive.conversations as c on c.tenant_id = s.tenant_id and c.id = s.id
    where s.tenant_id = v_tenant and s.id in (p_primary_id, p_secondary_id)
    order by s.id <> p_primary_id
  );
  if
    p_primary_id = p_secondary_id
    or v_plan.counts is distinct from v_counts
    or v_plan.segments is distinct from array[v_primary.segment::int, v_secondary.segment::int]
  then
    raise exception using
      errcode = 'PT409',
      message = 'the sessions are not what the merge was planned for',
      hint = 'Somebody wrote to one of them: read them again, and plan anew.';
  end if;

  v_root := haive_private.common_root(
    v_tenant, p_primary_id, v_primary.segment, v_counts[1],
    p_secondary_id, v_secondary.segment, v_counts[2]
  );
  select
    array_agg(e.conversation_id order by e.place), array_agg(e.first_seq order by e.place),
    array_agg(e.last_seq order by e.place), coalesce(sum(e.last_seq - e.first_seq + 1), 0)
  into v_ids, v_first, v_last, v_borrowed
  from (
    select d.*, u.place
    from jsonb_array_elements(v_plan.entries) with ordinality as u (doc, place)
    cross join lateral jsonb_to_record(u.doc) as d (
      conversation_id uuid, first_seq bigint, last_seq bigint
    )
  ) as e;
  if
    v_borrowed > v_counts[1] + v_counts[2] - 2 * v_root
    or v_borrowed > 20000
    or exists (
      select from unnest(v_first, v_last) as u (first_seq, last_seq)
      where (u.first_seq between 1 and u.last_seq) is not true
    )
    or exists (
      with planned as (
        select u.id, g.seq
        from unnest(v_ids, v_first, v_last) as u (id, first_seq, last_seq)
        cross join lateral generate_series(u.first_seq, u.last_seq) as g (seq)
      ),
      given as (
        select l.conversation_id as id, g.seq
        from unnest(
          array[p_primary_id, p_secondary_id],
          array[v_primary.segment::int, v_secondary.segment::int],
          v_counts
        ) as s (id, segment, n)
        cross join lateral haive_private.session_line(v_tenant, s.id, s.segment, v_root + 1, s.n)
          as l
        cross join lateral generate_series(
          l.first_seq, l.first_seq + l.last_index - l.first_index
        ) as g (seq)
        where v_root < s.n
      )
      select from (
        select p.id, p.seq from planned as p except all select distinct g.id, g.seq from given as g
      ) as strange
    )
  then
    raise exception using
      errcode = 'PT422',
      message = 'the plan has a message twice, or one that is in neither session',
      hint = 'Plan a merge from what read_merge answers.';
  end if;
  v_record := haive_private.merge_record(
    v_plan.dropped, v_plan.conflicts, v_plan.summary_of, v_counts[1] + v_counts[2] - 2 * v_root
  );

  select c.message_count into v_start from haive.conversations as c
  where c.tenant_id = v_tenant and c.id = p_primary_id;
  v_segment := v_primary.segment + 1;
  insert into haive.session_segments (
    tenant_id, session_id, number, base_segment, base_count, conversation_ids, first_seqs,
    last_seqs, borrowed, start_seq
  )
  values (
    v_tenant, p_primary_id, v_segment, v_primary.segment, v_root, coalesce(v_ids, '{}'),
    coalesce(v_first, '{}'), coalesce(v_last, '{}'), v_borrowed, v_start
  );
  if v_plan.summary is not null then
    -- It is a part of the merge, which may make a session longer than any message may.
    update haive.sessions as s
    set max_messages = null
    where s.tenant_id = v_tenant and s.id = p_primary_id and s.max_messages is not null;
    perform haive.add_session_messages(
      p_primary_id, jsonb_build_array(v_plan.summary), p_acting, v_tenant
    );
    v_summary := v_start + 1;
  end if;
  update haive.sessions as s
  set
    segment = v_segment, index_offset = v_root + v_borrowed - v_start, active_at = now(),
    max_messages = v_primary.max_messages
  where s.tenant_id = v_tenant and s.id = p_primary_id;
  update haive.sessions as s
  set status = 'merged', closed_at = coalesce(s.closed_at, now())
  where s.tenant_id = v_tenant and s.id = p_secondary_id and s.status <> 'continued';
  insert into haive.session_merges (
    tenant_id, id, session_id, secondary_id, segment, before_segment, before_count,
    secondary_count, secondary_status, strategy, conflict_resolution, root_count, dropped,
    conflicts, summary_seq, summary_of
  )
  values (
    v_tenant, coalesce(v_plan.id, gen_random_uuid()), p_primary_id, p_secondary_id, v_segment,
    v_primary.segment, v_counts[1], v_counts[2], haive_private.session_status_now(v_secondary),
    v_plan.strategy, v_plan.conflict_resolution, v_root, v_record.dropped, v_record.conflicts,
    v_summary, v_record.summary_of
  )
  returning * into v_merge;
  insert into haive.events (tenant_id, kind, conversation_id)
  values
    (v_tenant, 'session.merged', p_primary_id), (v_tenant, 'session.updated', p_secondary_id);
  return haive_private.merge_doc(v_merge);
end;
$$;

alter function haive_private.merge_sessions(text, uuid, uuid, jsonb, text) owner to haive_writer;

-- Undone, a session has what it had before, and what was written to it since, without the summaries.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.undo_merge(
  p_tenant text, p_session_id uuid, p_merge_id uuid, p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered record := haive_private.enter_session(p_tenant, p_session_id, 'write', p_acting, true);
  v_tenant text := v_entered.tenant;
  v_session haive.sessions := v_entered.session;
  v_merge haive.session_merges;
  v_start bigint;
  v_gone bigint[];
  v_first bigint[];
  v_last bigint[];
  v_borrowed bigint;
begin
  select m.* into v_merge from haive.session_merges as m
  where m.tenant_id = v_tenant and m.id = p_merge_id and m.session_id = p_session_id;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no merge %s', p_merge_id),
      hint = 'list_merges has those of a session.';
  elsif v_merge.undone_at is not null then
    if v_entered.audit_reads then
      perform haive_private.audit_read('undo_merge', jsonb_build_object(p_session_id, null), 1);
    end if;
    return haive_private.merge_doc(v_merge);
  end if;
  perform haive_private.refuse_closed_session(v_session);
  if exists (
    select from haive.session_merges as m
    where
      m.tenant_id = v_tenant and m.session_id = p_session_id and m.segment > v_merge.segment
      and m.undone_at is null
  ) then
    raise exception using
      errcode = 'PT409',
      message = 'another merge came after this one',
      hint = 'Undo the later one first.';
  end if;

  select g.start_seq into v_start from haive.session_segments as g
  where
    g.tenant_id = v_tenant and g.session_id = p_session_id and g.number = v_merge.segment;
  v_gone := array(
    select m.summary_seq from haive.session_merges as m
    where
      m.tenant_id = v_tenant and m.session_id = p_session_id and m.segment >= v_merge.segment
      and m.summary_seq is not null
    order by m.summary_seq
  );
  -- What lies between the summaries is listed; what comes after the last one is its own.
  select
    coalesce(array_agg(r.first_seq order by r.first_seq), '{}'),
    coalesce(array_agg(r.last_seq order by r.first_seq), '{}'),
    coalesce(sum(r.last_seq - r.first_seq + 1), 0)
  into v_first, v_last, v_borrowed
  from (
    select
      lag(u.seq, 1, v_start) over (order by u.seq) + 1 as first_seq, u.seq - 1 as last_seq
    from unnest(v_gone) as u (seq)
  ) as r
  where r.first_seq <= r.last_seq;
  v_start := greatest(v_start, v_gone[cardinality(v_gone)]);
  insert into haive.session_segments (
    tenant_id, session_id, number, base_segment, base_count, conversation_ids, first_seqs,
    last_seqs, borrowed, start_seq
  )
  values (
    v_tenant, p_session_id, v_session.segment + 1, v_merge.before_segment, v_merge.before_count,
    array_fill(p_session_id, array[cardinality(v_first)]), v_first, v_last, v_borrowed, v_start
  );
  update haive.sessions as s
  set
    segment = v_session.segment + 1,
    index_offset = v_merge.before_count + v_borrowed - v_start,
    active_at = now()
  where s.tenant_id = v_tenant and s.id = p_session_id;
  -- No deadlock with a merge the other way round: that one would find this session closed.
  perform from haive.sessions as s
  where s.tenant_id = v_tenant and s.id = v_merge.secondary_id and s.status = 'merged'
  for no key update;
  -- Merged into several, it stays merged until all of that is undone: the next one has to give back
  -- what this one would.
  update haive.session_merges as m
  set secondary_status = v_merge.secondary_status
  where
    m.tenant_id = v_tenant and m.secondary_status = 'merged'
    and m.id = (
      select o.id from haive.session_merges as o
      where
        o.tenant_id = v_tenant and o.secondary_id = v_merge.secondary_id
        and o.id <> p_merge_id and o.undone_at is null and o.secondary_status = 'merged'
      order by o.created_at, o.id
      limit 1
    );
  update haive.sessions as s
  set
    status = v_merge.secondary_status,
    closed_at = case when v_merge.secondary_status <> 'open' then s.closed_at end,
    active_at = case when v_merge.secondary_status = 'open' then now() else s.active_at end
  where
    s.tenant_id = v_tenant and s.id = v_merge.secondary_id and s.status = 'merged'
    and not exists (
      select from haive.session_merges as o
      where
        o.tenant_id = v_tenant and o.secondary_id = v_merge.secondary_id
        and o.id <> p_merge_id and o.undone_at is null
    );
  update haive.session_merges as m
  set undone_at = now()
  where m.tenant_id = v_tenant and m.id = p_merge_id
  returning m.* into v_merge;
  insert into haive.events (tenant_id, kind, conversation_id)
  values
    (v_tenant, 'session.unmerged', p_session_id),
    (v_tenant, 'session.updated', v_merge.secondary_id);
  return haive_private.merge_doc(v_merge);
end;
$$;

alter function haive_private.undo_merge(text, uuid, uuid, text) owner to haive_writer;

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

create or replace function haive_private.merge_bytes(
  p_ranges int,
  p_dropped jsonb default null,
  p_conflicts jsonb default null,
  p_summary_of jsonb default null
)
returns bigint
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return 100 + 32 * p_ranges + coalesce(octet_length(p_dropped::text), 0)
    + coalesce(octet_length(p_conflicts::text), 0)
    + coalesce(octet_length(p_summary_of::text), 0);
end;
$$;

comment on function haive_private.merge_bytes(int, jsonb, jsonb, jsonb) is
'Bytes that the record of a merge, or a segment of a session with its ranges, counts for.';

create or replace function haive_private.count_rows(
  p_tenant text, out conversations bigint, out bytes bigint
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_more numeric;
begin
  select
    count(*),
    coalesce(
      sum(
        haive_private.conversation_bytes(c.title, c.tags, c.context, c.participants, c.settings)
        + coalesce(octet_length(c.sealed), 0)
      ),
      0
    )
  into conversations, bytes
  from haive.conversations as c where c.tenant_id = p_tenant;
  select sum(u.bytes) into v_more
  from (
    select
      sum(
        haive_private.message_bytes(m.content, m.parts, m.metadata)
        + coalesce(octet_length(m.sealed), 0)
      ) as bytes
    from haive.messages as m where m.tenant_id = p_tenant
    union all
    select sum(haive_private.checkpoint_bytes(c.payload, c.sealed, c.metadata, c.tags, c.search))
    from haive.checkpoints as c where c.tenant_id = p_tenant
    union all
    select sum(haive_private.checkpoint_bytes(w.payload))
    from haive.checkpoint_writes as w where w.tenant_id = p_tenant
    union all
    select sum(haive_private.checkpoint_bytes(s.payload))
    from haive.checkpoint_schemas as s where s.tenant_id = p_tenant
    union all
    select sum(haive_private.checkpoint_bytes(null, b.sealed, b.metadata))
    from haive.branches as b
    where b.tenant_id = p_tenant and num_nulls(b.metadata, b.sealed) < 2
    union all
    select sum(haive_private.merge_bytes(cardinality(g.conversation_ids)))
    from haive.session_segments as g where g.tenant_id = p_tenant
    union all
    select sum(haive_private.merge_bytes(0, m.dropped, m.conflicts, m.summary_of))
    from haive.session_merges as m where m.tenant_id = p_tenant
  ) as u;
  bytes := bytes + coalesce(v_more, 0) + haive_private.stored_memory_bytes(p_tenant);
end;
$$;

alter function haive_private.count_rows(text) owner to haive_writer;

-- As in meter_messages, for what merges put on record and the segments that they and their undoing make.
-- Neither changes its size afterwards.
create or replace function haive_private.meter_merges()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record;
begin
  if current_setting('persistence.watch', true) like '-%' then
    return null;
  end if;
  if tg_table_name = 'session_segments' then
    for v in
      select
        c.tenant_id,
        tg_argv[0]::int
        * sum(haive_private.merge_bytes(cardinality(c.conversation_ids)))::bigint as bytes
      from changed as c
      group by c.tenant_id
    loop
      perform haive_private.meter(v.tenant_id, 0, v.bytes);
    end loop;
    return null;
  end if;
  for v in
    select
      c.tenant_id,
      tg_argv[0]::int
      * sum(haive_private.merge_bytes(0, c.dropped, c.conflicts, c.summary_of))::bigint as bytes
    from changed as c
    group by c.tenant_id
  loop
    perform haive_private.meter(v.tenant_id, 0, v.bytes);
  end loop;
  return null;
end;
$$;

alter function haive_private.meter_merges() owner to haive_writer;

comment on function haive_private.meter_merges() is
'Counts records of merges, and segments of sessions, that a statement wrote or removed.';

revoke all on function
haive_private.message_places(jsonb),
haive_private.merge_record(jsonb, jsonb, jsonb, bigint),
haive_private.merge_bytes(int, jsonb, jsonb, jsonb),
haive_private.meter_merges()
from public, anon, authenticated, service_role, haive_client;
grant execute on function
haive_private.message_places(jsonb),
haive_private.merge_record(jsonb, jsonb, jsonb, bigint),
haive_private.merge_bytes(int, jsonb, jsonb, jsonb)
to haive_writer;

create trigger meter_added after insert on haive.session_segments
referencing new table as changed
for each statement execute function haive_private.meter_merges('1');

create trigger meter_removed after delete on haive.session_segments
referencing old table as changed
for each statement execute function haive_private.meter_merges('-1');

create trigger meter_added after insert on haive.session_merges
referencing new table as changed
for each statement execute function haive_private.meter_merges('1');

create trigger meter_removed after delete on haive.session_merges
referencing old table as changed
for each statement execute function haive_private.meter_merges('-1');

-- What there is of both, which nobody can add to until this has ended, is counted with the rest.
insert into haive_private.meters as m (tenant_id, slot, day, bytes)
select
  t.tenant_id, 0, (now() at time zone coalesce(t.settings ->> 'timezone', 'UTC'))::date,
  sum(u.bytes)
from haive.tenants as t
join (
  select g.tenant_id, haive_private.merge_bytes(cardinality(g.conversation_ids)) as bytes
  from haive.session_segments as g
  union all
  select d.tenant_id, haive_private.merge_bytes(0, d.dropped, d.conflicts, d.summary_of)
  from haive.session_merges as d
) as u on u.tenant_id = t.tenant_id
where t.metered
group by t.tenant_id
on conflict (tenant_id, slot) do update set bytes = m.bytes + excluded.bytes;

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261130050000', 'guarded_sessions')
on conflict do nothing;
