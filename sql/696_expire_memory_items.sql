-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.expire_memory_items(
  p_tenant text, p_collection text, p_batch int
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, true);
  v_own text := v.own || case when v.actor is null then '' else ' and t.user_id is not null' end;
  v_answer bigint;
begin
  if (p_batch between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'batch is not between 1 and 10000',
      hint = 'Call again while as many were removed.';
  end if;
  -- The first memory of an item before its others, as who writes it. One that somebody else has is read,
  -- changed or removed just now.
  execute format(
    $q$
      with doomed as (
        select t.id, t.metadata from %1$s as t
        where
          %2$s and t.expires_at <= $1 and t.metadata ? 'path' and not t.metadata ? 'item'
        order by t.expires_at
        limit $2
        for update skip locked
      ),
      gone as (
        delete from %1$s as t
        using (
          select haive_private.item_part(d.id, p.part) as id
          from doomed as d
          cross join lateral generate_series(0, (d.metadata ->> 'parts')::int - 1) as p (part)
        ) as p
        where t.id = p.id and %2$s
      )
      select count(*) from doomed
    $q$, v.relation, v_own
  ) into v_answer using haive_private.time_text(clock_timestamp()), p_batch;
  return v_answer;
end;
$$;

alter function haive_private.expire_memory_items(text, text, int) owner to haive_writer;

comment on function haive_private.expire_memory_items(text, text, int) is
'What haive.expire_memory_items does, for a caller without rights on the tables.';

create or replace function haive.expire_memory_items(
  collection text, batch int default 1000, tenant text default null
)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.expire_memory_items(
    expire_memory_items.tenant, expire_memory_items.collection, expire_memory_items.batch
  )
$$;

comment on function haive.expire_memory_items(text, int, text) is
'Removes items that have expired, up to batch of them, and returns how many.';
