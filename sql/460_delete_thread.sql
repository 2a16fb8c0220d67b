-- Definer, for nobody writes tables directly.
create or replace function haive_private.delete_thread(p_tenant text, p_thread_id text)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_keys uuid[];
  v_count bigint;
begin
  v_keys := array(
    select t.thread_key from haive.threads as t
    where
      t.thread_id = p_thread_id and t.tenant_id = v_caller.tenant
      and (v_caller.actor is null or t.user_id = v_caller.actor)
    for update
  );
  select count(*) into v_count
  from haive.branches as b
  join haive.checkpoints as c on c.tenant_id = b.tenant_id and c.branch_id = b.branch_id
  where b.tenant_id = v_caller.tenant and b.thread_key = any(v_keys);
  delete from haive.threads as t
  where t.tenant_id = v_caller.tenant and t.thread_key = any(v_keys);
  insert into haive.events (tenant_id, kind, thread_key)
  select v_caller.tenant, 'thread.deleted', u.thread_key from unnest(v_keys) as u (thread_key);
  return v_count;
end;
$$;

alter function haive_private.delete_thread(text, text) owner to haive_writer;

comment on function haive_private.delete_thread(text, text) is
'What haive.delete_thread does, for a caller without rights on the tables.';

create or replace function haive.delete_thread(thread_id text, tenant text default null)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.delete_thread(delete_thread.tenant, delete_thread.thread_id)
$$;

comment on function haive.delete_thread(text, text) is
'Deletes a thread with all its namespaces, branches and checkpoints; returns how many checkpoints.';
