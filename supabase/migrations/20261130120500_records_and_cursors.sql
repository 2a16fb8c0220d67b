-- Cursors of events are of one timeline, and mind no floor that came with a dump; usage is counted
-- while writers go on; an admin does not undo what an owner is made at that moment.

grant usage, create on schema haive_private to haive_writer;

create or replace function haive_private.count_rows(
  p_tenant text, out conversations bigint, out bytes bigint
)
returns record
language plpgsql
stable
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

create or replace function haive_private.recount_tenant(
  p_tenant text,
  out conversations bigint, -- as they are
  out bytes bigint,
  out conversations_drift bigint, -- what they are more than the meters said
  out bytes_drift bigint
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_slot constant int := 16;
  v_zone text;
  v_today date;
  v_new boolean := not exists (
    select from haive_private.meters as m where m.tenant_id = p_tenant
  );
begin
  select
    coalesce(t.settings ->> 'timezone', 'UTC'),
    (now() at time zone coalesce(t.settings ->> 'timezone', 'UTC'))::date
  into v_zone, v_today
  from haive.tenants as t where t.tenant_id = p_tenant;
  -- A part that no writer has, so that nobody waits for it but who counts likewise.
  v_today := haive_private.turn_meter(p_tenant, v_slot, v_today);
  select
    u.conversations, u.bytes, u.conversations - k.conversations, u.bytes - k.bytes
  into
    recount_tenant.conversations, recount_tenant.bytes, recount_tenant.conversations_drift,
    recount_tenant.bytes_drift
  from haive_private.count_rows(p_tenant) as u
  cross join (
    select sum(m.conversations) as conversations, sum(m.bytes) as bytes
    from haive_private.meters as m where m.tenant_id = p_tenant
  ) as k;
  update haive_private.meters as m
  set
    conversations = m.conversations + recount_tenant.conversations_drift,
    bytes = m.bytes + recount_tenant.bytes_drift
  where m.tenant_id = p_tenant and m.slot = v_slot;

  if v_new then
    insert into haive_private.meter_days (
      tenant_id, day, slot, conversations, messages, input_tokens, output_tokens, cost
    )
    select
      p_tenant, d.day, 0, sum(d.conversations), sum(d.messages), sum(d.input_tokens),
      sum(d.output_tokens), sum(d.cost)
    from (
      select
        least((m.created_at at time zone v_zone)::date, v_today) as day, 0 as conversations,
        1 as messages, coalesce(m.input_tokens, 0) as input_tokens,
        coalesce(m.output_tokens, 0) as output_tokens, coalesce(m.cost, 0) as cost
      from haive.messages as m
      where m.tenant_id = p_tenant
      union all
      select least((c.created_at at time zone v_zone)::date, v_today), 1, 0, 0, 0, 0
      from haive.conversations as c
      where c.tenant_id = p_tenant
    ) as d
    group by d.day;
    update haive_private.meters as m
    set month_tokens = (
      select coalesce(sum(d.input_tokens + d.output_tokens), 0)
      from haive_private.meter_days as d
      where d.tenant_id = p_tenant and d.day >= date_trunc('month', v_today)::date
    )
    where m.tenant_id = p_tenant and m.slot = v_slot;
  else
    -- The parts of days that are over become one.
    with parts as (
      delete from haive_private.meter_days as d
      where d.tenant_id = p_tenant and d.slot > 0
      returning d.*
    )
    insert into haive_private.meter_days as d (
      tenant_id, day, slot, conversations, messages, input_tokens, output_tokens, cost
    )
    select
      p_tenant, p.day, 0, sum(p.conversations), sum(p.messages), sum(p.input_tokens),
      sum(p.output_tokens), sum(p.cost)
    from parts as p
    group by p.day
    on conflict (tenant_id, day, slot) do update
    set
      conversations = d.conversations + excluded.conversations,
      messages = d.messages + excluded.messages,
      input_tokens = d.input_tokens + excluded.input_tokens,
      output_tokens = d.output_tokens + excluded.output_tokens,
      cost = d.cost + excluded.cost;
  end if;
  perform haive_private.rearm_warnings(p_tenant, v_today);
end;
$$;

alter function haive_private.recount_tenant(text) owner to haive_writer;

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
      where f.tenant_id = p_tenant and f.xid < pg_snapshot_xmax(v_now)
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

create or replace function haive_private.set_member(p_tenant text, p_user_id text, p_role text)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_role text := 'owner';
  v_self boolean := false;
  v_allowed boolean;
begin
  if not v_caller.trusted then
    v_self := p_user_id is not distinct from haive.current_actor();
    select m.role into v_role
    from haive.members as m
    where m.tenant_id = v_caller.tenant and m.user_id = haive.current_actor();
    if (v_role = 'owner' or v_self) and p_role is distinct from 'owner' then
      perform haive_private.keep_an_owner(v_caller.tenant, p_user_id);
    end if;
  end if;
  -- An owner sets every role; an admin neither makes, changes nor removes owners and admins. Of their
  -- own everybody who may write may let go.
  v_allowed := v_role = 'owner'
    or (v_role = 'admin' and coalesce(p_role, 'member') in ('member', 'reader'))
    or (v_self and p_role is null);
  if v_allowed then
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
    -- What the user is now is asked where it is written: another one may change it at this moment.
    if p_role is null then
      delete from haive.members as m
      where
        m.tenant_id = v_caller.tenant and m.user_id = p_user_id
        and (v_role = 'owner' or v_self or m.role in ('member', 'reader'));
    else
      insert into haive.members as m (tenant_id, user_id, role)
      values (v_caller.tenant, p_user_id, p_role)
      on conflict (tenant_id, user_id) do update set role = excluded.role
      where v_role = 'owner' or v_self or m.role in ('member', 'reader');
    end if;
    v_allowed := found or not exists (
      select from haive.members as m
      where m.tenant_id = v_caller.tenant and m.user_id = p_user_id
    );
  end if;
  if v_allowed is not true then
    raise exception using
      errcode = 'PT403',
      message = 'only an administrator changes the members of a tenant',
      hint = 'Owners set every role; admins set member and reader; whoever may write may leave.';
  end if;
end;
$$;

alter function haive_private.set_member(text, text, text) owner to haive_writer;

create or replace function haive_private.reconcile_usage(p_tenant_id text)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_lock bigint := hashtextextended('haive/writers/' || p_tenant_id, 0);
  v_found record;
begin
  perform haive_private.administer_tenant(p_tenant_id);
  if exists (select from haive_private.meters as m where m.tenant_id = p_tenant_id) then
    perform pg_advisory_xact_lock_shared(v_lock);
  else
    -- Never counted: what is written meanwhile would be in its days twice.
    perform pg_advisory_xact_lock(v_lock);
  end if;
  perform from haive.tenants as t where t.tenant_id = p_tenant_id and t.metered;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no metered tenant %s', left(p_tenant_id, 63)),
      hint = 'A limit, or metered, is set with update_tenant.';
  end if;
  v_found := haive_private.recount_tenant(p_tenant_id);
  return json_build_object(
    'tenant_id', p_tenant_id,
    'conversations', v_found.conversations,
    'conversations_drift', v_found.conversations_drift,
    'storage', v_found.bytes,
    'storage_drift', v_found.bytes_drift
  );
end;
$$;

alter function haive_private.reconcile_usage(text) owner to haive_writer;

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
  -- Numbers of transactions mean something in one cluster only, and there on one timeline: a replica
  -- that is promoted, or a recovery to a point in time, gives some of them out again. The first
  -- timeline is not named.
  select
    left(
      md5(
        concat(
          c.system_identifier,
          nullif(left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), '00000001')
        )
      ),
      8
    )
  into v_log
  from pg_control_system() as c;
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
      where
        f.tenant_id = v_caller.tenant and f.xid < pg_snapshot_xmax(pg_current_snapshot());
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

create or replace function haive_private.apply_retention(p_tenant text, p_batch int)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_as_administrator(p_tenant, true);
  v_before timestamptz;
  v_events_before timestamptz;
  v_floor xid8;
  v_ids uuid[];
  v_keys uuid[];
  v_counts jsonb := '{}';
  v_events bigint;
  v_invitations bigint;
  v_memories bigint;
  v_more boolean := true;
begin
  if (p_batch between 1 and 100000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'batch is not between 1 and 100000',
      hint = 'It is how many rows go in one transaction.';
  end if;
  -- Of a tenant that keeps everything no conversation and no thread is older than null.
  select
    now() - (t.settings ->> 'data_retention_days')::numeric::int * interval '1 day',
    now() - coalesce((t.settings ->> 'event_retention_days')::numeric::int, 7) * interval '1 day'
  into v_before, v_events_before
  from haive.tenants as t where t.tenant_id = v_caller.tenant;
  v_events_before := greatest(v_before, v_events_before);

  -- A conversation goes whole, so that the last one may exceed the batch.
  v_ids := array(
    select s.id
    from (
      select c.id, sum(c.message_count + 1) over (order by c.active_hour, c.id) as rows
      from haive.conversations as c
      where
        c.tenant_id = v_caller.tenant
        and c.active_hour < v_before and c.last_message_at < v_before
      order by c.active_hour, c.id
      limit p_batch
    ) as s
    where s.rows <= p_batch
  );
  if cardinality(v_ids) = 0 then
    v_ids := array(
      select c.id from haive.conversations as c
      where
        c.tenant_id = v_caller.tenant
        and c.active_hour < v_before and c.last_message_at < v_before
      order by c.active_hour, c.id
      limit 1
    );
  end if;
  if cardinality(v_ids) > 0 then
    -- Looked at again under their locks: somebody may have gone on with one.
    v_ids := array(
      select c.id from haive.conversations as c
      where
        c.tenant_id = v_caller.tenant and c.id = any(v_ids) and c.last_message_at < v_before
      order by c.id
      for update
    );
    v_counts := haive_private.drop_conversations(v_caller.tenant, v_ids);
  else
    -- A thread goes with all of its namespaces, and not while one has something newer.
    v_keys := array(
      select t.thread_key
      from haive.threads as t
      where
        t.tenant_id = v_caller.tenant and t.created_at < v_before
        and not exists (
          select from haive.threads as s
          where
            s.thread_id = t.thread_id and s.tenant_id = t.tenant_id
            and (
              s.created_at >= v_before
              or exists (
                select from haive.branches as b
                where
                  b.tenant_id = s.tenant_id and b.thread_key = s.thread_key
                  and b.updated_at >= v_before
              )
            )
        )
      order by t.thread_id
      limit greatest(p_batch / 100, 1)
    );
    v_more := cardinality(v_keys) > 0;
    -- Looked at again under the locks of their branches, which every save takes.
    perform from haive.branches as b
    where b.tenant_id = v_caller.tenant and b.thread_key = any(v_keys)
    order by b.branch_id
    for update;
    v_keys := array(
      select t.thread_key from haive.threads as t
      where
        t.tenant_id = v_caller.tenant and t.thread_key = any(v_keys)
        and not exists (
          select from haive.threads as s
          join haive.branches as b on b.tenant_id = s.tenant_id and b.thread_key = s.thread_key
          where
            s.thread_id = t.thread_id and s.tenant_id = t.tenant_id and b.updated_at >= v_before
        )
    );
    v_counts := haive_private.drop_threads(v_caller.tenant, v_keys);
  end if;
  if not v_more and v_before is not null then
    v_memories := haive_private.drop_memories(
      v_caller.tenant, null,
      to_char(v_before at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), p_batch
    );
    v_more := v_memories > 0;
    v_counts := jsonb_build_object('memories', v_memories);
  end if;
  if not v_more then
    with oldest as (
      select o.xid, o.id, o.created_at from haive.events as o
      where o.tenant_id = v_caller.tenant
      order by o.xid, o.id
      limit p_batch
    ),
    gone as (
      delete from haive.events as e
      using oldest as o
      where
        e.tenant_id = v_caller.tenant and e.xid = o.xid and e.id = o.id
        and o.created_at < v_events_before
      returning e.xid
    )
    select count(*), max(g.xid) into v_events, v_floor from gone as g;
    if v_floor is not null then
      insert into haive_private.event_floors as f (tenant_id, xid)
      values (v_caller.tenant, v_floor)
      on conflict (tenant_id) do update
      set
        xid = case
          when f.xid < pg_snapshot_xmax(pg_current_snapshot()) then greatest(f.xid, excluded.xid)
          else excluded.xid -- the other came with a dump
        end;
    end if;
    delete from haive.invitations as i
    where
      i.tenant_id = v_caller.tenant
      and least(i.expires_at, i.accepted_at, i.revoked_at) < v_before;
    get diagnostics v_invitations = row_count;
    v_counts := v_counts
      || jsonb_build_object('events', v_events, 'invitations', v_invitations);
  end if;
  return json_build_object(
    'before', v_before,
    'done', not v_more and v_events < p_batch,
    'counts', haive_private.sum_counts(v_counts, '{}')
  );
end;
$$;

alter function haive_private.apply_retention(text, int) owner to haive_writer;

comment on function haive.reconcile_usage(text) is
'Counts the rows of a metered tenant, whose writers go on meanwhile, corrects its meters and returns '
'{conversations, conversations_drift, storage, storage_drift}; a drift is what the rows were more than '
'the meters said. For trusted callers only, as a job: nightly is plenty.';

comment on table haive_private.meters is
'What each metered tenant uses, in 16 parts: writers whose part is another one do not wait for each '
'other. The 17th has what was found when the rows were counted. The use is the sum.';

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261130120500', 'records_and_cursors')
on conflict do nothing;
