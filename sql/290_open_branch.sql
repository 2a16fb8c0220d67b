-- The rare half of saving: the first checkpoint of a thread, a retry, a lost race, a fork. Makes the
-- thread and its branch "main" where they are not there yet, and moves the head under the lock of
-- the branch.
create or replace function haive_private.open_branch(
  p_tenant text,
  p_actor text,
  p_user_id text,
  p_thread_id text,
  p_namespace text,
  p_branch text,
  p_fork text,
  p_id uuid,
  p_parent_id uuid,
  p_codec smallint,
  p_payload bytea,
  out outcome text, -- ready: the head was moved; same: a retry; conflict: another one was faster
  out thread_key uuid,
  out branch_id uuid,
  out branch text,
  out head_id uuid
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_branch haive.branches;
  v_row haive.checkpoints;
  v_parent haive.checkpoints;
begin
  thread_key := haive_private.open_thread(
    p_tenant, p_actor, p_user_id, p_thread_id, p_namespace
  );
  insert into haive.branches (tenant_id, branch_id, thread_key, name)
  values (p_tenant, gen_random_uuid(), open_branch.thread_key, 'main')
  on conflict do nothing;
  select * into v_branch from haive.branches as b
  where b.thread_key = open_branch.thread_key and b.name = p_branch and b.tenant_id = p_tenant
  for no key update;

  select * into v_row from haive.checkpoints as c
  where c.id = p_id and c.thread_key = open_branch.thread_key and c.tenant_id = p_tenant;
  if found then
    if (v_row.parent_id, v_row.codec, v_row.payload) is distinct from (p_parent_id, p_codec, p_payload) then
      raise exception using
        errcode = 'PT409',
        message = format('another checkpoint has the id %s', p_id),
        hint = 'Repeat a call only with the same content.';
    end if;
    outcome := 'same';
    branch_id := v_row.branch_id;
    select b.name into open_branch.branch from haive.branches as b
    where b.tenant_id = p_tenant and b.branch_id = v_row.branch_id;
    return;
  end if;
  if v_branch.branch_id is null then
    raise exception using
      errcode = 'PT404',
      message = format('the thread has no branch %s', left(p_branch, 200)),
      hint = 'create_branch makes one, from any checkpoint.';
  end if;
  if p_parent_id is not null then
    select * into v_parent from haive.checkpoints as c
    where c.id = p_parent_id and c.thread_key = open_branch.thread_key and c.tenant_id = p_tenant;
    if not found then
      raise exception using
        errcode = 'PT404',
        message = format('the thread has no checkpoint %s', p_parent_id),
        hint = 'A parent is of the same thread; it may have been pruned.';
    end if;
  end if;

  head_id := v_branch.head_id;
  if v_branch.head_id is not distinct from p_parent_id then
    outcome := 'ready';
    branch_id := v_branch.branch_id;
    branch := v_branch.name;
    update haive.branches as b
    set head_id = p_id, updated_at = now()
    where b.tenant_id = p_tenant and b.branch_id = v_branch.branch_id;
  elsif p_fork is null then
    outcome := 'conflict';
    branch_id := v_branch.branch_id;
    branch := v_branch.name;
  else
    outcome := 'ready';
    branch := p_fork;
    insert into haive.branches (
      tenant_id, branch_id, thread_key, name, root_branch_id, root_seq, head_id
    )
    values (
      p_tenant, gen_random_uuid(), open_branch.thread_key, p_fork, v_parent.branch_id,
      v_parent.seq, p_id
    )
    on conflict do nothing
    returning branch_id into open_branch.branch_id;
    if not found then
      raise exception using
        errcode = 'PT409',
        message = format('the thread has a branch %s already', left(p_fork, 200)),
        hint = 'Choose another name.';
    end if;
  end if;
end;
$$;

alter function haive_private.open_branch(
  text, text, text, text, text, text, text, uuid, uuid, smallint, bytea
) owner to haive_writer;

comment on function haive_private.open_branch(
  text, text, text, text, text, text, text, uuid, uuid, smallint, bytea
) is 'Makes room for a checkpoint where the head of its branch is not simply its parent.';
