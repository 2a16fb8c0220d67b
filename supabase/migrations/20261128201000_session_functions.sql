-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it; the grants take this away again.
grant usage, create on schema haive_private to haive_writer;

-- The first step of every operation: which tenant, and may the caller. The policies of
-- haive_client and haive_writer read the setting made here, so that an operation needs no
-- round trip to announce its tenant. It ends with the transaction.
-- Definer: it reads memberships before the tenant, which their policies ask for, is known.
create or replace function haive_private.enter_tenant(
  p_tenant text,
  p_write boolean,
  out tenant text,
  out actor text, -- null: all rows of the tenant; else: only where this user takes part
  out trusted boolean, -- a service key or a direct connection, and no user with a token
  out audit_reads boolean -- what is read goes on record
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_role text;
  v_count bigint;
  v_tenant haive.tenants;
  v_done text;
begin
  tenant := coalesce(
    p_tenant, nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-haive-tenant'
  );
  -- Trusted are the members of haive_client, which no API user can become. The setting "role"
  -- keeps what PostgREST or SET ROLE chose, in a definer function too; no API call can set it.
  trusted := pg_has_role(
    coalesce(nullif(current_setting('role', true), 'none'), session_user::text),
    'haive_client', 'member'
  );
  if trusted then
    tenant := coalesce(tenant, nullif(current_setting('persistence.tenant', true), ''), 'default');
  else
    actor := haive.current_actor();
    if actor is null then
      raise exception using
        errcode = 'PT401',
        message = 'the token names no user',
        hint = 'Sign in and send the user''s token, or call with a secret key.';
    end if;
    select count(*), min(m.tenant_id), min(m.role) into v_count, tenant, v_role
    from haive.members as m
    where m.user_id = actor and m.tenant_id = coalesce(enter_tenant.tenant, m.tenant_id);
    if v_count = 0 then
      raise exception using
        errcode = 'PT403',
        message = 'the caller is no member of the tenant',
        hint = 'An administrator of the tenant adds members with set_member.';
    elsif v_count > 1 then
      raise exception using
        errcode = 'PT422',
        message = 'the caller belongs to several tenants and names none',
        hint = 'Pass the argument tenant, or the header x-haive-tenant.';
    end if;
    if p_write and v_role = 'reader' then
      raise exception using
        errcode = 'PT403',
        message = 'a reader of the tenant may not write',
        hint = 'An administrator of the tenant changes roles with set_member.';
    end if;
    -- Who writes, for what is written; a service may say so of others (add_session_messages).
    v_done := set_config('persistence.author', actor, true);
    if v_role in ('owner', 'admin') then
      actor := null;
    end if;
  end if;

  if p_write then
    if current_setting('lock_timeout') = '0' then
      -- A row that somebody holds must not hold up a statement that others share for ever.
      v_done := set_config('lock_timeout', '10s', true);
    end if;
    -- Shared by all who write; who counts the rows of the tenant, or begins to, is here alone.
    if not pg_try_advisory_xact_lock_shared(hashtextextended('haive/writers/' || tenant, 0)) then
      perform pg_advisory_xact_lock_shared(hashtextextended('haive/writers/' || tenant, 0));
    end if;
  end if;
  select * into v_tenant from haive.tenants as t where t.tenant_id = enter_tenant.tenant;
  if v_tenant.status = 'moving' and not p_write then
    -- Until this call has ended, its rows are where they are now; the move waits for it.
    perform pg_advisory_xact_lock_shared(hashtextextended('haive/readers/' || tenant, 0));
    select * into v_tenant from haive.tenants as t where t.tenant_id = enter_tenant.tenant;
  end if;
  if v_tenant.status is null or v_tenant.status = 'deleted' then
    raise exception using
      errcode = 'PT404',
      message = format('no tenant %s', left(tenant, 63)),
      hint = 'Create it with create_tenant.';
  elsif v_tenant.status = 'suspended' then
    raise exception using
      errcode = 'PT423',
      message = format('the tenant %s is suspended', tenant),
      hint = 'An administrator of the platform opens it with resume_tenant.';
  elsif v_tenant.isolation <> 'row' then
    raise exception using
      errcode = 'PT421',
      message = format('the rows of tenant %s are in a %s of its own', tenant, v_tenant.isolation),
      hint = 'Work in tenant_context, which knows where.';
  elsif p_write and v_tenant.status = 'moving' then
    raise exception using
      errcode = 'PT503',
      message = format('the tenant %s is being moved', tenant),
      hint = 'Repeat the call in a second.';
  end if;
  -- Assigned and not performed, which is a query for each.
  v_done := set_config('persistence.tenant', tenant, true);
  if v_tenant.max_requests_per_minute is not null then
    v_done := haive_private.take_request(tenant, v_tenant.max_requests_per_minute);
  end if;
  audit_reads := v_tenant.audit = 'all';
  -- For those who would look the tenant up once more: m for metered, w for audited writes, s for
  -- content that is sealed by the client.
  v_done := set_config(
    'persistence.watch',
    case when v_tenant.metered then 'm' else '-' end
    || case when v_tenant.audit <> 'off' then 'w' else '-' end
    || case when v_tenant.encrypted then 's' else '-' end,
    true
  );
  if p_write and v_tenant.metered then
    v_done := set_config('persistence.meter', haive_private.meter_facts(v_tenant), true);
  end if;
end;
$$;

alter function haive_private.enter_tenant(text, boolean) owner to haive_writer;

comment on function haive_private.enter_tenant(text, boolean) is
'Resolves and checks the tenant of an operation: argument, header, session setting, the caller''s '
'only membership; "default" for trusted callers. Refuses one that is closed or elsewhere.';

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
  actor := v_caller.actor;
  if p_acting is not null then
    if v_caller.trusted then
      actor := p_acting;
    elsif p_acting <> haive.current_actor() then
      raise exception using
        errcode = 'PT403',
        message = 'only services act for others',
        hint = 'Leave out acting_user: the token says who calls.';
    end if;
  end if;
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

-- Segment 0 is told by the session itself, the later ones by their rows.
create or replace function haive_private.session_base(
  p_tenant text, p_session_id uuid, p_segment int
)
returns table (
  base_id uuid, base_segment int, base_count bigint, borrowed bigint, start_seq bigint,
  conversation_ids uuid[], first_seqs bigint[], last_seqs bigint[]
)
language plpgsql
stable
security invoker
rows 1
set search_path = ''
as $$
#variable_conflict use_column
begin
  if p_segment = 0 then
    return query
    select
      s.parent_id, s.parent_segment::int, s.branch_index, 0::bigint, 0::bigint,
      '{}'::uuid[], '{}'::bigint[], '{}'::bigint[]
    from haive.sessions as s
    where s.tenant_id = p_tenant and s.id = p_session_id;
  else
    return query
    select
      g.session_id, g.base_segment::int, g.base_count, g.borrowed, g.start_seq,
      g.conversation_ids, g.first_seqs, g.last_seqs
    from haive.session_segments as g
    where g.tenant_id = p_tenant and g.session_id = p_session_id and g.number = p_segment;
  end if;
end;
$$;

comment on function haive_private.session_base(text, uuid, int) is
'What a segment of a session is built on: a beginning of another one, a list, its own messages.';

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
-- what they both see of one segment, and all before it.
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
      select w.side, g.base_id, g.base_segment, least(w.upto, g.base_count)
      from walk as w
      cross join lateral haive_private.session_base(p_tenant, w.session_id, w.segment) as g
      where g.base_id is not null
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
    elsif v_is_session then
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

-- One message, the statements of insert_messages for a single row: 0.1 ms less than by arrays,
-- which is what a lone caller waits for.
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
  v_replay record;
  v_session record;
begin
  perform haive_private.check_sealed(p_sealed is not null);
  created_at := coalesce(p_created_at, now());
  update haive.conversations as c
  set
    message_count = c.message_count + 1,
    input_tokens = c.input_tokens + coalesce(p_input_tokens, 0),
    output_tokens = c.output_tokens + coalesce(p_output_tokens, 0),
    cost = c.cost + coalesce(p_cost, 0),
    last_message_at = greatest(c.last_message_at, append_message.created_at)
  where
    c.tenant_id = v_caller.tenant and c.id = p_conversation_id
    and (
      v_caller.actor is null or c.user_id = v_caller.actor
      or v_caller.actor = any(c.participants)
    )
  returning c.message_count, c.is_session, c.user_id into v_session;
  if not found then
    failure := 'PT404';
    return;
  end if;
  seq := v_session.message_count;
  if v_session.is_session then
    perform haive_private.check_session_write(
      v_caller.tenant, v_caller.actor, p_conversation_id, v_session.user_id, append_message.seq
    );
  end if;
  insert into haive.messages (
    tenant_id, conversation_id, seq, id, role, content, parts, metadata,
    input_tokens, output_tokens, model, cost, created_at, sealed, sealed_with
  )
  values (
    v_caller.tenant, p_conversation_id, append_message.seq, p_id, p_role, p_content, p_parts,
    coalesce(p_metadata, '{}'), p_input_tokens, p_output_tokens, p_model, p_cost,
    append_message.created_at, p_sealed, p_sealed_with
  );
  insert into haive.events (tenant_id, kind, conversation_id, first_seq, last_seq)
  values (
    v_caller.tenant, 'messages.added', p_conversation_id, append_message.seq, append_message.seq
  );
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

-- The fast path of writing: what the SDK calls on a direct connection, and add_messages for all
-- others. One bad message does not spoil the others: it gets a SQLSTATE in failures.
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
  v_given jsonb;
  v_fresh bigint;
  v_docs json;
begin
  -- Ids come from the client, for a safe retry; who sends none gets one here.
  select jsonb_agg(jsonb_build_object('id', gen_random_uuid()) || u.doc order by u.place)
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

create or replace function haive.create_conversations(conversations jsonb, tenant text default null)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.create_conversations(
    create_conversations.tenant, create_conversations.conversations
  )
$$;

comment on function haive.create_conversations(jsonb, text) is
'Begins conversations: a list of {id, agent_id, user_id, title, tags, context, participants, '
'settings, created_at, sealed, sealed_with}. Returns them. The same id with the same agent and user is the same one.';

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

comment on function haive_private.update_conversation(text, uuid, jsonb) is
'What haive.update_conversation does, for a caller without rights on the table.';

create or replace function haive.update_conversation(
  conversation_id uuid, changes jsonb, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.update_conversation(
    update_conversation.tenant, update_conversation.conversation_id, update_conversation.changes
  )
$$;

comment on function haive.update_conversation(uuid, jsonb, text) is
'Replaces the given fields among agent_id, title, tags, context, participants and settings. Those '
'that a client seals come as {sealed, sealed_with, was_updated_at}, all at once.';

-- Every error of ours: SQLSTATE, HTTP status through PostgREST, and the SDK's class.
-- PTnnn sets the HTTP status. 40001 is never used: PostgREST before 16 retries it for ever.
create or replace function haive.error_catalogue()
returns table (sqlstate text, http_status int, error text, retryable boolean, meaning text)
language sql
immutable
security invoker
set search_path = ''
as $$
  values
    ('PT401', 401, 'AccessDeniedError', false, 'the token names no user'),
    ('PT403', 403, 'AccessDeniedError', false, 'the caller may not do this in this tenant'),
    ('PT404', 404, 'NotFoundError', false, 'no such row, or none that the caller may see'),
    ('PT409', 409, 'ConflictError', false, 'the id is taken by other content'),
    ('PT410', 410, 'SubjectErasedError', false, 'the user was erased, and nothing is stored about them'),
    ('PT412', 412, 'SessionClosedError', false, 'the session was closed, has expired, or goes on elsewhere'),
    ('PT413', 413, 'ContentTooLargeError', false, 'content, parts or metadata are over their limit'),
    ('PT416', 416, 'CursorExpiredError', false, 'the cursor is older than the events that are kept'),
    ('PT421', 421, 'TenantMovedError', true, 'the tenant''s rows are in another place now'),
    ('PT422', 422, 'InvalidInputError', false, 'an argument does not mean anything'),
    ('PT423', 423, 'TenantSuspendedError', false, 'the tenant is closed until an administrator opens it'),
    ('PT429', 429, 'QuotaExceededError', false, 'the tenant is at one of its limits'),
    ('PT507', 507, 'SessionFullError', false, 'the session is at max_messages'),
    ('PT503', 503, 'TenantMovingError', true, 'the tenant is being moved and takes no writes now')
$$;

comment on function haive.error_catalogue() is
'The errors that the functions of this schema raise themselves.';

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
  p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, false);
  v_actor text := v_caller.actor;
  v_pairs haive_private.session_pair[];
begin
  if p_acting is not null then
    if v_caller.trusted then
      v_actor := p_acting;
    elsif p_acting <> haive.current_actor() then
      raise exception using
        errcode = 'PT403',
        message = 'only services act for others',
        hint = 'Leave out acting_user: the token says who calls.';
    end if;
  end if;
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
      case when v_actor is not null then 'and (c.user_id = $9 or $9 = any(c.participants))' end
    )
  )
  into v_pairs
  using
    v_caller.tenant, p_page_size, p_user_id, p_participant, p_agent_id, p_parent_id, p_statuses,
    p_page_after::uuid, v_actor;
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

alter function haive_private.list_sessions(text, text, text, text, text[], uuid, int, text, text)
owner to haive_writer;

comment on function haive_private.list_sessions(text, text, text, text, text[], uuid, int, text, text) is
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
    list_sessions.page_size, list_sessions.page_after, list_sessions.acting_user
  )
$$;

comment on function haive.list_sessions(text, text, text, text[], uuid, int, text, text, text) is
'Sessions, the latest first: of an owner, a participant, an agent, in some statuses, branches of one: '
'{sessions, next_page}.';

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

-- The one place that says who may hear of what. An actor of null sees all of the tenant.
create or replace function haive_private.may_watch(
  p_tenant text, p_actor text, p_channel text, p_write boolean default false
)
returns boolean
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  v_kind text := split_part(p_channel, ':', 1);
  v_name text := substr(p_channel, length(v_kind) + 2);
  v_room text := substring(v_name from '^[0-9a-f-]{36}:([0-9]{1,9})$');
begin
  if v_kind = 'session' and v_room is not null then
    v_name := left(v_name, 36);
  end if;
  if v_kind in ('conversation', 'session') and v_name ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
    return p_actor is null or exists (
      select from haive.conversations as c
      left join haive.sessions as s on s.tenant_id = c.tenant_id and s.id = c.id
      where
        c.tenant_id = p_tenant and c.id = v_name::uuid
        and (c.user_id = p_actor or p_actor = any(c.participants))
        -- Of a session readers hear, and writers send; one that is not live is read, not heard.
        and (
          (s.id is null and v_room is null)
          or (
            s.live and (not p_write or c.user_id = p_actor or p_actor = any(s.writers))
            and (v_room is null or v_room = s.room::text)
          )
        )
    );
  elsif v_kind = 'thread' and v_name <> '' and not p_write then
    return p_actor is null or exists (
      select from haive.threads as t
      where t.thread_id = v_name and t.tenant_id = p_tenant and t.user_id = p_actor
    );
  elsif p_channel in ('conversations', 'agent_states') then
    return not p_write; -- what they see of it is decided row by row
  end if;
  return p_channel = 'tenant' and p_actor is null and not p_write;
end;
$$;

alter function haive_private.may_watch(text, text, text, boolean) owner to haive_writer;

comment on function haive_private.may_watch(text, text, text, boolean) is
'Whether a user may hear of a channel of the tenant that was entered, or, to write, send on its '
'realtime topic: tenant, conversations, agent_states, conversation:ID, session:ID, session:ID:ROOM, thread:ID.';

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
  v_tenant text := split_part(p_topic, ':', 2);
  v_actor text := haive.current_actor();
  v_role text;
  v_done text;
begin
  if v_actor is null or split_part(p_topic, ':', 1) <> 'haive' then
    return false;
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
  -- Whoever may hear may be seen; only who may write may send.
  p_write := p_write and p_extension is distinct from 'presence';
  if p_write and v_role = 'reader' then
    return false;
  end if;
  -- In a session they are seen where nobody is left who was removed from it: in its room.
  if p_extension = 'presence' and p_topic ~ ':session:[0-9a-f-]{36}$' then
    return false;
  end if;
  v_done := set_config('persistence.tenant', v_tenant, true);
  return haive_private.may_watch(
    v_tenant,
    case when v_role not in ('owner', 'admin') then v_actor end,
    substr(p_topic, length('haive') + length(v_tenant) + 3),
    p_write
  );
end;
$$;

alter function haive_private.may_join(text, text, boolean) owner to haive_writer;

comment on function haive_private.may_join(text, text, boolean) is
'Whether the user of the token may join a realtime topic, or send on it (extension broadcast) and '
'be seen there (presence).';

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
    -- All who looked before it was there have ended when this lock is granted.
    perform pg_advisory_xact_lock(hashtextextended('erasures of ' || v_caller.tenant, 0));
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
    v_counts := jsonb_build_object('members', v_rows);
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

create or replace function haive.erase_user(
  user_id text, batch int default 10000, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.erase_user(erase_user.tenant, erase_user.user_id, erase_user.batch)
$$;

comment on function haive.erase_user(text, int, text) is
'Erases a user from the tenant, for its administrators: their conversations with messages, threads '
'with checkpoints, events, their name among participants, membership and invitations. Returns {done, '
'counts, erased_at, finished_at}; call again until done. From the first call on nothing more is '
'stored that names them.';

-- What has no function of its own to be read by: conversations and threads have theirs.
-- Definer: some of the tables are closed to callers. Users read what is about themselves.
create or replace function haive_private.export_user(
  p_tenant text, p_user_id text, p_kind text, p_page_size int, p_page_after text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, false);
  v_answer json;
begin
  if v_caller.actor <> p_user_id then
    raise exception using
      errcode = 'PT403',
      message = 'only administrators export what is about others',
      hint = 'Name yourself, or ask an administrator of the tenant.';
  end if;
  if (p_page_size between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 10000',
      hint = 'Read on with page_after, the next of a page.';
  end if;
  if p_kind = 'memberships' then
    select json_build_object('rows', coalesce(json_agg(m), '[]'), 'next', null) into v_answer
    from (
      select o.tenant_id, o.user_id::text, o.role, o.created_at
      from haive.members as o
      where o.tenant_id = v_caller.tenant and o.user_id = p_user_id
    ) as m;
  elsif p_kind = 'invitations' then
    select
      json_build_object(
        'rows', coalesce(json_agg(haive_private.invitation_doc(i.*) order by i.id), '[]'),
        'next', case when count(*) = p_page_size then max(i.id::text) end
      )
    into v_answer
    from (
      select o.* from haive.invitations as o
      where
        o.tenant_id = v_caller.tenant
        and p_user_id in (o.accepted_by, o.created_by, o.label)
        and (p_page_after is null or o.id > p_page_after::uuid)
      order by o.id
      limit p_page_size
    ) as i;
  elsif p_kind = 'participations' then
    select
      json_build_object(
        'rows', coalesce(json_agg(c order by c.id), '[]'),
        'next', case when count(*) = p_page_size then max(c.id::text) end
      )
    into v_answer
    from (
      select o.id, o.agent_id::text, o.title::text, o.created_at::timestamptz, o.last_message_at
      from haive.conversations as o
      where
        o.tenant_id = v_caller.tenant and o.participants::text[] @> array[p_user_id]
        and o.user_id is distinct from p_user_id
        and (p_page_after is null or o.id > p_page_after::uuid)
      order by o.id
      limit p_page_size
    ) as c;
  elsif p_kind = 'authorships' then
    -- By their places: the content is another's conversation, and sealed where the tenant's content is.
    select
      json_build_object(
        'rows', coalesce(json_agg(m order by m.id), '[]'),
        'next', case when count(*) = p_page_size then max(m.id::text) end
      )
    into v_answer
    from (
      select o.id, o.conversation_id, o.seq, o.created_at::timestamptz
      from haive.messages as o
      where
        o.author = p_user_id and o.tenant_id = v_caller.tenant
        and (p_page_after is null or o.id > p_page_after::uuid)
        and not exists (
          select from haive.conversations as c
          where
            c.tenant_id = o.tenant_id and c.id = o.conversation_id and c.user_id = p_user_id
        )
      order by o.id
      limit p_page_size
    ) as m;
  elsif p_kind = 'events' then
    select
      json_build_object(
        'rows', coalesce(json_agg(e order by e.xid, e.id), '[]'),
        'next', case
          when count(*) = p_page_size then (
            array_agg(format('%s/%s', e.xid, e.id) order by e.xid, e.id)
          )[p_page_size]
        end
      )
    into v_answer
    from (
      select
        o.xid, o.id, o.kind::text, o.conversation_id, o.first_seq, o.last_seq, o.thread_key,
        o.checkpoint_id, o.created_at
      from haive.events as o
      where
        o.tenant_id = v_caller.tenant
        and (
          p_page_after is null
          or (o.xid, o.id) > (
            split_part(p_page_after, '/', 1)::xid8, split_part(p_page_after, '/', 2)::bigint
          )
        )
        and (
          o.conversation_id in (
            select c.id from haive.conversations as c
            where c.tenant_id = v_caller.tenant and c.user_id = p_user_id
          )
          or o.thread_key in (
            select t.thread_key from haive.threads as t
            where t.tenant_id = v_caller.tenant and t.user_id = p_user_id
          )
        )
      order by o.xid, o.id
      limit p_page_size
    ) as e;
  elsif p_kind = 'audit' then
    -- What they did and, for administrators, what was done to their membership: that names others.
    select
      json_build_object(
        'rows', coalesce(json_agg(a order by a.seq), '[]'),
        'next', case when count(*) = p_page_size then max(a.seq)::text end
      )
    into v_answer
    from (
      select
        o.seq, o.at, o.actor, o.login, o.role, o.action, o.object, o.rows, o.row_count,
        o.address, o.application, o.request_id
      from haive.audit_log as o
      where
        o.tenant_id = v_caller.tenant
        and (
          o.actor = p_user_id
          or (v_caller.actor is null and o.object = 'members' and o.rows ? p_user_id)
        )
        and o.seq > coalesce(p_page_after, '0')::bigint
      order by o.seq
      limit p_page_size
    ) as a;
  else
    raise exception using
      errcode = 'PT422',
      message = 'the kind is unknown',
      hint = 'Kinds are memberships, invitations, participations, authorships, events and audit.';
  end if;
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'export_user', jsonb_build_object(p_user_id, p_kind), json_array_length(v_answer -> 'rows')
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.export_user(text, text, text, int, text) owner to haive_writer;

comment on function haive_private.export_user(text, text, text, int, text) is
'What haive.export_user does, for a caller without rights on the tables.';

create or replace function haive.export_user(
  user_id text,
  kind text,
  page_size int default 1000,
  page_after text default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.export_user(
    export_user.tenant, export_user.user_id, export_user.kind, export_user.page_size,
    export_user.page_after
  )
$$;

comment on function haive.export_user(text, text, int, text, text) is
'A page of what is held about a user: memberships, invitations, participations (conversations of '
'others that name them), authorships (messages there), events or audit. Returns {rows, next}; read on with page_after, the next of '
'the page before. For administrators, and for the users themselves.';

-- The trigger of all other statements: "changed" is the rows they wrote, of deletions those that
-- were there. What a foreign key takes along is no row of its own: it went with what is on record.
create or replace function haive_private.audit_rows()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered text := current_setting('persistence.tenant', true);
  v_tenant text;
  v_rows record;
begin
  if current_setting('persistence.watch', true) like '_-%' then
    return null;
  end if;
  for v_tenant in select distinct c.tenant_id from changed as c loop
    continue when not haive_private.is_audited(v_tenant);
    -- Entered for the while, since the owner's own statements enter none.
    perform set_config('persistence.tenant', v_tenant, true);
    case tg_table_name
      when 'conversations' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            c.id, 1 as n, row_number() over () as place,
            case
              when tg_op = 'DELETE' and c.message_count > 0
                then jsonb_build_array(1, c.message_count)
            end as detail
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'messages' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            c.conversation_id as id, count(*) as n, row_number() over () as place,
            jsonb_build_array(min(c.seq), max(c.seq)) as detail
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.conversations as p
                where p.tenant_id = c.tenant_id and p.id = c.conversation_id
              )
            )
          group by c.conversation_id
        ) as g;
      when 'sessions' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.id, c.parent_id as detail, 1 as n, row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.conversations as p
                where p.tenant_id = c.tenant_id and p.id = c.id
              )
            )
        ) as g;
      when 'session_segments' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.session_id as id, c.number as detail, 1 as n, row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.sessions as p
                where p.tenant_id = c.tenant_id and p.id = c.session_id
              )
            )
        ) as g;
      when 'session_merges' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            c.id, jsonb_build_array(c.session_id, c.secondary_id) as detail, 1 as n,
            row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.sessions as p
                where p.tenant_id = c.tenant_id and p.id = c.session_id
              )
            )
        ) as g;
      when 'members' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.user_id as id, c.role as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'threads' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.thread_key as id, null as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'branches' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.branch_id as id, c.thread_key as detail, 1 as n, row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.threads as p
                where p.tenant_id = c.tenant_id and p.thread_key = c.thread_key
              )
            )
        ) as g;
      when 'checkpoints' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.id, c.thread_key as detail, 1 as n, row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.branches as p
                where p.tenant_id = c.tenant_id and p.branch_id = c.branch_id
              )
            )
        ) as g;
      when 'checkpoint_writes' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            c.checkpoint_id as id, c.thread_key as detail, count(*) as n,
            row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.threads as p
                where p.tenant_id = c.tenant_id and p.thread_key = c.thread_key
              )
            )
          group by c.thread_key, c.checkpoint_id
        ) as g;
      when 'checkpoint_schemas' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            encode(c.hash, 'hex') as id, c.key_id as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'invitations' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.id, c.role as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'erasures' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            encode(c.subject_hash, 'hex') as id, c.counts as detail, 1 as n,
            row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'tenant_keys' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.key_id as id, c.status as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
    end case;
    insert into haive_private.audit_queue (tenant_id, action, object, rows, row_count)
    select
      v_tenant, lower(tg_op), tg_table_name,
      v_rows.ids || case
        when v_rows.places > 1000 then jsonb_build_object('more', v_rows.places - 1000) else '{}'
      end,
      v_rows.n
    where v_rows.n > 0;
  end loop;
  perform set_config('persistence.tenant', coalesce(v_entered, ''), true);
  return null;
end;
$$;

alter function haive_private.audit_rows() owner to haive_writer;

comment on function haive_private.audit_rows() is
'Puts what a statement wrote on record: one row for each tenant, with the ids of the rows.';

-- The trigger of tables whose rows are rewritten by what others do, counters and heads: it is asked
-- only where a statement sets one of the columns that it names. And of tenants, of which it tells
-- how they are switched.
create or replace function haive_private.audit_row()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_tenant text := coalesce(new.tenant_id, old.tenant_id);
  v_changed jsonb;
  v_rows jsonb;
begin
  if tg_table_name = 'tenants' then
    if 'off' = all(array[coalesce(old.audit, 'off'), coalesce(new.audit, 'off')]) then
      return null;
    end if;
  elsif
    current_setting('persistence.watch', true) like '_-%' or not haive_private.is_audited(v_tenant)
  then
    return null;
  end if;
  if tg_op = 'UPDATE' then
    select coalesce(jsonb_agg(n.key order by n.key), '[]') into v_changed
    from jsonb_each(to_jsonb(new)) as n
    join jsonb_each(to_jsonb(old)) as o on o.key = n.key
    where o.value is distinct from n.value and n.key <> 'updated_at';
  end if;
  case tg_table_name
    when 'conversations' then
      v_rows := jsonb_build_object(new.id, v_changed);
    when 'sessions' then
      v_rows := jsonb_build_object(new.id, v_changed);
    when 'branches' then
      v_rows := jsonb_build_object(new.branch_id, v_changed);
    when 'tenants' then
      v_rows := jsonb_strip_nulls(jsonb_build_object(
        'changed', v_changed,
        'status', coalesce(new.status, old.status),
        'isolation', coalesce(new.isolation, old.isolation),
        'audit', coalesce(new.audit, old.audit),
        'encrypted', coalesce(new.encrypted, old.encrypted)
      ));
  end case;
  insert into haive_private.audit_queue (tenant_id, action, object, rows, row_count)
  values (v_tenant, lower(tg_op), tg_table_name, v_rows, 1);
  return null;
end;
$$;

alter function haive_private.audit_row() owner to haive_writer;

comment on function haive_private.audit_row() is
'Puts one row on record, of an update with the names of the columns that it changed.';

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
