-- What a mode of compliance asks of a tenant: multitenancy/compliance.py has the same table.
-- A trigger, so that nothing lowers a switch without changing the mode first.
create or replace function haive_private.check_tenant_switches()
returns trigger
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_mode text := new.settings ->> 'compliance_mode';
begin
  if v_mode = 'HIPAA' and not new.encrypted then
    raise exception using
      errcode = 'PT422',
      message = 'a tenant of mode HIPAA is encrypted',
      hint = 'Make it with enable_encryption_at_rest and a key, or choose another compliance_mode.';
  elsif v_mode = 'HIPAA' and new.audit <> 'all' then
    raise exception using
      errcode = 'PT422',
      message = 'a tenant of mode HIPAA has reads and writes on record',
      hint = 'Set audit to all, or choose another compliance_mode.';
  elsif v_mode in ('GDPR', 'SOC2') and new.audit = 'off' then
    raise exception using
      errcode = 'PT422',
      message = format('a tenant of mode %s has writes on record', v_mode),
      hint = 'Set audit to writes or all, or choose another compliance_mode.';
  elsif v_mode = 'GDPR' and new.settings ->> 'data_retention_days' is null then
    raise exception using
      errcode = 'PT422',
      message = 'a tenant of mode GDPR says how long it keeps data',
      hint = 'Set data_retention_days, or choose another compliance_mode.';
  end if;
  return new;
end;
$$;

comment on function haive_private.check_tenant_switches() is
'Refuses a tenant whose switches are below what its compliance_mode asks for.';

create trigger tenants_check_switches
before insert or update of settings, audit, encrypted on haive.tenants
for each row when (new.settings ? 'compliance_mode')
execute function haive_private.check_tenant_switches();
