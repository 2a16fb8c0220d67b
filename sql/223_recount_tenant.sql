-- Counts the rows of a tenant and corrects its meters by the difference. Writers may go on: rows and
-- meters move in one transaction, so of one snapshot they differ by the drift alone. Who calls it has
-- entered the tenant, and shares the lock of its writers; of a tenant that was never counted, alone.
-- Tokens are not counted again: those of messages that were deleted have been used all the same. Only a
-- tenant that was never counted gets them, and its days, from its messages.
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

comment on function haive_private.recount_tenant(text) is
'Makes the meters of a tenant what its rows say, and tells what they were wrong by.';
