-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it; 970_event_grants takes this away again.
grant usage, create on schema haive_private to haive_writer;

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

-- The events between two cuts, in their order. Each branch has an index of its own to walk; the
-- planner, which must plan for every caller at once, would walk the one that is in the wanted order,
-- over all that is kept, hence "materialized": 0.2 against 5.8 ms where nothing is new among 20,000.
create or replace function haive_private.event_rows(
  p_tenant text,
  p_streams uuid[], -- null: all of the tenant
  p_seen pg_snapshot, -- null: nothing was seen
  p_upto pg_snapshot,
  p_last bigint,
  p_kind text, -- conversations, agent_states; null: both
  p_actor text, -- null: whoever sees all of it
  p_page_size int
)
returns setof haive.events
language plpgsql
stable
security definer
set search_path = ''
set enable_seqscan = off
as $$
begin
  if p_streams is not null then
    return query
    with found as materialized (
      select e.* from haive.events as e
      where
        e.conversation_id = any(p_streams) and e.tenant_id = p_tenant
        and e.xid >= coalesce(pg_snapshot_xmin(p_seen), '0')
      union all
      select e.* from haive.events as e
      where
        e.thread_key = any(p_streams) and e.tenant_id = p_tenant
        and e.xid >= coalesce(pg_snapshot_xmin(p_seen), '0')
    )
    select f.* from found as f
    where
      f.id > p_last and pg_visible_in_snapshot(f.xid, p_upto)
      and (p_seen is null or not pg_visible_in_snapshot(f.xid, p_seen))
    order by f.id
    limit p_page_size;
  elsif p_seen is not null and p_last = 0 then
    -- What is new: of transactions that ran when the cut was made, and of those after it.
    return query
    with new as materialized (
      select e.* from haive.events as e
      where e.tenant_id = p_tenant and e.xid >= pg_snapshot_xmax(p_seen)
      union all
      select e.* from haive.events as e
      where
        e.tenant_id = p_tenant
        and e.xid = any(array(select s.xid from pg_snapshot_xip(p_seen) as s (xid)))
    )
    select n.* from new as n
    where
      pg_visible_in_snapshot(n.xid, p_upto)
      and (
        case p_kind
          when 'conversations' then n.conversation_id is not null
          when 'agent_states' then n.thread_key is not null
          else true
        end
      )
      and (
        p_actor is null
        or exists (
          select from haive.conversations as c
          where
            c.tenant_id = p_tenant and c.id = n.conversation_id
            and (c.user_id = p_actor or p_actor = any(c.participants))
        )
        or exists (
          select from haive.threads as t
          where t.tenant_id = p_tenant and t.thread_key = n.thread_key and t.user_id = p_actor
        )
      )
    order by n.id
    limit p_page_size;
  else
    return query
    select e.* from haive.events as e
    where
      e.tenant_id = p_tenant and e.id > p_last
      and (p_seen is null or not pg_visible_in_snapshot(e.xid, p_seen))
      and pg_visible_in_snapshot(e.xid, p_upto)
      and (
        case p_kind
          when 'conversations' then e.conversation_id is not null
          when 'agent_states' then e.thread_key is not null
          else true
        end
      )
      and (
        p_actor is null
        or exists (
          select from haive.conversations as c
          where
            c.tenant_id = p_tenant and c.id = e.conversation_id
            and (c.user_id = p_actor or p_actor = any(c.participants))
        )
        or exists (
          select from haive.threads as t
          where t.tenant_id = p_tenant and t.thread_key = e.thread_key and t.user_id = p_actor
        )
      )
    order by e.tenant_id, e.id
    limit p_page_size;
  end if;
end;
$$;

alter function haive_private.event_rows(
  text, uuid[], pg_snapshot, pg_snapshot, bigint, text, text, int
) owner to haive_writer;

comment on function haive_private.event_rows(
  text, uuid[], pg_snapshot, pg_snapshot, bigint, text, text, int
) is 'A page of the events that one cut of the outbox has and an earlier one has not.';

-- A cut of the outbox: the transactions whose events can be seen now, as a snapshot.
--
-- It ends with the newest event that is seen, and not with the newest transaction of the server. A
-- transaction that comes to nothing leaves no trace on the disk, so a crash can give its number out
-- again, and a reader who had counted it as seen would skip the one that bears it then. What an
-- event that was seen bears is on the disk, with all numbers below it. And the cut of a tenant that
-- rests does not change.
create or replace function haive_private.cut_events(p_tenant text, p_seen pg_snapshot)
returns pg_snapshot
language plpgsql
stable
security definer
set search_path = ''
set enable_seqscan = off
as $$
declare
  -- Of the caller's snapshot, as what is read below: the function is stable.
  v_now pg_snapshot := pg_current_snapshot();
  -- A snapshot has its own transaction for done; what it writes later would be skipped.
  v_own xid8 := pg_current_xact_id_if_assigned();
  v_end numeric;
  v_running xid8[];
begin
  v_end := greatest(
    (
      select e.xid::text::numeric + 1 from haive.events as e
      where
        e.tenant_id = p_tenant and pg_visible_in_snapshot(e.xid, v_now)
        and e.xid is distinct from v_own
      order by e.tenant_id desc, e.xid desc, e.id desc
      limit 1
    ),
    (
      select f.xid::text::numeric + 1 from haive_private.event_floors as f
      where f.tenant_id = p_tenant
    ),
    pg_snapshot_xmax(p_seen)::text::numeric,
    3
  );
  v_running := array(
    select r.xid
    from (
      select s.xid from pg_snapshot_xip(v_now) as s (xid)
      union
      select v_own where v_own is not null
    ) as r
    where r.xid::text::numeric < v_end
    order by r.xid
  );
  return (
    coalesce(v_running[1]::text, v_end::text) || ':' || v_end || ':' || array_to_string(v_running, ',')
  )::pg_snapshot;
end;
$$;

alter function haive_private.cut_events(text, pg_snapshot) owner to haive_writer;

comment on function haive_private.cut_events(text, pg_snapshot) is
'What can be seen now of a tenant''s outbox, as the snapshot up to which a reader has read then.';

-- Definer, for nobody writes tables directly.
create or replace function haive_private.keep_watch(p_tenant text, p_channel text, p_way text)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  if p_way not in ('notify', 'realtime') then
    raise exception using
      errcode = 'PT422',
      message = 'watch is neither notify nor realtime',
      hint = 'notify wakes who listens on a direct connection, realtime who has joined the topic.';
  end if;
  if exists (
    select from haive_private.watches as w
    where
      w.tenant_id = p_tenant and w.channel = p_channel and w.way = p_way
      and w.expires_at > now() + interval '75 seconds'
  ) then
    return false;
  end if;
  delete from haive_private.watches as w
  where
    (w.tenant_id, w.channel, w.way) in (
      select o.tenant_id, o.channel, o.way from haive_private.watches as o
      where o.tenant_id = p_tenant and o.expires_at < now() - interval '5 minutes'
      limit 100
      for update skip locked
    );
  insert into haive_private.watches as w (tenant_id, channel, way, expires_at)
  values (p_tenant, p_channel, p_way, now() + interval '150 seconds')
  on conflict (tenant_id, channel, way) do update set expires_at = excluded.expires_at;
  return true;
end;
$$;

alter function haive_private.keep_watch(text, text, text) owner to haive_writer;

comment on function haive_private.keep_watch(text, text, text) is
'Asks for hints of a channel for the next 150 seconds; whether that had to be written.';

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

-- Reading the outbox in the order of commits.
--
-- A cursor is a cut: the set of transactions whose events have been read, as a snapshot of Postgres
-- (its oldest and newest number, and those between that still ran). What a cut of now has and the
-- cursor's has not is what is new. Nothing is skipped: a transaction that commits late is in no cut
-- until it is seen in one, and is then new in that one. Nothing comes twice: it is in all later ones.
-- Nobody waits: a transaction that writes for an hour holds back its own events and no others, and
-- costs readers one more number in their cursor.
--
-- The order. Within what is new, by id. Of one conversation that is the order of its changes:
-- whoever changes it holds its row until the end, and takes the event's id while holding it. So the
-- later change has the greater id, and was committed by somebody who began to hold the row after the
-- earlier change was visible: a cut that has the later one has the earlier one too. By number of
-- transaction it would not be: those are given before the wait for the row. The same holds for a
-- branch of a thread, whose row a save holds.
--
-- Pages. What is long is read in pages by id, and the cut it ends with stays in the cursor meanwhile:
-- from/to/id. A page is thus a beginning, by id, of a set that is fixed.
--
-- Definer, for users have no right on the table.
create or replace function haive_private.read_events(
  p_tenant text, p_channel text, p_after text, p_page_size int, p_watch text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, false);
  v_kind text := split_part(p_channel, ':', 1);
  -- Numbers of transactions mean something in one cluster only.
  v_log text := left(md5((select c.system_identifier::text from pg_control_system() as c)), 8);
  v_parts text[] := string_to_array(p_after, '/');
  v_streams uuid[];
  v_seen pg_snapshot;
  v_upto pg_snapshot;
  v_last bigint := 0;
  v_fresh boolean := false;
  v_more boolean := false;
  v_floor xid8;
  v_next text;
  v_count int := 0;
  v_events json := '[]';
begin
  if (p_page_size between 1 and 5000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 5000',
      hint = 'Read on with after, the next of the page.';
  elsif
    p_channel is null
    or not (
      p_channel in ('tenant', 'conversations', 'agent_states')
      or p_channel ~ '^(conversation|session):[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
      or p_channel ~ '^thread:.{1,200}$'
    )
  then
    raise exception using
      errcode = 'PT422',
      message = 'there is no such channel',
      hint = 'Channels are tenant, conversations, agent_states, conversation:ID, session:ID and thread:ID.';
  elsif p_after <> '0' and p_after !~ '^[0-9a-f]{8}/(0|[0-9]+:[0-9]+:[0-9,]*)(/[0-9]+:[0-9]+:[0-9,]*/[0-9]{1,18})?$' then
    raise exception using
      errcode = 'PT422',
      message = 'after is no cursor',
      hint = 'It is the next of a page or the cursor of an event; 0 is the oldest that is kept.';
  elsif pg_is_in_recovery() then
    raise exception using
      errcode = 'PT422',
      message = 'events are read on the primary',
      hint = 'A replica does not know which transactions still run.';
  end if;
  if not haive_private.may_watch(v_caller.tenant, v_caller.actor, p_channel, false) then
    raise exception using
      errcode = case when v_kind = 'tenant' then 'PT403' else 'PT404' end,
      message = format('no channel %s', left(p_channel, 250)),
      hint = 'What it is of was deleted, or is not the caller''s to see.';
  end if;

  if v_kind in ('conversation', 'session') then
    v_streams := array[substr(p_channel, length(v_kind) + 2)::uuid];
    -- Who begins is told of a wrong id; who reads on may hear that it was deleted.
    if p_after is null and not exists (
      select from haive.conversations as c
      where c.tenant_id = v_caller.tenant and c.id = v_streams[1]
    ) then
      raise exception using
        errcode = 'PT404',
        message = format('no conversation %s', v_streams[1]),
        hint = 'It was deleted, belongs to another tenant, or is not the caller''s to see.';
    end if;
  elsif v_kind = 'thread' then
    v_streams := array(
      select t.thread_key from haive.threads as t
      where
        t.thread_id = substr(p_channel, 8) and t.tenant_id = v_caller.tenant
        and (v_caller.actor is null or t.user_id = v_caller.actor)
    );
  end if;
  if p_watch is not null then
    -- What was written before the watch is known sends no hint: look once more.
    v_more := haive_private.keep_watch(v_caller.tenant, p_channel, p_watch);
  end if;

  if p_after is null then
    v_seen := haive_private.cut_events(v_caller.tenant, null);
    v_next := v_log || '/' || v_seen;
  else
    if p_after <> '0' then
      v_seen := nullif(v_parts[2], '0')::pg_snapshot;
      v_upto := v_parts[3]::pg_snapshot;
      v_last := coalesce(v_parts[4]::bigint, 0);
      select f.xid into v_floor from haive_private.event_floors as f
      where f.tenant_id = v_caller.tenant;
      if
        v_parts[1] <> v_log
        or pg_snapshot_xmax(coalesce(v_upto, v_seen)) > pg_snapshot_xmax(pg_current_snapshot())
        or v_floor >= pg_snapshot_xmin(v_seen)
      then
        raise exception using
          errcode = 'PT416',
          message = 'the cursor is older than the events that are kept, or of another database',
          hint = 'Read the present state anew, and go on from null.';
      end if;
    end if;
    loop
      v_fresh := v_upto is null;
      if v_fresh then
        v_upto := haive_private.cut_events(v_caller.tenant, v_seen);
      end if;
      select
        count(*), max(r.id),
        coalesce(
          json_agg(
            json_build_object(
              'id', r.id, 'kind', r.kind, 'conversation_id', r.conversation_id,
              'first_seq', r.first_seq, 'last_seq', r.last_seq, 'thread', t.thread_id,
              'namespace', t.namespace, 'checkpoint_id', r.checkpoint_id,
              'created_at', r.created_at
            )
            order by r.id
          ),
          '[]'
        )
      into v_count, v_last, v_events
      from haive_private.event_rows(
        v_caller.tenant, v_streams, v_seen, v_upto, v_last,
        case when v_kind in ('conversations', 'agent_states') then v_kind end,
        case when v_streams is null then v_caller.actor end,
        p_page_size
      ) as r
      left join haive.threads as t on t.tenant_id = r.tenant_id and t.thread_key = r.thread_key;
      exit when v_fresh or v_count > 0;
      -- The end of what was new when the page before was read.
      v_seen := v_upto;
      v_upto := null;
      v_last := 0;
    end loop;
    v_next := case
      when v_count = p_page_size
        then concat_ws('/', v_log, coalesce(v_seen::text, '0'), v_upto, v_last)
      else v_log || '/' || v_upto
    end;
    v_more := v_more or v_count = p_page_size or not v_fresh;
    if v_caller.audit_reads and v_count > 0 then
      perform haive_private.audit_read(
        'read_events', jsonb_build_object(p_channel, v_count), v_count
      );
    end if;
  end if;
  return json_build_object(
    'events', v_events,
    'window', case
      when v_upto is not null then concat_ws('/', v_log, coalesce(v_seen::text, '0'), v_upto)
    end,
    'next', v_next,
    'more', v_more,
    'topic', 'haive:' || v_caller.tenant || ':' || p_channel
  );
end;
$$;

alter function haive_private.read_events(text, text, text, int, text) owner to haive_writer;

comment on function haive_private.read_events(text, text, text, int, text) is
'What haive.read_events does, for a caller without rights on the tables.';

create or replace function haive.read_events(
  channel text,
  after text default null,
  page_size int default 500,
  watch text default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.read_events(
    read_events.tenant, read_events.channel, read_events.after, read_events.page_size,
    read_events.watch
  )
$$;

comment on function haive.read_events(text, text, int, text, text) is
'What happened in a channel after a cursor, in the order of commits and nothing twice: {events, '
'window, next, more, topic}. after: null begins now, 0 at the oldest that is kept, else the next of '
'the page before, or window/id of an event. watch (notify or realtime): send hints on the topic for '
'150 seconds. Channels: tenant, conversations, agent_states, conversation:ID, session:ID, thread:ID.';

-- Owned by whoever installs and not by haive_writer, as no other definer function is: it is whom
-- Supabase lets write to realtime.messages. Only the trigger below calls it.
create or replace function haive_private.send_hint(p_topic text, p_event bigint)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  -- A plain Postgres has no such function. It never fails: an error is a warning of its own.
  if to_regprocedure('realtime.send(jsonb,text,text,boolean)') is not null then
    execute 'select realtime.send($1, ''events'', $2, true)'
    using jsonb_build_object('event', p_event), p_topic;
  end if;
end;
$$;

comment on function haive_private.send_hint(text, bigint) is
'Tells those who have joined a private topic of Supabase Realtime that there is something to read.';

-- Hints are sent where somebody watches: a notification of every commit would have all commits of
-- the database wait for each other, which Postgres does to keep notifications in order.
create or replace function haive_private.hint_events()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_hint record;
begin
  -- The rows of a tenant that moves are no news.
  if current_setting('persistence.watch', true) = '--' then
    return null;
  end if;
  if not exists (
    select from haive_private.watches as w
    where
      w.tenant_id = current_setting('persistence.tenant', true)
      and w.expires_at > clock_timestamp()
  ) then
    return null;
  end if;
  for v_hint in
    select w.way, 'haive:' || w.tenant_id || ':' || w.channel as topic, max(a.id) as id
    from added as a
    left join haive.threads as t on t.tenant_id = a.tenant_id and t.thread_key = a.thread_key
    cross join lateral (
      values
      ('tenant'),
      (case when a.conversation_id is not null then 'conversations' end),
      ('conversation:' || a.conversation_id),
      ('session:' || a.conversation_id),
      (case when a.thread_key is not null then 'agent_states' end),
      ('thread:' || t.thread_id)
    ) as c (channel)
    join haive_private.watches as w on w.tenant_id = a.tenant_id and w.channel = c.channel
    where w.expires_at > clock_timestamp()
    group by w.tenant_id, w.channel, w.way
  loop
    if v_hint.way = 'notify' then
      perform pg_notify('haive', v_hint.topic);
    else
      perform haive_private.send_hint(v_hint.topic, v_hint.id);
    end if;
  end loop;
  return null;
end;
$$;

alter function haive_private.hint_events() owner to haive_writer;

comment on function haive_private.hint_events() is
'Wakes those who watch a channel that something happened in: by NOTIFY on the channel named as this '
'schema, whose payload is the topic, or on the topic of Supabase Realtime.';

create trigger hint_events after insert on haive.events
referencing new table as added for each statement execute function haive_private.hint_events();

insert into haive_private.migrations (version, name) values
  ('20261122151000', 'event_functions')
on conflict do nothing;
