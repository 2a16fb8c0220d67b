-- The log of a tenant that is closed, or purged, can still be read by those who run the platform.
-- Definer, as enter_tenant is.
create or replace function haive_private.enter_audit(p_tenant text)
returns text
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_tenant text;
  v_caller record;
  v_location text;
begin
  if pg_has_role(
    coalesce(nullif(current_setting('role', true), 'none'), session_user::text),
    'haive_client', 'member'
  ) then
    v_tenant := coalesce(
      p_tenant,
      nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-haive-tenant',
      nullif(current_setting('persistence.tenant', true), ''),
      'default'
    );
    perform haive_private.administer_tenant(v_tenant);
    -- What is here of a tenant that lives elsewhere is about its entry alone: not to be taken for its log.
    select t.location into v_location from haive.tenants as t
    where t.tenant_id = v_tenant and t.isolation <> 'row';
    if found then
      raise exception using
        errcode = 'PT421',
        message = format('the log of tenant %s is where its rows are, in %s', v_tenant, v_location),
        hint = 'Work in tenant_context, which knows where, or name that schema.';
    end if;
    return v_tenant;
  end if;
  v_caller := haive_private.enter_tenant(p_tenant, false);
  if v_caller.actor is not null then
    raise exception using
      errcode = 'PT403',
      message = 'only an administrator reads the log of a tenant',
      hint = 'Owners and admins do; they change roles with set_member.';
  end if;
  return v_caller.tenant;
end;
$$;

alter function haive_private.enter_audit(text) owner to haive_writer;

comment on function haive_private.enter_audit(text) is
'Lets trusted callers read the log of any tenant, and owners and admins that of their own.';
