-- Definer: it reads and corrects what is nobody's to write.
create or replace function haive_private.reconcile_usage(p_tenant_id text)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_lock bigint := hashtextextended('haive/writers/' || p_tenant_id, 0);
  v_found record;
begin
  perform haive_private.administer_tenant(p_tenant_id);
  if exists (select from haive_private.meters as m where m.tenant_id = p_tenant_id) then
    perform pg_advisory_xact_lock_shared(v_lock);
  else
    -- Never counted: what is written meanwhile would be in its days twice.
    perform pg_advisory_xact_lock(v_lock);
  end if;
  perform from haive.tenants as t where t.tenant_id = p_tenant_id and t.metered;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no metered tenant %s', left(p_tenant_id, 63)),
      hint = 'A limit, or metered, is set with update_tenant.';
  end if;
  v_found := haive_private.recount_tenant(p_tenant_id);
  return json_build_object(
    'tenant_id', p_tenant_id,
    'conversations', v_found.conversations,
    'conversations_drift', v_found.conversations_drift,
    'storage', v_found.bytes,
    'storage_drift', v_found.bytes_drift
  );
end;
$$;

alter function haive_private.reconcile_usage(text) owner to haive_writer;

comment on function haive_private.reconcile_usage(text) is
'What haive.reconcile_usage does, for a caller without rights on the tables.';

create or replace function haive.reconcile_usage(tenant_id text)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.reconcile_usage(reconcile_usage.tenant_id)
$$;

comment on function haive.reconcile_usage(text) is
'Counts the rows of a metered tenant, whose writers go on meanwhile, corrects its meters and returns '
'{conversations, conversations_drift, storage, storage_drift}; a drift is what the rows were more than '
'the meters said. For trusted callers only, as a job: nightly is plenty.';
