-- Definer, for nobody writes tables directly.
create or replace function haive_private.purge_tenant(p_tenant_id text)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_conversations bigint;
begin
  perform haive_private.administer_tenant(p_tenant_id);
  perform from haive.tenants as t
  where t.tenant_id = p_tenant_id and t.status = 'deleted'
  for update;
  if not found then
    raise exception using
      errcode = 'PT409',
      message = format('the tenant %s is not deleted', left(p_tenant_id, 63)),
      hint = 'Delete it first: that can be undone, and this cannot.';
  end if;
  select count(*) into v_conversations
  from haive.conversations as c where c.tenant_id = p_tenant_id;
  -- All that belongs to it goes with it, by the foreign keys.
  delete from haive.tenants as t where t.tenant_id = p_tenant_id;
  delete from haive.events as e where e.tenant_id = p_tenant_id;
  delete from haive_private.event_floors as f where f.tenant_id = p_tenant_id;
  delete from haive_private.watches as w where w.tenant_id = p_tenant_id;
  delete from haive_private.memory_words as w where w.tenant_id = p_tenant_id;
  delete from haive_private.memory_sizes as s where s.tenant_id = p_tenant_id;
  return v_conversations;
end;
$$;

alter function haive_private.purge_tenant(text) owner to haive_writer;

comment on function haive_private.purge_tenant(text) is
'What haive.purge_tenant does, for a caller without rights on the table.';

create or replace function haive.purge_tenant(tenant_id text)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.purge_tenant(purge_tenant.tenant_id)
$$;

comment on function haive.purge_tenant(text) is
'Removes a deleted tenant with all that it has, and returns how many conversations those were; for '
'trusted callers only.';
