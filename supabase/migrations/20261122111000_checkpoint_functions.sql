-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it; 900_grants takes this away again.
grant usage, create on schema haive_private to haive_writer;

-- A thread has one owner, in all of its namespaces: whoever began it. Nobody else gets in, neither by
-- a part of it that is not there yet nor by being there first, before a service names the user.
create or replace function haive_private.open_thread(
  p_tenant text,
  p_actor text,
  p_user_id text,
  p_thread_id text,
  p_namespace text
)
returns uuid
language plpgsql
volatile
security definer
set search_path = ''
set enable_seqscan = off
as $$
declare
  v_key uuid;
  v_owner text;
begin
  select t.thread_key, t.user_id into v_key, v_owner
  from haive.threads as t
  where t.thread_id = p_thread_id and t.namespace = p_namespace and t.tenant_id = p_tenant;
  if not found then
    -- Parts that begin at the same time come one after the other, to find the same owner.
    perform pg_advisory_xact_lock(hashtextextended(p_tenant || '/' || p_thread_id, 0));
    select t.user_id into v_owner
    from haive.threads as t
    where t.thread_id = p_thread_id and t.tenant_id = p_tenant
    limit 1;
    if not found then
      v_owner := coalesce(p_actor, p_user_id);
    end if;
    insert into haive.threads (tenant_id, thread_id, namespace, user_id)
    values (p_tenant, p_thread_id, p_namespace, v_owner)
    on conflict do nothing;
    select t.thread_key, t.user_id into v_key, v_owner
    from haive.threads as t
    where t.thread_id = p_thread_id and t.namespace = p_namespace and t.tenant_id = p_tenant;
  end if;
  if
    (p_actor is not null and v_owner is distinct from p_actor)
    or (p_user_id is not null and v_owner is distinct from p_user_id)
  then
    raise exception using
      errcode = 'PT403',
      message = 'the thread is another user''s',
      hint = 'Choose thread ids that nobody else uses.';
  end if;
  return v_key;
end;
$$;

alter function haive_private.open_thread(text, text, text, text, text) owner to haive_writer;

comment on function haive_private.open_thread(text, text, text, text, text) is
'The key of a thread, which is made where it is not there yet, for the one whose it is.';

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

-- The frames that some checkpoints are decoded from: they themselves and, of a delta, its ancestors
-- up to the next whole state. Each comes once, in the order in which they are decoded.
create or replace function haive_private.checkpoint_frames(
  p_tenant text, p_branch_ids uuid[], p_seqs bigint[]
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
begin
  return (
    with recursive chain as (
      select c.thread_key, c.id, c.parent_id, c.codec, c.branch_id, c.seq
      from unnest(p_branch_ids, p_seqs) as p (branch_id, seq)
      cross join lateral (
        select c.* from haive.checkpoints as c
        where c.tenant_id = p_tenant and c.branch_id = p.branch_id and c.seq = p.seq
        limit 1 -- or an empty table is planned to be read whole for each row
      ) as c
      union -- and not all: deltas of a page share their ancestors
      select c.thread_key, c.id, c.parent_id, c.codec, c.branch_id, c.seq
      from chain as k
      cross join lateral (
        select c.* from haive.checkpoints as c
        where c.id = k.parent_id and c.thread_key = k.thread_key and c.tenant_id = p_tenant
        limit 1
      ) as c
      where k.codec = 2
    )
    select coalesce(
      json_agg(
        json_build_object(
          'thread_key', c.thread_key, 'id', c.id, 'parent_id', c.parent_id, 'codec', c.codec::int2,
          'size', c.size, 'key_id', c.key_id::text,
          'payload', replace(encode(c.payload, 'base64'), e'\n', '')
        )
        order by c.seq
      ),
      '[]'
    )
    from chain as k
    cross join lateral (
      select c.* from haive.checkpoints as c
      where c.tenant_id = p_tenant and c.branch_id = k.branch_id and c.seq = k.seq
      limit 1
    ) as c
  );
end;
$$;

comment on function haive_private.checkpoint_frames(text, uuid[], bigint[]) is
'What the SDK needs to decode some checkpoints.';

create or replace function haive_private.checkpoint_write_docs(
  p_tenant text, p_branch_ids uuid[], p_seqs bigint[]
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    select coalesce(
      json_agg(
        json_build_object(
          'thread_key', w.thread_key, 'checkpoint_id', w.checkpoint_id, 'task_id', w.task_id,
          'idx', w.idx, 'channel', w.channel::text, 'task_path', w.task_path::text,
          'codec', w.codec::int2, 'size', w.size, 'key_id', w.key_id::text,
          'payload', replace(encode(w.payload, 'base64'), e'\n', '')
        )
        order by w.task_path, w.task_id, w.idx
      ),
      '[]'
    )
    from unnest(p_branch_ids, p_seqs) as p (branch_id, seq)
    join haive.checkpoints as c
      on c.tenant_id = p_tenant and c.branch_id = p.branch_id and c.seq = p.seq
    join haive.checkpoint_writes as w
      on w.tenant_id = p_tenant and w.thread_key = c.thread_key and w.checkpoint_id = c.id
  );
end;
$$;

comment on function haive_private.checkpoint_write_docs(text, uuid[], bigint[]) is
'The pending writes of some checkpoints, by task path, task and place.';

-- One round trip and, where the parent is the head of the branch, three statements. Whoever comes
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
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_thread uuid;
  v_branch_id uuid;
  v_branch text;
  v_opened record;
  v_seq bigint;
  v_at timestamptz;
begin
  select t.thread_key into v_thread
  from haive.threads as t
  where
    t.thread_id = p_thread_id and t.namespace = p_namespace and t.tenant_id = v_caller.tenant
    and (v_caller.actor is null or t.user_id = v_caller.actor)
    and (p_user_id is null or t.user_id = p_user_id);
  update haive.branches as b
  set head_id = p_id, updated_at = now()
  where
    b.thread_key = v_thread and b.name = p_branch and b.tenant_id = v_caller.tenant
    and b.head_id is not distinct from p_parent_id
    and (p_parent_id is not null or p_codec <> 2)
  returning b.branch_id, b.name into v_branch_id, v_branch;
  if not found then
    if p_codec = 2 and p_parent_id is null then
      raise exception using
        errcode = 'PT422',
        message = 'a delta has a parent',
        hint = 'Send a state without a parent whole.';
    end if;
    v_opened := haive_private.open_branch(
      v_caller.tenant, v_caller.actor, p_user_id, p_thread_id, p_namespace, p_branch, p_fork,
      p_id, p_parent_id, p_codec, p_payload
    );
    if v_opened.outcome = 'conflict' then
      return json_build_object(
        'branch', v_opened.branch, 'conflict', true, 'head_id', v_opened.head_id
      );
    end if;
    v_thread := v_opened.thread_key;
    v_branch_id := v_opened.branch_id;
    v_branch := v_opened.branch;
    if v_opened.outcome = 'same' then
      select c.seq, c.created_at into v_seq, v_at from haive.checkpoints as c
      where c.id = p_id and c.thread_key = v_thread and c.tenant_id = v_caller.tenant;
    end if;
  end if;
  if v_seq is null then
    if p_schema is not null then
      insert into haive.checkpoint_schemas (tenant_id, hash, payload, key_id)
      values (v_caller.tenant, p_schema_hash, p_schema, p_key_id)
      on conflict do nothing;
    end if;
    insert into haive.checkpoints (
      tenant_id, branch_id, thread_key, id, parent_id, size, codec, depth, failed, key_id,
      schema_hash, tags, metadata, search, sealed, payload
    )
    values (
      v_caller.tenant, v_branch_id, v_thread, p_id, p_parent_id, p_size, p_codec,
      case when p_codec = 2 then least(greatest(p_depth, 1), 32767) else 0 end, p_failed,
      p_key_id, p_schema_hash, p_tags, p_metadata, p_search, p_sealed, p_payload
    )
    returning seq, created_at into v_seq, v_at;
    insert into haive.events (tenant_id, kind, thread_key, checkpoint_id)
    values (v_caller.tenant, 'checkpoint.saved', v_thread, p_id);
  end if;
  return json_build_object(
    'branch', v_branch, 'branch_id', v_branch_id, 'seq', v_seq,
    'created_at', v_at,
    'count', case
      when p_count_failed is not null then (
        -- OFFSET: a join is planned, where tables are empty yet, to read all branches there are.
        select sum(l.checkpoints)
        from haive.branches as b
        cross join lateral (
          select count(*) as checkpoints
          from haive.checkpoints as c
          where
            c.tenant_id = v_caller.tenant and c.branch_id = b.branch_id
            and (p_count_failed or not c.failed)
          offset 0
        ) as l
        where b.thread_key = v_thread and b.tenant_id = v_caller.tenant
      )
    end
  );
end;
$$;

alter function haive_private.save_checkpoint(
  text, text, text, text, text, uuid, uuid, bytea, smallint, int, int, jsonb, text[], jsonb,
  bytea, text, bytea, bytea, boolean, text, boolean
) owner to haive_writer;

comment on function haive_private.save_checkpoint(
  text, text, text, text, text, uuid, uuid, bytea, smallint, int, int, jsonb, text[], jsonb,
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
    save_checkpoint.payload, save_checkpoint.codec, save_checkpoint.depth, save_checkpoint.size,
    save_checkpoint.metadata, save_checkpoint.tags, save_checkpoint.search, save_checkpoint.sealed, save_checkpoint.key_id,
    save_checkpoint.schema_hash, save_checkpoint.schema, save_checkpoint.failed,
    save_checkpoint.user_id, save_checkpoint.count_failed
  )
$$;

comment on function haive.save_checkpoint(
  text, uuid, bytea, int, text, text, text, uuid, smallint, int, jsonb, text[], jsonb, bytea,
  text, bytea, bytea, boolean, text, boolean, text
) is
'Saves a checkpoint after parent_id, which must be the head of the branch: else the answer is '
'{conflict, head_id} and nothing is saved, or it begins the branch named by fork. Returns branch, '
'branch_id, seq, created_at and, with count_failed, how many checkpoints the thread has, '
'failed ones among them or not. The same id with the same content is the same checkpoint.';

-- One function for history, search and states, so that each is one round trip. With states it also
-- answers every frame that the found ones are decoded from, each once.
create or replace function haive.find_checkpoints(
  thread_id text default null,
  namespace text default '',
  branch text default null,
  checkpoint_id uuid default null,
  tags text[] default null,
  failed boolean default null,
  created_after timestamptz default null,
  created_before timestamptz default null,
  metadata jsonb default null,
  search jsonb default null,
  before_id uuid default null,
  before_seq bigint default null,
  page_size int default 100,
  details boolean default true,
  states boolean default false,
  writes boolean default false,
  tenant text default null
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_caller record := haive_private.enter_tenant(find_checkpoints.tenant, false);
  v_before bigint := coalesce(find_checkpoints.before_seq, 9223372036854775807);
  v_threads uuid[];
  v_branches uuid[];
  v_from bigint[];
  v_upto bigint[];
  v_seqs bigint[];
  v_places uuid[];
  v_by_id boolean := false;
  v_everywhere boolean := find_checkpoints.search is not null and coalesce(
    find_checkpoints.thread_id, find_checkpoints.branch, find_checkpoints.checkpoint_id::text,
    find_checkpoints.before_id::text
  ) is null;
  v_checkpoints json;
  v_next bigint;
begin
  if (find_checkpoints.page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on with before_seq.';
  end if;

  if find_checkpoints.thread_id is not null and find_checkpoints.namespace is not null then
    v_threads := array(
      select t.thread_key from haive.threads as t
      where
        t.thread_id = find_checkpoints.thread_id and t.namespace = find_checkpoints.namespace
        and t.tenant_id = v_caller.tenant
        and (v_caller.actor is null or t.user_id = v_caller.actor)
    );
  elsif
    (find_checkpoints.checkpoint_id is null or find_checkpoints.thread_id is not null)
    and not v_everywhere
  then
    v_threads := array(
      select t.thread_key from haive.threads as t
      where
        t.tenant_id = v_caller.tenant
        and (find_checkpoints.thread_id is null or t.thread_id = find_checkpoints.thread_id)
        and (find_checkpoints.namespace is null or t.namespace = find_checkpoints.namespace)
        and (v_caller.actor is null or t.user_id = v_caller.actor)
    );
  end if;

  if find_checkpoints.before_id is not null then
    select least(v_before, max(c.seq)), max(c.seq) is null into v_before, v_by_id
    from haive.checkpoints as c
    where
      c.id = find_checkpoints.before_id and c.thread_key = any(v_threads)
      and c.tenant_id = v_caller.tenant;
  end if;

  -- Where to look: parts of branches.
  if find_checkpoints.checkpoint_id is not null then
    select array_agg(c.branch_id), array_agg(c.seq), array_agg(c.seq)
    into v_branches, v_from, v_upto
    from haive.checkpoints as c
    where
      c.id = find_checkpoints.checkpoint_id and c.tenant_id = v_caller.tenant
      and (v_threads is null or c.thread_key = any(v_threads))
      and (
        v_caller.actor is null
        or exists (
          select from haive.threads as t
          where
            t.tenant_id = c.tenant_id and t.thread_key = c.thread_key
            and t.user_id = v_caller.actor
        )
      );
  elsif v_everywhere then
    -- In all threads: by what the state holds, for which there is an index (service keys use it).
    select array_agg(f.branch_id), array_agg(f.seq), array_agg(f.seq)
    into v_branches, v_from, v_upto
    from (
      select c.branch_id, c.seq
      from jsonb_array_elements(find_checkpoints.search) as p (pattern)
      cross join lateral (
        select c.branch_id, c.seq
        from haive.checkpoints as c
        where
          c.tenant_id = v_caller.tenant and c.search @> p.pattern and c.seq < v_before
          and (find_checkpoints.failed is null or c.failed = find_checkpoints.failed)
          and (find_checkpoints.tags is null or c.tags @> find_checkpoints.tags)
          and (find_checkpoints.created_after is null or c.created_at >= find_checkpoints.created_after)
          and (find_checkpoints.created_before is null or c.created_at < find_checkpoints.created_before)
          and (find_checkpoints.metadata is null or c.metadata @> find_checkpoints.metadata)
          and exists (
            select from haive.threads as t
            where
              t.tenant_id = c.tenant_id and t.thread_key = c.thread_key
              and (find_checkpoints.namespace is null or t.namespace = find_checkpoints.namespace)
              and (v_caller.actor is null or t.user_id = v_caller.actor)
          )
        offset 0
      ) as c
      group by c.branch_id, c.seq
      order by c.seq desc
      limit find_checkpoints.page_size + 1
    ) as f;
  elsif find_checkpoints.branch is null then
    select array_agg(b.branch_id) into v_branches
    from unnest(v_threads) as k (thread_key)
    cross join lateral (
      select b.branch_id from haive.branches as b
      where b.thread_key = k.thread_key and b.tenant_id = v_caller.tenant
      offset 0
    ) as b;
  else
    -- A branch, and what lies before the place where it left another one.
    with recursive lines as (
      select b.branch_id, b.root_branch_id, b.root_seq, null::bigint as upto
      from haive.branches as b
      where
        b.thread_key = any(v_threads) and b.tenant_id = v_caller.tenant
        and find_checkpoints.branch in (b.name, b.branch_id::text)
      union all
      select b.branch_id, b.root_branch_id, b.root_seq, l.root_seq
      from lines as l
      join haive.branches as b on b.branch_id = l.root_branch_id and b.tenant_id = v_caller.tenant
    )
    select array_agg(l.branch_id), array_agg(l.upto) into v_branches, v_upto from lines as l;
  end if;

  -- LIMIT and OFFSET keep what is looked up apart from what it is looked up for: a join is planned,
  -- where tables are empty yet, to read all rows of the tenant.
  with lines as materialized (
    select l.branch_id, l.from_seq, l.upto, b.name, t.thread_id, t.namespace
    from unnest(v_branches, v_from, v_upto) as l (branch_id, from_seq, upto)
    cross join lateral (
      select b.name, b.thread_key from haive.branches as b
      where b.branch_id = l.branch_id and b.tenant_id = v_caller.tenant
      limit 1
    ) as b
    cross join lateral (
      select t.thread_id, t.namespace from haive.threads as t
      where t.thread_key = b.thread_key and t.tenant_id = v_caller.tenant
      limit 1
    ) as t
  ),
  page as materialized (
    select
      c.*, row_number() over () as place,
      sum(octet_length(c.payload)) over (order by c.seq desc) - octet_length(c.payload) as bytes_before
    from (
      select l.name, l.thread_id, l.namespace, c.*
      from lines as l
      cross join lateral (
        select c.*
        from haive.checkpoints as c
        where
          c.tenant_id = v_caller.tenant and c.branch_id = l.branch_id
          and c.seq < v_before and c.seq >= coalesce(l.from_seq, 0)
          and c.seq <= coalesce(l.upto, 9223372036854775807)
          -- Of another namespace: its ids are of the same clock, so they tell what was before.
          and (not v_by_id or c.id < find_checkpoints.before_id)
          and (find_checkpoints.failed is null or c.failed = find_checkpoints.failed)
          and (find_checkpoints.tags is null or c.tags @> find_checkpoints.tags)
          and (find_checkpoints.created_after is null or c.created_at >= find_checkpoints.created_after)
          and (find_checkpoints.created_before is null or c.created_at < find_checkpoints.created_before)
          and (find_checkpoints.metadata is null or c.metadata @> find_checkpoints.metadata)
          and (
            find_checkpoints.search is null
            or c.search @> any(array(select jsonb_array_elements(find_checkpoints.search)))
          )
        order by c.seq desc
        limit find_checkpoints.page_size + 1
      ) as c
      order by c.seq desc
      limit find_checkpoints.page_size + 1
    ) as c
  )
  select
    -- Of a row, as its types are looked up once: 200 checkpoints are built in 0.75 ms, by
    -- json_build_object in 1.07.
    json_agg(
      (
        select d
        from (
          values (
            c.id, c.thread_id, c.namespace, c.thread_key, c.name, c.seq, c.parent_id,
            c.created_at, c.size, octet_length(c.payload), c.depth, c.failed, c.key_id,
            encode(c.schema_hash, 'hex'),
            case when find_checkpoints.details then c.tags::text[] end,
            case when find_checkpoints.details then c.metadata::jsonb end,
            case
              when find_checkpoints.details and find_checkpoints.states and c.key_id is null
                then c.search
            end,
            case when find_checkpoints.details then encode(c.sealed, 'base64') end
          )
        ) as d (
          id, thread_id, namespace, thread_key, branch, seq, parent_id, created_at, size, bytes,
          depth, failed, key_id, schema_hash, tags, metadata, search, sealed
        )
      )
      order by c.place
    ),
    array_agg(c.branch_id), array_agg(c.seq),
    case when (select count(*) from page as p) > count(*) then min(c.seq) end
  into v_checkpoints, v_places, v_seqs, v_next
  from page as c
  where
    c.place <= find_checkpoints.page_size
    -- An answer of json is at most 1 GB: states come until there are 32 MiB of them.
    and (
      c.bytes_before < 33554432 or not find_checkpoints.states
      or find_checkpoints.checkpoint_id is not null
    );

  return json_build_object(
    'checkpoints', coalesce(v_checkpoints, '[]'),
    'now', now(),
    'next_seq', v_next,
    'frames', case
      when find_checkpoints.states
        then haive_private.checkpoint_frames(v_caller.tenant, v_places, v_seqs)
    end,
    'writes', case
      when find_checkpoints.writes
        then haive_private.checkpoint_write_docs(v_caller.tenant, v_places, v_seqs)
    end
  );
end;
$$;

comment on function haive.find_checkpoints(
  text, text, text, uuid, text[], boolean, timestamptz, timestamptz, jsonb, jsonb, uuid, bigint,
  int, boolean, boolean, boolean, text
) is
'Checkpoints of a thread, of one of its branches with what lies before it, or by id, newest first: '
'{checkpoints, now, next_seq, frames, writes}. search is a list of patterns of which one must match; '
'with states, a page ends after 32 MiB of them: next_seq tells that there is more. What a checkpoint '
'is found by comes with states.';

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

-- Pending writes are found by their checkpoints, but their checkpoints need not be saved yet.
create or replace function haive.list_checkpoint_writes(
  thread_id text,
  namespace text default '',
  after_checkpoint_id uuid default null,
  after_task_id uuid default null,
  after_idx int default null,
  page_size int default 1000,
  tenant text default null
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_caller record := haive_private.enter_tenant(list_checkpoint_writes.tenant, false);
begin
  if (list_checkpoint_writes.page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on after the last one.';
  end if;
  return (
    select coalesce(
      json_agg(
        json_build_object(
          'thread_key', w.thread_key, 'checkpoint_id', w.checkpoint_id, 'task_id', w.task_id,
          'idx', w.idx, 'channel', w.channel::text, 'task_path', w.task_path::text,
          'codec', w.codec::int2, 'size', w.size, 'key_id', w.key_id::text,
          'payload', replace(encode(w.payload, 'base64'), e'\n', '')
        )
        order by w.checkpoint_id, w.task_id, w.idx
      ),
      '[]'
    )
    from (
      select
        p.*,
        sum(octet_length(p.payload)) over (order by p.checkpoint_id, p.task_id, p.idx)
        - octet_length(p.payload) as bytes_before
      from haive.threads as t
      cross join lateral (
        select w.*
        from haive.checkpoint_writes as w
        where
          w.tenant_id = t.tenant_id and w.thread_key = t.thread_key
          and (w.checkpoint_id, w.task_id, w.idx::int) > (
            coalesce(
              list_checkpoint_writes.after_checkpoint_id, '00000000-0000-0000-0000-000000000000'
            ),
            coalesce(
              list_checkpoint_writes.after_task_id, '00000000-0000-0000-0000-000000000000'
            ),
            coalesce(list_checkpoint_writes.after_idx, -2147483648)
          )
        order by w.checkpoint_id, w.task_id, w.idx
        limit list_checkpoint_writes.page_size
      ) as p
      where
        t.tenant_id = v_caller.tenant and t.thread_id = list_checkpoint_writes.thread_id
        and t.namespace = list_checkpoint_writes.namespace
        and (v_caller.actor is null or t.user_id = v_caller.actor)
    ) as w
    where w.bytes_before < 33554432 -- as in find_checkpoints
  );
end;
$$;

comment on function haive.list_checkpoint_writes(text, text, uuid, uuid, int, int, text) is
'The pending writes of a thread by checkpoint, task and place, also where the checkpoint is not saved '
'yet: at most page_size, ending after 32 MiB; empty when there are no more.';

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
  -- Whoever prunes holds the branches of the thread: then the root may be gone.
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

create or replace function haive.list_branches(
  thread_id text, namespace text default '', tenant text default null
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(list_branches.tenant, false);
begin
  return (
    select coalesce(
      json_agg(
        json_build_object(
          'branch_id', b.branch_id, 'name', b.name, 'head_id', b.head_id,
          'root_id', (
            select c.id from haive.checkpoints as c
            where
              c.tenant_id = b.tenant_id and c.branch_id = b.root_branch_id and c.seq <= b.root_seq
            order by c.seq desc
            limit 1
          ),
          'metadata', b.metadata::jsonb, 'sealed', encode(b.sealed, 'base64'), 'key_id', b.key_id,
          'created_at', b.created_at, 'updated_at', b.updated_at
        )
        order by b.created_at, b.branch_id
      ),
      '[]'
    )
    from haive.threads as t
    join haive.branches as b on b.tenant_id = t.tenant_id and b.thread_key = t.thread_key
    where
      t.thread_id = list_branches.thread_id and t.namespace = list_branches.namespace
      and t.tenant_id = v_caller.tenant
      and (v_caller.actor is null or t.user_id = v_caller.actor)
  );
end;
$$;

comment on function haive.list_branches(text, text, text) is
'The branches of a thread, oldest first, with their heads and where they begin.';

create or replace function haive.list_threads(
  user_id text default null,
  thread_id text default null,
  page_size int default 100,
  page_after text default null,
  tenant text default null
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(list_threads.tenant, false);
begin
  if (list_threads.page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on with page_after, the last thread_id.';
  end if;
  return (
    select coalesce(
      json_agg(
        json_build_object(
          'thread_id', p.thread_id, 'user_id', p.user_id, 'namespaces', p.namespaces,
          'branches', s.branches, 'checkpoints', s.checkpoints, 'bytes', s.bytes,
          'created_at', p.created_at, 'updated_at', s.updated_at
        )
        order by p.thread_id
      ),
      '[]'
    )
    from (
      select
        t.thread_id::text as thread_id, min(t.user_id::text) as user_id,
        array_agg(t.namespace::text order by t.namespace) as namespaces,
        array_agg(t.thread_key) as keys, min(t.created_at) as created_at
      from haive.threads as t
      where
        t.tenant_id = v_caller.tenant
        and (list_threads.page_after is null or t.thread_id > list_threads.page_after)
        and (list_threads.thread_id is null or t.thread_id = list_threads.thread_id)
        and (list_threads.user_id is null or t.user_id = list_threads.user_id)
        and (v_caller.actor is null or t.user_id = v_caller.actor)
      group by t.thread_id
      order by t.thread_id
      limit list_threads.page_size
    ) as p
    cross join lateral (
      select
        count(distinct b.branch_id) as branches, count(c.id) as checkpoints,
        coalesce(sum(octet_length(c.payload)), 0) as bytes, max(b.updated_at) as updated_at
      from haive.branches as b
      left join haive.checkpoints as c
        on c.tenant_id = b.tenant_id and c.branch_id = b.branch_id
      where b.tenant_id = v_caller.tenant and b.thread_key = any(p.keys)
    ) as s
  );
end;
$$;

comment on function haive.list_threads(text, text, int, text, text) is
'The threads of the tenant by their names, with how many checkpoints they have and of what size.';

-- What may change of a checkpoint: its tags, and whether it failed. Of a sealed one the tags lie in
-- the ciphertext: the client sends a new one, made from the one that it names.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.annotate_checkpoint(
  p_tenant text,
  p_checkpoint_id uuid,
  p_thread_id text,
  p_namespace text,
  p_add text[],
  p_remove text[],
  p_failed boolean,
  p_sealed bytea,
  p_was_sealed bytea,
  p_search jsonb
)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_keys record;
  v_row haive.checkpoints;
begin
  select array_agg(c.thread_key) as threads, count(*) as n into v_keys
  from haive.checkpoints as c
  join haive.threads as t on t.tenant_id = c.tenant_id and t.thread_key = c.thread_key
  where
    c.id = p_checkpoint_id and c.tenant_id = v_caller.tenant
    and (p_thread_id is null or (t.thread_id = p_thread_id and t.namespace = p_namespace))
    and (v_caller.actor is null or t.user_id = v_caller.actor);
  if v_keys.n = 0 then
    raise exception using
      errcode = 'PT404',
      message = format('no checkpoint %s', p_checkpoint_id),
      hint = 'It was pruned, belongs to another tenant, or is not the caller''s to see.';
  elsif v_keys.n > 1 then
    raise exception using
      errcode = 'PT422',
      message = 'several threads have a checkpoint of this id, for one is a copy',
      hint = 'Pass thread_id too.';
  end if;
  update haive.checkpoints as c
  set
    tags = case
      when c.key_id is null then (
        select array_agg(u.tag order by u.place)
        from (
          select a.tag, min(a.place) as place
          from unnest(c.tags || p_add) with ordinality as a (tag, place)
          where a.tag <> all(coalesce(p_remove, '{}'))
          group by a.tag
        ) as u
      )
    end,
    failed = coalesce(p_failed, c.failed),
    sealed = coalesce(p_sealed, c.sealed),
    search = coalesce(p_search, c.search)
  where
    c.id = p_checkpoint_id and c.thread_key = v_keys.threads[1] and c.tenant_id = v_caller.tenant
    and (p_sealed is null or c.sealed = p_was_sealed)
    and (c.key_id is null or (p_add is null and p_remove is null))
  returning * into v_row;
  if not found then
    return false;
  end if;
  insert into haive.events (tenant_id, kind, thread_key, checkpoint_id)
  values (v_caller.tenant, 'checkpoint.changed', v_row.thread_key, v_row.id);
  return true;
end;
$$;

alter function haive_private.annotate_checkpoint(
  text, uuid, text, text, text[], text[], boolean, bytea, bytea, jsonb
) owner to haive_writer;

comment on function haive_private.annotate_checkpoint(
  text, uuid, text, text, text[], text[], boolean, bytea, bytea, jsonb
) is 'What haive.annotate_checkpoint does, for a caller without rights on the tables.';

create or replace function haive.annotate_checkpoint(
  checkpoint_id uuid,
  thread_id text default null,
  namespace text default '',
  add_tags text[] default null,
  remove_tags text[] default null,
  failed boolean default null,
  sealed bytea default null,
  was_sealed bytea default null,
  search jsonb default null,
  tenant text default null
)
returns boolean
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.annotate_checkpoint(
    annotate_checkpoint.tenant, annotate_checkpoint.checkpoint_id, annotate_checkpoint.thread_id,
    annotate_checkpoint.namespace, annotate_checkpoint.add_tags, annotate_checkpoint.remove_tags,
    annotate_checkpoint.failed, annotate_checkpoint.sealed, annotate_checkpoint.was_sealed,
    annotate_checkpoint.search
  )
$$;

comment on function haive.annotate_checkpoint(
  uuid, text, text, text[], text[], boolean, bytea, bytea, jsonb, text
) is
'Adds and removes tags, and marks a checkpoint as failed or not. False: its sealed part was changed '
'by somebody else meanwhile.';

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
  v_replaced bigint;
  v_removed bigint;
begin
  select t.thread_key into v_thread
  from haive.threads as t
  where
    t.thread_id = p_thread_id and t.namespace = p_namespace and t.tenant_id = v_caller.tenant
    and (v_caller.actor is null or t.user_id = v_caller.actor);
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
    depth = case when d.codec = 2 then d.depth else 0 end,
    payload = decode(d.payload, 'base64'),
    sealed = coalesce(decode(d.sealed, 'base64'), c.sealed),
    metadata = case when d.sealed is null then c.metadata end,
    tags = case when d.sealed is null then c.tags end,
    search = coalesce(d.search, c.search)
  from jsonb_to_recordset(p_replace) as d (
    id uuid, parent_id uuid, was_parent_id uuid, was_key_id text, codec int2, size int, depth int2,
    key_id text, payload text, sealed text, was_sealed text, search jsonb
  )
  where
    c.id = d.id and c.thread_key = v_thread and c.tenant_id = v_caller.tenant
    and c.parent_id is not distinct from d.was_parent_id
    and c.key_id is not distinct from d.was_key_id
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
        b.thread_key = v_thread and b.tenant_id = v_caller.tenant and c.parent_id = any(p_remove)
    )
    -- Somebody else may have removed what was to become a parent.
    or exists (
      select from jsonb_to_recordset(p_replace) as d (parent_id uuid)
      where
        d.parent_id is not null
        and not exists (
          select from haive.checkpoints as c
          where
            c.id = d.parent_id and c.thread_key = v_thread and c.tenant_id = v_caller.tenant
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
    insert into haive.events (tenant_id, kind, thread_key)
    values (v_caller.tenant, 'checkpoints.pruned', v_thread);
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
'branches names it: {branch_id, was_head_id, head_id}.';

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
    key_id, schema_hash, tags, metadata, search, sealed, payload
  )
  select
    c.tenant_id, v_new[array_position(v_old, c.branch_id)], v_to, c.id, c.parent_id, c.created_at,
    c.size, c.codec, c.depth, c.failed, coalesce(d.key_id, c.key_id), c.schema_hash, c.tags,
    c.metadata, coalesce(d.search, c.search), coalesce(decode(d.sealed, 'base64'), c.sealed),
    coalesce(decode(d.payload, 'base64'), c.payload)
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
      select from jsonb_to_recordset(p_checkpoints) as d (id uuid, parent_id uuid, was_key_id text)
      where not exists (
        select from haive.checkpoints as c
        where
          c.id = d.id and c.thread_key = v_from.thread_key and c.tenant_id = v_caller.tenant
          and c.key_id = d.was_key_id and c.parent_id is not distinct from d.parent_id
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

create or replace function haive.get_checkpoint_schema(hash bytea, tenant text default null)
returns json
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(get_checkpoint_schema.tenant, false);
begin
  return (
    select json_build_object('payload', encode(s.payload, 'base64'), 'key_id', s.key_id)
    from haive.checkpoint_schemas as s
    where s.tenant_id = v_caller.tenant and s.hash = get_checkpoint_schema.hash
  );
end;
$$;

comment on function haive.get_checkpoint_schema(bytea, text) is
'The JSON Schema that a checkpoint''s schema_hash stands for, as the SDK packed it.';

insert into haive_private.migrations (version, name) values
  ('20261122111000', 'checkpoint_functions')
on conflict do nothing;
