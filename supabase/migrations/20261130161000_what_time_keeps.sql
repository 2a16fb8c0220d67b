-- What somebody goes on with is kept: items from when they were last put, what memories were made into, and
-- writes of a thread that is pruned meanwhile.

grant usage, create on schema haive_private to haive_writer;

-- Of all collections, a batch: of a user who is erased, with what was made of the conversations that they
-- still have, whoever's it is called; or last said or changed longer ago than a tenant keeps. What is left
-- of their words in rows of writers is gathered in the end, and so removed.
create or replace function haive_private.drop_memories(
  p_tenant text, p_user_id text, p_before text, p_batch int
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v haive_private.memory_collections;
  -- Items that nobody has put since have the time of their last writing here alone.
  v_written constant text := $q$
    coalesce(
      t.metadata ->> 'renewed_at',
      case when t.metadata ? 'path' then t.metadata ->> 'timestamp' end,
      t.metadata ->> 'created_at'
    ) collate "C"
  $q$;
  v_doomed text;
  v_ids text[];
  v_count bigint := 0;
begin
  for v in select c.* from haive_private.memory_collections as c order by c.name loop
    v_doomed := case
      when p_user_id is null then format(
        $q$
          %2$s < $3
          -- What is made of others, however far above them, would go with them.
          and not exists (
            with recursive above as (
              select o.id, o.metadata ->> 'renewed_at' as renewed_at from vecs.%1$I as o
              where
                o.tenant_id = $1
                and o.metadata @> jsonb_build_object('sources', jsonb_build_array(t.id))
              union
              select o.id, o.metadata ->> 'renewed_at' from above as a
              join vecs.%1$I as o
                on o.metadata @> jsonb_build_object('sources', jsonb_build_array(a.id))
              where o.tenant_id = $1
            )
            select from above as a where a.renewed_at collate "C" >= $3
          )
        $q$, v.table_name, v_written
      )
      else format(
        $q$
          t.id in (
            select m.id from vecs.%1$I as m where m.tenant_id = $1 and m.user_id = $2
            union all
            select m.id
            from haive.conversations as c
            join vecs.%1$I as m on m.metadata @> jsonb_build_object('conversation_id', c.id)
            where c.tenant_id = $1 and c.user_id = $2 and m.tenant_id = $1
          )
        $q$, v.table_name
      )
    end;
    execute format(
      $q$
        select array(
          select t.id from vecs.%1$I as t
          where t.tenant_id = $1 and %2$s
          order by t.id
          limit $4
        )
      $q$, v.table_name, v_doomed
    ) into v_ids using p_tenant, p_user_id, p_before, p_batch - v_count;
    -- Looked at again under their locks and those of what is made of them: somebody may have said one.
    execute format(
      $q$
        with recursive these as (
          select u.id collate "C" from unnest($2) as u (id)
          union
          select o.id from these as a
          join vecs.%1$I as o on o.metadata @> jsonb_build_object('sources', jsonb_build_array(a.id))
          where o.tenant_id = $1
        )
        select from vecs.%1$I as t
        where t.tenant_id = $1 and t.id in (select a.id from these as a)
        order by t.id
        for update
      $q$, v.table_name
    ) using p_tenant, v_ids;
    execute format(
      $q$
        with gone as (
          delete from vecs.%1$I as t
          where t.tenant_id = $1 and t.id = any($4) and %2$s
          returning t.id
        )
        select coalesce(array_agg(g.id), '{}') from gone as g
      $q$, v.table_name, v_doomed
    ) into v_ids using p_tenant, p_user_id, p_before, v_ids;
    v_count := v_count + cardinality(v_ids);
    if cardinality(v_ids) > 0 then
      v_count := v_count + haive_private.unquote_memories(p_tenant, v.table_name, v_ids);
      perform pg_advisory_xact_lock(
        hashtextextended('haive/memory words/' || p_tenant || '/' || v.name, 0)
      );
      perform haive_private.gather_memory_words(p_tenant, v.name, null);
    elsif p_user_id is null then
      -- What somebody dates ahead counts from now, or it would be kept till then.
      execute format(
        $q$
          update vecs.%1$I as t set metadata = t.metadata || jsonb_build_object('renewed_at', $2)
          where t.tenant_id = $1 and %2$s > $2
        $q$, v.table_name, v_written
      ) using p_tenant, haive_private.time_text(clock_timestamp());
    end if;
    exit when v_count >= p_batch;
  end loop;
  return v_count;
end;
$$;

alter function haive_private.drop_memories(text, text, text, int) owner to haive_writer;

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

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261130161000', 'what_time_keeps')
on conflict do nothing;
