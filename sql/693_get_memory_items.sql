-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.get_memory_items(
  p_tenant text, p_collection text, p_ids text[], p_refresh boolean[]
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, false);
  v_answer json;
  v_used text[];
begin
  if cardinality(p_ids) > 10000 or cardinality(p_ids) <> cardinality(p_refresh) then
    raise exception using
      errcode = 'PT422',
      message = 'ids are more than 10,000, or not as many as refresh',
      hint = 'Ask for them in several calls.';
  end if;
  execute format(
    $q$
      select coalesce(json_agg(m.doc order by m.place), '[]'), array_agg(m.id) filter (where m.used)
      from (
        select u.place, t.id, u.refresh and t.metadata ? 'ttl' as used, %2$s as doc
        from unnest($1, $2) with ordinality as u (id, refresh, place)
        join %1$s as t on t.id = u.id
        where
          %3$s and t.metadata ? 'path' and not t.metadata ? 'item'
          and (t.expires_at is null or t.expires_at > $3)
      ) as m
    $q$, v.relation, haive_private.memory_item_doc('null'), v.own
  ) into v_answer, v_used using p_ids, p_refresh, haive_private.time_text(clock_timestamp());
  perform haive_private.refresh_memory_items(v, v_used);
  if v.audit_reads then
    perform haive_private.audit_read(
      'get_memory_items', jsonb_build_object((v.collection).name, json_array_length(v_answer)),
      json_array_length(v_answer)
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.get_memory_items(text, text, text[], boolean[])
owner to haive_writer;

comment on function haive_private.get_memory_items(text, text, text[], boolean[]) is
'What haive.get_memory_items does, for a caller without rights on the tables.';

create or replace function haive_private.memory_item_doc(p_score text)
returns text
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return format(
    'json_build_object(''id'', coalesce(t.metadata ->> ''item'', t.id), '
    '''namespace'', t.metadata -> ''namespace'', ''key'', t.metadata -> ''key'', '
    '''value'', case when t.metadata ? ''exact'' then ''{}'' else t.metadata -> ''value'' end, '
    '''exact'', t.metadata -> ''exact'', ''created_at'', t.metadata -> ''created_at'', '
    '''updated_at'', t.metadata -> ''timestamp'', ''score'', %s)', p_score
  );
end;
$$;

comment on function haive_private.memory_item_doc(text) is
'The expression that makes an item JSON, with an expression for its score.';

-- Reading is not refused because this cannot be done: where the caller may only read, the tenant is
-- about to be moved or recounted, or somebody changes the item, it expires as it would have. A write, with
-- all indexes, for each read would cost more than the hundredth of its time that is left out.
create or replace function haive_private.refresh_memory_items(
  v record, -- as enter_collection answers to who reads
  p_ids text[]
)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  if
    p_ids is null or current_setting('transaction_read_only') = 'on'
    or not pg_try_advisory_xact_lock_shared(hashtextextended('haive/writers/' || v.tenant, 0))
    or not exists (
      select from haive.tenants as t where t.tenant_id = v.tenant and t.status = 'active'
    )
    or exists (
      select from haive.members as m
      where m.tenant_id = v.tenant and m.user_id = haive.current_actor() and m.role = 'reader'
    )
  then
    return;
  end if;
  execute format(
    $q$
      with first as (
        select t.id, t.metadata from %1$s as t
        where
          %2$s and t.id = any($1) and t.metadata ? 'ttl'
          and t.expires_at > haive_private.time_text($2)
          and t.expires_at < haive_private.time_text(
            $2 + 0.99 * make_interval(secs => 60 * (t.metadata ->> 'ttl')::double precision)
          )
        order by t.id
        for update skip locked
      ),
      parts as (
        select haive_private.item_part(f.id, p.part) as id, f.metadata -> 'ttl' as ttl
        from first as f
        cross join lateral generate_series(0, (f.metadata ->> 'parts')::int - 1) as p (part)
      )
      update %1$s as t
      set metadata = t.metadata || jsonb_build_object(
        'expires_at', haive_private.time_text(
          $2 + make_interval(secs => 60 * (p.ttl #>> '{}')::double precision)
        )
      )
      from parts as p
      where t.id = p.id
    $q$, v.relation, v.own || case when v.actor is null then '' else ' and t.user_id is not null' end
  ) using p_ids, clock_timestamp();
end;
$$;

alter function haive_private.refresh_memory_items(record, text[]) owner to haive_writer;

comment on function haive_private.refresh_memory_items(record, text[]) is
'Lets items that were read live for their time from now on.';

create or replace function haive.get_memory_items(
  collection text, ids text[], refresh boolean[], tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.get_memory_items(
    get_memory_items.tenant, get_memory_items.collection, get_memory_items.ids,
    get_memory_items.refresh
  )
$$;

comment on function haive.get_memory_items(text, text[], boolean[], text) is
'Items by id in the order asked for, without those that are not there or have expired: a list of {id, '
'namespace, key, value, exact, created_at, updated_at, score}; one with exact has no value. Those with '
'refresh live for their time from now on.';
