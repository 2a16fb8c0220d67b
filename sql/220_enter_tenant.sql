-- The first step of every operation: which tenant, and may the caller. The policies of
-- haive_client and haive_writer read the setting made here, so that an operation needs no
-- round trip to announce its tenant. It ends with the transaction.
-- Definer: it reads memberships before the tenant, which their policies ask for, is known.
create or replace function haive_private.enter_tenant(
  p_tenant text,
  p_write boolean,
  out tenant text,
  out actor text, -- null: all rows of the tenant; else: only where this user takes part
  out trusted boolean, -- a service key or a direct connection, and no user with a token
  out audit_reads boolean -- what is read goes on record
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_role text;
  v_count bigint;
  v_tenant haive.tenants;
  v_done text;
begin
  -- Each expression costs a microsecond, once a transaction: what is seldom needed stands in an if.
  tenant := p_tenant;
  if tenant is null then
    tenant := nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-haive-tenant';
  end if;
  -- Trusted are the members of haive_client, which no API user can become. The setting "role"
  -- keeps what PostgREST or SET ROLE chose, in a definer function too; no API call can set it.
  trusted := pg_has_role(
    coalesce(nullif(current_setting('role', true), 'none'), session_user::text),
    'haive_client', 'member'
  );
  if trusted then
    if tenant is null then
      tenant := coalesce(nullif(current_setting('persistence.tenant', true), ''), 'default');
    end if;
  else
    actor := haive.current_actor();
    if actor is null then
      raise exception using
        errcode = 'PT401',
        message = 'the token names no user',
        hint = 'Sign in and send the user''s token, or call with a secret key.';
    end if;
    select count(*), min(m.tenant_id), min(m.role) into v_count, tenant, v_role
    from haive.members as m
    where m.user_id = actor and m.tenant_id = coalesce(enter_tenant.tenant, m.tenant_id);
    if v_count = 0 then
      raise exception using
        errcode = 'PT403',
        message = 'the caller is no member of the tenant',
        hint = 'An administrator of the tenant adds members with set_member.';
    elsif v_count > 1 then
      raise exception using
        errcode = 'PT422',
        message = 'the caller belongs to several tenants and names none',
        hint = 'Pass the argument tenant, or the header x-haive-tenant.';
    end if;
    if p_write and v_role = 'reader' then
      raise exception using
        errcode = 'PT403',
        message = 'a reader of the tenant may not write',
        hint = 'An administrator of the tenant changes roles with set_member.';
    end if;
    -- Who writes, for what is written; a service may say so of others (add_session_messages).
    v_done := set_config('persistence.author', actor, true);
    if v_role in ('owner', 'admin') then
      actor := null;
    end if;
  end if;

  if p_write then
    if current_setting('lock_timeout') = '0' then
      -- A row that somebody holds must not hold up a statement that others share for ever.
      v_done := set_config('lock_timeout', '10s', true);
    end if;
    -- Shared by all who write; who counts the rows of the tenant, or begins to, is here alone.
    if not pg_try_advisory_xact_lock_shared(hashtextextended('haive/writers/' || tenant, 0)) then
      perform pg_advisory_xact_lock_shared(hashtextextended('haive/writers/' || tenant, 0));
    end if;
  end if;
  select * into v_tenant from haive.tenants as t where t.tenant_id = enter_tenant.tenant;
  if (v_tenant.status = 'active' and v_tenant.isolation = 'row') is not true then
    if v_tenant.status = 'moving' and not p_write then
      -- Until this call has ended, its rows are where they are now; the move waits for it.
      perform pg_advisory_xact_lock_shared(hashtextextended('haive/readers/' || tenant, 0));
      select * into v_tenant from haive.tenants as t where t.tenant_id = enter_tenant.tenant;
    end if;
    if v_tenant.status is null or v_tenant.status = 'deleted' then
      raise exception using
        errcode = 'PT404',
        message = format('no tenant %s', left(tenant, 63)),
        hint = 'Create it with create_tenant.';
    elsif v_tenant.status = 'suspended' then
      raise exception using
        errcode = 'PT423',
        message = format('the tenant %s is suspended', tenant),
        hint = 'An administrator of the platform opens it with resume_tenant.';
    elsif v_tenant.isolation <> 'row' then
      raise exception using
        errcode = 'PT421',
        message = format('the rows of tenant %s are in a %s of its own', tenant, v_tenant.isolation),
        hint = 'Work in tenant_context, which knows where.';
    elsif p_write and v_tenant.status = 'moving' then
      raise exception using
        errcode = 'PT503',
        message = format('the tenant %s is being moved', tenant),
        hint = 'Repeat the call in a second.';
    end if;
  end if;
  -- Assigned and not performed, which is a query. For those who would look the tenant up once more: m
  -- for metered, w for audited writes, s for content that is sealed by the client.
  v_done := set_config('persistence.tenant', tenant, true) || set_config(
    'persistence.watch',
    case when v_tenant.metered then 'm' else '-' end
    || case when v_tenant.audit <> 'off' then 'w' else '-' end
    || case when v_tenant.encrypted then 's' else '-' end,
    true
  );
  audit_reads := v_tenant.audit = 'all';
  if v_tenant.max_requests_per_minute is not null then
    v_done := haive_private.take_request(tenant, v_tenant.max_requests_per_minute);
  end if;
  if p_write and v_tenant.metered then
    v_done := set_config('persistence.meter', haive_private.meter_facts(v_tenant), true);
  end if;
end;
$$;

alter function haive_private.enter_tenant(text, boolean) owner to haive_writer;

comment on function haive_private.enter_tenant(text, boolean) is
'Resolves and checks the tenant of an operation: argument, header, session setting, the caller''s '
'only membership; "default" for trusted callers. Refuses one that is closed or elsewhere.';
