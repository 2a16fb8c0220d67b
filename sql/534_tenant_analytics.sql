-- Definer: it reads several tenants, one after the other, each as the one that was entered.
create or replace function haive_private.tenant_analytics(
  p_tenant_ids text[], p_metrics text[], p_days int, p_since timestamptz, p_until timestamptz
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_unknown text;
  v_tenant_id text;
  v_docs json[] := '{}';
begin
  perform haive_private.administer_tenant(null);
  select string_agg(m, ', ' order by m) into v_unknown
  from unnest(p_metrics) as m
  where m not in (
    'conversation_count', 'message_count', 'token_usage', 'storage_used', 'active_users'
  );
  if v_unknown is not null or coalesce(cardinality(p_metrics), 0) = 0 then
    raise exception using
      errcode = 'PT422',
      message = format('unknown metrics: %s', left(coalesce(v_unknown, 'none'), 200)),
      hint = 'Metrics are conversation_count, message_count, token_usage, storage_used, active_users.';
  end if;
  if p_days is not null and (p_days between 0 and 36500 and num_nulls(p_since, p_until) = 2) is not true
  then
    raise exception using
      errcode = 'PT422',
      message = 'days is not from 0 to 36500, or given with since or until',
      hint = 'Days up to today, 0 for the month so far; or since and until, as times.';
  end if;
  for v_tenant_id in
    select t.tenant_id from haive.tenants as t where p_tenant_ids is null
    union
    select u.id from unnest(p_tenant_ids) as u (id) where u.id is not null
    order by 1
  loop
    perform haive_private.administer_tenant(v_tenant_id);
    v_docs := v_docs || haive_private.analytics_doc(
      v_tenant_id, p_metrics, p_days, p_since, p_until
    );
  end loop;
  return array_to_json(v_docs);
end;
$$;

alter function haive_private.tenant_analytics(text[], text[], int, timestamptz, timestamptz)
owner to haive_writer;

comment on function haive_private.tenant_analytics(text[], text[], int, timestamptz, timestamptz) is
'What haive.tenant_analytics does, for a caller without rights on the tables.';

create or replace function haive.tenant_analytics(
  tenant_ids text[] default null,
  metrics text[] default '{conversation_count,message_count,token_usage,storage_used,active_users}',
  days int default null,
  since timestamptz default null,
  until timestamptz default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.tenant_analytics(
    tenant_analytics.tenant_ids, tenant_analytics.metrics, tenant_analytics.days,
    tenant_analytics.since, tenant_analytics.until
  )
$$;

comment on function haive.tenant_analytics(text[], text[], int, timestamptz, timestamptz) is
'What tenants did, one object each, for trusted callers only. In days up to today in the time zone of '
'each (0: the month so far), which of metered tenants are counted already; or from since until before '
'until, by the times of their rows; or ever. storage_used is what is stored now.';
