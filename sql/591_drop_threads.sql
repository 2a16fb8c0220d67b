-- Table by table, as drop_conversations does. The rows of the branches are locked first: who saves
-- to one then finds it gone.
create or replace function haive_private.drop_threads(p_tenant text, p_keys uuid[])
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_branches uuid[];
  v_checkpoints bigint;
  v_writes bigint;
  v_threads bigint;
  v_events bigint;
begin
  perform from haive.threads as t
  where t.tenant_id = p_tenant and t.thread_key = any(p_keys)
  order by t.thread_key
  for update;
  v_branches := array(
    select b.branch_id from haive.branches as b
    where b.tenant_id = p_tenant and b.thread_key = any(p_keys)
    order by b.branch_id
    for update
  );
  delete from haive.checkpoints as c
  where c.tenant_id = p_tenant and c.branch_id = any(v_branches);
  get diagnostics v_checkpoints = row_count;
  delete from haive.checkpoint_writes as w
  where w.tenant_id = p_tenant and w.thread_key = any(p_keys);
  get diagnostics v_writes = row_count;
  delete from haive.threads as t where t.tenant_id = p_tenant and t.thread_key = any(p_keys);
  get diagnostics v_threads = row_count;
  delete from haive.events as e where e.tenant_id = p_tenant and e.thread_key = any(p_keys);
  get diagnostics v_events = row_count;
  insert into haive.events (tenant_id, kind, thread_key)
  select p_tenant, 'thread.deleted', u.thread_key from unnest(p_keys) as u (thread_key);
  return jsonb_build_object(
    'threads', v_threads, 'branches', cardinality(v_branches), 'checkpoints', v_checkpoints,
    'checkpoint_writes', v_writes, 'events', v_events
  );
end;
$$;

comment on function haive_private.drop_threads(text, uuid[]) is
'Deletes threads with all that is in them and their events; returns how many rows of each table.';
