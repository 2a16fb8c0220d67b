-- One batch, and one transaction: whoever runs the job calls again until it is done. Records of the
-- audit log are not touched, whatever their age: a mode of compliance sets a minimum for those.
-- Definer, for nobody writes tables directly.
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
    -- Looked at again under the locks of their branches, which every save takes; as everywhere, those
    -- of the threads come before.
    perform from haive.threads as t
    where t.tenant_id = v_caller.tenant and t.thread_key = any(v_keys)
    order by t.thread_key
    for update;
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
    -- Events that came with a dump have numbers of another cluster, some of which are not reached here.
    select
      count(*), max(g.xid) filter (where g.xid < pg_snapshot_xmax(pg_current_snapshot()))
    into v_events, v_floor
    from gone as g;
    if v_floor is not null then
      insert into haive_private.event_floors as f (tenant_id, xid, log)
      values (v_caller.tenant, v_floor, haive_private.event_log())
      on conflict (tenant_id) do update
      set
        xid = case
          when f.log = excluded.log then greatest(f.xid, excluded.xid)
          else excluded.xid -- the other came with a dump
        end,
        log = excluded.log;
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

comment on function haive_private.apply_retention(text, int) is
'What haive.apply_retention does, for a caller without rights on the tables.';

create or replace function haive.apply_retention(
  batch int default 10000, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.apply_retention(apply_retention.tenant, apply_retention.batch)
$$;

comment on function haive.apply_retention(int, text) is
'Deletes a batch of what is older than the data_retention_days of the tenant: conversations by their '
'last message, threads by their last checkpoint, memories and invitations; and events after '
'event_retention_days, 7 if not set. Returns {before, done, counts}; call again until done.';
