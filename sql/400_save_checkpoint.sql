-- One round trip and, where the parent is the head of the branch, one statement. Whoever comes
-- second gets the winner in the answer, and nothing is written.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.save_checkpoint(
  p_tenant text,
  p_thread_id text,
  p_namespace text,
  p_branch text,
  p_fork text,
  p_id uuid,
  p_parent_id uuid,
  p_payload bytea,
  p_codec smallint,
  p_base_id uuid,
  p_depth int,
  p_size int,
  p_metadata jsonb,
  p_tags text[],
  p_search jsonb,
  p_sealed bytea,
  p_key_id text,
  p_schema_hash bytea,
  p_schema bytea,
  p_failed boolean,
  p_user_id text,
  p_count_failed boolean
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_tenant text := v_caller.tenant;
  v_watch text := current_setting('persistence.watch');
  v_opened record;
  v_thread uuid;
  v_branch_id uuid;
  v_branch text;
  v_seq bigint;
  v_at timestamptz;
  v_same boolean := false;
  v_count bigint;
  v_done text;
  v_counted boolean;
begin
  loop
    -- What the triggers of checkpoints would find in the row is known here: as in append_message.
    if v_watch <> '---' then
      v_done := set_config('persistence.watch', v_watch || '---', true); -- see meter_added
    end if;
    -- One statement in place of four. Its triggers run after all of it.
    with place as (
      update haive.branches as b
      set head_id = p_id, updated_at = now()
      where
        v_branch_id is null
        and b.thread_key = (
          select t.thread_key from haive.threads as t
          where
            t.thread_id = p_thread_id and t.namespace = p_namespace and t.tenant_id = v_tenant
            and (v_caller.actor is null or t.user_id = v_caller.actor)
            and (p_user_id is null or t.user_id = p_user_id)
        )
        and b.name = p_branch and b.tenant_id = v_tenant
        and b.head_id is not distinct from p_parent_id
        and (p_parent_id is not null or p_codec < 2)
      returning b.thread_key, b.branch_id, b.name
    ),
    -- The second time, what open_branch has made ready.
    target as (
      select p.thread_key, p.branch_id, p.name::text as name from place as p
      union all
      select v_thread, v_branch_id, v_branch where v_branch_id is not null
    ),
    told as (
      insert into haive.events (tenant_id, kind, thread_key, checkpoint_id)
      select v_tenant, 'checkpoint.saved', f.thread_key, p_id from target as f
    ),
    saved as (
      insert into haive.checkpoints (
        tenant_id, branch_id, thread_key, id, parent_id, size, codec, depth, failed, key_id,
        schema_hash, tags, metadata, search, sealed, payload, base_id
      )
      select
        v_tenant, f.branch_id, f.thread_key, p_id, p_parent_id, p_size, p_codec,
        case when p_codec >= 2 then least(greatest(p_depth, 1), 32767) else 0 end, p_failed,
        p_key_id, p_schema_hash, p_tags, p_metadata, p_search, p_sealed, p_payload,
        case when p_codec = 3 then p_base_id end
      from target as f
      returning seq, created_at
    )
    select f.thread_key, f.branch_id, f.name, s.seq, s.created_at
    into v_thread, v_branch_id, v_branch, v_seq, v_at
    from target as f cross join saved as s;
    if v_watch <> '---' then
      v_done := set_config('persistence.watch', v_watch, true);
    end if;
    exit when found;
    if p_codec >= 2 and p_parent_id is null then
      raise exception using
        errcode = 'PT422',
        message = 'a delta has a parent',
        hint = 'Send a state without a parent whole.';
    end if;
    v_opened := haive_private.open_branch(
      v_tenant, v_caller.actor, p_user_id, p_thread_id, p_namespace, p_branch, p_fork, p_id,
      p_parent_id, p_codec, p_payload
    );
    if v_opened.outcome = 'conflict' then
      return json_build_object(
        'branch', v_opened.branch, 'conflict', true, 'head_id', v_opened.head_id
      );
    end if;
    v_thread := v_opened.thread_key;
    v_branch_id := v_opened.branch_id;
    v_branch := v_opened.branch;
    v_same := v_opened.outcome = 'same';
    if v_same then
      select c.seq, c.created_at into v_seq, v_at from haive.checkpoints as c
      where c.id = p_id and c.thread_key = v_thread and c.tenant_id = v_tenant;
      exit;
    end if;
  end loop;
  if v_watch like 'm%' and not v_same then
    v_counted := haive_private.meter(
      v_tenant, 0,
      haive_private.checkpoint_bytes(p_payload, p_sealed, p_metadata, p_tags, p_search)
    );
  end if;
  if v_watch like '_w%' and not v_same then
    insert into haive_private.audit_queue (tenant_id, action, object, rows, row_count)
    values (v_tenant, 'insert', 'checkpoints', jsonb_build_object(p_id, v_thread), 1);
  end if;
  -- Only now that the branch is locked, as it is by whoever prunes: what that removed is seen. And in
  -- an if of its own, as the count below: with a subquery an expression is a statement, needed or not.
  if p_codec = 3 and not v_same then
    if not exists (
      select from haive.checkpoints as c
      where c.id = p_base_id and c.thread_key = v_thread and c.tenant_id = v_tenant
    ) then
      raise exception using
        errcode = 'PT404',
        message = format('the thread has no checkpoint %s', p_base_id),
        hint = 'A state is stored against one of the same thread; it may have been pruned.';
    end if;
  end if;
  if p_schema is not null and not v_same then
    insert into haive.checkpoint_schemas (tenant_id, hash, payload, key_id)
    values (v_tenant, p_schema_hash, p_schema, p_key_id)
    on conflict do nothing;
  end if;
  if p_count_failed is not null then
    -- OFFSET: a join is planned, where tables are empty yet, to read all branches there are.
    select sum(l.checkpoints) into v_count
    from haive.branches as b
    cross join lateral (
      select count(*) as checkpoints
      from haive.checkpoints as c
      where
        c.tenant_id = v_tenant and c.branch_id = b.branch_id
        and (p_count_failed or not c.failed)
      offset 0
    ) as l
    where b.thread_key = v_thread and b.tenant_id = v_tenant;
  end if;
  return json_build_object(
    'branch', v_branch, 'branch_id', v_branch_id, 'seq', v_seq, 'created_at', v_at,
    'count', v_count
  );
end;
$$;

alter function haive_private.save_checkpoint(
  text, text, text, text, text, uuid, uuid, bytea, smallint, uuid, int, int, jsonb, text[], jsonb,
  bytea, text, bytea, bytea, boolean, text, boolean
) owner to haive_writer;

comment on function haive_private.save_checkpoint(
  text, text, text, text, text, uuid, uuid, bytea, smallint, uuid, int, int, jsonb, text[], jsonb,
  bytea, text, bytea, bytea, boolean, text, boolean
) is 'What haive.save_checkpoint does, for a caller without rights on the tables.';

create or replace function haive.save_checkpoint(
  thread_id text,
  id uuid,
  payload bytea,
  size int,
  namespace text default '',
  branch text default 'main',
  fork text default null,
  parent_id uuid default null,
  codec smallint default 0,
  base_id uuid default null,
  depth int default 0,
  metadata jsonb default null,
  tags text[] default null,
  search jsonb default null,
  sealed bytea default null,
  key_id text default null,
  schema_hash bytea default null,
  schema bytea default null,
  failed boolean default false,
  user_id text default null,
  count_failed boolean default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.save_checkpoint(
    save_checkpoint.tenant, save_checkpoint.thread_id, save_checkpoint.namespace,
    save_checkpoint.branch, save_checkpoint.fork, save_checkpoint.id, save_checkpoint.parent_id,
    save_checkpoint.payload, save_checkpoint.codec, save_checkpoint.base_id, save_checkpoint.depth, save_checkpoint.size,
    save_checkpoint.metadata, save_checkpoint.tags, save_checkpoint.search, save_checkpoint.sealed, save_checkpoint.key_id,
    save_checkpoint.schema_hash, save_checkpoint.schema, save_checkpoint.failed,
    save_checkpoint.user_id, save_checkpoint.count_failed
  )
$$;

comment on function haive.save_checkpoint(
  text, uuid, bytea, int, text, text, text, uuid, smallint, uuid, int, jsonb, text[], jsonb, bytea,
  text, bytea, bytea, boolean, text, boolean, text
) is
'Saves a checkpoint after parent_id, which must be the head of the branch: else the answer is '
'{conflict, head_id} and nothing is saved, or it begins the branch named by fork. Returns branch, '
'branch_id, seq, created_at and, with count_failed, how many checkpoints the thread has, '
'failed ones among them or not. The same id with the same content is the same checkpoint.';
