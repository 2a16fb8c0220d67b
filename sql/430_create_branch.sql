-- Copies nothing: a branch is a row that says where it begins.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.create_branch(
  p_tenant text,
  p_from_checkpoint uuid,
  p_name text,
  p_thread_id text,
  p_namespace text,
  p_branch_id uuid,
  p_metadata jsonb,
  p_sealed bytea,
  p_key_id text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_roots haive.checkpoints[];
  v_root haive.checkpoints;
  v_branch haive.branches;
begin
  v_roots := array(
    select c
    from haive.checkpoints as c
    join haive.threads as t on t.tenant_id = c.tenant_id and t.thread_key = c.thread_key
    where
      c.id = p_from_checkpoint and c.tenant_id = v_caller.tenant
      and (p_thread_id is null or (t.thread_id = p_thread_id and t.namespace = p_namespace))
      and (v_caller.actor is null or t.user_id = v_caller.actor)
  );
  if cardinality(v_roots) = 0 then
    raise exception using
      errcode = 'PT404',
      message = format('no checkpoint %s', p_from_checkpoint),
      hint = 'It was pruned, belongs to another tenant, or is not the caller''s to see.';
  elsif cardinality(v_roots) > 1 then
    raise exception using
      errcode = 'PT422',
      message = 'several threads have a checkpoint of this id, for one is a copy',
      hint = 'Pass thread_id too.';
  end if;
  v_root := v_roots[1];
  -- Whoever prunes holds the branches of the thread: then the root may be gone. And the thread, before
  -- them, where it may go as well.
  perform from haive.threads as t
  where t.tenant_id = v_caller.tenant and t.thread_key = v_root.thread_key
  for key share;
  perform from haive.branches as b
  where b.tenant_id = v_caller.tenant and b.branch_id = v_root.branch_id
  for key share;
  select * into v_root from haive.checkpoints as c
  where c.tenant_id = v_caller.tenant and c.branch_id = v_root.branch_id and c.seq = v_root.seq;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no checkpoint %s', p_from_checkpoint),
      hint = 'It was pruned just now.';
  end if;
  insert into haive.branches (
    tenant_id, branch_id, thread_key, name, root_branch_id, root_seq, head_id,
    metadata, sealed, key_id
  )
  values (
    v_caller.tenant, p_branch_id, v_root.thread_key, p_name, v_root.branch_id, v_root.seq,
    v_root.id, p_metadata, p_sealed, p_key_id
  )
  on conflict do nothing
  returning * into v_branch;
  if found then
    insert into haive.events (tenant_id, kind, thread_key, checkpoint_id)
    values (v_caller.tenant, 'branch.created', v_root.thread_key, v_root.id);
  else
    -- A retry finds its own.
    select * into v_branch from haive.branches as b
    where
      b.tenant_id = v_caller.tenant and b.branch_id = p_branch_id
      and b.thread_key = v_root.thread_key and b.name = p_name;
    if not found then
      raise exception using
        errcode = 'PT409',
        message = format('the thread has a branch %s already', left(p_name, 200)),
        hint = 'Choose another name.';
    end if;
  end if;
  -- As tags of a sealed checkpoint are not taken in the clear: nobody with the key would read them.
  -- Last, for of a sealed tenant a trigger has said more.
  if v_root.key_id is not null and p_metadata is not null then
    raise exception using
      errcode = 'PT409',
      message = 'the checkpoint is sealed, and the metadata of the branch is not',
      hint = 'Pass CheckpointConfig(encryption_key=…), or no metadata.';
  end if;
  return (
    select json_build_object(
      'branch_id', v_branch.branch_id, 'name', v_branch.name, 'thread_id', t.thread_id,
      'namespace', t.namespace, 'created_at', v_branch.created_at
    )
    from haive.threads as t
    where t.tenant_id = v_caller.tenant and t.thread_key = v_branch.thread_key
  );
end;
$$;

alter function haive_private.create_branch(
  text, uuid, text, text, text, uuid, jsonb, bytea, text
) owner to haive_writer;

comment on function haive_private.create_branch(
  text, uuid, text, text, text, uuid, jsonb, bytea, text
) is 'What haive.create_branch does, for a caller without rights on the tables.';

create or replace function haive.create_branch(
  from_checkpoint uuid,
  name text,
  thread_id text default null,
  namespace text default '',
  branch_id uuid default gen_random_uuid(),
  metadata jsonb default null,
  sealed bytea default null,
  key_id text default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.create_branch(
    create_branch.tenant, create_branch.from_checkpoint, create_branch.name,
    create_branch.thread_id, create_branch.namespace, create_branch.branch_id,
    create_branch.metadata, create_branch.sealed, create_branch.key_id
  )
$$;

comment on function haive.create_branch(uuid, text, text, text, uuid, jsonb, bytea, text, text) is
'Begins a branch at a checkpoint and returns branch_id, name, thread_id, namespace and created_at.';
