-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it; the grants take this away again.
grant usage, create on schema haive_private to haive_writer;

create or replace function haive_private.session_status_now(p_row haive.sessions)
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  -- Expired at once, whenever the job comes by.
  return case
    when p_row.status = 'open' and p_row.active_at + p_row.ttl * interval '1 second' <= now()
      then 'expired'
    else p_row.status::text
  end;
end;
$$;

comment on function haive_private.session_status_now(haive.sessions) is
'The status of a session at this moment, by the clock of the database.';

create or replace function haive_private.refuse_closed_session(p_row haive.sessions)
returns void
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_status text := haive_private.session_status_now(p_row);
begin
  if v_status <> 'open' then
    raise exception using
      errcode = 'PT412',
      message = format('the session %s is %s', p_row.id, v_status),
      detail = json_build_object('status', v_status, 'successor_id', p_row.successor_id),
      hint = case v_status
        when 'continued' then format('It goes on in the session %s.', p_row.successor_id)
        else 'Open it again with resume.'
      end;
  end if;
end;
$$;

comment on function haive_private.refuse_closed_session(haive.sessions) is
'Refuses a session that takes no writes.';

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
  if
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
'Refuses a message to a session that is closed, expired or full, or by who may not write to it; '
'else the session stays open for its ttl from now on.';

create or replace function haive_private.check_session_change(
  p_tenant text, p_actor text, p_session_id uuid, p_participants boolean
)
returns void
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  v_writers text[];
  v_readers text[];
begin
  select
    array_append(coalesce(s.writers::text[], '{}'), c.user_id::text),
    array_append(c.participants::text[], c.user_id::text)
  into v_writers, v_readers
  from haive.sessions as s
  join haive.conversations as c on c.tenant_id = s.tenant_id and c.id = s.id
  where s.tenant_id = p_tenant and s.id = p_session_id;
  if not found or (p_actor is not null and p_actor <> all(v_readers) is not false) then
    return; -- no session, or none that they may know of: to them there is nothing to change
  end if;
  if p_participants then
    raise exception using
      errcode = 'PT422',
      message = 'participants of a session have permissions',
      hint = 'Change them with set_participant.';
  elsif p_actor is not null and p_actor <> all(v_writers) is not false then
    raise exception using
      errcode = 'PT403',
      message = 'the user may not write to the session',
      hint = 'A moderator changes that with set_participant.';
  end if;
end;
$$;

alter function haive_private.check_session_change(text, text, uuid, boolean) owner to haive_writer;

comment on function haive_private.check_session_change(text, text, uuid, boolean) is
'Refuses to change a conversation that is a session by who may only read it, or past the functions '
'that keep its permissions.';

-- Whose rights a call has: a service may lend itself a user's; a user has their own.
create or replace function haive_private.act_for(p_trusted boolean, p_actor text, p_acting text)
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  if p_acting is null then
    return p_actor;
  elsif p_trusted then
    return p_acting;
  elsif p_acting <> haive.current_actor() then
    raise exception using
      errcode = 'PT403',
      message = 'only services act for others',
      hint = 'Leave out acting_user: the token says who calls.';
  end if;
  return p_actor;
end;
$$;

comment on function haive_private.act_for(boolean, text, text) is
'Who acts where enter_tenant found p_actor, and the call names acting_user. Null: who may do all.';

-- The first step of what is done to a session. Definer, as enter_tenant is.
create or replace function haive_private.enter_session(
  p_tenant text,
  p_session_id uuid,
  p_right text, -- read, write or moderate
  p_acting text, -- for whom a service does it; null: for itself
  p_change boolean, -- lock it, to change it
  out tenant text,
  out actor text, -- null: who may do all
  out audit_reads boolean,
  out session haive.sessions,
  out conversation haive.conversations
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_caller record := haive_private.enter_tenant(p_tenant, p_right <> 'read');
begin
  tenant := v_caller.tenant;
  audit_reads := v_caller.audit_reads;
  actor := haive_private.act_for(v_caller.trusted, v_caller.actor, p_acting);
  if p_change then
    select c.* into conversation from haive.conversations as c
    where c.tenant_id = v_caller.tenant and c.id = p_session_id and c.is_session
    for no key update;
    select s.* into session from haive.sessions as s
    where s.tenant_id = v_caller.tenant and s.id = p_session_id
    for no key update;
  else
    select c.* into conversation from haive.conversations as c
    where c.tenant_id = v_caller.tenant and c.id = p_session_id and c.is_session;
    select s.* into session from haive.sessions as s
    where s.tenant_id = v_caller.tenant and s.id = p_session_id;
  end if;
  if
    session.id is null or conversation.id is null
    or (
      actor is not null and actor is distinct from conversation.user_id
      and actor <> all(conversation.participants)
    )
  then
    raise exception using
      errcode = 'PT404',
      message = format('no session %s', p_session_id),
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to see.';
  end if;
  if
    actor is not null and actor is distinct from conversation.user_id
    and (
      (p_right = 'write' and actor <> all(coalesce(session.writers, '{}')))
      or (p_right = 'moderate' and actor <> all(coalesce(session.moderators, '{}')))
    )
  then
    raise exception using
      errcode = 'PT403',
      message = format('the user may not %s the session', replace(p_right, 'write', 'write to')),
      hint = 'A moderator changes that with set_participant.';
  end if;
end;
$$;

alter function haive_private.enter_session(text, uuid, text, text, boolean) owner to haive_writer;

comment on function haive_private.enter_session(text, uuid, text, text, boolean) is
'Enters the tenant, and checks that the caller, or whom they act for, may read, write to or moderate '
'the session.';

-- For the policy of messages, asked for those that are hidden.
-- Definer: the policy of sessions asks conversations, whose policy the caller has passed already.
create or replace function haive_private.moderates(p_tenant text, p_session_id uuid)
returns boolean
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  v_entered text := coalesce(current_setting('persistence.tenant', true), '');
  v_user text := haive.current_actor();
  v_done text;
  v_moderates boolean;
begin
  if p_tenant in (select haive_private.my_admin_tenants()) then
    return true;
  elsif p_tenant not in (select haive_private.my_tenants()) then
    return false;
  end if;
  v_done := set_config('persistence.tenant', p_tenant, true);
  v_moderates := exists (
    select from haive.conversations as c
    join haive.sessions as s on s.tenant_id = c.tenant_id and s.id = c.id
    where
      c.tenant_id = p_tenant and c.id = p_session_id
      and (c.user_id = v_user or v_user = any(s.moderators))
  );
  v_done := set_config('persistence.tenant', v_entered, true);
  return v_moderates;
end;
$$;

alter function haive_private.moderates(text, uuid) owner to haive_writer;

comment on function haive_private.moderates(text, uuid) is
'Whether the user who calls may see what moderators of a session have hidden.';

-- Which messages a session has at some of its indexes, as ranges of the conversations that they are in.
-- Read from its end towards its beginning, a step for each segment, and no further than is asked for.
-- A step that comes again is no step (union): it ends a circle of parents, which only the owner of the
-- tables can make.
create or replace function haive_private.session_line(
  p_tenant text, p_session_id uuid, p_segment int, p_from bigint, p_to bigint
)
returns table (
  first_index bigint, last_index bigint, conversation_id uuid, first_seq bigint
)
language plpgsql
stable
security invoker
rows 20
set search_path = ''
as $$
#variable_conflict use_column
begin
  return query
  with recursive walk as (
    -- A step on the way to it, and then each segment with what it is built on: the session itself
    -- tells its segment 0, rows tell the others. In the query, for a call a level costs more than the
    -- level; offset 0 keeps the arms from being joined, which reads all sessions of the tenant.
    select
      null::uuid as session_id, null::int as segment, p_to as upto,
      p_session_id as base_id, p_segment as base_segment, p_to as base_count,
      0::bigint as borrowed, 0::bigint as start_seq,
      null::uuid[] as conversation_ids, null::bigint[] as first_seqs, null::bigint[] as last_seqs
    union
    select w.base_id, w.base_segment, least(w.upto, w.base_count), g.*
    from walk as w
    cross join lateral (
      select s.parent_id, s.parent_segment::int, s.branch_index, 0, 0, null, null, null
      from haive.sessions as s
      where w.base_segment = 0 and s.tenant_id = p_tenant and s.id = w.base_id
      union all
      select
        g.session_id, g.base_segment::int, g.base_count, g.borrowed, g.start_seq,
        g.conversation_ids, g.first_seqs, g.last_seqs
      from haive.session_segments as g
      where
        w.base_segment > 0 and g.tenant_id = p_tenant and g.session_id = w.base_id
        and g.number = w.base_segment
      offset 0
    ) as g
    where w.base_id is not null and p_from <= least(w.upto, w.base_count)
  )
  select l.from_index, l.to_index, l.id, l.seq
  from (
    select
      greatest(p_from, w.base_count + w.borrowed + 1) as from_index,
      w.upto as to_index,
      w.session_id as id,
      w.start_seq + greatest(p_from - w.base_count - w.borrowed, 1) as seq
    from walk as w
    where w.session_id is not null
    union all
    select
      greatest(p_from, w.base_count + r.before + 1),
      least(w.upto, w.base_count + r.before + r.n),
      r.conversation_id,
      r.first_seq + greatest(p_from - w.base_count - r.before - 1, 0)
    from walk as w
    cross join lateral (
      select
        u.conversation_id, u.first_seq, u.last_seq - u.first_seq + 1 as n,
        (
          sum(u.last_seq - u.first_seq + 1) over (order by u.place)
          - (u.last_seq - u.first_seq + 1)
        )::bigint as before
      from unnest(w.conversation_ids, w.first_seqs, w.last_seqs) with ordinality
        as u (conversation_id, first_seq, last_seq, place)
    ) as r
    where w.borrowed > 0
  ) as l
  where l.from_index <= l.to_index
  order by l.from_index;
end;
$$;

comment on function haive_private.session_line(text, uuid, int, bigint, bigint) is
'The messages of a session from one index to another, as ranges of the conversations they are in.';

-- A session as JSON, with the contexts of the sessions that it branched off, nearest first: they stay
-- where they are, as the messages do.
create or replace function haive_private.session_doc(
  p_session haive.sessions, p_conversation haive.conversations
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
        select coalesce(json_agg(haive_private.conversation_doc(c.found) order by l.depth), '[]')
        from line as l
        cross join lateral (
          select c as found from haive.conversations as c
          where c.tenant_id = p_session.tenant_id and c.id = l.id
          offset 0
        ) as c
      )
    end
  );
end;
$$;

comment on function haive_private.session_doc(haive.sessions, haive.conversations) is
'A session as the functions of the API return it.';

-- A segment has the same messages at the same indexes wherever it is seen from, so two sessions share
-- what they both see of one segment, and all before it. Walked as in session_line.
create or replace function haive_private.common_root(
  p_tenant text,
  p_one uuid, p_one_segment int, p_one_count bigint,
  p_two uuid, p_two_segment int, p_two_count bigint
)
returns bigint
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    with recursive walk as (
      select u.side, u.id as session_id, u.segment, u.upto
      from (
        values (1, p_one, p_one_segment, p_one_count), (2, p_two, p_two_segment, p_two_count)
      ) as u (side, id, segment, upto)
      union
      select w.side, g.id, g.segment, least(w.upto, g.n)
      from walk as w
      cross join lateral (
        select s.parent_id as id, s.parent_segment::int as segment, s.branch_index as n
        from haive.sessions as s
        where w.segment = 0 and s.tenant_id = p_tenant and s.id = w.session_id
        union all
        select g.session_id, g.base_segment::int, g.base_count
        from haive.session_segments as g
        where
          w.segment > 0 and g.tenant_id = p_tenant and g.session_id = w.session_id
          and g.number = w.segment
        offset 0
      ) as g
      where g.id is not null
    )
    select coalesce(max(least(s.one, s.two)), 0)
    from (
      select
        max(w.upto) filter (where w.side = 1) as one, max(w.upto) filter (where w.side = 2) as two
      from walk as w
      group by w.session_id, w.segment
    ) as s
    where s.one is not null and s.two is not null
  );
end;
$$;

comment on function haive_private.common_root(text, uuid, int, bigint, uuid, int, bigint) is
'How many messages two sessions have in common at their beginning.';

create or replace function haive_private.line_messages(
  p_tenant text, p_session_id uuid, p_segment int, p_from bigint, p_to bigint
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_ids uuid[];
  v_first bigint[];
  v_last bigint[];
begin
  select
    array_agg(l.conversation_id), array_agg(l.first_seq),
    array_agg(l.first_seq + l.last_index - l.first_index)
  into v_ids, v_first, v_last
  from haive_private.session_line(p_tenant, p_session_id, p_segment, p_from, p_to) as l
  where p_from <= p_to;
  return (
    select coalesce(json_agg(m.doc order by u.place, m.place), '[]')
    from unnest(haive_private.message_docs(p_tenant, v_ids, v_first, v_last)) with ordinality
      as u (docs, place)
    cross join lateral json_array_elements(u.docs) with ordinality as m (doc, place)
    where not exists (
      select from haive.messages as h
      where
        h.tenant_id = p_tenant and h.conversation_id = (m.doc ->> 'conversation_id')::uuid
        and h.seq = (m.doc ->> 'seq')::bigint and h.hidden_at is not null
    )
  );
end;
$$;

comment on function haive_private.line_messages(text, uuid, int, bigint, bigint) is
'The messages of a session from one index to another, but for those that are hidden.';

create or replace function haive_private.merge_doc(p_merge haive.session_merges)
returns json
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    select
      json_build_object(
        'id', p_merge.id,
        'session_id', p_merge.session_id,
        'secondary_id', p_merge.secondary_id,
        'strategy', p_merge.strategy,
        'conflict_resolution', p_merge.conflict_resolution,
        'root_count', p_merge.root_count,
        'entries', (
          select coalesce(
            json_agg(
              json_build_object(
                'conversation_id', u.id, 'first_seq', u.first_seq, 'last_seq', u.last_seq
              )
              order by u.place
            ),
            '[]'
          )
          from unnest(g.conversation_ids, g.first_seqs, g.last_seqs) with ordinality
            as u (id, first_seq, last_seq, place)
        ),
        'dropped', p_merge.dropped::jsonb,
        'conflicts', p_merge.conflicts::jsonb,
        'summary_seq', p_merge.summary_seq,
        'summary_of', p_merge.summary_of::jsonb,
        'created_at', p_merge.created_at,
        'undone_at', p_merge.undone_at
      )
    from haive.session_segments as g
    where
      g.tenant_id = p_merge.tenant_id and g.session_id = p_merge.session_id
      and g.number = p_merge.segment
  );
end;
$$;

comment on function haive_private.merge_doc(haive.session_merges) is
'A merge as the functions of the API return it.';

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
  v_user text := haive.current_actor();
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
      p_tenant, g.id, g.agent_id, coalesce(g.user_id, v_user),
      g.title, coalesce(g.tags, '{}'), coalesce(g.context, '{}'), coalesce(g.participants, '{}'),
      coalesce(g.settings, '{}'), t.at, t.at, t.at,
      decode(g.sealed, 'base64'), g.sealed_with, p_are_sessions
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
    (c.agent_id, c.user_id) is distinct from (g.agent_id, coalesce(g.user_id, v_user))
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
'Writes conversations, each with an id, and returns how many were not there yet.';

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

comment on function haive_private.create_session(text, jsonb) is
'What haive.create_session does, for a caller without rights on the tables.';

create or replace function haive.create_session(session jsonb, tenant text default null)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.create_session(create_session.tenant, create_session.session)
$$;

comment on function haive.create_session(jsonb, text) is
'Begins a session: {id, agent_id, user_id, title, tags, context, settings, sealed, sealed_with, '
'parent_id, branch_index, ttl, max_messages, participants, writers, moderators, live}. With parent_id '
'it is a branch, which begins with the first branch_index messages of the parent, all if not given.';

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
  return haive_private.session_doc(v_entered.session, v_entered.conversation);
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
'One session, with its conversation, who may do what, and the conversations that it inherits from.';

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
  p_own boolean
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
  v_pairs haive_private.session_pair[];
begin
  if (p_page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on with page_after, the next_page of a page.';
  end if;
  -- By id, which is the order in which they began. Put together from fixed fragments, so that the
  -- planner sees only what is asked: the sessions of an owner are found by the owner.
  execute format(
    $q$
    select array(
      select row(s, c)::haive_private.session_pair
      from haive.sessions as s
      join haive.conversations as c on c.tenant_id = s.tenant_id and c.id = s.id
      where s.tenant_id = $1 and c.tenant_id = $1 %s
      order by s.id desc
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
      case when p_own then 'and c.user_id is not distinct from $10' end
    )
  )
  into v_pairs
  using
    v_caller.tenant, p_page_size, p_user_id, p_participant, p_agent_id, p_parent_id, p_statuses,
    p_page_after::uuid, v_actor, coalesce(p_acting, haive.current_actor());
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
        json_agg(haive_private.session_doc(p.session, p.conversation) order by (p.session).id desc),
        '[]'
      )
      from unnest(v_pairs) as p
    ),
    'next_page', case
      when cardinality(v_pairs) = p_page_size then ((v_pairs[p_page_size]).session).id
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
  own boolean default false,
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
    list_sessions.own
  )
$$;

comment on function haive.list_sessions(
  text, text, text, text[], uuid, int, text, text, boolean, text
) is
'Sessions, the latest first: of an owner, a participant, an agent, in some statuses, branches of one; '
'own: of the user who calls, or of nobody where a service does: {sessions, next_page}.';

-- Definer: the messages that a branch begins with are in conversations of others.
create or replace function haive_private.session_messages(
  p_tenant text,
  p_session_id uuid,
  p_after bigint,
  p_before bigint,
  p_page_size int,
  p_last boolean,
  p_hidden boolean,
  p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered record := haive_private.enter_session(p_tenant, p_session_id, 'read', p_acting, false);
  v_session haive.sessions := v_entered.session;
  v_conversation haive.conversations := v_entered.conversation;
  v_from bigint := greatest(p_after, 0) + 1;
  v_to bigint := least(p_before - 1, v_session.index_offset + v_conversation.message_count);
begin
  if (p_page_size between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 10000',
      hint = 'Read on with after, the index of the last message of a page.';
  end if;
  if
    p_hidden and v_entered.actor is not null
    and v_entered.actor is distinct from v_conversation.user_id
    and v_entered.actor <> all(coalesce(v_session.moderators, '{}'))
  then
    raise exception using
      errcode = 'PT403',
      message = 'only moderators see what is hidden',
      hint = 'Read without it.';
  end if;
  if p_last then
    v_from := greatest(v_from, v_to - p_page_size + 1);
  else
    v_to := least(v_to, v_from + p_page_size - 1);
  end if;
  if v_entered.audit_reads then
    perform haive_private.audit_read(
      'session_messages',
      jsonb_build_object(
        p_session_id, case when v_from <= v_to then jsonb_build_array(v_from, v_to) end
      ),
      greatest(v_to - v_from + 1, 0)
    );
  end if;
  -- Each message as message_docs has it, with its place: in one pass, for a page of a branch is of many
  -- conversations, and a query for each of them takes longer than the messages.
  return (
    select coalesce(json_agg(d), '[]')
    from (
      select
        m.id, m.conversation_id, m.seq, m.role::text,
        case
          when m.sealed is not null then json_build_object(
            'sealed', replace(encode(m.sealed, 'base64'), e'\n', ''),
            'sealed_with', m.sealed_with::text
          )
          when m.parts is null then to_json(m.content::text)
          else m.parts::json
        end as content,
        m.metadata::jsonb,
        case
          when m.input_tokens is not null then json_build_object(
            'input_tokens', m.input_tokens::int,
            'output_tokens', m.output_tokens::int,
            'total_tokens', m.input_tokens + m.output_tokens,
            'model', m.model::text,
            'cost', m.cost::text
          )
        end as token_usage,
        m.created_at::timestamptz,
        l.first_index + m.seq - l.first_seq as index,
        m.author::text,
        m.hidden_at is not null as hidden
      from haive_private.session_line(
        v_entered.tenant, p_session_id, v_session.segment, v_from, v_to
      ) as l
      cross join lateral (
        select * from haive.messages as m
        where
          m.tenant_id = v_entered.tenant and m.conversation_id = l.conversation_id
          and m.seq between l.first_seq and l.first_seq + l.last_index - l.first_index
        offset 0
      ) as m
      -- Of its own messages moderators may see what is hidden, of others only those of that session.
      where m.hidden_at is null or (p_hidden and m.conversation_id = p_session_id)
      order by index
    ) as d
  );
end;
$$;

alter function haive_private.session_messages(
  text, uuid, bigint, bigint, int, boolean, boolean, text
) owner to haive_writer;

comment on function haive_private.session_messages(
  text, uuid, bigint, bigint, int, boolean, boolean, text
) is 'What haive.session_messages does, for a caller without rights on what a branch begins with.';

create or replace function haive.session_messages(
  session_id uuid,
  after bigint default 0,
  before bigint default null,
  page_size int default 100,
  last boolean default false,
  hidden boolean default false,
  acting_user text default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.session_messages(
    session_messages.tenant, session_messages.session_id, session_messages.after,
    session_messages.before, session_messages.page_size, session_messages.last,
    session_messages.hidden, session_messages.acting_user
  )
$$;

comment on function haive.session_messages(
  uuid, bigint, bigint, int, boolean, boolean, text, text
) is
'A page of a session''s messages by their indexes, what it shares with its parents included, each with '
'its index, author and hidden. Moderators see with hidden what they have hidden.';

-- add_messages for a service that acts for a user: as whom it writes is told to the trigger of all
-- writes to sessions, and kept with the message. Users who call with their token are told apart anyway.
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
  perform set_config('persistence.author', '', true), set_config('persistence.acting', '', true);
  return v_answer;
end;
$$;

comment on function haive.add_session_messages(uuid, jsonb, text, text) is
'Adds messages to a session, all or none, for a user (a service says for whom): refused where that '
'user may not write. As add_messages otherwise.';

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
  return haive_private.session_doc(v_session, v_entered.conversation);
end;
$$;

alter function haive_private.update_session(text, uuid, jsonb, text) owner to haive_writer;

comment on function haive_private.update_session(text, uuid, jsonb, text) is
'What haive.update_session does, for a caller without rights on the tables.';

create or replace function haive.update_session(
  session_id uuid, changes jsonb, acting_user text default null, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.update_session(
    update_session.tenant, update_session.session_id, update_session.changes,
    update_session.acting_user
  )
$$;

comment on function haive.update_session(uuid, jsonb, text, text) is
'Changes a session: {status: open or closed, ttl, max_messages, live, touch: true to begin its ttl '
'anew}.';

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
  return haive_private.session_doc(v_session, v_conversation);
end;
$$;

alter function haive_private.update_session_state(text, uuid, jsonb, timestamptz, text)
owner to haive_writer;

comment on function haive_private.update_session_state(text, uuid, jsonb, timestamptz, text) is
'What haive.update_session_state does, for a caller without rights on the tables.';

create or replace function haive.update_session_state(
  session_id uuid,
  changes jsonb,
  expected timestamptz default null,
  acting_user text default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.update_session_state(
    update_session_state.tenant, update_session_state.session_id, update_session_state.changes,
    update_session_state.expected, update_session_state.acting_user
  )
$$;

comment on function haive.update_session_state(uuid, jsonb, timestamptz, text, text) is
'Changes the state that the participants of a session share: {state}, whose keys are put on top of what '
'is there, and go where they are null; or {sealed, sealed_with}, all that a client has sealed. Refused '
'with 409 where the session (updated_at of its conversation) is not as expected.';

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

comment on function haive_private.continue_session(text, uuid, jsonb, text) is
'What haive.continue_session does, for a caller without rights on the tables.';

create or replace function haive.continue_session(
  session_id uuid,
  successor jsonb default '{}',
  acting_user text default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.continue_session(
    continue_session.tenant, continue_session.session_id, continue_session.successor,
    continue_session.acting_user
  )
$$;

comment on function haive.continue_session(uuid, jsonb, text, text) is
'Lets a session go on in a successor, of the same people, with its title, context and settings (which '
'a client that seals them gives anew: {id, sealed, sealed_with}), and returns that; the same one '
'however often it is called.';

-- What a merge is planned from, and which states of the two sessions the plan is for.
-- Definer, as session_messages is.
create or replace function haive_private.read_merge(
  p_tenant text, p_primary_id uuid, p_secondary_id uuid, p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_one record := haive_private.enter_session(p_tenant, p_primary_id, 'write', p_acting, false);
  v_two record := haive_private.enter_session(p_tenant, p_secondary_id, 'write', p_acting, false);
  v_primary haive.sessions := v_one.session;
  v_secondary haive.sessions := v_two.session;
  v_counts bigint[] := array[
    v_primary.index_offset + (v_one.conversation).message_count,
    v_secondary.index_offset + (v_two.conversation).message_count
  ];
  v_root bigint;
  v_answer json;
begin
  if p_primary_id = p_secondary_id then
    raise exception using
      errcode = 'PT422',
      message = 'a session is not merged with itself',
      hint = 'Name two sessions.';
  end if;
  v_root := haive_private.common_root(
    v_one.tenant, p_primary_id, v_primary.segment, v_counts[1],
    p_secondary_id, v_secondary.segment, v_counts[2]
  );
  if greatest(v_counts[1], v_counts[2]) - v_root > 10000 then
    raise exception using
      errcode = 'PT413',
      message = 'a session has more than 10000 messages after the common beginning',
      hint = 'Branch nearer to the end, and merge that.';
  end if;
  if v_one.audit_reads then
    perform haive_private.audit_read(
      'read_merge',
      jsonb_build_object(
        p_primary_id, jsonb_build_array(v_root + 1, v_counts[1]),
        p_secondary_id, jsonb_build_array(v_root + 1, v_counts[2])
      ),
      v_counts[1] + v_counts[2] - 2 * v_root
    );
  end if;
  return json_build_object(
    'root_count', v_root,
    'segments', json_build_array(v_primary.segment, v_secondary.segment),
    'counts', v_counts,
    'primary', haive_private.line_messages(
      v_one.tenant, p_primary_id, v_primary.segment, v_root + 1, v_counts[1]
    ),
    'secondary', haive_private.line_messages(
      v_one.tenant, p_secondary_id, v_secondary.segment, v_root + 1, v_counts[2]
    )
  );
end;
$$;

alter function haive_private.read_merge(text, uuid, uuid, text) owner to haive_writer;

comment on function haive_private.read_merge(text, uuid, uuid, text) is
'What haive.read_merge does, for a caller without rights on what a branch begins with.';

create or replace function haive.read_merge(
  primary_id uuid, secondary_id uuid, acting_user text default null, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.read_merge(
    read_merge.tenant, read_merge.primary_id, read_merge.secondary_id, read_merge.acting_user
  )
$$;

comment on function haive.read_merge(uuid, uuid, text, text) is
'What two sessions have after their common beginning, to plan a merge from: {root_count, segments, '
'counts, primary, secondary}; the last two are messages in order.';

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
    v_plan.strategy, v_plan.conflict_resolution, v_root, coalesce(v_plan.dropped, '[]'),
    coalesce(v_plan.conflicts, '[]'), v_summary, coalesce(v_plan.summary_of, '[]')
  )
  returning * into v_merge;
  insert into haive.events (tenant_id, kind, conversation_id)
  values
    (v_tenant, 'session.merged', p_primary_id), (v_tenant, 'session.updated', p_secondary_id);
  return haive_private.merge_doc(v_merge);
end;
$$;

alter function haive_private.merge_sessions(text, uuid, uuid, jsonb, text) owner to haive_writer;

comment on function haive_private.merge_sessions(text, uuid, uuid, jsonb, text) is
'What haive.merge_sessions does, for a caller without rights on the tables.';

create or replace function haive.merge_sessions(
  primary_id uuid,
  secondary_id uuid,
  plan jsonb,
  acting_user text default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.merge_sessions(
    merge_sessions.tenant, merge_sessions.primary_id, merge_sessions.secondary_id,
    merge_sessions.plan, merge_sessions.acting_user
  )
$$;

comment on function haive.merge_sessions(uuid, uuid, jsonb, text, text) is
'Merges a session into another by a plan made from read_merge: {id, strategy, conflict_resolution, '
'segments, counts, entries: [{conversation_id, first_seq, last_seq}], dropped, conflicts, summary, '
'summary_of}. Refused with 409 where one of them has changed since.';

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

comment on function haive_private.undo_merge(text, uuid, uuid, text) is
'What haive.undo_merge does, for a caller without rights on the tables.';

create or replace function haive.undo_merge(
  session_id uuid, merge_id uuid, acting_user text default null, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.undo_merge(
    undo_merge.tenant, undo_merge.session_id, undo_merge.merge_id, undo_merge.acting_user
  )
$$;

comment on function haive.undo_merge(uuid, uuid, text, text) is
'Undoes the last merge of a session that is not undone yet: it has what it had before, and what was '
'written to it since; the other one is again what it was. Repeated, it changes nothing.';

create or replace function haive_private.list_merges(
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
    perform haive_private.audit_read('list_merges', jsonb_build_object(p_session_id, null), 1);
  end if;
  return (
    select coalesce(json_agg(haive_private.merge_doc(m) order by m.segment), '[]')
    from haive.session_merges as m
    where m.tenant_id = v_entered.tenant and m.session_id = p_session_id
  );
end;
$$;

alter function haive_private.list_merges(text, uuid, text) owner to haive_writer;

comment on function haive_private.list_merges(text, uuid, text) is
'What haive.list_merges does, for a caller without rights on the tables.';

create or replace function haive.list_merges(
  session_id uuid, acting_user text default null, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.list_merges(
    list_merges.tenant, list_merges.session_id, list_merges.acting_user
  )
$$;

comment on function haive.list_merges(uuid, text, text) is
'The merges into a session, in order: what came from where, what was left out and why.';

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
  return haive_private.session_doc(v_session, v_conversation);
end;
$$;

alter function haive_private.set_participant(text, uuid, text, text[], text)
owner to haive_writer;

comment on function haive_private.set_participant(text, uuid, text, text[], text) is
'What haive.set_participant does, for a caller without rights on the tables.';

create or replace function haive.set_participant(
  session_id uuid,
  user_id text,
  permissions text[] default '{}',
  acting_user text default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.set_participant(
    set_participant.tenant, set_participant.session_id, set_participant.user_id,
    set_participant.permissions, set_participant.acting_user
  )
$$;

comment on function haive.set_participant(uuid, text, text[], text, text) is
'Gives a user permissions in a session (read, write, moderate; each of them reads), by who moderates '
'it; none removes the user, who is cut off at once. Everybody may remove themselves.';

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

comment on function haive_private.hide_message(text, uuid, uuid, boolean, text) is
'What haive.hide_message does, for a caller without rights on the tables.';

create or replace function haive.hide_message(
  session_id uuid,
  message_id uuid,
  hidden boolean default true,
  acting_user text default null,
  tenant text default null
)
returns boolean
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.hide_message(
    hide_message.tenant, hide_message.session_id, hide_message.message_id, hide_message.hidden,
    hide_message.acting_user
  )
$$;

comment on function haive.hide_message(uuid, uuid, boolean, text, text) is
'Hides a message of a session from all but those who moderate it, or shows it again; returns whether '
'that changed anything.';

-- Nobody waits for it: a session reads as expired, and takes no writes, from its moment on. The job makes
-- that lasting, and says so to who watches.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.expire_sessions(p_tenant text, p_batch int)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_as_administrator(p_tenant, true);
  v_ids uuid[];
begin
  if (p_batch between 1 and 100000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'batch is not between 1 and 100000',
      hint = 'It is how many rows go in one transaction.';
  end if;
  v_ids := array(
    select s.id from haive.sessions as s
    where
      s.tenant_id = v_caller.tenant and s.status = 'open'
      and s.active_at + s.ttl * interval '1 second' <= now()
    order by s.id
    limit p_batch
    for update skip locked -- who is writing to one keeps it open
  );
  update haive.sessions as s
  set status = 'expired', closed_at = now()
  where s.tenant_id = v_caller.tenant and s.id = any(v_ids);
  insert into haive.events (tenant_id, kind, conversation_id)
  select v_caller.tenant, 'session.updated', u.id from unnest(v_ids) as u (id);
  return cardinality(v_ids);
end;
$$;

alter function haive_private.expire_sessions(text, int) owner to haive_writer;

comment on function haive_private.expire_sessions(text, int) is
'What haive.expire_sessions does, for a caller without rights on the tables.';

create or replace function haive.expire_sessions(batch int default 10000, tenant text default null)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.expire_sessions(expire_sessions.tenant, expire_sessions.batch)
$$;

comment on function haive.expire_sessions(int, text) is
'Closes the sessions of the tenant that have expired, for its administrators, and returns how many; '
'call again until there are none.';

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
    coalesce(json_agg(haive_private.session_doc(f.s, f.c) order by (f.s).id), '[]'),
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

create or replace function haive.session_family(
  session_id uuid, acting_user text default null, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.session_family(
    session_family.tenant, session_family.session_id, session_family.acting_user
  )
$$;

comment on function haive.session_family(uuid, text, text) is
'A session with all that it branched off and all that branched off those, as far as the caller sees '
'them; at most 10,000, in the order in which they began.';

-- For the policies on realtime.messages, which ask for the user of a verified token and the topic
-- that they want: schema:tenant:channel. Answers where enter_tenant would raise an error.
-- Definer, as enter_tenant is.
create or replace function haive_private.may_join(p_topic text, p_extension text, p_write boolean)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_schema text := split_part(p_topic, ':', 1);
  v_tenant text := split_part(p_topic, ':', 2);
  v_channel text := substr(p_topic, length(v_schema) + length(v_tenant) + 3);
  v_actor text := haive.current_actor();
  v_single text := '^(session|conversation):[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
  v_role text;
  v_done text;
  v_may boolean := false;
begin
  if v_actor is null then
    return false;
  elsif v_schema <> 'haive' then
    -- The policies are of the installation: of a tenant with a schema of its own, that one knows.
    if exists (
      select from haive.tenants as t
      where
        t.tenant_id = v_tenant and t.isolation = 'schema' and t.location = v_schema
        and t.status in ('active', 'moving')
    ) then
      execute format('select %I.may_join($1, $2, $3)', v_schema || '_private')
      into v_may using p_topic, p_extension, p_write;
    end if;
    return v_may;
  end if;
  select m.role into v_role
  from haive.members as m
  join haive.tenants as t on t.tenant_id = m.tenant_id
  where
    m.tenant_id = v_tenant and m.user_id = v_actor
    and t.status in ('active', 'moving') and t.isolation = 'row';
  if v_role is null then
    return false;
  end if;
  v_done := set_config('persistence.tenant', v_tenant, true);
  -- In a session they are seen, and send, where nobody is left who was removed from it: in its room.
  if (p_write or p_extension = 'presence') and v_channel ~ v_single then
    if
      v_channel ^@ 'session'
      or exists (
        select from haive.sessions as s
        where s.tenant_id = v_tenant and s.id = split_part(v_channel, ':', 2)::uuid
      )
    then
      return false;
    end if;
  end if;
  -- Whoever may hear may be seen; only who may write may send.
  p_write := p_write and p_extension is distinct from 'presence';
  if p_write and v_role = 'reader' then
    return false;
  end if;
  return haive_private.may_watch(
    v_tenant,
    case when v_role not in ('owner', 'admin') then v_actor end,
    v_channel,
    p_write
  );
end;
$$;

alter function haive_private.may_join(text, text, boolean) owner to haive_writer;

comment on function haive_private.may_join(text, text, boolean) is
'Whether the user of the token may join a realtime topic, or send on it (extension broadcast) and '
'be seen there (presence).';

create trigger audit_insert after insert on haive.sessions
referencing new table as changed for each statement execute function haive_private.audit_rows();
-- Not when it was active last, which messages move.
create trigger audit_update
after update of tenant_id, id, parent_id, parent_segment, branch_index, segment, status, live, ttl,
max_messages, predecessor_id, successor_id, closed_at, writers, moderators on haive.sessions
for each row execute function haive_private.audit_row();
create trigger audit_delete after delete on haive.sessions
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.session_segments
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive.session_segments
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.session_segments
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.session_merges
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive.session_merges
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.session_merges
referencing old table as changed for each statement execute function haive_private.audit_rows();

insert into haive_private.migrations (version, name) values
  ('20261128201000', 'session_functions')
on conflict do nothing;
