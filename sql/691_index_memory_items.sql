-- Items are memories under a name of their own: a namespace, which is a list of labels, and a key. They
-- are memories of their collection in all else, and so what erases, meters, audits and counts those does
-- it to them.
-- The metadata of an item has namespace, path, key, value, parts, created_at and timestamp (of its last
-- change), and where it has them text, exact, ttl (in minutes), expires_at and user_id. One with more
-- texts than one has a memory for each; those after the first name it as their item.

-- The labels so that paths have the order of lists of labels, and those under a namespace are a range.
create or replace function haive_private.namespace_path(p_namespace jsonb)
returns text
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return coalesce((
    select
      string_agg(
        replace(replace(u.label, chr(2), chr(2) || chr(2)), chr(1), chr(2) || chr(1)) || chr(1),
        '' order by u.place
      )
    from jsonb_array_elements_text(p_namespace) with ordinality as u (label, place)
  ), '');
end;
$$;

comment on function haive_private.namespace_path(jsonb) is
'A namespace as text: each label ended by chr(1), and chr(1) and chr(2) in it behind a chr(2).';

-- The least path behind all that are under this one.
create or replace function haive_private.behind_path(p_path text)
returns text
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return left(p_path, -1) || chr(2);
end;
$$;

comment on function haive_private.behind_path(text) is
'Where the paths under one that is not empty end.';

create or replace function haive_private.time_text(p_time timestamptz)
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return to_char(p_time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
end;
$$;

comment on function haive_private.time_text(timestamptz) is
'A time as the metadata of memories has it, whose order as text is the order in time.';

-- Definer: haive_writer owns the tables in schema vecs.
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

comment on function haive_private.index_memory_items(text, text) is
'What haive.index_memory_items does, for a caller without rights on the tables.';

create or replace function haive.index_memory_items(collection text, tenant text default null)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.index_memory_items(
    index_memory_items.tenant, index_memory_items.collection
  )
$$;

comment on function haive.index_memory_items(text, text) is
'Makes the indexes that items are found by in a collection, where they are not there, and returns how '
'many. For services only; all tenants of the installation share them.';
