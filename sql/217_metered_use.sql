create or replace function haive_private.metered_use(p_tenant text, p_today date)
returns bigint[]
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  return (
    select array[
      coalesce(sum(m.conversations), 0)::bigint,
      coalesce(sum(m.bytes), 0)::bigint,
      coalesce(
        sum(m.month_tokens) filter (where m.day >= date_trunc('month', p_today)::date), 0
      )::bigint
    ]
    from haive_private.meters as m
    where m.tenant_id = p_tenant
  );
end;
$$;

alter function haive_private.metered_use(text, date) owner to haive_writer;

comment on function haive_private.metered_use(text, date) is
'What a metered tenant uses: conversations, bytes, and tokens of the month of a day.';
