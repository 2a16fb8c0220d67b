-- Writes a key if it still is as the caller knows it. A tenant's keys take turns: what becomes active
-- retires the one that was, and once they were destroyed there are no more.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.put_tenant_key(
  p_tenant text, p_key_id text, p_wrapped bytea, p_kek_id text, p_status text, p_was_status text
)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_was text;
begin
  perform haive_private.administer_tenant(p_tenant);
  if p_status not in ('next', 'active', 'retired') or p_wrapped is null then
    raise exception using
      errcode = 'PT422',
      message = 'a key that is written is next, active or retired, and wrapped',
      hint = 'Destroy keys with destroy_tenant_keys.';
  end if;
  perform from haive.tenants as t where t.tenant_id = p_tenant for update;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no tenant %s', left(p_tenant, 63)),
      hint = 'Create it with create_tenant.';
  end if;
  select k.status into v_was
  from haive_private.tenant_keys as k
  where k.tenant_id = p_tenant and k.key_id = p_key_id;
  if
    v_was is distinct from p_was_status
    or exists (
      select from haive_private.tenant_keys as k
      where
        k.tenant_id = p_tenant and (
          k.status = 'destroyed'
          or (
            k.key_id <> p_key_id and k.status = p_status
            and (p_status = 'next' or (p_status = 'active' and p_was_status is null))
          )
        )
    )
  then
    return false;
  end if;
  if p_status = 'active' then
    update haive_private.tenant_keys as k
    set status = 'retired'
    where k.tenant_id = p_tenant and k.status = 'active' and k.key_id <> p_key_id;
  end if;
  insert into haive_private.tenant_keys as k (tenant_id, key_id, wrapped, kek_id, status)
  values (p_tenant, p_key_id, p_wrapped, p_kek_id, p_status)
  on conflict (tenant_id, key_id) do update
  set wrapped = excluded.wrapped, kek_id = excluded.kek_id, status = excluded.status;
  return true;
end;
$$;

alter function haive_private.put_tenant_key(text, text, bytea, text, text, text)
owner to haive_writer;

comment on function haive_private.put_tenant_key(text, text, bytea, text, text, text) is
'What haive.put_tenant_key does, for a caller without rights on the table.';

create or replace function haive.put_tenant_key(
  key_id text, wrapped bytea, kek_id text, status text, tenant text, was_status text default null
)
returns boolean
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.put_tenant_key(
    put_tenant_key.tenant, put_tenant_key.key_id, put_tenant_key.wrapped, put_tenant_key.kek_id,
    put_tenant_key.status, put_tenant_key.was_status
  )
$$;

comment on function haive.put_tenant_key(text, bytea, text, text, text, text) is
'Adds a wrapped data key of a tenant (was_status null) or changes one; false: it is not as the '
'caller knows it, its turn is taken, or the keys were destroyed. For trusted callers only.';
