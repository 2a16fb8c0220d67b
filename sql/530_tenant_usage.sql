-- Definer: the meters are nobody's to read.
create or replace function haive_private.tenant_usage(p_tenant text)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_tenant text := coalesce(
    p_tenant, nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-haive-tenant',
    nullif(current_setting('persistence.tenant', true), ''), 'default'
  );
  v_caller record;
  v_row haive.tenants;
  v_today date;
  v_used bigint[];
  v_requests bigint;
begin
  if pg_has_role(
    coalesce(nullif(current_setting('role', true), 'none'), session_user::text),
    'haive_client', 'member'
  ) then
    -- A tenant that is closed has used something too.
    perform haive_private.administer_tenant(v_tenant);
  else
    v_caller := haive_private.enter_tenant(p_tenant, false);
    v_tenant := v_caller.tenant;
    if v_caller.actor is not null then
      raise exception using
        errcode = 'PT403',
        message = 'only an administrator sees what the tenant uses',
        hint = 'Owners and admins of the tenant do.';
    end if;
  end if;
  select * into v_row from haive.tenants as t where t.tenant_id = v_tenant;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no tenant %s', left(v_tenant, 63)),
      hint = 'Create it with create_tenant.';
  end if;
  v_today := (now() at time zone coalesce(v_row.settings ->> 'timezone', 'UTC'))::date;
  if v_row.metered then
    v_used := haive_private.metered_use(v_tenant, v_today);
  else
    select
      array[
        u.conversations, u.bytes,
        (
          select coalesce(sum(m.input_tokens::bigint + m.output_tokens), 0)::bigint
          from haive.messages as m
          where
            m.tenant_id = v_tenant
            and m.created_at >= haive_private.month_end(
              v_tenant, v_today - extract(day from v_today)::int
            )
        )
      ]
    into v_used
    from haive_private.count_rows(v_tenant) as u;
  end if;
  if not pg_is_in_recovery() then -- see take_request
    select
      ceil(
        sum(greatest(extract(epoch from b.full_at - clock_timestamp()), 0)) / 60
        / greatest(count(*), 1) * v_row.max_requests_per_minute
      )
    into v_requests
    from haive_private.request_buckets as b
    where b.tenant_id = v_tenant and v_row.max_requests_per_minute is not null;
  end if;
  return json_build_object(
    'tenant_id', v_tenant,
    'metered', v_row.metered,
    'timezone', coalesce(v_row.settings ->> 'timezone', 'UTC'),
    'conversations', haive_private.usage_doc(v_used[1], v_row.max_conversations),
    'storage', haive_private.usage_doc(v_used[2], v_row.max_storage_bytes),
    'requests', haive_private.usage_doc(coalesce(v_requests, 0), v_row.max_requests_per_minute),
    'tokens', haive_private.usage_doc(
      v_used[3], v_row.max_tokens_per_month, haive_private.month_end(v_tenant, v_today)
    )
  );
end;
$$;

alter function haive_private.tenant_usage(text) owner to haive_writer;

comment on function haive_private.tenant_usage(text) is
'What haive.tenant_usage does, for a caller without rights on the tables.';

create or replace function haive.tenant_usage(tenant text default null)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.tenant_usage(tenant_usage.tenant)
$$;

comment on function haive.tenant_usage(text) is
'What a tenant uses of conversations, bytes of storage, requests a minute and tokens a month: {used, '
'limit, fraction, resets_at} of each. For trusted callers, owners and admins. Of a tenant that is not '
'metered the rows are counted.';
