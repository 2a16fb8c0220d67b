-- The way in for those who run the platform: a tenant that is closed can still be administered.
-- Definer, as enter_tenant is.
create or replace function haive_private.administer_tenant(p_tenant text)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  if not pg_has_role(
    coalesce(nullif(current_setting('role', true), 'none'), session_user::text),
    'haive_client', 'member'
  ) then
    raise exception using
      errcode = 'PT403',
      message = 'only the platform administers tenants',
      hint = 'Call with a secret key, or on a direct connection.';
  end if;
  if current_setting('lock_timeout') = '0' then
    perform set_config('lock_timeout', '10s', true);
  end if;
  perform set_config('persistence.tenant', coalesce(p_tenant, ''), true);
  -- Triggers look the tenant up: what was known of another one does not hold for it.
  perform set_config('persistence.watch', '', true);
  perform set_config('persistence.meter', '', true);
end;
$$;

alter function haive_private.administer_tenant(text) owner to haive_writer;

comment on function haive_private.administer_tenant(text) is
'Lets a trusted caller work on a tenant whatever its status, and nobody else.';
