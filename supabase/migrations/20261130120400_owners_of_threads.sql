-- A thread's owner is asked for when it is read, as when it is saved to; and a thread that was begun for
-- nobody becomes the first user's whom a service names. A namespace goes with the last checkpoint in it.
-- No row is touched.
grant usage, create on schema haive_private to haive_writer;

-- Their arguments grow, and of two functions of a name a call could be either.
-- squawk-ignore ban-drop-function
drop function haive.find_checkpoints(
  text, text, text, uuid, text[], boolean, timestamptz, timestamptz, jsonb, jsonb, uuid, bigint,
  int, boolean, boolean, boolean, text
);
-- squawk-ignore ban-drop-function
drop function haive_private.find_checkpoints(
  text, text, text, uuid, text[], boolean, timestamptz, timestamptz, jsonb, jsonb, uuid, bigint,
  int, boolean, boolean, boolean, text
);

-- A thread has one owner, in all of its namespaces: whoever began it, or whom a service names first
-- where it was begun for nobody. Nobody else gets in, neither by a part of it that is not there yet
-- nor by being there first, before a service names the user.
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
      v_owner := coalesce(p_actor, p_user_id, haive.current_actor());
    end if;
    insert into haive.threads (tenant_id, thread_id, namespace, user_id)
    values (p_tenant, p_thread_id, p_namespace, v_owner)
    on conflict do nothing;
    select t.thread_key, t.user_id into v_key, v_owner
    from haive.threads as t
    where t.thread_id = p_thread_id and t.namespace = p_namespace and t.tenant_id = p_tenant;
  end if;
  if v_owner is null and p_actor is null and p_user_id is not null then
    -- Begun for nobody: whoever may write to all threads now says whose it is.
    perform pg_advisory_xact_lock(hashtextextended(p_tenant || '/' || p_thread_id, 0));
    perform haive_private.refuse_erased(p_tenant, array[p_user_id]);
    update haive.threads as t set user_id = p_user_id
    where t.thread_id = p_thread_id and t.tenant_id = p_tenant and t.user_id is null;
    select t.user_id into v_owner
    from haive.threads as t
    where t.thread_key = v_key and t.tenant_id = p_tenant;
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

-- One function for history, search and states, so that each is one round trip. With states it also
-- answers every frame that the found ones are decoded from, each once. By column, and payloads as they
-- are: to make JSON of 200 checkpoints, or of the frames of a state, takes longer than to find them.
create or replace function haive_private.find_checkpoints(
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
  user_id text default null,
  tenant text default null,
  out ids uuid[],
  out thread_ids text[],
  out namespaces text[],
  out thread_keys uuid[],
  out branches text[],
  out seqs bigint[],
  out parent_ids uuid[],
  out base_ids uuid[],
  out created_ats timestamptz[],
  out sizes int[],
  out stored int[],
  out depths smallint[],
  out failures boolean[],
  out key_ids text[],
  out hashes bytea[],
  out tag_lists jsonb[],
  out metadatas jsonb[],
  out searches jsonb[],
  out seals bytea[],
  out read_at timestamptz,
  out next_seq bigint,
  out frame_thread_keys uuid[],
  out frame_ids uuid[],
  out frame_parent_ids uuid[],
  out frame_base_ids uuid[],
  out frame_codecs smallint[],
  out frame_sizes int[],
  out frame_key_ids text[],
  out frame_payloads bytea[],
  out written json
)
returns record
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
  -- Of threads that are not named only those of the user are looked at.
  v_whose text := coalesce(
    v_caller.actor,
    case when find_checkpoints.thread_id is null then find_checkpoints.user_id end
  );
  v_before bigint := coalesce(find_checkpoints.before_seq, 9223372036854775807);
  v_threads uuid[];
  v_branches uuid[];
  v_from bigint[];
  v_upto bigint[];
  v_places uuid[];
  v_by_id boolean := false;
  v_everywhere boolean := find_checkpoints.search is not null and coalesce(
    find_checkpoints.thread_id, find_checkpoints.branch, find_checkpoints.checkpoint_id::text,
    find_checkpoints.before_id::text
  ) is null;
begin
  if (find_checkpoints.page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on with before_seq.';
  end if;

  -- Whoever may not save to a thread does not read it either; one of nobody is taken by a save.
  if find_checkpoints.user_id is not null and find_checkpoints.thread_id is not null then
    perform from haive.threads as t
    where
      t.thread_id = find_checkpoints.thread_id and t.tenant_id = v_caller.tenant
      and t.user_id <> find_checkpoints.user_id;
    if found then
      raise exception using
        errcode = 'PT403',
        message = 'the thread is another user''s',
        hint = 'Choose thread ids that nobody else uses.';
    end if;
  end if;

  if find_checkpoints.thread_id is not null and find_checkpoints.namespace is not null then
    v_threads := array(
      select t.thread_key from haive.threads as t
      where
        t.thread_id = find_checkpoints.thread_id and t.namespace = find_checkpoints.namespace
        and t.tenant_id = v_caller.tenant
        and (v_whose is null or t.user_id = v_whose)
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
        and (v_whose is null or t.user_id = v_whose)
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
        v_whose is null
        or exists (
          select from haive.threads as t
          where
            t.tenant_id = c.tenant_id and t.thread_key = c.thread_key
            and t.user_id = v_whose
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
              and (v_whose is null or t.user_id = v_whose)
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

  -- The first save of a thread asks for its head. What is not run is not planned either: in a new session
  -- that is the most of what the call takes.
  if v_branches is not null then
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
    -- In order, and without the payloads, which are a half of the rows' bytes.
    page as materialized (
      select l.name, l.thread_id, l.namespace, c.*
      from lines as l
      cross join lateral (
        select
          c.branch_id, c.seq, c.thread_key, c.id, c.parent_id, c.base_id, c.created_at, c.size,
          octet_length(c.payload) as bytes, c.depth, c.failed, c.key_id, c.schema_hash, c.tags,
          c.metadata, c.search, c.sealed
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
    )
    select
      array_agg(c.id),
      array_agg(c.thread_id::text),
      array_agg(c.namespace::text),
      array_agg(c.thread_key),
      array_agg(c.name::text),
      array_agg(c.seq),
      array_agg(c.parent_id),
      array_agg(c.base_id),
      array_agg(c.created_at),
      array_agg(c.size::int),
      array_agg(c.bytes::int),
      array_agg(c.depth::smallint),
      array_agg(c.failed),
      array_agg(c.key_id::text),
      array_agg(c.schema_hash),
      case when find_checkpoints.details then array_agg(to_jsonb(c.tags::text[])) end,
      case when find_checkpoints.details then array_agg(c.metadata::jsonb) end,
      case
        when find_checkpoints.details and find_checkpoints.states
          then array_agg(case when c.key_id is null then c.search end)
      end,
      case when find_checkpoints.details then array_agg(c.sealed::bytea) end,
      array_agg(c.branch_id),
      case when (select count(*) from page as p) > count(*) then min(c.seq) end
    into
      ids, thread_ids, namespaces, thread_keys, branches, seqs, parent_ids, base_ids, created_ats,
      sizes, stored, depths, failures, key_ids, hashes, tag_lists, metadatas, searches, seals,
      v_places, next_seq
    from (select p.* from page as p order by p.seq desc limit find_checkpoints.page_size) as c
    where
      -- An answer of json is at most 1 GB, and whoever reads it holds the states that are decoded from
      -- it, of which deltas are a small part: states come until there are 32 MiB as they are stored, or
      -- 64 MiB as they are.
      c.seq >= case
        when find_checkpoints.states and find_checkpoints.checkpoint_id is null then (
          select min(w.seq)
          from (
            select
              p.seq, sum(p.bytes) over before - p.bytes as bytes, sum(p.size) over before - p.size as size
            from page as p
            window before as (order by p.seq desc rows unbounded preceding)
          ) as w
          where w.bytes < 33554432 and w.size < 67108864
        )
        else 0
      end;
  end if;

  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'find_checkpoints',
      (
        select jsonb_object_agg(d.id, d.thread_key)
        from unnest(ids, thread_keys) as d (id, thread_key)
      ),
      coalesce(cardinality(ids), 0)
    );
  end if;
  read_at := now();
  if find_checkpoints.states and ids is not null then
    select f.* into
      frame_thread_keys, frame_ids, frame_parent_ids, frame_base_ids, frame_codecs, frame_sizes,
      frame_key_ids, frame_payloads
    from haive_private.checkpoint_frames(v_caller.tenant, v_places, seqs) as f;
  end if;
  if find_checkpoints.writes then
    written := haive_private.checkpoint_write_docs(v_caller.tenant, v_places, seqs);
  end if;
end;
$$;

comment on function haive_private.find_checkpoints(
  text, text, text, uuid, text[], boolean, timestamptz, timestamptz, jsonb, jsonb, uuid, bigint,
  int, boolean, boolean, boolean, text, text
) is
'What haive.find_checkpoints answers, by column and in one snapshot.';

-- Volatile, for a request is counted, and PostgREST lets no other function write; what it reads is read
-- in one snapshot all the same.
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
  user_id text default null,
  tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v record;
begin
  v := haive_private.find_checkpoints(
    find_checkpoints.thread_id, find_checkpoints.namespace, find_checkpoints.branch,
    find_checkpoints.checkpoint_id, find_checkpoints.tags, find_checkpoints.failed,
    find_checkpoints.created_after, find_checkpoints.created_before, find_checkpoints.metadata,
    find_checkpoints.search, find_checkpoints.before_id, find_checkpoints.before_seq,
    find_checkpoints.page_size, find_checkpoints.details, find_checkpoints.states,
    find_checkpoints.writes, find_checkpoints.user_id, find_checkpoints.tenant
  );
  return json_build_object(
    'checkpoints', (
      -- Of a row, as its types are looked up once: 200 checkpoints are built in 0.75 ms, by
      -- json_build_object in 1.07.
      select coalesce(
        json_agg(
          (
            select r
            from (
              values (
                d.id, d.thread_id, d.namespace, d.thread_key, d.branch, d.seq, d.parent_id,
                d.base_id, d.created_at, d.size, d.bytes, d.depth, d.failed, d.key_id,
                encode(d.schema_hash, 'hex'), d.tags, d.metadata, d.search,
                encode(d.sealed, 'base64')
              )
            ) as r (
              id, thread_id, namespace, thread_key, branch, seq, parent_id, base_id, created_at,
              size, bytes, depth, failed, key_id, schema_hash, tags, metadata, search, sealed
            )
          )
        ),
        '[]'
      )
      from unnest(
        v.ids, v.thread_ids, v.namespaces, v.thread_keys, v.branches, v.seqs, v.parent_ids,
        v.base_ids, v.created_ats, v.sizes, v.stored, v.depths, v.failures, v.key_ids, v.hashes,
        v.tag_lists, v.metadatas, v.searches, v.seals
      ) as d (
        id, thread_id, namespace, thread_key, branch, seq, parent_id, base_id, created_at, size,
        bytes, depth, failed, key_id, schema_hash, tags, metadata, search, sealed
      )
    ),
    'now', v.read_at,
    'next_seq', v.next_seq,
    'frames', case
      when find_checkpoints.states then (
        select coalesce(
          json_agg(
            json_build_object(
              'thread_key', f.thread_key, 'id', f.id, 'parent_id', f.parent_id,
              'base_id', f.base_id, 'codec', f.codec, 'size', f.size, 'key_id', f.key_id,
              'payload', replace(encode(f.payload, 'base64'), e'\n', '')
            )
          ),
          '[]'
        )
        from unnest(
          v.frame_thread_keys, v.frame_ids, v.frame_parent_ids, v.frame_base_ids, v.frame_codecs,
          v.frame_sizes, v.frame_key_ids, v.frame_payloads
        ) as f (thread_key, id, parent_id, base_id, codec, size, key_id, payload)
      )
    end,
    'writes', v.written
  );
end;
$$;

comment on function haive.find_checkpoints(
  text, text, text, uuid, text[], boolean, timestamptz, timestamptz, jsonb, jsonb, uuid, bigint,
  int, boolean, boolean, boolean, text, text
) is
'Checkpoints of a thread, of one of its branches with what lies before it, or by id, newest first: '
'{checkpoints, now, next_seq, frames, writes}. search is a list of patterns of which one must match; '
'with states, a page ends after 32 MiB of them as stored, or 64 MiB as they are: next_seq tells that '
'there is more. What a checkpoint is found by comes with states. With user_id a thread that is named '
'must not be another user''s, and else only those of that user are looked at.';

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
    insert into haive.events (tenant_id, kind, thread_key)
    values (v_caller.tenant, 'checkpoints.pruned', v_thread);
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
  end if;
  return json_build_object('removed', v_removed, 'replaced', v_replaced);
end;
$$;

alter function haive_private.rewrite_checkpoints(
  text, text, text, uuid[], jsonb, jsonb, jsonb, jsonb
) owner to haive_writer;

comment on function haive.rewrite_checkpoints(text, text, uuid[], jsonb, jsonb, jsonb, jsonb, text) is
'Removes checkpoints of a thread and replaces how others, with their writes, branches and schemas, are '
'stored, all at once. What they say does not change. The head of a branch is removed only where '
'branches names it: {branch_id, was_head_id, head_id}. A namespace goes with the last that is in it.';

revoke all on function
haive.find_checkpoints(
  text, text, text, uuid, text[], boolean, timestamptz, timestamptz, jsonb, jsonb, uuid, bigint,
  int, boolean, boolean, boolean, text, text
),
haive_private.find_checkpoints(
  text, text, text, uuid, text[], boolean, timestamptz, timestamptz, jsonb, jsonb, uuid, bigint,
  int, boolean, boolean, boolean, text, text
)
from public, anon, authenticated, service_role, haive_client;
grant execute on function
haive.find_checkpoints(
  text, text, text, uuid, text[], boolean, timestamptz, timestamptz, jsonb, jsonb, uuid, bigint,
  int, boolean, boolean, boolean, text, text
),
haive_private.find_checkpoints(
  text, text, text, uuid, text[], boolean, timestamptz, timestamptz, jsonb, jsonb, uuid, bigint,
  int, boolean, boolean, boolean, text, text
)
to authenticated, service_role, haive_client;

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261130120400', 'owners_of_threads')
on conflict do nothing;
