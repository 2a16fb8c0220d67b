-- A collection that is there, with its indexes, is opened without waiting for whoever makes another one.

grant usage, create on schema haive_private to haive_writer;

create or replace function haive_private.open_memory_collection(p_tenant text, p_settings jsonb)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record;
  v_row haive_private.memory_collections;
  v_found haive_private.memory_collections;
  v_other record;
  v_table text;
  v_vectors text := haive_private.vector_schema();
  v_type text;
  v_bytes int;
begin
  -- All tenants share what is made: the owner, who moves memories here, need not find one that is open.
  if (
    p_tenant = ''
    and pg_has_role(
      coalesce(nullif(current_setting('role', true), 'none'), session_user::text),
      'haive_writer', 'member'
    )
  ) is not true then
    v_caller := haive_private.enter_tenant(p_tenant, true);
    if not v_caller.trusted then
      raise exception using
        errcode = 'PT403',
        message = 'only services open collections',
        hint = 'Call with a secret key, or on a direct connection.';
    end if;
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
  select c.* into v_found from haive_private.memory_collections as c where c.name = v_row.name;
  if v_found.name is null then
    -- Of those who open it at once, one makes it. Only then: who moves a tenant here copies all of its
    -- memories before the lock is free.
    perform pg_advisory_xact_lock(hashtextextended('haive/memory collections', 0));
    select c.* into v_found from haive_private.memory_collections as c where c.name = v_row.name;
  end if;
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

create or replace function haive_private.index_memory_items(p_tenant text, p_collection text)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, true);
  v_index record;
  v_made bigint := 0;
begin
  if v.actor is not null then
    raise exception using
      errcode = 'PT403',
      message = 'only services build indexes',
      hint = 'Call with a secret key, or on a direct connection.';
  end if;
  for v_index in
    select 'ix_' || u.name || '_' || left(md5((v.collection).table_name), 16) as name, u.columns
    from (
      values
      ('path', '(tenant_id, ((metadata ->> ''path'') collate "C"), happened_at)'),
      ('expiry', '(tenant_id, expires_at) where expires_at is not null')
    ) as u (name, columns)
  loop
    -- "if not exists" would wait for writers before it looks, and the lock for whoever makes others.
    continue when to_regclass(format('vecs.%I', v_index.name)) is not null;
    perform pg_advisory_xact_lock(hashtextextended('haive/memory collections', 0));
    -- By a query: the name was looked up in vain, which stays known in this transaction.
    continue when exists (
      select from pg_class as c
      where c.relname = v_index.name and c.relnamespace = 'vecs'::regnamespace
    );
    execute format('create index %I on %s %s', v_index.name, v.relation, v_index.columns);
    v_made := v_made + 1;
  end loop;
  return v_made;
end;
$$;

alter function haive_private.index_memory_items(text, text) owner to haive_writer;

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261130163000', 'opening_without_waiting')
on conflict do nothing;
