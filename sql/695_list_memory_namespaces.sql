-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.list_memory_namespaces(
  p_tenant text, p_collection text, p_listings jsonb
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, false);
  v_listing jsonb;
  v_conditions jsonb;
  v_depth int;
  v_limit int;
  v_offset int;
  v_where text;
  v_begin text;
  v_namespaces json;
  v_answers json[] := '{}';
  v_count bigint := 0;
begin
  if jsonb_typeof(p_listings) is distinct from 'array' or jsonb_array_length(p_listings) > 100 then
    raise exception using
      errcode = 'PT422',
      message = 'listings is no list of at most 100',
      hint = 'Each is {conditions, max_depth, limit, offset, user_id}.';
  end if;
  for v_listing in select s.listing from jsonb_array_elements(p_listings) as s (listing) loop
    begin
      v_depth := coalesce((v_listing ->> 'max_depth')::int, 1000000);
      v_limit := (v_listing ->> 'limit')::int;
      v_offset := coalesce((v_listing ->> 'offset')::int, 0);
    exception
      when data_exception or invalid_text_representation then
        raise exception using
          errcode = 'PT422',
          message = 'a part of the listing cannot be read',
          hint = 'max_depth, limit and offset are whole numbers.';
    end;
    v_conditions := coalesce(nullif(v_listing -> 'conditions', 'null'), '[]');
    if
      (
        v_depth > 0 and v_limit between 0 and 10000 and v_offset between 0 and 1000000
        and jsonb_typeof(v_conditions) = 'array'
      ) is not true
      or jsonb_path_exists(v_conditions, 'strict $[*] ? (!(@.path.type() == "array"))')
      or jsonb_path_exists(
        v_conditions, 'strict $[*] ? (!(@.match_type == "prefix" || @.match_type == "suffix"))'
      )
    then
      raise exception using
        errcode = 'PT422',
        message = 'a part of the listing is out of bounds',
        hint = 'max_depth is 1 or more, limit is 0 to 10,000, offset to 1,000,000, conditions a list of '
          '{match_type, path} with prefix or suffix.';
    end if;
    -- The labels that all begin with, up to the first that may be any.
    select haive_private.namespace_path(coalesce(jsonb_agg(l.label order by l.place), '[]')) into v_begin
    from (
      select e.label, e.place, bool_or(e.label = '"*"') over (order by e.place) as any_label
      from (
        select c.condition from jsonb_array_elements(v_conditions) as c (condition)
        where c.condition ->> 'match_type' = 'prefix'
        limit 1
      ) as c
      cross join lateral jsonb_array_elements(c.condition -> 'path') with ordinality as e (label, place)
    ) as l
    where not l.any_label;
    v_where := format(
      '%s and (t.expires_at is null or t.expires_at > %L) and %s%s', v.own,
      haive_private.time_text(clock_timestamp()),
      case
        when coalesce(v_listing -> 'user_id', 'null') = 'null' then 't.user_id is null'
        else format('t.user_id = %L', v_listing ->> 'user_id')
      end,
      case
        when v_begin = '' then ''
        else format(' and (t.metadata ->> ''path'') collate "C" < %L', haive_private.behind_path(v_begin))
      end
    );
    -- From one namespace to the next by the index, however many items are in it, and past all that are
    -- cut to the same labels.
    execute format(
      $q$
        with recursive found as (
          (
            select
              t.metadata ->> 'path' as path, t.metadata -> 'namespace' as namespace,
              haive_private.matches_namespace(t.metadata -> 'namespace', $1) as matched
            from %1$s as t
            where %2$s and (t.metadata ->> 'path') collate "C" >= $2
            order by (t.metadata ->> 'path') collate "C"
            limit 1
          )
          union all
          select
            n.path, n.namespace, haive_private.matches_namespace(n.namespace, $1)
          from found as f
          cross join lateral (
            select t.metadata ->> 'path' as path, t.metadata -> 'namespace' as namespace
            from %1$s as t
            where
              %2$s and (t.metadata ->> 'path') collate "C" >= case
                when f.matched and jsonb_array_length(f.namespace) > $3 - 1
                  then haive_private.behind_path(
                    haive_private.namespace_path(haive_private.first_labels(f.namespace, $3))
                  )
                else f.path || chr(1)
              end
            order by (t.metadata ->> 'path') collate "C"
            limit 1
          ) as n
        )
        select coalesce(json_agg(l.namespace), '[]')
        from (
          select haive_private.first_labels(f.namespace, $3) as namespace
          from found as f
          where f.matched
          offset $4
          limit $5
        ) as l
      $q$, v.relation, v_where
    ) into v_namespaces using v_conditions, v_begin, v_depth, v_offset, v_limit;
    v_answers := v_answers || v_namespaces;
    v_count := v_count + json_array_length(v_namespaces);
  end loop;
  if v.audit_reads then
    perform haive_private.audit_read(
      'list_memory_namespaces', jsonb_build_object((v.collection).name, v_count), v_count
    );
  end if;
  return array_to_json(v_answers);
end;
$$;

alter function haive_private.list_memory_namespaces(text, text, jsonb) owner to haive_writer;

comment on function haive_private.list_memory_namespaces(text, text, jsonb) is
'What haive.list_memory_namespaces does, for a caller without rights on the tables.';

create or replace function haive_private.first_labels(p_namespace jsonb, p_count int)
returns jsonb
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  if jsonb_array_length(p_namespace) <= p_count then
    return p_namespace;
  end if;
  return (
    select jsonb_agg(e.label order by e.place)
    from jsonb_array_elements(p_namespace) with ordinality as e (label, place)
    where e.place <= p_count
  );
end;
$$;

comment on function haive_private.first_labels(jsonb, int) is
'A namespace cut to so many labels.';

create or replace function haive_private.matches_namespace(p_namespace jsonb, p_conditions jsonb)
returns boolean
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return not exists (
    select from jsonb_array_elements(p_conditions) as c (condition)
    cross join lateral (
      select jsonb_array_length(p_namespace) - jsonb_array_length(c.condition -> 'path') as more
    ) as d
    where
      d.more < 0
      or exists (
        select
        from jsonb_array_elements_text(c.condition -> 'path') with ordinality as p (label, place)
        where
          p.label <> '*'
          and p.label is distinct from p_namespace ->> (
            p.place - 1 + case when c.condition ->> 'match_type' = 'suffix' then d.more else 0 end
          )::int
      )
  );
end;
$$;

comment on function haive_private.matches_namespace(jsonb, jsonb) is
'Whether a namespace begins or ends as all conditions say; the label * in them is any.';

create or replace function haive.list_memory_namespaces(
  collection text, listings jsonb, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.list_memory_namespaces(
    list_memory_namespaces.tenant, list_memory_namespaces.collection,
    list_memory_namespaces.listings
  )
$$;

comment on function haive.list_memory_namespaces(text, jsonb, text) is
'The namespaces that have items, for each of {conditions, max_depth, limit, offset, user_id} a list, in '
'the order of their labels and each once after it was cut to max_depth labels. A condition is '
'{match_type, path}: prefix or suffix, and labels of which * is any.';
