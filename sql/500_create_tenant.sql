-- Definer, for nobody writes tables directly.
create or replace function haive_private.create_tenant(
  p_tenant_id text, p_name text, p_settings jsonb, p_options jsonb
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_unknown text;
  v_row haive.tenants;
begin
  perform haive_private.administer_tenant(p_tenant_id);
  if p_tenant_id is null or p_tenant_id !~ '^[a-z0-9][a-z0-9_-]{0,62}$' then
    raise exception using
      errcode = 'PT422',
      message = 'the id of a tenant is no slug',
      hint = 'Use 1 to 63 of a-z, 0-9, - and _, with a letter or digit first.';
  end if;
  if jsonb_typeof(p_options) is distinct from 'object' then
    raise exception using
      errcode = 'PT422',
      message = 'options is no JSON object',
      hint = 'Options are isolation, location, audit, encrypted, metered and the limits.';
  end if;
  select string_agg(k, ', ' order by k) into v_unknown
  from jsonb_object_keys(p_options) as k
  where k not in (
    'isolation', 'location', 'audit', 'encrypted', 'metered', 'max_conversations',
    'max_storage_bytes', 'max_requests_per_minute', 'max_tokens_per_month'
  );
  if v_unknown is not null then
    raise exception using
      errcode = 'PT422',
      message = format('unknown options: %s', left(v_unknown, 200)),
      hint = 'Options are isolation, location, audit, encrypted, metered and the limits.';
  end if;
  perform haive_private.check_tenant_settings(p_settings);
  if exists (select from haive_private.audit_heads as h where h.tenant_id = p_tenant_id)
    and not exists (select from haive.tenants as t where t.tenant_id = p_tenant_id)
  then
    raise exception using
      errcode = 'PT409',
      message = format('another tenant had the id %s', p_tenant_id),
      hint = 'Its audit log is kept, and must not be read by others: choose another id.';
  end if;

  insert into haive.tenants as t (
    tenant_id, name, settings, isolation, location, audit, encrypted, metered,
    max_conversations, max_storage_bytes, max_requests_per_minute, max_tokens_per_month
  )
  select
    p_tenant_id, coalesce(p_name, p_tenant_id), p_settings,
    coalesce(o.isolation, 'row'), o.location, coalesce(o.audit, 'off'),
    coalesce(o.encrypted, false),
    coalesce(o.metered, false) or num_nonnulls(
      o.max_conversations, o.max_storage_bytes, o.max_requests_per_minute, o.max_tokens_per_month
    ) > 0,
    o.max_conversations, o.max_storage_bytes, o.max_requests_per_minute, o.max_tokens_per_month
  from jsonb_to_record(p_options) as o (
    isolation text, location text, audit text, encrypted boolean, metered boolean,
    max_conversations bigint, max_storage_bytes bigint, max_requests_per_minute bigint,
    max_tokens_per_month bigint
  )
  on conflict (tenant_id) do nothing
  returning t.* into v_row;
  if not found then
    select t.* into v_row from haive.tenants as t where t.tenant_id = p_tenant_id;
    if (v_row.name, v_row.settings) is distinct from (coalesce(p_name, p_tenant_id), p_settings)
      or v_row.status <> 'active'
      -- Where it is may have changed since, and whether it is counted follows from its limits.
      or exists (
        select from jsonb_each(p_options - '{isolation,location,metered}'::text[]) as o
        where to_jsonb(v_row) -> o.key is distinct from o.value
      )
    then
      raise exception using
        errcode = 'PT409',
        message = format('another tenant has the id %s', p_tenant_id),
        hint = 'Change it with update_tenant, or choose another id.';
    end if;
  end if;
  return haive_private.tenant_doc(v_row);
end;
$$;

alter function haive_private.create_tenant(text, text, jsonb, jsonb) owner to haive_writer;

comment on function haive_private.create_tenant(text, text, jsonb, jsonb) is
'What haive.create_tenant does, for a caller without rights on the table.';

create or replace function haive.create_tenant(
  tenant_id text, name text default null, settings jsonb default '{}', options jsonb default '{}'
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.create_tenant(
    create_tenant.tenant_id, create_tenant.name, create_tenant.settings, create_tenant.options
  )
$$;

comment on function haive.create_tenant(text, text, jsonb, jsonb) is
'Makes a tenant, for trusted callers only. Options are isolation, location, audit, encrypted, '
'metered and the limits. The same id with the same name and settings is the same tenant.';
