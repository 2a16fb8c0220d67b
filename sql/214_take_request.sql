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
