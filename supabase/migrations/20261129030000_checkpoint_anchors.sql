-- A state may be stored against one further back than its parent, and what is found of checkpoints
-- comes by column: see sql/152_checkpoints.sql and sql/410_find_checkpoints.sql.

-- haive_writer owns the functions, and an owner must be able to create in the schema while they are
-- replaced; the last line but one takes this away again.
grant usage, create on schema haive_private to haive_writer;

-- squawk-ignore ban-drop-constraint
alter domain haive_private.codec drop constraint codec_is_known;
-- squawk-ignore ban-alter-domain-with-add-constraint
alter domain haive_private.codec add constraint codec_is_known check (value between 0 and 3);
comment on domain haive_private.codec is
'How a payload is packed: 0 as it is, 1 by zstd, 2 by zstd against the state of the parent, 3 by '
'zstd against that of base_id.';

alter table haive.checkpoints add column base_id uuid;
-- What fits into a page stays in the row; rows that are there are left as they are.
alter table haive.checkpoints set (toast_tuple_target = 8160);
comment on column haive.checkpoints.base_id is
'What it is a delta against, where that is neither its parent nor nothing: a state further back.';

-- The arguments of the first two grow, and of two functions of a name a call could be either; the
-- others answer by column.
-- squawk-ignore ban-drop-function
drop function haive.save_checkpoint(
  text, uuid, bytea, int, text, text, text, uuid, smallint, int, jsonb, text[], jsonb, bytea,
  text, bytea, bytea, boolean, text, boolean, text
);
-- squawk-ignore ban-drop-function
drop function haive_private.save_checkpoint(
  text, text, text, text, text, uuid, uuid, bytea, smallint, int, int, jsonb, text[], jsonb,
  bytea, text, bytea, bytea, boolean, text, boolean
);
-- squawk-ignore ban-drop-function
drop function haive_private.find_checkpoints(
  text, text, text, uuid, text[], boolean, timestamptz, timestamptz, jsonb, jsonb, uuid, bigint,
  int, boolean, boolean, boolean, text
);
-- squawk-ignore ban-drop-function
drop function haive_private.checkpoint_frames(text, uuid[], bigint[]);

-- The frames that some checkpoints are decoded from: they themselves and, of a delta, what it is made
-- against, up to the next whole state. Each comes once, in the order in which they are decoded. The
-- planner's settings are those of find_checkpoints.
create or replace function haive_private.checkpoint_frames(
  p_tenant text,
  p_branch_ids uuid[],
  p_seqs bigint[],
  out frame_thread_keys uuid[],
  out frame_ids uuid[],
  out frame_parent_ids uuid[],
  out frame_base_ids uuid[],
  out frame_codecs smallint[],
  out frame_sizes int[],
  out frame_key_ids text[],
  out frame_payloads bytea[]
)
returns record
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  with recursive chain as (
    select
      c.thread_key, c.id, c.branch_id, c.seq,
      case c.codec when 2 then c.parent_id when 3 then c.base_id end as before_id
    from unnest(p_branch_ids, p_seqs) as p (branch_id, seq)
    cross join lateral (
      select c.* from haive.checkpoints as c
      where c.tenant_id = p_tenant and c.branch_id = p.branch_id and c.seq = p.seq
      limit 1 -- or an empty table is planned to be read whole for each row
    ) as c
    union -- and not all: deltas of a page share what they are made against
    select
      c.thread_key, c.id, c.branch_id, c.seq,
      case c.codec when 2 then c.parent_id when 3 then c.base_id end
    from chain as k
    cross join lateral (
      select c.* from haive.checkpoints as c
      where c.id = k.before_id and c.thread_key = k.thread_key and c.tenant_id = p_tenant
      limit 1
    ) as c
    where k.before_id is not null
  )
  select
    array_agg(f.thread_key),
    array_agg(f.id),
    array_agg(f.parent_id),
    array_agg(f.base_id),
    array_agg(f.codec),
    array_agg(f.size),
    array_agg(f.key_id),
    array_agg(f.payload)
  into
    frame_thread_keys, frame_ids, frame_parent_ids, frame_base_ids, frame_codecs, frame_sizes,
    frame_key_ids, frame_payloads
  from (
    select
      c.thread_key, c.id, c.parent_id, c.base_id, c.codec::smallint as codec, c.size::int as size,
      c.key_id::text as key_id, c.payload::bytea as payload
    from chain as k
    cross join lateral (
      select c.* from haive.checkpoints as c
      where c.tenant_id = p_tenant and c.branch_id = k.branch_id and c.seq = k.seq
      limit 1
    ) as c
    order by c.seq
  ) as f;
end;
$$;

comment on function haive_private.checkpoint_frames(text, uuid[], bigint[]) is
'What the SDK needs to decode some checkpoints, by column.';

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
    and (p_parent_id is not null or p_codec < 2)
  returning b.branch_id, b.name into v_branch_id, v_branch;
  if not found then
    if p_codec >= 2 and p_parent_id is null then
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
    if p_codec = 3 and not exists (
      select from haive.checkpoints as c
      where c.id = p_base_id and c.thread_key = v_thread and c.tenant_id = v_caller.tenant
    ) then
      raise exception using
        errcode = 'PT404',
        message = format('the thread has no checkpoint %s', p_base_id),
        hint = 'A state is stored against one of the same thread; it may have been pruned.';
    end if;
    if p_schema is not null then
      insert into haive.checkpoint_schemas (tenant_id, hash, payload, key_id)
      values (v_caller.tenant, p_schema_hash, p_schema, p_key_id)
      on conflict do nothing;
    end if;
    insert into haive.checkpoints (
      tenant_id, branch_id, thread_key, id, parent_id, size, codec, depth, failed, key_id,
      schema_hash, tags, metadata, search, sealed, payload, base_id
    )
    values (
      v_caller.tenant, v_branch_id, v_thread, p_id, p_parent_id, p_size, p_codec,
      case when p_codec >= 2 then least(greatest(p_depth, 1), 32767) else 0 end, p_failed,
      p_key_id, p_schema_hash, p_tags, p_metadata, p_search, p_sealed, p_payload,
      case when p_codec = 3 then p_base_id end
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
  -- In order, and without the payloads, which are a half of the rows' bytes.
  page as materialized (
    select c.*, row_number() over w as place, sum(c.bytes) over w - c.bytes as bytes_before
    from (
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
    ) as c
    window w as (order by c.seq desc rows unbounded preceding)
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
  from page as c
  where
    c.place <= find_checkpoints.page_size
    -- An answer of json is at most 1 GB: states come until there are 32 MiB of them.
    and (
      c.bytes_before < 33554432 or not find_checkpoints.states
      or find_checkpoints.checkpoint_id is not null
    );

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
  if find_checkpoints.states then
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
  int, boolean, boolean, boolean, text
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
    find_checkpoints.writes, find_checkpoints.tenant
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
  int, boolean, boolean, boolean, text
) is
'Checkpoints of a thread, of one of its branches with what lies before it, or by id, newest first: '
'{checkpoints, now, next_seq, frames, writes}. search is a list of patterns of which one must match; '
'with states, a page ends after 32 MiB of them: next_seq tells that there is more. What a checkpoint '
'is found by comes with states.';

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

revoke all on function
haive.save_checkpoint(
  text, uuid, bytea, int, text, text, text, uuid, smallint, uuid, int, jsonb, text[], jsonb, bytea,
  text, bytea, bytea, boolean, text, boolean, text
),
haive_private.save_checkpoint(
  text, text, text, text, text, uuid, uuid, bytea, smallint, uuid, int, int, jsonb, text[], jsonb,
  bytea, text, bytea, bytea, boolean, text, boolean
),
haive_private.checkpoint_frames(text, uuid[], bigint[]),
haive_private.find_checkpoints(
  text, text, text, uuid, text[], boolean, timestamptz, timestamptz, jsonb, jsonb, uuid, bigint,
  int, boolean, boolean, boolean, text
)
from public, anon, authenticated, service_role, haive_client;
grant execute on function
haive.save_checkpoint(
  text, uuid, bytea, int, text, text, text, uuid, smallint, uuid, int, jsonb, text[], jsonb, bytea,
  text, bytea, bytea, boolean, text, boolean, text
),
haive_private.save_checkpoint(
  text, text, text, text, text, uuid, uuid, bytea, smallint, uuid, int, int, jsonb, text[], jsonb,
  bytea, text, bytea, bytea, boolean, text, boolean
),
haive_private.checkpoint_frames(text, uuid[], bigint[]),
haive_private.find_checkpoints(
  text, text, text, uuid, text[], boolean, timestamptz, timestamptz, jsonb, jsonb, uuid, bigint,
  int, boolean, boolean, boolean, text
)
to authenticated, service_role, haive_client;

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261129030000', 'checkpoint_anchors')
on conflict do nothing;
