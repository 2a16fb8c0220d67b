-- Checkpoints keep their ids in the copy. Sealed ones are bound to their thread, so the client sends
-- them sealed for the new one; all others are copied here.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.copy_thread(
  p_tenant text,
  p_thread_id text,
  p_namespace text,
  p_new_thread_id text,
  p_checkpoints jsonb,
  p_writes jsonb,
  p_branches jsonb
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_from haive.threads;
  v_to uuid := gen_random_uuid();
  v_old uuid[];
  v_new uuid[];
  v_count bigint;
begin
  select * into v_from from haive.threads as t
  where
    t.thread_id = p_thread_id and t.namespace = p_namespace and t.tenant_id = v_caller.tenant
    and (v_caller.actor is null or t.user_id = v_caller.actor);
  if not found then
    raise exception using
      errcode = 'PT404',
      message = 'no such thread',
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to see.';
  end if;
  insert into haive.threads (tenant_id, thread_key, thread_id, namespace, user_id)
  values (v_caller.tenant, v_to, p_new_thread_id, p_namespace, v_from.user_id)
  on conflict do nothing;
  if not found or exists (
    select from haive.threads as t
    where
      t.thread_id = p_new_thread_id and t.tenant_id = v_caller.tenant
      and t.user_id is distinct from v_from.user_id
  ) then
    raise exception using
      errcode = 'PT409',
      message = 'there is a thread of the new name already',
      hint = 'Choose another name, or delete that thread first.';
  end if;

  select array_agg(b.branch_id), array_agg(coalesce(d.new_branch_id, gen_random_uuid()))
  into v_old, v_new
  from haive.branches as b
  left join jsonb_to_recordset(p_branches) as d (branch_id uuid, new_branch_id uuid)
    on d.branch_id = b.branch_id
  where b.thread_key = v_from.thread_key and b.tenant_id = v_caller.tenant;

  insert into haive.branches (
    tenant_id, branch_id, thread_key, name, root_branch_id, head_id, metadata, sealed,
    key_id, created_at
  )
  select
    b.tenant_id, v_new[array_position(v_old, b.branch_id)], v_to, b.name,
    v_new[array_position(v_old, b.root_branch_id)], b.head_id, b.metadata,
    coalesce(decode(d.sealed, 'base64'), b.sealed), coalesce(d.key_id, b.key_id), b.created_at
  from haive.branches as b
  left join jsonb_to_recordset(p_branches) as d (branch_id uuid, sealed text, key_id text)
    on d.branch_id = b.branch_id
  where b.thread_key = v_from.thread_key and b.tenant_id = v_caller.tenant;

  insert into haive.checkpoints (
    tenant_id, branch_id, thread_key, id, parent_id, created_at, size, codec, depth, failed,
    key_id, schema_hash, tags, metadata, search, sealed, payload, base_id
  )
  select
    c.tenant_id, v_new[array_position(v_old, c.branch_id)], v_to, c.id, c.parent_id, c.created_at,
    c.size, c.codec, c.depth, c.failed, coalesce(d.key_id, c.key_id), c.schema_hash, c.tags,
    c.metadata, coalesce(d.search, c.search), coalesce(decode(d.sealed, 'base64'), c.sealed),
    coalesce(decode(d.payload, 'base64'), c.payload), c.base_id
  from haive.checkpoints as c
  left join jsonb_to_recordset(p_checkpoints) as d (
    id uuid, key_id text, search jsonb, sealed text, payload text
  ) on d.id = c.id
  where
    c.tenant_id = v_caller.tenant and c.branch_id = any(v_old)
    -- Not what was saved since the client read the thread: nobody could open it.
    and (c.key_id is null or d.id is not null)
  order by c.seq;
  get diagnostics v_count = row_count;
  if
    exists (
      select from jsonb_to_recordset(p_checkpoints) as d (
        id uuid, parent_id uuid, base_id uuid, was_key_id text
      )
      where not exists (
        select from haive.checkpoints as c
        where
          c.id = d.id and c.thread_key = v_from.thread_key and c.tenant_id = v_caller.tenant
          and c.key_id = d.was_key_id and c.parent_id is not distinct from d.parent_id
          and c.base_id is not distinct from d.base_id
      )
    )
    or exists (
      select from haive.checkpoints as c
      where
        c.tenant_id = v_caller.tenant and c.branch_id = any(v_new) and c.parent_id is not null
        and not exists (
          select from haive.checkpoints as p
          where
            p.id = c.parent_id and p.thread_key = v_to and p.tenant_id = v_caller.tenant
        )
    )
    or exists (
      select from haive.branches as b
      where
        b.tenant_id = v_caller.tenant and b.branch_id = any(v_old) and b.sealed is not null
        and not exists (
          select from jsonb_to_recordset(p_branches) as d (branch_id uuid)
          where d.branch_id = b.branch_id
        )
    )
  then
    raise exception using
      errcode = 'PT409',
      message = 'the thread was changed meanwhile',
      hint = 'Seal for the copy what is there now.';
  end if;

  -- Where the branches begin, in the numbers of the copy. Zero, and not null, where what lay before
  -- is pruned: of the branch that it left, nothing is in its history.
  update haive.branches as b
  set root_seq = coalesce((
    select n.seq
    from haive.branches as o
    join haive.checkpoints as c
      on c.tenant_id = o.tenant_id and c.branch_id = o.root_branch_id and c.seq <= o.root_seq
    join haive.checkpoints as n
      on n.id = c.id and n.thread_key = v_to and n.tenant_id = c.tenant_id
    where
      o.tenant_id = b.tenant_id and o.branch_id = v_old[array_position(v_new, b.branch_id)]
    order by c.seq desc
    limit 1
  ), 0)
  where b.thread_key = v_to and b.tenant_id = v_caller.tenant and b.root_branch_id is not null;

  update haive.branches as b
  set head_id = n.head_id
  from (
    select b.branch_id, h.id as head_id
    from haive.branches as b
    left join lateral (
      select c.id from haive.checkpoints as c
      where
        c.tenant_id = b.tenant_id
        and (
          c.branch_id = b.branch_id
          or (c.branch_id = b.root_branch_id and c.seq <= b.root_seq)
        )
      order by c.seq desc
      limit 1
    ) as h on true
    where b.thread_key = v_to and b.tenant_id = v_caller.tenant
  ) as n
  where b.tenant_id = v_caller.tenant and b.branch_id = n.branch_id;

  insert into haive.checkpoint_writes (
    tenant_id, thread_key, checkpoint_id, task_id, idx, channel, task_path, size, codec, key_id,
    payload
  )
  select
    w.tenant_id, v_to, w.checkpoint_id, w.task_id, w.idx, w.channel, w.task_path, w.size, w.codec,
    coalesce(d.key_id, w.key_id), coalesce(decode(d.payload, 'base64'), w.payload)
  from haive.checkpoint_writes as w
  left join jsonb_to_recordset(p_writes) as d (
    checkpoint_id uuid, task_id uuid, idx int, key_id text, payload text
  ) on d.checkpoint_id = w.checkpoint_id and d.task_id = w.task_id and d.idx = w.idx
  where
    w.tenant_id = v_caller.tenant and w.thread_key = v_from.thread_key
    and (w.key_id is null or d.idx is not null);

  insert into haive.events (tenant_id, kind, thread_key)
  values (v_caller.tenant, 'thread.copied', v_to);
  return v_count;
end;
$$;

alter function haive_private.copy_thread(text, text, text, text, jsonb, jsonb, jsonb)
owner to haive_writer;

comment on function haive_private.copy_thread(text, text, text, text, jsonb, jsonb, jsonb) is
'What haive.copy_thread does, for a caller without rights on the tables.';

create or replace function haive.copy_thread(
  thread_id text,
  new_thread_id text,
  namespace text default '',
  checkpoints jsonb default '[]',
  writes jsonb default '[]',
  branches jsonb default '[]',
  tenant text default null
)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.copy_thread(
    copy_thread.tenant, copy_thread.thread_id, copy_thread.namespace, copy_thread.new_thread_id,
    copy_thread.checkpoints, copy_thread.writes, copy_thread.branches
  )
$$;

comment on function haive.copy_thread(text, text, text, jsonb, jsonb, jsonb, text) is
'Copies one namespace of a thread to a new thread and returns how many checkpoints it has.';
