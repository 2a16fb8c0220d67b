-- Definer, for nobody writes tables directly.
create or replace function haive_private.put_checkpoint_writes(
  p_tenant text,
  p_thread_id text,
  p_namespace text,
  p_checkpoint_id uuid,
  p_task_id uuid,
  p_task_path text,
  p_writes jsonb,
  p_user_id text
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_thread uuid;
  v_count bigint;
begin
  -- The first task may be done before the first checkpoint is saved.
  v_thread := haive_private.open_thread(
    v_caller.tenant, v_caller.actor, p_user_id, p_thread_id, p_namespace
  );
  -- A task that runs again writes the same: what is there stays. Errors and interrupts, below zero,
  -- are replaced, for the last one is the one that counts.
  insert into haive.checkpoint_writes as w (
    tenant_id, thread_key, checkpoint_id, task_id, idx, channel, task_path, size, codec, key_id,
    payload
  )
  select
    v_caller.tenant, v_thread, p_checkpoint_id, p_task_id, d.idx, d.channel, p_task_path, d.size,
    d.codec, d.key_id, decode(d.payload, 'base64')
  from jsonb_to_recordset(p_writes) as d (
    idx int, channel text, size int, codec int2, key_id text, payload text
  )
  on conflict (tenant_id, thread_key, checkpoint_id, task_id, idx) do update
  set
    channel = excluded.channel, task_path = excluded.task_path, size = excluded.size,
    codec = excluded.codec, key_id = excluded.key_id, payload = excluded.payload
  where w.idx < 0;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

alter function haive_private.put_checkpoint_writes(
  text, text, text, uuid, uuid, text, jsonb, text
) owner to haive_writer;

comment on function haive_private.put_checkpoint_writes(
  text, text, text, uuid, uuid, text, jsonb, text
) is 'What haive.put_checkpoint_writes does, for a caller without rights on the tables.';

create or replace function haive.put_checkpoint_writes(
  thread_id text,
  checkpoint_id uuid,
  task_id uuid,
  writes jsonb,
  namespace text default '',
  task_path text default '',
  user_id text default null,
  tenant text default null
)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.put_checkpoint_writes(
    put_checkpoint_writes.tenant, put_checkpoint_writes.thread_id, put_checkpoint_writes.namespace,
    put_checkpoint_writes.checkpoint_id, put_checkpoint_writes.task_id,
    put_checkpoint_writes.task_path, put_checkpoint_writes.writes, put_checkpoint_writes.user_id
  )
$$;

comment on function haive.put_checkpoint_writes(text, uuid, uuid, jsonb, text, text, text, text) is
'Keeps what a task wrote after a checkpoint: a list of {idx, channel, size, codec, key_id, payload} '
'with the payload in base64. Returns how many were new or replaced.';
