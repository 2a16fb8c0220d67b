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
  v_log text;
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
  v_log := haive_private.event_log();
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
      where f.tenant_id = v_caller.tenant and f.log = v_log;
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
