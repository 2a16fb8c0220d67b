-- Definer, for nobody writes tables directly.
create or replace function haive_private.drop_tenant_key(p_tenant text, p_key_id text)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  perform haive_private.administer_tenant(p_tenant);
  delete from haive_private.tenant_keys as k
  where k.tenant_id = p_tenant and k.key_id = p_key_id and k.status in ('next', 'retired');
  return found;
end;
$$;

alter function haive_private.drop_tenant_key(text, text) owner to haive_writer;

comment on function haive_private.drop_tenant_key(text, text) is
'What haive.drop_tenant_key does, for a caller without rights on the table.';

create or replace function haive.drop_tenant_key(key_id text, tenant text)
returns boolean
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.drop_tenant_key(drop_tenant_key.tenant, drop_tenant_key.key_id)
$$;

comment on function haive.drop_tenant_key(text, text) is
'Removes a data key that seals nothing any more: see count_sealed. Never the active one. For trusted '
'callers only.';
