create or replace function haive_private.rearm_warnings(p_tenant text, p_today date)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_used bigint[] := haive_private.metered_use(p_tenant, p_today);
  v_row haive.tenants;
  v_limits bigint[];
  v_warned text;
begin
  select * into v_row from haive.tenants as t where t.tenant_id = p_tenant;
  v_limits := array[v_row.max_conversations, v_row.max_storage_bytes, v_row.max_tokens_per_month];
  select coalesce(string_agg(n.note, ' ' order by n.note), '') into v_warned
  from string_to_table(nullif(v_row.warned, ''), ' ') as n (note)
  where
    case n.note
      when 'conversations' then v_used[1] >= v_limits[1] - v_limits[1] / 5
      when 'storage' then v_used[2] >= v_limits[2] - v_limits[2] / 5
      when to_char(p_today, '"tokens-"YYYY-MM') then v_used[3] >= v_limits[3] - v_limits[3] / 5
    end;
  if v_warned <> v_row.warned then
    update haive.tenants as t set warned = v_warned where t.tenant_id = p_tenant;
  end if;
  -- More than a limit is nothing to refuse here: it was there before the limit.
  perform haive_private.judge_use(
    p_tenant, p_today, v_limits,
    array[
      least(v_used[1], v_limits[1]), least(v_used[2], v_limits[2]), least(v_used[3], v_limits[3])
    ],
    array[0, 0, 0]
  );
end;
$$;

alter function haive_private.rearm_warnings(text, date) owner to haive_writer;

comment on function haive_private.rearm_warnings(text, date) is
'Makes the warnings of a tenant what its use and its limits are now.';
