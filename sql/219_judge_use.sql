-- Who is at 0.8 of a limit is told so by an event: once, as whoever comes second finds it noted.
create or replace function haive_private.judge_use(
  p_tenant text,
  p_today date,
  p_limits bigint[], -- of conversations, bytes, tokens
  p_used bigint[], -- with what was just added
  p_added bigint[]
)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_names constant text[] := array['conversations', 'storage', 'tokens'];
  v_notes constant text[] := array[
    'conversations', 'storage', to_char(p_today, '"tokens-"YYYY-MM')
  ];
begin
  for i in 1..3 loop
    if p_used[i] > p_limits[i] then
      perform haive_private.refuse_over_quota(
        p_tenant, v_names[i], p_limits[i], p_used[i] - p_added[i],
        case when v_names[i] = 'tokens' then haive_private.month_end(p_tenant, p_today) end
      );
    elsif
      p_used[i] >= p_limits[i] - p_limits[i] / 5
      and exists (
        select from haive.tenants as t
        where t.tenant_id = p_tenant and strpos(t.warned, v_notes[i]) = 0
      )
    then
      update haive.tenants as t
      set
        warned = case
          when i = 3 then trim(regexp_replace(t.warned, 'tokens-[0-9-]+', '') || ' ' || v_notes[i])
          else trim(t.warned || ' ' || v_notes[i])
        end
      where t.tenant_id = p_tenant and strpos(t.warned, v_notes[i]) = 0;
      if found then
        insert into haive.events (tenant_id, kind) values (p_tenant, 'quota.warning');
      end if;
    end if;
  end loop;
end;
$$;

alter function haive_private.judge_use(text, date, bigint[], bigint[], bigint[]) owner to haive_writer;

comment on function haive_private.judge_use(text, date, bigint[], bigint[], bigint[]) is
'Refuses what is over a limit, and warns of what comes near.';
