-- What is new in an index of lists waits in a list that each search reads through: until now of 4 MB,
-- 11 ms, and now of 128 kB; but not of words, of which a full list is read in 0.6 ms. And of a tenant
-- that has a large part of a collection, memories that pass a filter are looked up by the filter alone.
-- No row is touched; what waits is worked in by the next write, or by a vacuum. The indexes are locked for
-- a moment, and rather not at all than while all others wait.
set local lock_timeout = '10s';

-- haive_writer owns the functions, and an owner must be able to create in the schema while they are
-- replaced; a line below takes this away again.
grant usage, create on schema haive_private to haive_writer;

alter index haive.conversations_tags_idx set (gin_pending_list_limit = 128);
alter index haive.conversations_participants_idx set (gin_pending_list_limit = 128);
alter index haive.checkpoints_search_idx set (gin_pending_list_limit = 128);

-- Of the metadata of collections.
do $$
declare
  v_index text;
begin
  for v_index in
    select pg_catalog.format('vecs.%I', i.relname)
    from haive_private.memory_collections as c
    join pg_catalog.pg_class as t on t.relname = c.table_name
    join pg_catalog.pg_namespace as n on n.oid = t.relnamespace and n.nspname = 'vecs'
    join pg_catalog.pg_index as x on x.indrelid = t.oid
    join pg_catalog.pg_class as i on i.oid = x.indexrelid
    where pg_catalog.pg_get_indexdef(x.indexrelid) like '%jsonb_path_ops%'
  loop
    execute pg_catalog.format('alter index %s set (gin_pending_list_limit = 128)', v_index);
  end loop;
end;
$$;

create or replace function haive_private.open_memory_collection(p_tenant text, p_settings jsonb)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_row haive_private.memory_collections;
  v_found haive_private.memory_collections;
  v_other record;
  v_table text;
  v_vectors text := haive_private.vector_schema();
  v_type text;
  v_bytes int;
begin
  if not v_caller.trusted then
    raise exception using
      errcode = 'PT403',
      message = 'only services open collections',
      hint = 'Call with a secret key, or on a direct connection.';
  end if;
  v_row.name := p_settings ->> 'name';
  v_row.model := p_settings ->> 'model';
  v_row.dimensions := (p_settings ->> 'dimensions')::int;
  v_row.metric := coalesce(p_settings ->> 'metric', 'cosine');
  v_row.language := coalesce(p_settings ->> 'language', 'english');
  v_row.index_type := coalesce(p_settings ->> 'index_type', 'hnsw');
  v_row.m := coalesce((p_settings ->> 'm')::int, 16);
  v_row.ef_construction := coalesce((p_settings ->> 'ef_construction')::int, 64);
  v_row.storage := case
    when v_row.index_type in ('hnsw', 'ivfflat') and v_row.dimensions > 2000 then 'halfvec'
    -- By the bits any width is found: 16 bits a number keep these in their page.
    when v_row.index_type = 'binary' and v_row.dimensions between 2001 and 4000 then 'halfvec'
    else 'vector'
  end;
  -- Of those who open it at once, one makes it.
  perform pg_advisory_xact_lock(hashtextextended('haive/memory collections', 0));
  select c.* into v_found from haive_private.memory_collections as c where c.name = v_row.name;
  if v_found.name is not null then
    select u.name, u.ours, u.theirs into v_other
    from (
      values
      ('model', v_row.model, v_found.model),
      ('dimensions', v_row.dimensions::text, v_found.dimensions::text),
      ('metric', v_row.metric, v_found.metric)
    ) as u (name, ours, theirs)
    where u.ours is distinct from u.theirs
    limit 1;
    if found then
      raise exception using
        errcode = 'PT409',
        message = format(
          'the collection %s has %s %s, not %s', v_found.name, v_other.name,
          coalesce(v_other.theirs, 'none'), left(coalesce(v_other.ours, 'none'), 200)
        ),
        hint = 'Name another index_name, or re-embed the collection.';
    end if;
    -- In a tenant that is sealed too, so that what was left there can be deleted.
    return haive_private.memory_collection_doc(v_found);
  end if;
  perform haive_private.refuse_sealed_memories();
  if (v_row.name ~ '^[a-z0-9][a-z0-9-]{0,60}$') is not true then
    raise exception using
      errcode = 'PT422',
      message = 'the name of a collection is 1 to 61 of a-z, 0-9 and -',
      hint = 'It begins with a letter or a digit.';
  elsif not exists (
    select from pg_ts_config as g
    where g.cfgname = v_row.language and g.cfgnamespace = 'pg_catalog'::regnamespace
  ) then
    raise exception using
      errcode = 'PT422',
      message = format('no language %s', left(v_row.language, 40)),
      hint = 'Languages are the text search configurations of Postgres: english, german, simple…';
  elsif v_row.index_type in ('hnsw', 'ivfflat') and v_row.dimensions > 4000 then
    raise exception using
      errcode = 'PT422',
      message = format('no index of type %s takes %s numbers', v_row.index_type, v_row.dimensions),
      hint = 'Up to 4,000 it does; binary and flat take 16,000.';
  end if;

  -- The usual installation has plain names; the two parts keep it from being taken for another's.
  v_row.table_name := case
    when 'haive' = 'hai' || 've' then v_row.name else 'haive' || ':' || v_row.name
  end;
  if length(v_row.table_name) > 63 then
    v_row.table_name := left(v_row.table_name, 46) || '~' || left(md5(v_row.table_name), 16);
  end if;
  v_table := format('vecs.%I', v_row.table_name);
  if to_regclass(v_table) is not null then
    raise exception using
      errcode = 'PT409',
      message = format('a table %s is there, and is not ours', v_table),
      hint = 'Choose another index_name.';
  end if;
  begin
    insert into haive_private.memory_collections (
      name, table_name, model, dimensions, storage, metric, language, index_type, m, ef_construction
    )
    values (
      v_row.name, v_row.table_name, v_row.model, v_row.dimensions, v_row.storage, v_row.metric,
      v_row.language, v_row.index_type, v_row.m, v_row.ef_construction
    )
    returning * into v_row;
  exception
    when check_violation or not_null_violation then
      raise exception using
        errcode = 'PT422',
        message = 'the settings of the collection do not mean anything',
        hint = 'With a model goes its dimensions, 1 to 16,000; m is 2 to 100, and ef_construction at '
          'least twice that and at most 1,000.';
  end;

  v_type := format('%s.%I%s', v_vectors, v_row.storage, coalesce('(' || v_row.dimensions || ')', ''));
  v_bytes := coalesce(
    v_row.dimensions * case v_row.storage when 'halfvec' then 2 else 4 end, 0
  );
  execute format(
    $q$
      create table %1$s (
        id varchar(200) collate "C" not null primary key check (id <> ''),
        vec %2$s,
        metadata jsonb not null default '{}' check (
          jsonb_typeof(metadata) = 'object' and pg_column_size(metadata) <= 1048576
        ),
        tenant_id text collate "C" not null default coalesce(
          nullif(current_setting('persistence.tenant', true), ''), 'default'
        ),
        tokens bytea,
        user_id text generated always as (
          case when jsonb_typeof(metadata -> 'user_id') = 'string' then metadata ->> 'user_id' end
        ) stored,
        happened_at text collate "C" generated always as (
          case when jsonb_typeof(metadata -> 'timestamp') = 'string' then metadata ->> 'timestamp' end
        ) stored,
        importance double precision generated always as (
          case when jsonb_typeof(metadata -> 'importance') = 'number'
            then least(1, greatest(0, (metadata -> 'importance')::numeric))::double precision end
        ) stored,
        valid_from text collate "C" generated always as (metadata ->> 'valid_from') stored,
        valid_to text collate "C" generated always as (metadata ->> 'valid_to') stored,
        expires_at text collate "C" generated always as (metadata ->> 'expires_at') stored,
        archived boolean generated always as (
          coalesce(metadata -> 'archived' = 'true', false)
        ) stored,
        words tsvector generated always as (
          setweight(
            to_tsvector(%3$L::regconfig, left(coalesce(metadata ->> 'context', ''), 100000)), 'D'
          ) || setweight(
            to_tsvector(%3$L::regconfig, left(coalesce(metadata ->> 'text', ''), 100000)), 'A'
          )
        ) stored
      )
    $q$, v_table, v_type, 'pg_catalog.' || v_row.language
  );
  execute format('alter table %s alter column tokens set storage external', v_table);
  if v_bytes between 1 and 6400 then
    -- Beside the row, each vector that is compared would be one more look into an index. Of wide ones
    -- a page holds one, with as much of its metadata as fits.
    execute format('alter table %s alter column vec set storage plain', v_table);
    execute format(
      'alter table %s set (toast_tuple_target = %s)', v_table,
      case when v_bytes <= 3000 then 4080 else 8160 end
    );
  end if;
  execute format(
    'comment on table %s is %L', v_table,
    'Memories: a collection of haive.open_memory_collection. Written by the functions of haive, or by '
    'vecs as the owner; columns that are made from the metadata are what searches read.'
  );
  execute format('create index on %s (tenant_id, id)', v_table);
  execute format('create index on %s (tenant_id, happened_at)', v_table);
  execute format('create index on %s (tenant_id, importance)', v_table);
  -- Of nobody's too: a member's searches count both.
  execute format('create index on %s (tenant_id, user_id)', v_table);
  execute format('create index on %s using gin (words)', v_table);
  -- The limit as in haive.conversations; of words, of which a memory has many, it would halve the rate
  -- of loading, and to read through a full list takes 0.6 ms.
  execute format(
    'create index on %s using gin (metadata jsonb_path_ops) with (gin_pending_list_limit = 128)',
    v_table
  );
  -- Lists are made of what is there: an index of them comes with haive memory reindex.
  if v_row.dimensions is not null and v_row.index_type in ('hnsw', 'binary') then
    execute haive_private.memory_index(v_row, null, false);
  end if;

  execute format('alter table %s enable row level security', v_table);
  execute format(
    $q$
      create policy "members read their own and nobody's, administrators all" on %s
      for select to authenticated
      using (
        (
          tenant_id in (select haive_private.my_tenants())
          and (user_id is null or user_id = (select haive.current_actor()))
        )
        or tenant_id in (select haive_private.my_admin_tenants())
      )
    $q$, v_table
  );
  execute format(
    'create policy "services work in the tenant they entered" on %s for all to haive_client '
    'using (tenant_id = (select current_setting(''persistence.tenant'', true)))', v_table
  );
  execute format('revoke all on %s from public, anon, authenticated, service_role, haive_client', v_table);
  execute format('grant select on %s to authenticated, service_role, haive_client', v_table);

  execute format(
    'create trigger count_added after insert on %s referencing new table as added '
    'for each statement execute function haive_private.count_memories(%L, %L)',
    v_table, v_row.name, v_bytes
  );
  execute format(
    'create trigger count_changed after update on %s referencing old table as removed '
    'new table as added for each statement execute function haive_private.count_memories(%L, %L)',
    v_table, v_row.name, v_bytes
  );
  execute format(
    'create trigger count_removed after delete on %s referencing old table as removed '
    'for each statement execute function haive_private.count_memories(%L, %L)',
    v_table, v_row.name, v_bytes
  );
  execute format(
    'create trigger drop_stale_tokens before update of metadata on %s for each row when ('
    'old.metadata ->> ''text'' is distinct from new.metadata ->> ''text'' '
    'and old.tokens is not distinct from new.tokens) '
    'execute function haive_private.drop_stale_tokens()', v_table
  );
  execute format(
    'create trigger audit_insert after insert on %s referencing new table as changed '
    'for each statement execute function haive_private.audit_rows()', v_table
  );
  execute format(
    'create trigger audit_update after update on %s referencing new table as changed '
    'for each statement execute function haive_private.audit_rows()', v_table
  );
  execute format(
    'create trigger audit_delete after delete on %s referencing old table as changed '
    'for each statement execute function haive_private.audit_rows()', v_table
  );
  return haive_private.memory_collection_doc(v_row);
end;
$$;

alter function haive_private.open_memory_collection(text, jsonb) owner to haive_writer;

-- Definer, for it reads the tables in schema vecs: the condition has the tenant in it.
create or replace function haive_private.nearest_memories(
  p_collection haive_private.memory_collections,
  p_condition text, -- on t, a row of the collection
  p_filtered boolean, -- whether it leaves out more than the tenant's archive
  p_tenant text,
  p_vector text,
  p_limit int,
  p_recall double precision,
  p_documents boolean default false, -- whether their metadata is wanted
  p_candidates int default null -- of the index, to measure what it finds
)
returns haive_private.near_memories
language plpgsql
volatile
security definer
set search_path = ''
-- What a page in memory costs, and an entry of an index: else the planner reads 500,000 entries of a tenant, for
-- 45 ms, to fetch 5,000 rows fewer, which take 15.
set random_page_cost = 1.1
set cpu_index_tuple_cost = 0.03
as $$
declare
  c_probe constant int := 100; -- of the nearest, to see which share of them passes
  c_sure constant int := 8; -- passed, and the share is known well enough
  v_own text := format('t.tenant_id = %L', p_tenant);
  v_enough int := p_limit + greatest(10, p_limit / 2); -- so many candidates that pass
  v_rows bigint; -- of the tenant, exactly
  v_indexed bigint; -- rows of the index that is read
  v_recalls jsonb;
  v_ef int;
  v_wide int;
  v_probe int;
  v_share double precision; -- of the index's rows, those that pass
  v_plan json;
  v_found haive_private.near_memories;
begin
  select
    coalesce(sum(s.memories), 0), (array_agg(s.recalls) filter (where s.recalls is not null))[1]
  into v_rows, v_recalls
  from haive_private.memory_sizes as s
  where s.tenant_id = p_tenant and s.collection = p_collection.name;
  if
    p_collection.index_type = 'flat' or p_recall >= 1
    or v_rows <= haive_private.few_memories(p_collection.dimensions)
  then
    return haive_private.compare_memories(p_collection, p_condition, p_vector, p_limit, p_documents);
  end if;

  v_indexed := v_rows;
  if to_regclass(
    format('vecs.%I', haive_private.memory_index_name(p_collection, p_tenant))
  ) is null then
    -- As the last analyze left it.
    select greatest(c.reltuples, v_rows)::bigint into v_indexed
    from pg_class as c where c.oid = format('vecs.%I', p_collection.table_name)::regclass;
    if v_rows < haive_private.fewest_to_walk(v_indexed) and p_candidates is null then
      return haive_private.compare_memories(p_collection, p_condition, p_vector, p_limit, p_documents);
    end if;
  end if;

  -- As it was measured, on a sample that begins at vectors which are there, so with something in hand (100
  -- candidates found 0.985 of it, and 0.964 of what was asked for otherwise); else as it usually is.
  select min(m.candidates::int) into v_ef
  from jsonb_each_text(v_recalls) as m (candidates, recall)
  where m.recall::double precision >= (2 + p_recall) / 3;
  v_ef := case
    when p_candidates is not null then p_candidates
    when v_ef is not null then v_ef
    when v_recalls is not null then 1000
    else least(1000, v_indexed / v_rows * case
      when p_recall <= 0.95 then 40 when p_recall <= 0.975 then 64 when p_recall <= 0.985 then 100
      when p_recall <= 0.99 then 160 when p_recall <= 0.995 then 250 else 500
    end)
  end;
  v_wide := case
    when p_collection.index_type <> 'binary' then p_limit
    when p_candidates is not null or v_recalls is not null then greatest(p_limit, v_ef)
    when p_recall > 0.97 then greatest(p_limit, 400)
    else greatest(p_limit, 200)
  end;

  if p_filtered then
    v_probe := greatest(c_probe, v_enough);
    v_found := haive_private.walk_memories(
      p_collection, v_own, format('(%s) is true', p_condition), p_vector, p_limit, v_probe,
      greatest(v_probe, v_ef), p_documents
    );
    v_share := greatest(v_found.passed, 0.5) / v_probe * v_rows / v_indexed;
    if
      v_found.passed < c_sure or v_share * v_indexed < haive_private.fewest_to_walk(v_indexed)
    then
      -- Whether what passes can be looked up, or each row of the tenant has to be tried.
      execute format(
        'explain (format json) select from %s as t where %s',
        format('vecs.%I', p_collection.table_name), p_condition
      ) into v_plan;
      if v_found.passed < c_sure then
        -- One more or less makes all the difference: what the planner expects is a second opinion.
        v_share := sqrt(
          v_share * least(1, (v_plan -> 0 -> 'Plan' ->> 'Plan Rows')::double precision / v_indexed)
        );
      end if;
      if
        v_share * v_indexed < haive_private.fewest_to_walk(v_indexed)
        and v_plan::text ~ '"Index Cond": "[^"]*\m(metadata|importance|happened_at|user_id)\M'
      then
        v_found := haive_private.compare_memories(
          p_collection, p_condition, p_vector, p_limit, p_documents,
          haive_private.fewest_to_walk(v_indexed)
        );
        if v_found.ids is not null then
          return v_found;
        end if;
      elsif v_share * v_indexed < 300 then
        return haive_private.compare_memories(p_collection, p_condition, p_vector, p_limit, p_documents);
      end if;
    elsif v_found.passed >= v_enough and p_collection.index_type <> 'binary' then
      return v_found;
    end if;
    v_ef := greatest(v_ef, least(1000, v_enough / v_share));
    -- The bits put others before one that is nearer, in proportion to how many there are.
    v_wide := greatest(
      least(v_wide, 10 * p_limit), v_wide * least(1, v_share * v_indexed / v_rows)
    )::int;
  end if;

  v_found := haive_private.walk_memories(
    p_collection, p_condition, null, p_vector, p_limit, v_wide, greatest(v_ef, v_wide), p_documents
  );
  if cardinality(v_found.ids) >= p_limit then
    return v_found;
  end if;
  return haive_private.compare_memories(p_collection, p_condition, p_vector, p_limit, p_documents);
end;
$$;

alter function haive_private.nearest_memories(
  haive_private.memory_collections, text, boolean, text, text, int, double precision,
  boolean, int
) owner to haive_writer;

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261130030000', 'short_pending_lists')
on conflict do nothing;
