-- A room that nobody owns went on as the property of who filled it. Each begins with the owner that
-- its caller names now. A branch showed all of its parents to who does not see them. Who was in a
-- room was not told that somebody in it was erased. Messages are threaded by the latest sessions,
-- however many there are. An id that is repeated for another session is refused. No row is touched.
grant usage, create on schema haive_private to haive_writer;

-- It is told who reads.
-- squawk-ignore ban-drop-function
drop function haive_private.session_doc(haive.sessions, haive.conversations);

-- It finds what messages are threaded into, in one page.
-- squawk-ignore ban-drop-function
drop function haive.list_sessions(
  text, text, text, text[], uuid, int, text, text, boolean, text
);
-- squawk-ignore ban-drop-function
drop function haive_private.list_sessions(
  text, text, text, text, text[], uuid, int, text, text, boolean
);

-- A session as JSON, with the contexts of the sessions that it branched off, nearest first: they stay
-- where they are, as the messages do. They may have changed since: who does not see one is not told.
create or replace function haive_private.session_doc(
  p_session haive.sessions,
  p_conversation haive.conversations,
  p_actor text -- who reads it; null: who may do all
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return json_build_object(
    'id', p_session.id,
    'tenant_id', p_session.tenant_id,
    'status', haive_private.session_status_now(p_session),
    'message_count', p_session.index_offset + p_conversation.message_count,
    'parent_id', p_session.parent_id,
    'branch_index', p_session.branch_index,
    'segment', p_session.segment,
    'predecessor_id', p_session.predecessor_id,
    'successor_id', p_session.successor_id,
    'merged_into', case
      when p_session.status = 'merged' then (
        select m.session_id
        from haive.session_merges as m
        where
          m.tenant_id = p_session.tenant_id and m.secondary_id = p_session.id
          and m.undone_at is null
        order by m.created_at desc
        limit 1
      )
    end,
    'live', p_session.live,
    'topic', format('haive:%s:session:%s:%s', p_session.tenant_id, p_session.id, p_session.room),
    'ttl', p_session.ttl,
    'max_messages', p_session.max_messages,
    'active_at', p_session.active_at,
    'idle', greatest(extract(epoch from now() - p_session.active_at), 0),
    'expires_at', p_session.active_at + p_session.ttl * interval '1 second',
    'closed_at', p_session.closed_at,
    'permissions', (
      select coalesce(
        json_object_agg(
          u.user_id,
          array['read']
          || case when u.user_id = any(p_session.writers) then array['write'] else '{}' end
          || case when u.user_id = any(p_session.moderators) then array['moderate'] else '{}' end
          order by u.place
        ),
        '{}'
      )
      from unnest(p_conversation.participants::text[]) with ordinality as u (user_id, place)
    ),
    'conversation', haive_private.conversation_doc(p_conversation),
    'inherited', case
      when p_session.parent_id is null then '[]'::json
      else (
        with recursive line as (
          select p_session.parent_id as id, 1 as depth
          union all
          select s.parent_id, l.depth + 1
          from line as l
          cross join lateral (
            select s.parent_id from haive.sessions as s
            where s.tenant_id = p_session.tenant_id and s.id = l.id
            offset 0
          ) as s
          where s.parent_id is not null and l.depth < 1000
        )
        select coalesce(
          json_agg(
            json_build_object(
              'id', l.id,
              'metadata', case
                when c.sealed is null then json_build_object('context', c.context::jsonb)
                else json_build_object(
                  'sealed', json_build_object(
                    'sealed', replace(encode(c.sealed, 'base64'), e'\n', ''),
                    'sealed_with', c.sealed_with::text
                  )
                )
              end,
              -- Whether all see it who see the session: a successor of this takes that along.
              'shared',
                array_remove(p_conversation.participants::text[] || p_conversation.user_id::text, null)
                <@ array_remove(c.participants::text[] || c.user_id::text, null)
            )
            order by l.depth
          ),
          '[]'
        )
        from line as l
        cross join lateral (
          select c.* from haive.conversations as c
          where
            c.tenant_id = p_session.tenant_id and c.id = l.id
            and (p_actor is null or c.user_id = p_actor or p_actor = any(c.participants))
          offset 0
        ) as c
      )
    end
  );
end;
$$;

comment on function haive_private.session_doc(haive.sessions, haive.conversations, text) is
'A session as the functions of the API return it to a user, or to who may do all.';

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

  perform haive_private.check_sealed(false)
  from jsonb_to_recordset(p_conversations) as g (sealed text)
  where g.sealed is null;

  with fresh as (
    insert into haive.conversations (
      tenant_id, id, agent_id, user_id, title, tags, context, participants, settings,
      created_at, updated_at, last_message_at, sealed, sealed_with, is_session
    )
    select
      p_tenant, g.id, g.agent_id, g.user_id, g.title, coalesce(g.tags, '{}'),
      coalesce(g.context, '{}'), coalesce(g.participants, '{}'), coalesce(g.settings, '{}'),
      t.at, t.at, t.at, decode(g.sealed, 'base64'), g.sealed_with, p_are_sessions
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

comment on function haive_private.begin_conversations(text, text, jsonb, boolean) is
'Writes conversations, each with an id and, unless nobody owns it, its owner; returns how many were '
'not there yet.';

-- Any number of conversations in one call. Definer, for nobody writes tables directly.
create or replace function haive_private.create_conversations(p_tenant text, p_conversations jsonb)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_user text := haive.current_actor();
  v_given jsonb;
  v_fresh bigint;
  v_docs json;
begin
  -- Ids come from the client, for a safe retry; who sends none gets one here. And a user who
  -- names no owner is it.
  select jsonb_agg(
    jsonb_build_object('id', gen_random_uuid()) || u.doc
    || jsonb_build_object('user_id', coalesce(u.doc ->> 'user_id', v_user))
    order by u.place
  )
  into v_given
  from jsonb_array_elements(p_conversations) with ordinality as u (doc, place);
  v_fresh := haive_private.begin_conversations(v_caller.tenant, v_caller.actor, v_given);

  -- offset 0: as in begin_conversations.
  select json_agg(haive_private.conversation_doc(c.found) order by g.place) into v_docs
  from jsonb_array_elements(v_given) with ordinality as g (doc, place)
  cross join lateral (
    select c as found from haive.conversations as c
    where c.tenant_id = v_caller.tenant and c.id = (g.doc ->> 'id')::uuid
    offset 0
  ) as c;
  if v_caller.audit_reads and v_fresh < jsonb_array_length(v_given) then
    perform haive_private.audit_read(
      'create_conversations',
      (select jsonb_object_agg(u.doc ->> 'id', null) from jsonb_array_elements(v_given) as u (doc)),
      jsonb_array_length(v_given) - v_fresh
    );
  end if;
  return coalesce(v_docs, '[]');
end;
$$;

alter function haive_private.create_conversations(text, jsonb) owner to haive_writer;

comment on function haive_private.create_conversations(text, jsonb) is
'What haive.create_conversations does, for a caller without rights on the table.';

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
      select
        v_caller.tenant,
        case when c.is_session then 'participant.changed' else 'conversation.updated' end,
        c.id
      from haive.conversations as c
      where c.tenant_id = v_caller.tenant and c.id = any(v_ids);
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

comment on function haive_private.erase_user(text, text, int) is
'What haive.erase_user does, for a caller without rights on the tables.';

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
        'id', v_id, 'agent_id', v_given.agent_id,
        'user_id', coalesce(v_given.user_id, haive.current_actor()),
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
  if
    not found or (v_found.session).parent_id is distinct from v_given.parent_id
    -- As it was given: where it was not, the parent may have grown since.
    or (v_found.session).branch_index <> (p_session ->> 'branch_index')::bigint
    or (
      -- As long as nothing has changed who takes part, or anything else.
      (v_found.conversation).updated_at = (v_found.conversation).created_at
      and p_session ->> 'participants' is not null
      and (
        (v_found.conversation).participants, coalesce((v_found.session).writers, '{}'),
        coalesce((v_found.session).moderators, '{}')
      ) is distinct from (
        v_given.participants, coalesce(v_given.writers, '{}'), coalesce(v_given.moderators, '{}')
      )
    )
  then
    raise exception using
      errcode = 'PT409',
      message = format('another conversation has the id %s', v_id),
      hint = 'Let the SDK choose ids, or repeat a call only with the same content.';
  end if;
  return haive_private.session_doc(v_found.session, v_found.conversation, v_caller.actor);
end;
$$;

alter function haive_private.create_session(text, jsonb) owner to haive_writer;

comment on function haive_private.create_session(text, jsonb) is
'What haive.create_session does, for a caller without rights on the tables.';

-- Definer: what a branch inherits may be in sessions that the caller does not see by themselves.
create or replace function haive_private.get_session(
  p_tenant text, p_session_id uuid, p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered record := haive_private.enter_session(p_tenant, p_session_id, 'read', p_acting, false);
begin
  if v_entered.audit_reads then
    perform haive_private.audit_read(
      'get_session', jsonb_build_object(p_session_id, null), 1
    );
  end if;
  return haive_private.session_doc(
    v_entered.session, v_entered.conversation, v_entered.actor
  );
end;
$$;

alter function haive_private.get_session(text, uuid, text) owner to haive_writer;

comment on function haive_private.get_session(text, uuid, text) is
'What haive.get_session does, for a caller without rights on what a branch inherits.';

create or replace function haive.get_session(
  session_id uuid, acting_user text default null, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.get_session(
    get_session.tenant, get_session.session_id, get_session.acting_user
  )
$$;

comment on function haive.get_session(uuid, text, text) is
'One session, with its conversation, who may do what, and the contexts that it inherits '
'from sessions that the caller sees.';

-- Definer, as get_session is.
create or replace function haive_private.list_sessions(
  p_tenant text,
  p_user_id text,
  p_participant text,
  p_agent_id text,
  p_statuses text[],
  p_parent_id uuid,
  p_page_size int,
  p_page_after text,
  p_acting text,
  p_threads boolean
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, false);
  v_actor text := haive_private.act_for(v_caller.trusted, v_caller.actor, p_acting);
  v_owner text := coalesce(p_user_id, p_acting, haive.current_actor());
  v_pairs haive_private.session_pair[];
begin
  if (p_page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on with page_after, the next_page of a page.';
  elsif not pg_input_is_valid(p_page_after, 'uuid') then
    raise exception using
      errcode = 'PT422',
      message = 'page_after is no cursor',
      hint = 'Pass next_page of the page before.';
  end if;
  -- By id, which is the order in which they began; for threading, those of one owner by when somebody
  -- wrote to them last: branches are somebody's excursions, and a room that nobody owns is of those who
  -- take part. Put together from fixed fragments, so that the planner sees only what is asked: the
  -- sessions of an owner are found by the owner.
  execute format(
    $q$
    select array(
      select row(s, c)::haive_private.session_pair
      from haive.sessions as s
      join haive.conversations as c on c.tenant_id = s.tenant_id and c.id = s.id
      where s.tenant_id = $1 and c.tenant_id = $1 %s
      order by %s s.id desc
      limit $2
    )
    $q$,
    concat(
      case when p_user_id is not null then 'and c.user_id = $3 ' end,
      case when p_participant is not null then 'and $4 = any(c.participants) ' end,
      case when p_agent_id is not null then 'and c.agent_id = $5 ' end,
      case when p_parent_id is not null then 'and s.parent_id = $6 ' end,
      case
        when p_statuses is not null then 'and haive_private.session_status_now(s) = any($7) '
      end,
      case when p_page_after is not null then 'and s.id < $8 ' end,
      case when v_actor is not null then 'and (c.user_id = $9 or $9 = any(c.participants)) ' end,
      -- The status as it is stored has an index, and what is open now is stored as open.
      case when p_threads then 'and s.parent_id is null and s.status = ''open'' ' end,
      case
        when p_threads and v_owner is null then 'and c.user_id is null and c.participants = ''{}'' '
        when p_threads then 'and c.user_id = $10 '
      end
    ),
    case when p_threads then 's.active_at desc,' end
  )
  into v_pairs
  using
    v_caller.tenant, p_page_size, p_user_id, p_participant, p_agent_id, p_parent_id, p_statuses,
    p_page_after::uuid, v_actor, v_owner;
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'list_sessions',
      (select jsonb_object_agg((p.session).id, null) from unnest(v_pairs) as p),
      cardinality(v_pairs)
    );
  end if;
  return json_build_object(
    'sessions', (
      select coalesce(
        json_agg(haive_private.session_doc(p.session, p.conversation, v_actor) order by p.place),
        '[]'
      )
      from unnest(v_pairs) with ordinality as p (session, conversation, place)
    ),
    'next_page', case
      when p_threads is not true and cardinality(v_pairs) = p_page_size
        then ((v_pairs[p_page_size]).session).id
    end
  );
end;
$$;

alter function haive_private.list_sessions(
  text, text, text, text, text[], uuid, int, text, text, boolean
) owner to haive_writer;

comment on function haive_private.list_sessions(
  text, text, text, text, text[], uuid, int, text, text, boolean
) is
'What haive.list_sessions does, for a caller without rights on what a branch inherits.';

create or replace function haive.list_sessions(
  user_id text default null,
  participant text default null,
  agent_id text default null,
  statuses text[] default null,
  parent_id uuid default null,
  page_size int default 100,
  page_after text default null,
  acting_user text default null,
  threads boolean default false,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.list_sessions(
    list_sessions.tenant, list_sessions.user_id, list_sessions.participant,
    list_sessions.agent_id, list_sessions.statuses, list_sessions.parent_id,
    list_sessions.page_size, list_sessions.page_after, list_sessions.acting_user,
    list_sessions.threads
  )
$$;

comment on function haive.list_sessions(
  text, text, text, text[], uuid, int, text, text, boolean, text
) is
'Sessions, the latest first: of an owner, a participant, an agent, in some statuses, branches of one; '
'threads: those that a message may go on in, by when somebody wrote to them last; with no owner named, '
'of the user who calls, or of nobody where a service does: {sessions, next_page}.';

-- Definer, for nobody writes tables directly.
create or replace function haive_private.update_session(
  p_tenant text, p_session_id uuid, p_changes jsonb, p_acting text
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
  v_given record;
  v_unknown text;
begin
  select string_agg(k, ', ' order by k) into v_unknown
  from jsonb_object_keys(p_changes) as k
  where k not in ('status', 'ttl', 'max_messages', 'touch', 'live');
  if v_unknown is not null then
    raise exception using
      errcode = 'PT422',
      message = format('cannot change: %s', left(v_unknown, 200)),
      hint = 'What changes is status, ttl, max_messages, touch, live; update_conversation does the rest.';
  end if;
  select * into v_given
  from jsonb_to_record(p_changes) as g (
    status text, ttl int, max_messages int, touch boolean, live boolean
  );
  if v_given.status is not null and v_given.status not in ('open', 'closed') then
    raise exception using
      errcode = 'PT422',
      message = 'a session is set open or closed',
      hint = 'It expires, is merged or continued by itself.';
  elsif v_session.status = 'continued' or v_given.status is null then
    -- What goes on elsewhere stays as it is, and what is closed is opened before it changes.
    perform haive_private.refuse_closed_session(v_session);
  end if;
  update haive.sessions as s
  set
    status = coalesce(v_given.status, s.status),
    closed_at = case v_given.status
      when 'closed' then coalesce(s.closed_at, now())
      when 'open' then null
      else s.closed_at
    end,
    active_at = case
      when v_given.touch or v_given.status = 'open' then now() else s.active_at
    end,
    ttl = case when p_changes ? 'ttl' then v_given.ttl else s.ttl end,
    max_messages = case
      when p_changes ? 'max_messages' then v_given.max_messages else s.max_messages
    end,
    live = coalesce(v_given.live, s.live)
  where s.tenant_id = v_entered.tenant and s.id = p_session_id
  returning s.* into v_session;
  if p_changes <> '{"touch": true}' then
    insert into haive.events (tenant_id, kind, conversation_id)
    values (v_entered.tenant, 'session.updated', p_session_id);
  end if;
  return haive_private.session_doc(v_session, v_entered.conversation, v_entered.actor);
end;
$$;

alter function haive_private.update_session(text, uuid, jsonb, text) owner to haive_writer;

comment on function haive_private.update_session(text, uuid, jsonb, text) is
'What haive.update_session does, for a caller without rights on the tables.';

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

comment on function haive_private.update_session_state(text, uuid, jsonb, timestamptz, text) is
'What haive.update_session_state does, for a caller without rights on the tables.';

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
    -- A successor has no parent: what a branch inherits, as far as all see it, is its own there.
    select coalesce(jsonb_object_agg(e.key, e.value order by u.place desc), '{}') into v_context
    from json_array_elements(
      haive_private.session_doc(v_session, v_conversation, null) -> 'inherited'
    ) with ordinality as u (doc, place)
    cross join lateral jsonb_each((u.doc -> 'metadata' -> 'context')::jsonb) as e
    where (u.doc ->> 'shared')::boolean;
    v_id := coalesce((p_successor ->> 'id')::uuid, gen_random_uuid());
    if haive_private.begin_conversations(
      v_entered.tenant, null,
      jsonb_build_array(
        case
          when p_successor ? 'sealed' then '{}'
          else jsonb_build_object(
            'title', v_conversation.title, 'context', v_context || v_conversation.context::jsonb,
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
    select haive_private.session_doc(s, c, v_entered.actor)
    from haive.sessions as s
    join haive.conversations as c on c.tenant_id = s.tenant_id and c.id = s.id
    where s.tenant_id = v_entered.tenant and s.id = v_id
  );
end;
$$;

alter function haive_private.continue_session(text, uuid, jsonb, text) owner to haive_writer;

comment on function haive_private.continue_session(text, uuid, jsonb, text) is
'What haive.continue_session does, for a caller without rights on the tables.';

-- Definer, for nobody writes tables directly.
create or replace function haive_private.set_participant(
  p_tenant text, p_session_id uuid, p_user_id text, p_permissions text[], p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered record := haive_private.enter_session(
    p_tenant, p_session_id,
    -- Everybody may leave.
    case
      when
        coalesce(p_permissions, '{}') = '{}'
        and coalesce(haive.current_actor(), p_acting) = p_user_id
        then 'read'
      else 'moderate'
    end,
    p_acting, true
  );
  v_session haive.sessions;
  v_conversation haive.conversations;
begin
  if not coalesce(p_permissions, '{}') <@ array['read', 'write', 'moderate'] then
    raise exception using
      errcode = 'PT422',
      message = 'an unknown permission',
      hint = 'Permissions are read, write, moderate; none removes the participant.';
  elsif (length(p_user_id) between 1 and 200) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'user_id is not 1 to 200 characters',
      hint = 'It is the "sub" of the user''s tokens.';
  elsif p_user_id = (v_entered.conversation).user_id then
    raise exception using
      errcode = 'PT422',
      message = 'the owner of a session may do everything',
      hint = 'Set permissions of others.';
  end if;
  update haive.conversations as c
  set
    participants = array_remove(c.participants::text[], p_user_id)
      || case when p_permissions <> '{}' then array[p_user_id] else '{}' end,
    updated_at = greatest(now(), c.updated_at + interval '1 microsecond')
  where c.tenant_id = v_entered.tenant and c.id = p_session_id
  returning c.* into v_conversation;
  update haive.sessions as s
  set
    room = s.room + (coalesce(p_permissions, '{}') = '{}')::int,
    writers = nullif(
      array_remove(coalesce(s.writers, '{}'), p_user_id)
      || case when 'write' = any(p_permissions) then array[p_user_id] else '{}' end,
      '{}'
    ),
    moderators = nullif(
      array_remove(coalesce(s.moderators, '{}'), p_user_id)
      || case when 'moderate' = any(p_permissions) then array[p_user_id] else '{}' end,
      '{}'
    )
  where s.tenant_id = v_entered.tenant and s.id = p_session_id
  returning s.* into v_session;
  insert into haive.events (tenant_id, kind, conversation_id)
  values (v_entered.tenant, 'participant.changed', p_session_id);
  return haive_private.session_doc(v_session, v_conversation, v_entered.actor);
end;
$$;

alter function haive_private.set_participant(text, uuid, text, text[], text)
owner to haive_writer;

comment on function haive_private.set_participant(text, uuid, text, text[], text) is
'What haive.set_participant does, for a caller without rights on the tables.';

-- Definer, as get_session is. offset 0: as in session_doc.
create or replace function haive_private.session_family(
  p_tenant text, p_session_id uuid, p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered record := haive_private.enter_session(p_tenant, p_session_id, 'read', p_acting, false);
  v_answer json;
  v_ids uuid[];
begin
  with recursive up as (
    select (v_entered.session).id as id, (v_entered.session).parent_id as parent_id
    union
    select s.id, s.parent_id
    from up as u
    cross join lateral (
      select s.id, s.parent_id from haive.sessions as s
      where s.tenant_id = v_entered.tenant and s.id = u.parent_id
      offset 0
    ) as s
  ),
  down as (
    select u.id from up as u
    union -- each once, which also ends a circle of parents
    select s.id
    from down as d
    cross join lateral (
      select s.id from haive.sessions as s
      where s.tenant_id = v_entered.tenant and s.parent_id = d.id
      offset 0
    ) as s
  )
  select
    coalesce(json_agg(haive_private.session_doc(f.s, f.c, v_entered.actor) order by (f.s).id), '[]'),
    array_agg((f.s).id)
  into v_answer, v_ids
  from (
    select p.s, p.c
    from down as d
    cross join lateral (
      select s, c
      from haive.sessions as s
      join haive.conversations as c on c.tenant_id = s.tenant_id and c.id = s.id
      where s.tenant_id = v_entered.tenant and s.id = d.id
      offset 0
    ) as p
    where
      v_entered.actor is null or (p.c).user_id = v_entered.actor
      or v_entered.actor = any((p.c).participants)
    order by d.id
    limit 10000
  ) as f;
  if v_entered.audit_reads then
    perform haive_private.audit_read(
      'session_family',
      (select jsonb_object_agg(u.id, null) from unnest(v_ids) as u (id)),
      cardinality(v_ids)
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.session_family(text, uuid, text) owner to haive_writer;

comment on function haive_private.session_family(text, uuid, text) is
'What haive.session_family does, for a caller without rights on the tables.';

revoke all on function
haive_private.session_doc(haive.sessions, haive.conversations, text),
haive.list_sessions(text, text, text, text[], uuid, int, text, text, boolean, text),
haive_private.list_sessions(text, text, text, text, text[], uuid, int, text, text, boolean)
from public, anon, authenticated, service_role, haive_client;
grant execute on function
haive.list_sessions(text, text, text, text[], uuid, int, text, text, boolean, text),
haive_private.list_sessions(text, text, text, text, text[], uuid, int, text, text, boolean)
to authenticated, service_role, haive_client;
grant execute on function
haive_private.session_doc(haive.sessions, haive.conversations, text)
to haive_writer;

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261130120000', 'people_of_sessions')
on conflict do nothing;
