-- Begins a day, or the use of a tenant, in one part of its meters.
create or replace function haive_private.turn_meter(p_tenant text, p_slot int, p_today date)
returns date
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_row haive_private.meters;
begin
  insert into haive_private.meters (tenant_id, slot, day) values (p_tenant, p_slot, p_today)
  on conflict do nothing;
  select * into v_row
  from haive_private.meters as m
  where m.tenant_id = p_tenant and m.slot = p_slot
  for no key update;
  if v_row.day >= p_today then
    -- Another one has turned it, or the tenant's clock was put back: days only go on.
    return v_row.day;
  end if;
  if (
    v_row.day_conversations, v_row.day_messages, v_row.day_input_tokens, v_row.day_output_tokens,
    v_row.day_cost
  ) <> (0, 0, 0, 0, 0) then
    insert into haive_private.meter_days as d (
      tenant_id, day, slot, conversations, messages, input_tokens, output_tokens, cost
    )
    values (
      p_tenant, v_row.day, p_slot, v_row.day_conversations, v_row.day_messages,
      v_row.day_input_tokens, v_row.day_output_tokens, v_row.day_cost
    )
    on conflict (tenant_id, day, slot) do update
    set
      conversations = d.conversations + excluded.conversations,
      messages = d.messages + excluded.messages,
      input_tokens = d.input_tokens + excluded.input_tokens,
      output_tokens = d.output_tokens + excluded.output_tokens,
      cost = d.cost + excluded.cost;
  end if;
  update haive_private.meters as m
  set
    day = p_today,
    month_tokens = case
      when date_trunc('month', m.day) = date_trunc('month', p_today) then m.month_tokens
      else 0
    end,
    day_conversations = 0, day_messages = 0, day_input_tokens = 0,
    day_output_tokens = 0, day_cost = 0
  where m.tenant_id = p_tenant and m.slot = p_slot;
  return p_today;
end;
$$;

alter function haive_private.turn_meter(text, int, date) owner to haive_writer;

comment on function haive_private.turn_meter(text, int, date) is
'Puts down what the last day of a part came to and begins the next one; returns the day that it is on.';
