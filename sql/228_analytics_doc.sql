-- Days of metered tenants are read off: 30 rows in place of all their messages. Everything else comes
-- from the rows, by their own times.
create or replace function haive_private.analytics_doc(
  p_tenant text, p_metrics text[], p_days int, p_since timestamptz, p_until timestamptz
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_row haive.tenants;
  v_zone text;
  v_today date;
  v_first date;
  v_since timestamptz := coalesce(p_since, '-infinity');
  v_until timestamptz := coalesce(p_until, 'infinity');
  v_conversations bigint;
  v_messages bigint;
  v_input_tokens bigint;
  v_output_tokens bigint;
  v_cost numeric;
  v_bytes bigint;
begin
  select * into v_row from haive.tenants as t where t.tenant_id = p_tenant;
  if not found then
    return json_build_object('tenant_id', p_tenant, 'known', false);
  end if;
  v_zone := coalesce(v_row.settings ->> 'timezone', 'UTC');
  v_today := (now() at time zone v_zone)::date;
  if p_days is not null then
    v_first := case
      when p_days = 0 then date_trunc('month', v_today)::date
      else v_today - p_days + 1
    end;
    v_since := v_first::timestamp at time zone v_zone;
  end if;

  if v_row.metered and num_nulls(p_since, p_until) = 2 then
    select
      coalesce(sum(d.conversations), 0), coalesce(sum(d.messages), 0),
      coalesce(sum(d.input_tokens), 0), coalesce(sum(d.output_tokens), 0), coalesce(sum(d.cost), 0)
    into v_conversations, v_messages, v_input_tokens, v_output_tokens, v_cost
    from (
      select
        d.day, d.conversations, d.messages, d.input_tokens, d.output_tokens, d.cost
      from haive_private.meter_days as d
      where d.tenant_id = p_tenant
      union all
      select
        m.day, m.day_conversations, m.day_messages, m.day_input_tokens, m.day_output_tokens,
        m.day_cost
      from haive_private.meters as m
      where m.tenant_id = p_tenant
    ) as d
    where v_first is null or d.day >= v_first;
  else
    if p_metrics && array['message_count', 'token_usage'] then
      select
        count(*), coalesce(sum(m.input_tokens), 0), coalesce(sum(m.output_tokens), 0),
        coalesce(sum(m.cost), 0)
      into v_messages, v_input_tokens, v_output_tokens, v_cost
      from haive.messages as m
      where m.tenant_id = p_tenant and m.created_at >= v_since and m.created_at < v_until;
    end if;
    if 'conversation_count' = any(p_metrics) then
      select count(*) into v_conversations
      from haive.conversations as c
      where c.tenant_id = p_tenant and c.created_at >= v_since and c.created_at < v_until;
    end if;
  end if;
  if 'storage_used' = any(p_metrics) then
    v_bytes := case
      when v_row.metered then (haive_private.metered_use(p_tenant, v_today))[2]
      else (select u.bytes from haive_private.count_rows(p_tenant) as u)
    end;
  end if;
  return json_build_object(
    'tenant_id', p_tenant,
    'known', true,
    'isolation', v_row.isolation::text,
    'conversation_count', case when 'conversation_count' = any(p_metrics) then v_conversations end,
    'message_count', case when 'message_count' = any(p_metrics) then v_messages end,
    'token_usage', case
      when 'token_usage' = any(p_metrics) then json_build_object(
        'input_tokens', v_input_tokens, 'output_tokens', v_output_tokens,
        'total_tokens', v_input_tokens + v_output_tokens, 'cost', v_cost::text
      )
    end,
    'storage_used', v_bytes,
    'active_users', case
      when 'active_users' = any(p_metrics) then (
        select count(distinct c.user_id)
        from haive.conversations as c
        where
          c.tenant_id = p_tenant and c.last_message_at >= v_since and c.message_count > 0
          -- The last message is known, and of others it takes a look.
          and (
            p_until is null or exists (
              select from haive.messages as m
              where
                m.tenant_id = p_tenant and m.conversation_id = c.id
                and m.created_at >= v_since and m.created_at < v_until
            )
          )
      )
    end
  );
end;
$$;

alter function haive_private.analytics_doc(text, text[], int, timestamptz, timestamptz)
owner to haive_writer;

comment on function haive_private.analytics_doc(text, text[], int, timestamptz, timestamptz) is
'What the tenant that was entered did in a time.';
