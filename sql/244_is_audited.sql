-- For triggers where no operation has entered a tenant: the owner's own statements.
create or replace function haive_private.is_audited(p_tenant text)
returns boolean
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return exists (
    select from haive.tenants as t where t.tenant_id = p_tenant and t.audit <> 'off'
  );
end;
$$;

alter function haive_private.is_audited(text) owner to haive_writer;

comment on function haive_private.is_audited(text) is
'Whether what is written goes on record; false for a tenant that is gone.';
