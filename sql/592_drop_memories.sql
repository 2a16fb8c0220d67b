-- What was made of memories that are removed has their words, and so have those that quote them: a
-- text cannot be made anew here, so what is derived goes, and contexts are taken away.
create or replace function haive_private.unquote_memories(p_tenant text, p_table text, p_ids text[])
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_gone text[] := p_ids;
  v_fresh text[] := p_ids;
begin
  loop
    execute format(
      $q$
        with above as (
          select distinct t.id
          from unnest($2) as g (id)
          join vecs.%1$I as t on t.metadata @> jsonb_build_object('sources', jsonb_build_array(g.id))
          where
            t.tenant_id = $1
            and t.metadata ->> 'kind' in ('summary', 'keyword', 'merged', 'conversation')
        ),
        gone as (delete from vecs.%1$I as t using above as a where t.id = a.id returning t.id)
        select array_agg(g.id) from gone as g
      $q$, p_table
    ) into v_fresh using p_tenant, v_fresh;
    exit when v_fresh is null;
    v_gone := v_gone || v_fresh;
  end loop;
  execute format(
    $q$
      update vecs.%1$I as t
      set metadata = t.metadata || '{"context": null, "context_ids": []}'
      from (
        select distinct q.id
        from unnest($2) as g (id)
        join vecs.%1$I as q
          on q.metadata @> jsonb_build_object('context_ids', jsonb_build_array(g.id))
        where q.tenant_id = $1
      ) as q
      where t.id = q.id
    $q$, p_table
  ) using p_tenant, v_gone;
  execute format(
    $q$
      update vecs.%1$I as t
      set metadata = t.metadata || '{"archived": false, "archived_for": null}'
      from (
        select distinct h.id
        from unnest($2) as g (id)
        join vecs.%1$I as h on h.metadata @> jsonb_build_object('archived_for', g.id)
        where h.tenant_id = $1
      ) as h
      where t.id = h.id
    $q$, p_table
  ) using p_tenant, v_gone;
  return cardinality(v_gone) - cardinality(p_ids);
end;
$$;

alter function haive_private.unquote_memories(text, text, text[]) owner to haive_writer;

comment on function haive_private.unquote_memories(text, text, text[]) is
'Deletes what was made of memories that are gone, and takes their texts away where they are quoted.';

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
      case
        when t.metadata ?& array['namespace', 'key', 'path', 'value', 'parts']
          then t.metadata ->> 'timestamp'
      end,
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
      -- What somebody dates ahead, by more than clocks differ, counts from now, or it would be kept till
      -- then. Where it may not be written to (a limit, an erased user, sealed by now) it waits for that.
      begin
        execute format(
          $q$
            update vecs.%1$I as t set metadata = t.metadata || jsonb_build_object('renewed_at', $2)
            where t.tenant_id = $1 and %2$s > $3
          $q$, v.table_name, v_written
        ) using
          p_tenant, haive_private.time_text(clock_timestamp()),
          haive_private.time_text(clock_timestamp() + interval '1 hour');
      exception
        when sqlstate 'PGRST' or sqlstate 'PT410' or sqlstate 'PT422' or sqlstate 'PT429' then
          null;
      end;
    end if;
    exit when v_count >= p_batch;
  end loop;
  return v_count;
end;
$$;

alter function haive_private.drop_memories(text, text, text, int) owner to haive_writer;

comment on function haive_private.drop_memories(text, text, text, int) is
'Deletes memories of a user and of their conversations, or last written before a time, with what was made '
'of them, in every collection; returns how many.';

create or replace function haive_private.memories_of_user(
  p_tenant text, p_user_id text, p_page_size int, p_page_after text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v haive_private.memory_collections;
  v_page json;
  v_rows jsonb := '[]';
begin
  for v in
    select c.* from haive_private.memory_collections as c
    where p_page_after is null or c.name >= split_part(p_page_after, '/', 1)
    order by c.name
  loop
    execute format(
      $q$
        select json_agg(
          json_build_object('collection', $1, 'id', p.id, 'metadata', p.metadata) order by p.id
        )
        from (
          select t.id, t.metadata from vecs.%1$I as t
          where
            t.tenant_id = $2 and ($4 is null or t.id > $4)
            and t.id in (
              select m.id from vecs.%1$I as m where m.tenant_id = $2 and m.user_id = $3
              union all
              select m.id
              from haive.conversations as c
              join vecs.%1$I as m on m.metadata @> jsonb_build_object('conversation_id', c.id)
              where
                c.tenant_id = $2 and c.user_id = $3 and m.tenant_id = $2 and m.user_id is null
            )
          order by t.id
          limit $5
        ) as p
      $q$, v.table_name
    ) into v_page using
      v.name, p_tenant, p_user_id,
      case
        when v.name = split_part(p_page_after, '/', 1)
          then substr(p_page_after, length(v.name) + 2)
      end,
      p_page_size - jsonb_array_length(v_rows);
    v_rows := v_rows || coalesce(v_page::jsonb, '[]');
    exit when jsonb_array_length(v_rows) >= p_page_size;
  end loop;
  return json_build_object(
    'rows', v_rows,
    'next', case
      when jsonb_array_length(v_rows) = p_page_size
        then (v_rows -> -1 ->> 'collection') || '/' || (v_rows -> -1 ->> 'id')
    end
  );
end;
$$;

alter function haive_private.memories_of_user(text, text, int, text) owner to haive_writer;

comment on function haive_private.memories_of_user(text, text, int, text) is
'A page of the memories of a user, and of those of nobody that were made of their conversations, in '
'every collection.';

create or replace function haive_private.stored_memory_bytes(p_tenant text)
returns bigint
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  v haive_private.memory_collections;
  v_bytes bigint;
  v_sum bigint := 0;
begin
  for v in select c.* from haive_private.memory_collections as c loop
    execute format(
      $q$
        select coalesce(sum(haive_private.memory_bytes(
          t.metadata, case when t.vec is null then 0 else $2 end, t.tokens
        )), 0)
        from vecs.%I as t where t.tenant_id = $1
      $q$, v.table_name
    ) into v_bytes using
      p_tenant, coalesce(v.dimensions * case v.storage when 'halfvec' then 2 else 4 end, 0);
    v_sum := v_sum + v_bytes;
  end loop;
  return v_sum;
end;
$$;

alter function haive_private.stored_memory_bytes(text) owner to haive_writer;

comment on function haive_private.stored_memory_bytes(text) is
'What the memories of a tenant weigh, counted from their rows.';
