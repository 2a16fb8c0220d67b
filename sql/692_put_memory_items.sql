-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.put_memory_items(
  p_tenant text, p_collection text, p_items jsonb
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, true);
  v_ids text[];
  v_bucket int;
  v_there jsonb;
  v_now timestamptz;
  v_memories jsonb;
begin
  if jsonb_typeof(p_items) is distinct from 'array' or jsonb_array_length(p_items) > 1000 then
    raise exception using
      errcode = 'PT422',
      message = 'items is no list of at most 1,000',
      hint = 'Each is {id, namespace, key, value, exact, texts, ttl, user_id}.';
  end if;
  perform from jsonb_array_elements(p_items) as m (item)
  where
    (
      jsonb_typeof(m.item -> 'id') = 'string' and length(m.item ->> 'id') between 1 and 200
      and coalesce(jsonb_typeof(m.item -> 'value'), 'null') = 'null'
      or jsonb_typeof(m.item -> 'id') = 'string' and m.item ->> 'id' ~ '^[0-9a-f-]{36}$'
      and jsonb_typeof(m.item -> 'namespace') = 'array' and jsonb_typeof(m.item -> 'key') = 'string'
      and not jsonb_path_exists(m.item, 'strict $.namespace[*] ? (@.type() != "string")')
      and jsonb_typeof(m.item -> 'value') = 'object'
      and coalesce(jsonb_typeof(m.item -> 'exact'), 'null') in ('null', 'string')
      and coalesce(jsonb_typeof(m.item -> 'user_id'), 'null') in ('null', 'string')
      and jsonb_typeof(coalesce(m.item -> 'texts', '[]')) = 'array'
      and not jsonb_path_exists(m.item, 'lax $.texts[*] ? (!(@.text.type() == "string"))')
      and case jsonb_typeof(coalesce(m.item -> 'ttl', 'null'))
        when 'null' then true when 'number' then (m.item ->> 'ttl')::numeric between 0 and 1e9
      end
    ) is not true;
  if found then
    raise exception using
      errcode = 'PT422',
      message = 'an item is not {id, namespace, key, value, exact, texts, ttl, user_id}',
      hint = 'id is a UUID, namespace a list of texts, value an object, texts a list of {text, vector}, '
        'ttl 0 to 1e9 minutes. One without a value is removed.';
  end if;
  -- An index holds no longer ones.
  perform from jsonb_array_elements(p_items) as m (item)
  where octet_length(haive_private.namespace_path(m.item -> 'namespace')) > 2000;
  if found then
    raise exception using
      errcode = 'PT422',
      message = 'a namespace is too long',
      hint = 'Its labels are at most 2,000 bytes together, and one more for each.';
  end if;

  -- Of those who write an item at once, one after the other, from before it is there. By 64 locks and
  -- in their order, so that nobody waits in a circle and many items need no more.
  select array_agg(distinct m.item ->> 'id') into v_ids from jsonb_array_elements(p_items) as m (item);
  for v_bucket in
    select distinct hashtext(u.id) & 63 as n from unnest(v_ids) as u (id) order by 1
  loop
    perform pg_advisory_xact_lock(
      hashtextextended('haive/memory items/' || v.tenant || '/' || v_bucket, 0)
    );
  end loop;
  -- The first memory of an item before its others: so does who removes what has expired.
  execute format(
    $q$
      select coalesce(jsonb_object_agg(o.id, jsonb_build_object(
        'parts', o.parts, 'created_at', o.created_at
      )), '{}')
      from (
        select
          t.id, t.metadata -> 'parts' as parts,
          case when t.expires_at is null or t.expires_at > $2 then t.metadata ->> 'created_at' end
            as created_at
        from %s as t
        where %s and t.id = any($1)
        order by t.id
        for update
      ) as o
    $q$, v.relation, v.own
  ) into v_there using v_ids, haive_private.time_text(clock_timestamp());

  v_now := clock_timestamp();
  select
    jsonb_agg(jsonb_build_object(
      'id', haive_private.item_part(m.item ->> 'id', p.part),
      'vector', m.item -> 'texts' -> p.part -> 'vector',
      'metadata',
      jsonb_build_object(
        'kind', 'note', 'namespace', m.item -> 'namespace', 'key', m.item -> 'key',
        'path', haive_private.namespace_path(m.item -> 'namespace'), 'value', m.item -> 'value',
        'parts', m.parts, 'timestamp', m.at, 'renewed_at', m.at,
        'created_at', coalesce(v_there -> (m.item ->> 'id') ->> 'created_at', m.at)
      )
      || case
        when m.item -> 'texts' -> p.part is null then '{}'
        else jsonb_build_object('text', m.item -> 'texts' -> p.part -> 'text')
      end
      || case
        when m.item ->> 'exact' is null then '{}' else jsonb_build_object('exact', m.item -> 'exact')
      end
      || case
        when m.item ->> 'user_id' is null then '{}'
        else jsonb_build_object('user_id', m.item -> 'user_id')
      end
      || case
        when m.item ->> 'ttl' is null then '{}'
        else jsonb_build_object(
          'ttl', m.item -> 'ttl',
          'expires_at', haive_private.time_text(
            v_now + make_interval(secs => 60 * (m.item ->> 'ttl')::double precision)
          )
        )
      end
      || case
        when p.part = 0 then '{}'
        else jsonb_build_object('item', m.item -> 'id', 'sources', jsonb_build_array(m.item -> 'id'))
      end
    ))
  into v_memories
  from (
    select distinct on (e.item ->> 'id')
      e.item, greatest(1, jsonb_array_length(coalesce(e.item -> 'texts', '[]'))) as parts,
      haive_private.time_text(v_now + e.place * interval '1 microsecond') as at
    from jsonb_array_elements(p_items) with ordinality as e (item, place)
    order by e.item ->> 'id', e.place desc
  ) as m
  cross join lateral generate_series(0, m.parts - 1) as p (part)
  where jsonb_typeof(m.item -> 'value') = 'object';
  if v_memories is not null then
    perform haive_private.write_memories(v, v_memories, false);
  end if;

  -- What they were before, and are not any more.
  execute format(
    $q$
      delete from %s as t
      where %s and t.id = any(array(
        select haive_private.item_part(o.id, p.part)
        from jsonb_each($1) as o (id, item)
        cross join lateral generate_series(0, coalesce((o.item ->> 'parts')::int, 1) - 1) as p (part)
      )) and t.id <> all($2)
    $q$, v.relation, v.own || case when v.actor is null then '' else ' and t.user_id is not null' end
  ) using
    v_there, array(select w.memory ->> 'id' from jsonb_array_elements(v_memories) as w (memory));
  return cardinality(v_ids);
end;
$$;

alter function haive_private.put_memory_items(text, text, jsonb) owner to haive_writer;

comment on function haive_private.put_memory_items(text, text, jsonb) is
'What haive.put_memory_items does, for a caller without rights on the tables.';

create or replace function haive_private.item_part(p_item text, p_part int)
returns text
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return case when p_part = 0 then p_item else md5(p_item || '/' || p_part)::uuid::text end;
end;
$$;

comment on function haive_private.item_part(text, int) is
'The id of the memory for a text of an item; of the first one it is the item''s own.';

create or replace function haive.put_memory_items(
  collection text, items jsonb, tenant text default null
)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.put_memory_items(
    put_memory_items.tenant, put_memory_items.collection, put_memory_items.items
  )
$$;

comment on function haive.put_memory_items(text, jsonb, text) is
'Writes items, all or none, each in the place of the one of its id, and returns how many; the last one '
'of an id counts. Each is {id, namespace, key, value, exact, texts, ttl, user_id}: texts is what it is '
'found by, a list of {text, vector}; exact is kept beside the value. One without a value is removed. It '
'keeps the time it was made at, and expires ttl minutes from now.';
