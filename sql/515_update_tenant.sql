-- Definer, for nobody writes tables directly.
create or replace function haive_private.update_tenant(p_tenant_id text, p_changes jsonb)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_unknown text;
  v_counts boolean := p_changes ?| array[
    'settings', 'metered', 'max_conversations', 'max_storage_bytes', 'max_requests_per_minute',
    'max_tokens_per_month'
  ];
  v_row haive.tenants;
begin
  perform haive_private.administer_tenant(p_tenant_id);
  if jsonb_typeof(p_changes) is distinct from 'object' then
    raise exception using
      errcode = 'PT422',
      message = 'changes is no JSON object',
      hint = 'What changes is name, settings, status, audit, encrypted, metered and the limits.';
  end if;
  if v_counts or p_changes ?| array['audit', 'encrypted'] then
    -- Nothing is on its way that was written under other limits, not counted, not on record, or in
    -- the clear.
    perform pg_advisory_xact_lock(hashtextextended('haive/writers/' || p_tenant_id, 0));
  end if;
  select string_agg(k, ', ' order by k) into v_unknown
  from jsonb_object_keys(p_changes) as k
  where k not in (
    'name', 'settings', 'status', 'audit', 'encrypted', 'metered',
    'max_conversations', 'max_storage_bytes', 'max_requests_per_minute', 'max_tokens_per_month'
  );
  if v_unknown is not null then
    raise exception using
      errcode = 'PT422',
      message = format('cannot change: %s', left(v_unknown, 200)),
      hint = 'What changes is name, settings, status, audit, encrypted, metered and the limits.';
  end if;
  if p_changes ? 'settings' then
    perform haive_private.check_tenant_settings(p_changes -> 'settings');
  end if;
  if p_tenant_id = 'default' and coalesce(p_changes ->> 'status', 'active') = 'deleted' then
    raise exception using
      errcode = 'PT422',
      message = 'the tenant "default" always exists',
      hint = 'Suspend it, or delete its conversations.';
  end if;
  -- Of the tenant that was entered: the policies of the statistics know no other.
  if (p_changes ->> 'encrypted')::boolean and exists (
    select from haive_private.memory_sizes as s
    where s.tenant_id = p_tenant_id
    having sum(s.memories) > 0
  ) and exists (
    select from haive.tenants as t where t.tenant_id = p_tenant_id and not t.encrypted
  ) then
    raise exception using
      errcode = 'PT409',
      message = 'the tenant has memories, which cannot be sealed',
      hint = 'Forget them first: the database searches them by their words, so they stay in the clear.';
  end if;
  update haive.tenants as t
  set
    name = coalesce(g.name, t.name),
    settings = coalesce(g.settings, t.settings),
    status = coalesce(g.status, t.status),
    audit = coalesce(g.audit, t.audit),
    encrypted = coalesce(g.encrypted, t.encrypted),
    metered = coalesce(g.metered, t.metered) or num_nonnulls(
      case when p_changes ? 'max_conversations' then g.max_conversations else t.max_conversations end,
      case when p_changes ? 'max_storage_bytes' then g.max_storage_bytes else t.max_storage_bytes end,
      case
        when p_changes ? 'max_requests_per_minute'
          then g.max_requests_per_minute
        else t.max_requests_per_minute
      end,
      case
        when p_changes ? 'max_tokens_per_month' then g.max_tokens_per_month
        else t.max_tokens_per_month
      end
    ) > 0,
    max_conversations = case
      when p_changes ? 'max_conversations' then g.max_conversations else t.max_conversations
    end,
    max_storage_bytes = case
      when p_changes ? 'max_storage_bytes' then g.max_storage_bytes else t.max_storage_bytes
    end,
    max_requests_per_minute = case
      when p_changes ? 'max_requests_per_minute'
        then g.max_requests_per_minute
      else t.max_requests_per_minute
    end,
    max_tokens_per_month = case
      when p_changes ? 'max_tokens_per_month' then g.max_tokens_per_month else t.max_tokens_per_month
    end,
    updated_at = now(),
    deleted_at = case
      when coalesce(g.status, t.status) = 'deleted' then coalesce(t.deleted_at, now())
    end
  from jsonb_to_record(p_changes) as g (
    name text, settings jsonb, status text, audit text,
    encrypted boolean, metered boolean, max_conversations bigint, max_storage_bytes bigint,
    max_requests_per_minute bigint, max_tokens_per_month bigint
  )
  where t.tenant_id = p_tenant_id
  returning t.* into v_row;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no tenant %s', left(p_tenant_id, 63)),
      hint = 'Create it with create_tenant.';
  end if;
  if v_counts and not v_row.metered then
    delete from haive_private.meters as m where m.tenant_id = p_tenant_id;
    delete from haive_private.meter_days as d where d.tenant_id = p_tenant_id;
    update haive.tenants as t set warned = '' where t.tenant_id = p_tenant_id;
  elsif v_counts and not exists (
    select from haive_private.meters as m where m.tenant_id = p_tenant_id
  ) then
    perform haive_private.recount_tenant(p_tenant_id);
  elsif v_counts then
    perform haive_private.rearm_warnings(
      p_tenant_id, (now() at time zone coalesce(v_row.settings ->> 'timezone', 'UTC'))::date
    );
  end if;
  return haive_private.tenant_doc(v_row);
end;
$$;

alter function haive_private.update_tenant(text, jsonb) owner to haive_writer;

comment on function haive_private.update_tenant(text, jsonb) is
'What haive.update_tenant does, for a caller without rights on the table.';

create or replace function haive.update_tenant(tenant_id text, changes jsonb)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.update_tenant(update_tenant.tenant_id, update_tenant.changes)
$$;

comment on function haive.update_tenant(text, jsonb) is
'Replaces the given fields of a tenant; for trusted callers only. A status of suspended or deleted '
'closes it at once, active opens it again.';
