-- Prunes checkpoints and seals them anew. What is removed may be what others are deltas against, so
-- the client, which alone can read them, sends those again as they shall be, and all of it happens
-- in one transaction or, if the thread was changed meanwhile, none of it does. Where nothing is
-- removed, rows that were changed meanwhile are left as they are, and not counted.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.rewrite_checkpoints(
  p_tenant text,
  p_thread_id text,
  p_namespace text,
  p_remove uuid[],
  p_replace jsonb,
  p_writes jsonb,
  p_branches jsonb,
  p_schemas jsonb
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_thread uuid;
  v_left uuid;
  v_replaced bigint;
  v_removed bigint;
begin
  select t.thread_key into v_thread
  from haive.threads as t
  where
    t.thread_id = p_thread_id and t.namespace = p_namespace and t.tenant_id = v_caller.tenant
    and (v_caller.actor is null or t.user_id = v_caller.actor);
  if found and p_namespace <> '' and cardinality(p_remove) > 0 then
    -- It may go as well: who writes to it waits, and who deletes it takes it before its branches.
    perform from haive.threads as t
    where t.thread_key = v_thread and t.tenant_id = v_caller.tenant
    for update;
  end if;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = 'no such thread',
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to change.';
  end if;
  -- Nothing is saved to the thread until this is done.
  perform from haive.branches as b
  where b.thread_key = v_thread and b.tenant_id = v_caller.tenant
  order by b.branch_id
  for update;
  -- A head that shall go too is named, with the one that takes its place or none.
  update haive.branches as b
  set head_id = d.head_id
  from jsonb_to_recordset(p_branches) as d (branch_id uuid, was_head_id uuid, head_id uuid)
  where
    b.tenant_id = v_caller.tenant and b.branch_id = d.branch_id and b.thread_key = v_thread
    and b.head_id = d.was_head_id;
  if exists (
    select from haive.branches as b
    where b.thread_key = v_thread and b.tenant_id = v_caller.tenant and b.head_id = any(p_remove)
  ) then
    raise exception using
      errcode = 'PT409',
      message = 'the head of a branch cannot be removed',
      hint = 'Plan anew: the thread was changed meanwhile.';
  end if;

  update haive.checkpoints as c
  set
    parent_id = d.parent_id, codec = d.codec, size = d.size, key_id = d.key_id,
    base_id = case when d.codec = 3 then d.base_id end,
    depth = case when d.codec >= 2 then d.depth else 0 end,
    payload = decode(d.payload, 'base64'),
    sealed = coalesce(decode(d.sealed, 'base64'), c.sealed),
    metadata = case when d.sealed is null then c.metadata end,
    tags = case when d.sealed is null then c.tags end,
    search = coalesce(d.search, c.search)
  from jsonb_to_recordset(p_replace) as d (
    id uuid, parent_id uuid, was_parent_id uuid, was_key_id text, codec int2, base_id uuid, size int, depth int2,
    key_id text, payload text, sealed text, was_sealed text, search jsonb
  )
  where
    c.id = d.id and c.thread_key = v_thread and c.tenant_id = v_caller.tenant
    and c.parent_id is not distinct from d.was_parent_id
    and c.key_id is not distinct from d.was_key_id
    -- Whoever removed what it was stored against has stored it anew.
    and (
      d.codec <> 3
      or exists (
        select from haive.checkpoints as o
        where o.id = d.base_id and o.thread_key = v_thread and o.tenant_id = v_caller.tenant
      )
    )
    -- Tags of a sealed checkpoint lie in what is replaced: they may have changed meanwhile.
    and (d.sealed is null or c.sealed is not distinct from decode(d.was_sealed, 'base64'));
  get diagnostics v_replaced = row_count;

  update haive.checkpoint_writes as w
  set codec = d.codec, size = d.size, key_id = d.key_id, payload = decode(d.payload, 'base64')
  from jsonb_to_recordset(p_writes) as d (
    checkpoint_id uuid, task_id uuid, idx int, was_key_id text, codec int2, size int, key_id text,
    payload text
  )
  where
    w.tenant_id = v_caller.tenant and w.thread_key = v_thread
    and w.checkpoint_id = d.checkpoint_id and w.task_id = d.task_id and w.idx = d.idx
    and w.key_id is not distinct from d.was_key_id;

  update haive.branches as b
  set sealed = decode(d.sealed, 'base64'), key_id = d.key_id, metadata = null
  from jsonb_to_recordset(p_branches) as d (
    branch_id uuid, was_key_id text, sealed text, key_id text
  )
  where
    b.tenant_id = v_caller.tenant and b.branch_id = d.branch_id and b.thread_key = v_thread
    and b.key_id is not distinct from d.was_key_id and d.sealed is not null;

  update haive.checkpoint_schemas as s
  set payload = decode(d.payload, 'base64'), key_id = d.key_id
  from jsonb_to_recordset(p_schemas) as d (hash text, was_key_id text, payload text, key_id text)
  where
    -- Schemas are shared by all of the tenant: a member must not replace them.
    v_caller.actor is null
    and s.tenant_id = v_caller.tenant and s.hash = decode(d.hash, 'hex')
    and s.key_id is not distinct from d.was_key_id;

  delete from haive.checkpoint_writes as w
  where
    w.tenant_id = v_caller.tenant and w.thread_key = v_thread and w.checkpoint_id = any(p_remove);
  delete from haive.checkpoints as c
  where c.id = any(p_remove) and c.thread_key = v_thread and c.tenant_id = v_caller.tenant;
  get diagnostics v_removed = row_count;
  -- Where nothing goes, each row is for itself: one that was changed meanwhile stays as it is.
  if
    (
      cardinality(p_remove) > 0
      and v_replaced <> coalesce(jsonb_array_length(p_replace), 0)
    )
    or exists (
      select from haive.branches as b
      join haive.checkpoints as c on c.tenant_id = b.tenant_id and c.branch_id = b.branch_id
      where
        b.thread_key = v_thread and b.tenant_id = v_caller.tenant
        and (c.parent_id = any(p_remove) or c.base_id = any(p_remove))
    )
    -- Somebody else may have removed what was to become a parent.
    or exists (
      select from jsonb_to_recordset(p_replace) as d (id uuid)
      join haive.checkpoints as c
        on c.id = d.id and c.thread_key = v_thread and c.tenant_id = v_caller.tenant
      where
        c.parent_id is not null
        and not exists (
          select from haive.checkpoints as p
          where
            p.id = c.parent_id and p.thread_key = v_thread and p.tenant_id = v_caller.tenant
        )
    )
  then
    raise exception using
      errcode = 'PT409',
      message = 'the thread was changed meanwhile',
      hint = 'Plan anew.';
  end if;
  -- A branch that has lost all of its own goes, unless another one begins in it.
  delete from haive.branches as b
  using jsonb_to_recordset(p_branches) as d (branch_id uuid, was_head_id uuid)
  where
    b.tenant_id = v_caller.tenant and b.branch_id = d.branch_id and b.thread_key = v_thread
    and d.was_head_id is not null and b.name <> 'main'
    and not exists (
      select from haive.checkpoints as c
      where c.tenant_id = b.tenant_id and c.branch_id = b.branch_id
    )
    and not exists (
      select from haive.branches as o
      where
        o.thread_key = v_thread and o.tenant_id = b.tenant_id and o.root_branch_id = b.branch_id
    );
  if v_removed > 0 then
    -- Each call of a subgraph has a namespace of its own, which goes with the last that is in it.
    delete from haive.threads as t
    where
      t.thread_key = v_thread and t.tenant_id = v_caller.tenant and t.namespace <> ''
      and not exists (
        select from haive.branches as b
        join haive.checkpoints as c on c.tenant_id = b.tenant_id and c.branch_id = b.branch_id
        where b.tenant_id = t.tenant_id and b.thread_key = t.thread_key
      )
      and not exists (
        select from haive.checkpoint_writes as w
        where w.tenant_id = t.tenant_id and w.thread_key = t.thread_key
      );
    if found then
      -- Told of a part that is left: readers find no events of what is gone.
      select t.thread_key into v_left
      from haive.threads as t
      where t.thread_id = p_thread_id and t.tenant_id = v_caller.tenant
      order by t.namespace
      limit 1;
      insert into haive.events (tenant_id, kind, thread_key)
      values (
        v_caller.tenant,
        case when v_left is null then 'thread.deleted' else 'checkpoints.pruned' end,
        coalesce(v_left, v_thread)
      );
    else
      insert into haive.events (tenant_id, kind, thread_key)
      values (v_caller.tenant, 'checkpoints.pruned', v_thread);
    end if;
  end if;
  return json_build_object('removed', v_removed, 'replaced', v_replaced);
end;
$$;

alter function haive_private.rewrite_checkpoints(
  text, text, text, uuid[], jsonb, jsonb, jsonb, jsonb
) owner to haive_writer;

comment on function haive_private.rewrite_checkpoints(
  text, text, text, uuid[], jsonb, jsonb, jsonb, jsonb
) is 'What haive.rewrite_checkpoints does, for a caller without rights on the tables.';

create or replace function haive.rewrite_checkpoints(
  thread_id text,
  namespace text default '',
  remove uuid[] default '{}',
  replace jsonb default '[]',
  writes jsonb default '[]',
  branches jsonb default '[]',
  schemas jsonb default '[]',
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.rewrite_checkpoints(
    rewrite_checkpoints.tenant, rewrite_checkpoints.thread_id, rewrite_checkpoints.namespace,
    rewrite_checkpoints.remove, rewrite_checkpoints.replace, rewrite_checkpoints.writes,
    rewrite_checkpoints.branches, rewrite_checkpoints.schemas
  )
$$;

comment on function haive.rewrite_checkpoints(text, text, uuid[], jsonb, jsonb, jsonb, jsonb, text) is
'Removes checkpoints of a thread and replaces how others, with their writes, branches and schemas, are '
'stored, all at once. What they say does not change. The head of a branch is removed only where '
'branches names it: {branch_id, was_head_id, head_id}. A namespace goes with the last that is in it.';
