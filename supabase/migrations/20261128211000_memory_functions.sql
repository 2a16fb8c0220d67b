-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it; the grants take this away again.
grant usage, create on schema haive_private to haive_writer;

-- As in stored_bytes. The vector by its width and not by its column: that one may be compressed.
create or replace function haive_private.memory_bytes(
  p_metadata jsonb, p_vector_bytes int, p_tokens bytea
)
returns bigint
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return 100 + octet_length(p_metadata::text) + p_vector_bytes + coalesce(octet_length(p_tokens), 0);
end;
$$;

comment on function haive_private.memory_bytes(jsonb, int, bytea) is
'Bytes that a memory counts for.';

-- Keeps the statistics exact while nobody waits. Of those who write to a tenant's collection at once,
-- one gets the lock and changes the rows with part 0, in which it also gathers what is left of the
-- others; these write rows of their own. So no two ever want the same row, and there is no deadlock.
create or replace function haive_private.add_memory_words(
  p_tenant text,
  p_collection text,
  p_lexemes text[],
  p_in_text int[],
  p_in_all int[],
  p_memories bigint,
  p_text_words bigint,
  p_all_words bigint
)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  -- Where a statement does not see what others have committed, a row that they changed is an error.
  v_alone boolean := current_setting('transaction_isolation') = 'read committed'
    and pg_try_advisory_xact_lock(
      hashtextextended('haive/memory words/' || p_tenant || '/' || p_collection, 0)
    );
  v_part bigint := case when v_alone then 0 else pg_current_xact_id()::text::bigint end;
begin
  insert into haive_private.memory_words as w (
    tenant_id, collection, lexeme, part, in_text, in_all
  )
  select p_tenant, p_collection, u.lexeme, v_part, u.in_text, u.in_all
  from unnest(p_lexemes, p_in_text, p_in_all) as u (lexeme, in_text, in_all)
  on conflict (tenant_id, collection, lexeme, part) do update
  set in_text = w.in_text + excluded.in_text, in_all = w.in_all + excluded.in_all;
  insert into haive_private.memory_sizes as s (
    tenant_id, collection, part, memories, text_words, all_words
  )
  values (p_tenant, p_collection, v_part, p_memories, p_text_words, p_all_words)
  on conflict (tenant_id, collection, part) do update
  set
    memories = s.memories + excluded.memories,
    text_words = s.text_words + excluded.text_words,
    all_words = s.all_words + excluded.all_words;
  if v_alone then
    perform haive_private.gather_memory_words(p_tenant, p_collection, 5000);
    delete from haive_private.memory_words as w
    where
      w.tenant_id = p_tenant and w.collection = p_collection and w.lexeme = any(p_lexemes)
      and w.part = 0 and w.in_text = 0 and w.in_all = 0;
  end if;
end;
$$;

alter function haive_private.add_memory_words(
  text, text, text[], int[], int[], bigint, bigint, bigint
) owner to haive_writer;

comment on function haive_private.add_memory_words(
  text, text, text[], int[], int[], bigint, bigint, bigint
) is 'Adds to the statistics of words, or takes from them; the tenant was entered.';

-- Who calls it holds the lock.
create or replace function haive_private.gather_memory_words(
  p_tenant text, p_collection text, p_batch int
)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_lexemes text[];
begin
  with gone as (
    delete from haive_private.memory_words as w
    where w.ctid = any(array(
      select o.ctid from haive_private.memory_words as o
      where o.tenant_id = p_tenant and o.collection = p_collection and o.part <> 0
      limit p_batch
    ))
    returning w.lexeme, w.in_text, w.in_all
  ),
  gathered as (
    insert into haive_private.memory_words as w (
      tenant_id, collection, lexeme, part, in_text, in_all
    )
    select p_tenant, p_collection, g.lexeme, 0, sum(g.in_text), sum(g.in_all)
    from gone as g
    group by g.lexeme
    order by g.lexeme
    on conflict (tenant_id, collection, lexeme, part) do update
    set in_text = w.in_text + excluded.in_text, in_all = w.in_all + excluded.in_all
    returning w.lexeme
  )
  select array_agg(g.lexeme) into v_lexemes from gathered as g;
  if v_lexemes is not null then
    delete from haive_private.memory_words as w
    where
      w.tenant_id = p_tenant and w.collection = p_collection and w.lexeme = any(v_lexemes)
      and w.part = 0 and w.in_text = 0 and w.in_all = 0;
  end if;
  with gone as (
    delete from haive_private.memory_sizes as s
    where s.tenant_id = p_tenant and s.collection = p_collection and s.part <> 0
    returning s.memories, s.text_words, s.all_words
  )
  insert into haive_private.memory_sizes as s (
    tenant_id, collection, part, memories, text_words, all_words
  )
  select p_tenant, p_collection, 0, sum(g.memories), sum(g.text_words), sum(g.all_words)
  from gone as g
  having count(*) > 0
  on conflict (tenant_id, collection, part) do update
  set
    memories = s.memories + excluded.memories,
    text_words = s.text_words + excluded.text_words,
    all_words = s.all_words + excluded.all_words;
end;
$$;

alter function haive_private.gather_memory_words(text, text, int) owner to haive_writer;

comment on function haive_private.gather_memory_words(text, text, int) is
'Adds what writers have left in rows of their own to the rows of the words.';

-- The trigger of every collection's table: whoever writes to it, vecs itself included, the statistics
-- of its words stay exact, its bytes are metered, and nothing is stored of who was erased or in the
-- clear where content is sealed. Its arguments are the collection and the bytes of a vector.
-- Dynamic, for a statement has one of the transition tables, or both.
create or replace function haive_private.count_memories()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered text := current_setting('persistence.tenant', true);
  v_columns text := 'tenant_id, user_id, words, metadata, vec is null as bare, tokens';
  v_rows text;
  v record;
  v_words record;
begin
  v_rows := case tg_op
    when 'INSERT' then format('select %s, 1 as sign from added', v_columns)
    when 'DELETE' then format('select %s, -1 as sign from removed', v_columns)
    else format(
      'select %1$s, 1 as sign from added union all select %1$s, -1 as sign from removed', v_columns
    )
  end;
  for v in execute format(
    $q$
      select
        c.tenant_id, sum(c.sign)::bigint as memories,
        sum(c.sign * l.in_text)::bigint as text_words, sum(c.sign * l.in_all)::bigint as all_words,
        sum(
          c.sign * haive_private.memory_bytes(c.metadata, case when c.bare then 0 else $1 end, c.tokens)
        )::bigint as bytes,
        array_agg(distinct c.user_id) filter (where c.sign > 0 and c.user_id is not null) as users,
        bool_or(c.sign > 0) as written
      from (%s) as c
      cross join lateral (
        select
          coalesce(sum(cardinality(array_positions(u.weights, 'A'))), 0) as in_text,
          coalesce(sum(cardinality(u.positions)), 0) as in_all
        from unnest(c.words) as u
      ) as l
      group by c.tenant_id
      order by c.tenant_id
    $q$, v_rows
  ) using tg_argv[1]::int loop
    -- A tenant that is purged takes its statistics along.
    continue when not exists (select from haive.tenants as t where t.tenant_id = v.tenant_id);
    perform set_config('persistence.tenant', v.tenant_id, true);
    if v.written then
      perform from haive.tenants as t where t.tenant_id = v.tenant_id and t.encrypted;
      if found then
        raise exception using
          errcode = 'PT422',
          message = 'this tenant''s content is sealed by the client',
          hint = 'Memories are searched by their words, which the database would have to see.';
      end if;
    end if;
    if v.users is not null then
      perform haive_private.refuse_erased(v.tenant_id, v.users);
    end if;
    execute format(
      $q$
        select
          array_agg(s.lexeme order by s.lexeme) as lexemes,
          array_agg(s.in_text order by s.lexeme) as in_text,
          array_agg(s.in_all order by s.lexeme) as in_all
        from (
          select
            u.lexeme collate "C" as lexeme,
            sum(c.sign * ('A' = any(u.weights))::int)::int as in_text, sum(c.sign)::int as in_all
          from (%s) as c cross join lateral unnest(c.words) as u
          where c.tenant_id = $1
          group by 1
          having sum(c.sign) <> 0 or sum(c.sign * ('A' = any(u.weights))::int) <> 0
        ) as s
      $q$, v_rows
    ) into v_words using v.tenant_id;
    if v_words.lexemes is not null or v.memories <> 0 or v.text_words <> 0 or v.all_words <> 0 then
      perform haive_private.add_memory_words(
        v.tenant_id, tg_argv[0], v_words.lexemes, v_words.in_text, v_words.in_all, v.memories,
        v.text_words, v.all_words
      );
    end if;
    if v.bytes <> 0 and current_setting('persistence.watch', true) like '-%' is not true then
      perform haive_private.meter(v.tenant_id, 0, v.bytes);
    end if;
  end loop;
  perform set_config('persistence.tenant', coalesce(v_entered, ''), true);
  return null;
end;
$$;

alter function haive_private.count_memories() owner to haive_writer;

comment on function haive_private.count_memories() is
'Keeps the statistics of a collection''s words, and the meters of its tenants.';

-- vecs writes texts and vectors and knows of nothing else. put_memories says so when it writes.
create or replace function haive_private.drop_stale_tokens()
returns trigger
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  if current_setting('persistence.putting', true) is distinct from 'on' then
    new.tokens := null;
  end if;
  return new;
end;
$$;

comment on function haive_private.drop_stale_tokens() is
'Removes the vectors of words that a text had before it was changed.';

-- The first step of what is done with memories. Definer, as enter_tenant is.
-- The owner of the tables, which haive_writer is, is not bound by their policies: with policies, no
-- index of words or metadata could be used, for their operators are not leakproof. So each statement
-- names the tenant, and the condition made here is in all of them.
create or replace function haive_private.enter_collection(
  p_tenant text,
  p_collection text,
  p_write boolean,
  out tenant text,
  out actor text, -- null: all memories of the tenant; else: theirs, and those that are no user's
  out audit_reads boolean,
  out collection haive_private.memory_collections,
  out relation text, -- quoted
  out own text -- a condition on t: what the caller may see
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_caller record := haive_private.enter_tenant(p_tenant, p_write);
begin
  tenant := v_caller.tenant;
  actor := v_caller.actor;
  audit_reads := v_caller.audit_reads;
  select c.* into collection from haive_private.memory_collections as c
  where c.name = p_collection;
  if collection.name is null then
    raise exception using
      errcode = 'PT404',
      message = format('no collection %s', left(p_collection, 63)),
      hint = 'A service makes it with open_memory_collection.';
  end if;
  relation := format('vecs.%I', collection.table_name);
  own := format('t.tenant_id = %L', v_caller.tenant)
    || case
      when v_caller.actor is null then ''
      else format(' and (t.user_id is null or t.user_id = %L)', v_caller.actor)
    end;
end;
$$;

alter function haive_private.enter_collection(text, text, boolean) owner to haive_writer;

comment on function haive_private.enter_collection(text, text, boolean) is
'Enters the tenant, and finds a collection with what the caller may see of it.';

create or replace function haive_private.refuse_sealed_memories()
returns void
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  if current_setting('persistence.watch', true) like '%s%' then
    raise exception using
      errcode = 'PT422',
      message = 'this tenant''s content is sealed by the client',
      hint = 'Memories are searched by their words, which the database would have to see.';
  end if;
end;
$$;

comment on function haive_private.refuse_sealed_memories() is
'Refuses to write and search memories in a tenant whose content the database must not see; what is there '
'can be read and deleted.';

-- Of the server, not ours: another schema than extensions, where somebody made it there.
create or replace function haive_private.vector_schema()
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_schema text;
begin
  select n.nspname into v_schema
  from pg_extension as e
  join pg_namespace as n on n.oid = e.extnamespace
  where e.extname = 'vector';
  if v_schema is null or not has_schema_privilege('haive_writer', v_schema, 'usage') then
    raise exception using
      errcode = 'PT422',
      message = 'this database has no vectors',
      hint = 'As the superuser: create extension vector with schema extensions; grant usage on schema '
        'extensions to haive_writer;';
  end if;
  return quote_ident(v_schema);
end;
$$;

comment on function haive_private.vector_schema() is
'Where pgvector is installed, quoted.';

-- A filter as SQL. Nothing of it reaches the statement but as a literal: names of keys and values are
-- quoted, operators are one of the list below.
-- Below a "not" a condition on a key that is missing must be false and not null; elsewhere null does
-- as well, and an index can be used.
create or replace function haive_private.memory_condition(
  p_filter jsonb, p_depth int default 0, p_exact boolean default false
)
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_op text := p_filter ->> 'op';
  v_value jsonb := p_filter -> 'value';
  v_path text[];
  v_at text; -- the value in the metadata, as jsonb
  v_test text;
  v_parts text[];
begin
  if p_filter is null or p_filter = 'null' then
    return 'true';
  end if;
  if p_depth > 40 or (p_depth = 0 and pg_column_size(p_filter) > 1048576) then
    raise exception using
      errcode = 'PT422',
      message = 'the filter is too large',
      hint = 'It has at most 10 levels, 200 comparisons and 1,000 values in a list.';
  end if;
  if v_op in ('and', 'or', 'not') then
    if jsonb_typeof(p_filter -> 'parts') is distinct from 'array' then
      raise exception using
        errcode = 'PT422',
        message = format('the filter has no parts for %s', v_op),
        hint = 'parts is a list of filters.';
    end if;
    v_parts := array(
      select haive_private.memory_condition(e.part, p_depth + 1, p_exact or v_op = 'not')
      from jsonb_array_elements(p_filter -> 'parts') as e (part)
    );
    return case v_op
      when 'and' then coalesce('(' || nullif(array_to_string(v_parts, ' and '), '') || ')', 'true')
      when 'or' then coalesce('(' || nullif(array_to_string(v_parts, ' or '), '') || ')', 'false')
      else format('not (%s)', coalesce(nullif(array_to_string(v_parts, ' and '), ''), 'true'))
    end;
  end if;

  if
    jsonb_typeof(p_filter -> 'path') is distinct from 'array'
    or jsonb_array_length(p_filter -> 'path') not between 1 and 20
  then
    raise exception using
      errcode = 'PT422',
      message = 'the filter has no path',
      hint = 'path is a list of 1 to 20 keys.';
  end if;
  v_path := array(select jsonb_array_elements_text(p_filter -> 'path'));
  -- Key by key, and not by #>, to which '0' is the first of a list.
  v_at := 't.metadata' || (
    select string_agg(format(' -> %L', u.key), '' order by u.place)
    from unnest(v_path) with ordinality as u (key, place)
  );
  case v_op
    when 'eq', 'in' then
      if v_op = 'eq' then
        v_value := jsonb_build_array(v_value);
      end if;
      if jsonb_typeof(v_value) is distinct from 'array' or jsonb_array_length(v_value) > 1000 then
        raise exception using
          errcode = 'PT422',
          message = 'the filter has no list for in',
          hint = 'value is a list of at most 1,000.';
      end if;
      if
        jsonb_array_length(v_value) <= 20
        and not jsonb_path_exists(
          v_value, 'strict $[*] ? (@.type() == "object" || @.type() == "array")'
        )
      then
        -- The index of the metadata answers these: the value itself, or a list with it.
        v_test := coalesce((
          select string_agg(
            format(
              't.metadata @> %L or t.metadata @> %L',
              haive_private.nested(v_path, e.value),
              haive_private.nested(v_path, jsonb_build_array(e.value))
            ),
            ' or '
          )
          from jsonb_array_elements(v_value) as e (value)
        ), 'false');
      else
        v_test := format(
          '(%1$s) = any(%2$L::jsonb[]) or case when jsonb_typeof(%1$s) = ''array'' then exists ('
          'select from jsonb_array_elements(%1$s) as e (value) where e.value = any(%2$L::jsonb[])) end',
          v_at, array(select jsonb_array_elements(v_value))
        );
      end if;
    when 'ne' then
      return format('not (%s)', haive_private.memory_condition(
        p_filter || '{"op": "eq"}', p_depth + 1, true
      ));
    when 'nin' then
      return format('not (%s)', haive_private.memory_condition(
        p_filter || '{"op": "in"}', p_depth + 1, true
      ));
    when 'gt', 'gte', 'lt', 'lte' then
      v_test := case v_op when 'gt' then '>' when 'gte' then '>=' when 'lt' then '<' else '<=' end;
      v_test := case
        -- Between its bounds the column, which has an index and ends at them, compares the same.
        when v_path = array['importance'] and jsonb_typeof(v_value) = 'number'
          and v_value > '0' and v_value < '1' then
          format('t.importance %s %L::double precision', v_test, v_value)
        when jsonb_typeof(v_value) = 'number' then
          format(
            'case when jsonb_typeof(%1$s) = ''number'' then (%1$s)::numeric %2$s %3$L::numeric end',
            v_at, v_test, v_value
          )
        when jsonb_typeof(v_value) = 'string' then
          case
            when v_path = array['timestamp'] then
              format('t.happened_at %s %L collate "C"', v_test, v_value #>> '{}')
            else format(
              'case when jsonb_typeof(%1$s) = ''string'' then (%1$s #>> ''{}'') collate "C" %2$s %3$L end',
              v_at, v_test, v_value #>> '{}'
            )
          end
        else 'false'
      end;
    when 'contains' then
      v_test := format(
        'case when jsonb_typeof(%1$s) = ''array'' then exists ('
        'select from jsonb_array_elements(%1$s) as e (value) where e.value = %2$L::jsonb) end',
        v_at, v_value
      );
      if jsonb_typeof(v_value) = 'string' then
        v_test := format(
          '%s or case when jsonb_typeof(%s) = ''string'' then strpos(%s #>> ''{}'', %L) > 0 end',
          v_test, v_at, v_at, v_value #>> '{}'
        );
      end if;
    when 'exists' then
      v_test := format('(%s) is %s null', v_at, case when v_value = 'true' then 'not' else '' end);
    else
      raise exception using
        errcode = 'PT422',
        message = format('the filter has an unknown operator %s', left(v_op, 40)),
        hint = 'Operators are eq, ne, gt, gte, lt, lte, in, nin, contains, exists, and, or, not.';
  end case;
  return case when p_exact then format('coalesce(%s, false)', v_test) else format('(%s)', v_test) end;
end;
$$;

comment on function haive_private.memory_condition(jsonb, int, boolean) is
'The document of a filter as a condition on t, a row of a collection.';

create or replace function haive_private.nested(p_path text[], p_value jsonb)
returns jsonb
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  for v_place in reverse cardinality(p_path)..1 loop
    p_value := jsonb_build_object(p_path[v_place], p_value);
  end loop;
  return p_value;
end;
$$;

comment on function haive_private.nested(text[], jsonb) is
'An object with a value at a path of keys.';

-- Of all collections, a batch: of a user who is erased, or older than a tenant keeps. What is left of
-- their words in rows of writers is gathered in the end, and so removed.
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
  v_rows bigint;
  v_count bigint := 0;
begin
  for v in select c.* from haive_private.memory_collections as c order by c.name loop
    execute format(
      $q$
        with doomed as (
          select t.id from vecs.%1$I as t
          where t.tenant_id = $1 and %2$s
          order by t.id
          limit $4
          for update
        )
        delete from vecs.%1$I as t using doomed as d where t.id = d.id
      $q$, v.table_name,
      case
        when p_user_id is null then '(t.metadata ->> ''created_at'') collate "C" < $3'
        else 't.user_id = $2'
      end
    ) using p_tenant, p_user_id, p_before, p_batch - v_count;
    get diagnostics v_rows = row_count;
    v_count := v_count + v_rows;
    if v_rows > 0 then
      perform pg_advisory_xact_lock(
        hashtextextended('haive/memory words/' || p_tenant || '/' || v.name, 0)
      );
      perform haive_private.gather_memory_words(p_tenant, v.name, null);
    end if;
    exit when v_count >= p_batch;
  end loop;
  return v_count;
end;
$$;

alter function haive_private.drop_memories(text, text, text, int) owner to haive_writer;

comment on function haive_private.drop_memories(text, text, text, int) is
'Deletes memories of a user, or from before a time, in every collection; returns how many.';

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
          select t.id, t.metadata from vecs.%I as t
          where t.tenant_id = $2 and t.user_id = $3 and ($4 is null or t.id > $4)
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
'A page of the memories of a user, in every collection.';

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

create or replace function haive_private.count_rows(
  p_tenant text, out conversations bigint, out bytes bigint
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_more numeric;
begin
  select
    count(*),
    coalesce(
      sum(
        haive_private.conversation_bytes(c.title, c.tags, c.context, c.participants, c.settings)
        + coalesce(octet_length(c.sealed), 0)
      ),
      0
    )
  into conversations, bytes
  from haive.conversations as c where c.tenant_id = p_tenant;
  select sum(u.bytes) into v_more
  from (
    select
      sum(
        haive_private.message_bytes(m.content, m.parts, m.metadata)
        + coalesce(octet_length(m.sealed), 0)
      ) as bytes
    from haive.messages as m where m.tenant_id = p_tenant
    union all
    select sum(haive_private.checkpoint_bytes(c.payload, c.sealed, c.metadata, c.tags, c.search))
    from haive.checkpoints as c where c.tenant_id = p_tenant
    union all
    select sum(haive_private.checkpoint_bytes(w.payload))
    from haive.checkpoint_writes as w where w.tenant_id = p_tenant
    union all
    select sum(haive_private.checkpoint_bytes(s.payload))
    from haive.checkpoint_schemas as s where s.tenant_id = p_tenant
    union all
    select sum(haive_private.checkpoint_bytes(null, b.sealed, b.metadata))
    from haive.branches as b
    where b.tenant_id = p_tenant and num_nulls(b.metadata, b.sealed) < 2
  ) as u;
  bytes := bytes + coalesce(v_more, 0) + haive_private.stored_memory_bytes(p_tenant);
end;
$$;

alter function haive_private.count_rows(text) owner to haive_writer;

comment on function haive_private.count_rows(text) is
'What the tenant that was entered has, counted from its rows.';

-- Definer, for nobody writes tables directly.
create or replace function haive_private.purge_tenant(p_tenant_id text)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_conversations bigint;
begin
  perform haive_private.administer_tenant(p_tenant_id);
  perform from haive.tenants as t
  where t.tenant_id = p_tenant_id and t.status = 'deleted'
  for update;
  if not found then
    raise exception using
      errcode = 'PT409',
      message = format('the tenant %s is not deleted', left(p_tenant_id, 63)),
      hint = 'Delete it first: that can be undone, and this cannot.';
  end if;
  select count(*) into v_conversations
  from haive.conversations as c where c.tenant_id = p_tenant_id;
  -- All that belongs to it goes with it, by the foreign keys.
  delete from haive.tenants as t where t.tenant_id = p_tenant_id;
  delete from haive.events as e where e.tenant_id = p_tenant_id;
  delete from haive_private.memory_words as w where w.tenant_id = p_tenant_id;
  delete from haive_private.memory_sizes as s where s.tenant_id = p_tenant_id;
  return v_conversations;
end;
$$;

alter function haive_private.purge_tenant(text) owner to haive_writer;

comment on function haive_private.purge_tenant(text) is
'What haive.purge_tenant does, for a caller without rights on the table.';

create or replace function haive.purge_tenant(tenant_id text)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.purge_tenant(purge_tenant.tenant_id)
$$;

comment on function haive.purge_tenant(text) is
'Removes a deleted tenant with all that it has, and returns how many conversations those were; for '
'trusted callers only.';

-- One batch, and one transaction: whoever runs the job calls again until it is done. Records of the
-- audit log are not touched, whatever their age: a mode of compliance sets a minimum for those.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.apply_retention(p_tenant text, p_batch int)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_as_administrator(p_tenant, true);
  v_before timestamptz;
  v_events_before timestamptz;
  v_floor xid8;
  v_ids uuid[];
  v_keys uuid[];
  v_counts jsonb := '{}';
  v_events bigint;
  v_invitations bigint;
  v_memories bigint;
  v_more boolean := true;
begin
  if (p_batch between 1 and 100000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'batch is not between 1 and 100000',
      hint = 'It is how many rows go in one transaction.';
  end if;
  -- Of a tenant that keeps everything no conversation and no thread is older than null.
  select
    now() - (t.settings ->> 'data_retention_days')::numeric::int * interval '1 day',
    now() - coalesce((t.settings ->> 'event_retention_days')::numeric::int, 7) * interval '1 day'
  into v_before, v_events_before
  from haive.tenants as t where t.tenant_id = v_caller.tenant;
  v_events_before := greatest(v_before, v_events_before);

  -- A conversation goes whole, so that the last one may exceed the batch.
  v_ids := array(
    select s.id
    from (
      select c.id, sum(c.message_count + 1) over (order by c.active_hour, c.id) as rows
      from haive.conversations as c
      where
        c.tenant_id = v_caller.tenant
        and c.active_hour < v_before and c.last_message_at < v_before
      order by c.active_hour, c.id
      limit p_batch
    ) as s
    where s.rows <= p_batch
  );
  if cardinality(v_ids) = 0 then
    v_ids := array(
      select c.id from haive.conversations as c
      where
        c.tenant_id = v_caller.tenant
        and c.active_hour < v_before and c.last_message_at < v_before
      order by c.active_hour, c.id
      limit 1
    );
  end if;
  if cardinality(v_ids) > 0 then
    -- Looked at again under their locks: somebody may have gone on with one.
    v_ids := array(
      select c.id from haive.conversations as c
      where
        c.tenant_id = v_caller.tenant and c.id = any(v_ids) and c.last_message_at < v_before
      order by c.id
      for update
    );
    v_counts := haive_private.drop_conversations(v_caller.tenant, v_ids);
  else
    -- A thread goes with all of its namespaces, and not while one has something newer.
    v_keys := array(
      select t.thread_key
      from haive.threads as t
      where
        t.tenant_id = v_caller.tenant and t.created_at < v_before
        and not exists (
          select from haive.threads as s
          where
            s.thread_id = t.thread_id and s.tenant_id = t.tenant_id
            and (
              s.created_at >= v_before
              or exists (
                select from haive.branches as b
                where
                  b.tenant_id = s.tenant_id and b.thread_key = s.thread_key
                  and b.updated_at >= v_before
              )
            )
        )
      order by t.thread_id
      limit greatest(p_batch / 100, 1)
    );
    v_more := cardinality(v_keys) > 0;
    -- Looked at again under the locks of their branches, which every save takes.
    perform from haive.branches as b
    where b.tenant_id = v_caller.tenant and b.thread_key = any(v_keys)
    order by b.branch_id
    for update;
    v_keys := array(
      select t.thread_key from haive.threads as t
      where
        t.tenant_id = v_caller.tenant and t.thread_key = any(v_keys)
        and not exists (
          select from haive.threads as s
          join haive.branches as b on b.tenant_id = s.tenant_id and b.thread_key = s.thread_key
          where
            s.thread_id = t.thread_id and s.tenant_id = t.tenant_id and b.updated_at >= v_before
        )
    );
    v_counts := haive_private.drop_threads(v_caller.tenant, v_keys);
  end if;
  if not v_more and v_before is not null then
    v_memories := haive_private.drop_memories(
      v_caller.tenant, null,
      to_char(v_before at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), p_batch
    );
    v_more := v_memories > 0;
    v_counts := jsonb_build_object('memories', v_memories);
  end if;
  if not v_more then
    with oldest as (
      select o.xid, o.id, o.created_at from haive.events as o
      where o.tenant_id = v_caller.tenant
      order by o.xid, o.id
      limit p_batch
    ),
    gone as (
      delete from haive.events as e
      using oldest as o
      where
        e.tenant_id = v_caller.tenant and e.xid = o.xid and e.id = o.id
        and o.created_at < v_events_before
      returning e.xid
    )
    select count(*), max(g.xid) into v_events, v_floor from gone as g;
    if v_floor is not null then
      insert into haive_private.event_floors as f (tenant_id, xid)
      values (v_caller.tenant, v_floor)
      on conflict (tenant_id) do update set xid = greatest(f.xid, excluded.xid);
    end if;
    delete from haive.invitations as i
    where
      i.tenant_id = v_caller.tenant
      and least(i.expires_at, i.accepted_at, i.revoked_at) < v_before;
    get diagnostics v_invitations = row_count;
    v_counts := v_counts
      || jsonb_build_object('events', v_events, 'invitations', v_invitations);
  end if;
  return json_build_object(
    'before', v_before,
    'done', not v_more and v_events < p_batch,
    'counts', haive_private.sum_counts(v_counts, '{}')
  );
end;
$$;

alter function haive_private.apply_retention(text, int) owner to haive_writer;

comment on function haive_private.apply_retention(text, int) is
'What haive.apply_retention does, for a caller without rights on the tables.';

create or replace function haive.apply_retention(
  batch int default 10000, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.apply_retention(apply_retention.tenant, apply_retention.batch)
$$;

comment on function haive.apply_retention(int, text) is
'Deletes a batch of what is older than the data_retention_days of the tenant: conversations by their '
'last message, threads by their last checkpoint, memories and invitations; and events after '
'event_retention_days, 7 if not set. Returns {before, done, counts}; call again until done.';

-- The first call writes the tombstone, which is what late writers meet; each one after it deletes a
-- batch, and the last one finds nothing. Whoever stops between two goes on with the next.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.erase_user(p_tenant text, p_user_id text, p_batch int)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_as_administrator(p_tenant, true);
  v_salt bytea;
  v_tomb haive.erasures;
  v_ids uuid[];
  v_counts jsonb := '{}';
  v_rows bigint;
  v_memories bigint; -- null: not their turn yet
  v_more boolean := true;
begin
  if (length(p_user_id) between 1 and 200) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'user_id is not 1 to 200 characters',
      hint = 'It is the "sub" of the user''s tokens, or what conversations have as user_id.';
  elsif (p_batch between 1 and 100000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'batch is not between 1 and 100000',
      hint = 'It is how many rows go in one transaction.';
  end if;
  if v_caller.role = 'admin' and exists (
    select from haive.members as m
    where
      m.tenant_id = v_caller.tenant and m.user_id = p_user_id and m.role in ('owner', 'admin')
  ) then
    raise exception using
      errcode = 'PT403',
      message = 'only an owner erases owners and admins',
      hint = 'Admins erase members, readers and users who are no members.';
  elsif v_caller.role <> 'platform' then
    perform haive_private.keep_an_owner(v_caller.tenant, p_user_id);
  end if;

  select e.salt into v_salt from haive.erasures as e where e.tenant_id = v_caller.tenant limit 1;
  select * into v_tomb from haive.erasures as e
  where
    e.tenant_id = v_caller.tenant
    and e.subject_hash = sha256(v_salt || convert_to(p_user_id, 'UTF8'))
  for update;
  if not found then
    -- All who looked before it was there have ended when this lock is granted.
    perform pg_advisory_xact_lock(hashtextextended('erasures of ' || v_caller.tenant, 0));
    select e.salt into v_salt from haive.erasures as e where e.tenant_id = v_caller.tenant limit 1;
    v_salt := coalesce(v_salt, uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
    insert into haive.erasures (tenant_id, subject_hash, salt)
    values (v_caller.tenant, sha256(v_salt || convert_to(p_user_id, 'UTF8')), v_salt)
    on conflict (tenant_id, subject_hash) do update set tenant_id = excluded.tenant_id
    returning * into v_tomb;
    return json_build_object(
      'done', false, 'counts', v_tomb.counts, 'erased_at', v_tomb.erased_at, 'finished_at', null
    );
  end if;

  -- A conversation goes whole, so that the last one may exceed the batch.
  v_ids := array(
    select s.id
    from (
      select c.id, sum(c.message_count + 1) over (order by c.id) - c.message_count - 1 as rows
      from haive.conversations as c
      where c.tenant_id = v_caller.tenant and c.user_id = p_user_id
    ) as s
    where s.rows < p_batch
    order by s.id
  );
  if cardinality(v_ids) > 0 then
    v_counts := haive_private.drop_conversations(v_caller.tenant, v_ids);
  else
    v_ids := array(
      select c.id from haive.conversations as c
      where c.tenant_id = v_caller.tenant and c.participants::text[] @> array[p_user_id]
      order by c.id
      limit p_batch
      for update
    );
    update haive.conversations as c
    set participants = array_remove(c.participants::text[], p_user_id), updated_at = now()
    where c.tenant_id = v_caller.tenant and c.id = any(v_ids);
    get diagnostics v_rows = row_count;
    update haive.sessions as s
    set
      room = s.room + 1,
      writers = nullif(array_remove(s.writers::text[], p_user_id), '{}'),
      moderators = nullif(array_remove(s.moderators::text[], p_user_id), '{}')
    where s.tenant_id = v_caller.tenant and s.id = any(v_ids);
    insert into haive.events (tenant_id, kind, conversation_id)
    select v_caller.tenant, 'conversation.updated', u.id from unnest(v_ids) as u (id);
    v_counts := jsonb_build_object('participations', v_rows);
  end if;
  if cardinality(v_ids) = 0 then
    -- What they wrote in sessions of others stays, without their name.
    v_ids := array(
      select m.id from haive.messages as m
      where m.author = p_user_id and m.tenant_id = v_caller.tenant
      limit p_batch
    );
    update haive.messages as m
    set author = null
    where m.id = any(v_ids) and m.tenant_id = v_caller.tenant;
    get diagnostics v_rows = row_count;
    v_counts := jsonb_build_object('authorships', v_rows);
  end if;
  if cardinality(v_ids) = 0 then
    v_ids := array(
      select t.thread_key from haive.threads as t
      where t.tenant_id = v_caller.tenant and t.user_id = p_user_id
      order by t.thread_key
      limit greatest(p_batch / 100, 1)
    );
    if cardinality(v_ids) > 0 then
      v_counts := haive_private.drop_threads(v_caller.tenant, v_ids);
    end if;
  end if;
  if cardinality(v_ids) = 0 then
    v_memories := haive_private.drop_memories(v_caller.tenant, p_user_id, null, p_batch);
    v_counts := jsonb_build_object('memories', v_memories);
  end if;
  if v_memories = 0 then
    delete from haive.members as m
    where m.tenant_id = v_caller.tenant and m.user_id = p_user_id;
    get diagnostics v_rows = row_count;
    v_counts := v_counts || jsonb_build_object('members', v_rows);
    delete from haive.invitations as i
    where i.tenant_id = v_caller.tenant and (i.accepted_by = p_user_id or i.label = p_user_id);
    get diagnostics v_rows = row_count;
    v_counts := v_counts || jsonb_build_object('invitations', v_rows);
    update haive.invitations as i
    set
      created_by = null,
      revoked_at = case when i.accepted_at is null then coalesce(i.revoked_at, now()) end
    where i.tenant_id = v_caller.tenant and i.created_by = p_user_id;
    v_more := false;
  end if;

  update haive.erasures as e
  set
    counts = haive_private.sum_counts(e.counts, v_counts),
    finished_at = case when not v_more then coalesce(e.finished_at, now()) end
  where e.tenant_id = v_caller.tenant and e.subject_hash = v_tomb.subject_hash
  returning e.* into v_tomb;
  return json_build_object(
    'done', not v_more, 'counts', v_tomb.counts, 'erased_at', v_tomb.erased_at,
    'finished_at', v_tomb.finished_at
  );
end;
$$;

alter function haive_private.erase_user(text, text, int) owner to haive_writer;

comment on function haive_private.erase_user(text, text, int) is
'What haive.erase_user does, for a caller without rights on the tables.';

create or replace function haive.erase_user(
  user_id text, batch int default 10000, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.erase_user(erase_user.tenant, erase_user.user_id, erase_user.batch)
$$;

comment on function haive.erase_user(text, int, text) is
'Erases a user from the tenant, for its administrators: their conversations with messages, threads '
'with checkpoints, memories, events, their name among participants, membership and invitations. Returns {done, '
'counts, erased_at, finished_at}; call again until done. From the first call on nothing more is '
'stored that names them.';

-- What has no function of its own to be read by: conversations and threads have theirs.
-- Definer: some of the tables are closed to callers. Users read what is about themselves.
create or replace function haive_private.export_user(
  p_tenant text, p_user_id text, p_kind text, p_page_size int, p_page_after text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, false);
  v_answer json;
begin
  if v_caller.actor <> p_user_id then
    raise exception using
      errcode = 'PT403',
      message = 'only administrators export what is about others',
      hint = 'Name yourself, or ask an administrator of the tenant.';
  end if;
  if (p_page_size between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 10000',
      hint = 'Read on with page_after, the next of a page.';
  end if;
  if p_kind = 'memberships' then
    select json_build_object('rows', coalesce(json_agg(m), '[]'), 'next', null) into v_answer
    from (
      select o.tenant_id, o.user_id::text, o.role, o.created_at
      from haive.members as o
      where o.tenant_id = v_caller.tenant and o.user_id = p_user_id
    ) as m;
  elsif p_kind = 'invitations' then
    select
      json_build_object(
        'rows', coalesce(json_agg(haive_private.invitation_doc(i.*) order by i.id), '[]'),
        'next', case when count(*) = p_page_size then max(i.id::text) end
      )
    into v_answer
    from (
      select o.* from haive.invitations as o
      where
        o.tenant_id = v_caller.tenant
        and p_user_id in (o.accepted_by, o.created_by, o.label)
        and (p_page_after is null or o.id > p_page_after::uuid)
      order by o.id
      limit p_page_size
    ) as i;
  elsif p_kind = 'participations' then
    select
      json_build_object(
        'rows', coalesce(json_agg(c order by c.id), '[]'),
        'next', case when count(*) = p_page_size then max(c.id::text) end
      )
    into v_answer
    from (
      select o.id, o.agent_id::text, o.title::text, o.created_at::timestamptz, o.last_message_at
      from haive.conversations as o
      where
        o.tenant_id = v_caller.tenant and o.participants::text[] @> array[p_user_id]
        and o.user_id is distinct from p_user_id
        and (p_page_after is null or o.id > p_page_after::uuid)
      order by o.id
      limit p_page_size
    ) as c;
  elsif p_kind = 'authorships' then
    -- By their places: the content is another's conversation, and sealed where the tenant's content is.
    select
      json_build_object(
        'rows', coalesce(json_agg(m order by m.id), '[]'),
        'next', case when count(*) = p_page_size then max(m.id::text) end
      )
    into v_answer
    from (
      select o.id, o.conversation_id, o.seq, o.created_at::timestamptz
      from haive.messages as o
      where
        o.author = p_user_id and o.tenant_id = v_caller.tenant
        and (p_page_after is null or o.id > p_page_after::uuid)
        and not exists (
          select from haive.conversations as c
          where
            c.tenant_id = o.tenant_id and c.id = o.conversation_id and c.user_id = p_user_id
        )
      order by o.id
      limit p_page_size
    ) as m;
  elsif p_kind = 'memories' then
    v_answer := haive_private.memories_of_user(
      v_caller.tenant, p_user_id, p_page_size, p_page_after
    );
  elsif p_kind = 'events' then
    select
      json_build_object(
        'rows', coalesce(json_agg(e order by e.xid, e.id), '[]'),
        'next', case
          when count(*) = p_page_size then (
            array_agg(format('%s/%s', e.xid, e.id) order by e.xid, e.id)
          )[p_page_size]
        end
      )
    into v_answer
    from (
      select
        o.xid, o.id, o.kind::text, o.conversation_id, o.first_seq, o.last_seq, o.thread_key,
        o.checkpoint_id, o.created_at
      from haive.events as o
      where
        o.tenant_id = v_caller.tenant
        and (
          p_page_after is null
          or (o.xid, o.id) > (
            split_part(p_page_after, '/', 1)::xid8, split_part(p_page_after, '/', 2)::bigint
          )
        )
        and (
          o.conversation_id in (
            select c.id from haive.conversations as c
            where c.tenant_id = v_caller.tenant and c.user_id = p_user_id
          )
          or o.thread_key in (
            select t.thread_key from haive.threads as t
            where t.tenant_id = v_caller.tenant and t.user_id = p_user_id
          )
        )
      order by o.xid, o.id
      limit p_page_size
    ) as e;
  elsif p_kind = 'audit' then
    -- What they did and, for administrators, what was done to their membership: that names others.
    select
      json_build_object(
        'rows', coalesce(json_agg(a order by a.seq), '[]'),
        'next', case when count(*) = p_page_size then max(a.seq)::text end
      )
    into v_answer
    from (
      select
        o.seq, o.at, o.actor, o.login, o.role, o.action, o.object, o.rows, o.row_count,
        o.address, o.application, o.request_id
      from haive.audit_log as o
      where
        o.tenant_id = v_caller.tenant
        and (
          o.actor = p_user_id
          or (v_caller.actor is null and o.object = 'members' and o.rows ? p_user_id)
        )
        and o.seq > coalesce(p_page_after, '0')::bigint
      order by o.seq
      limit p_page_size
    ) as a;
  else
    raise exception using
      errcode = 'PT422',
      message = 'the kind is unknown',
      hint = 'Kinds are memberships, invitations, participations, authorships, memories, events and '
        'audit.';
  end if;
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'export_user', jsonb_build_object(p_user_id, p_kind), json_array_length(v_answer -> 'rows')
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.export_user(text, text, text, int, text) owner to haive_writer;

comment on function haive_private.export_user(text, text, text, int, text) is
'What haive.export_user does, for a caller without rights on the tables.';

create or replace function haive.export_user(
  user_id text,
  kind text,
  page_size int default 1000,
  page_after text default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.export_user(
    export_user.tenant, export_user.user_id, export_user.kind, export_user.page_size,
    export_user.page_after
  )
$$;

comment on function haive.export_user(text, text, int, text, text) is
'A page of what is held about a user: memberships, invitations, participations (conversations of '
'others that name them), authorships (messages there), memories, events or audit. Returns {rows, '
'next}; read on with page_after, the next of the page before. For administrators, and for the users themselves.';

-- Makes the table at run time, so that each collection has a type, an index and a language of its own.
-- Definer: haive_writer owns the tables in schema vecs.
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
        ) references haive.tenants (tenant_id) on delete cascade,
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
  if v_bytes between 1 and 3000 then
    -- Beside the row, each vector that is compared would be one more look into an index.
    execute format('alter table %s alter column vec set storage plain', v_table);
    execute format('alter table %s set (toast_tuple_target = 4080)', v_table);
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
  execute format('create index on %s using gin (metadata jsonb_path_ops)', v_table);
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

comment on function haive_private.open_memory_collection(text, jsonb) is
'What haive.open_memory_collection does, for a caller without rights on the tables.';

create or replace function haive_private.memory_collection_doc(
  p_row haive_private.memory_collections
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return json_build_object(
    'name', p_row.name, 'table', p_row.table_name, 'model', p_row.model,
    'dimensions', p_row.dimensions, 'storage', p_row.storage, 'metric', p_row.metric,
    'language', p_row.language, 'index_type', p_row.index_type, 'm', p_row.m,
    'ef_construction', p_row.ef_construction, 'created_at', p_row.created_at
  );
end;
$$;

comment on function haive_private.memory_collection_doc(haive_private.memory_collections) is
'A collection as JSON.';

-- The statement that makes an index of the vectors: of all tenants, or of one that is large enough for
-- one of its own. The name that vecs looks for begins with ix_vector and the operators.
create or replace function haive_private.memory_index(
  p_row haive_private.memory_collections, p_tenant text, p_concurrently boolean
)
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_vectors text := haive_private.vector_schema();
  v_operators text := case p_row.metric
    when 'cosine' then 'cosine' when 'l2' then 'l2' else 'ip'
  end;
begin
  return format(
    'create index %s if not exists %I on vecs.%I using %s %s%s',
    case when p_concurrently then 'concurrently' else '' end,
    haive_private.memory_index_name(p_row, p_tenant),
    p_row.table_name,
    case p_row.index_type when 'ivfflat' then 'ivfflat' else 'hnsw' end,
    case
      when p_row.index_type = 'binary' then format(
        '((%1$s.binary_quantize(vec)::bit(%2$s)) %1$s.bit_hamming_ops) '
        'with (m = %3$s, ef_construction = %4$s)',
        v_vectors, p_row.dimensions, p_row.m, p_row.ef_construction
      )
      when p_row.index_type = 'ivfflat' then format(
        '(vec %s.%s_%s_ops) with (lists = %s)', v_vectors, p_row.storage, v_operators,
        -- As pgvector advises: rows / 1000, and their root above a million.
        (
          select greatest(
            10, case when s.n > 1000000 then sqrt(s.n)::int else (s.n / 1000)::int end
          )
          from (
            select greatest(c.reltuples, 0) as n from pg_class as c
            where c.oid = to_regclass(format('vecs.%I', p_row.table_name))
          ) as s
        )
      )
      else format(
        '(vec %s.%s_%s_ops) with (m = %s, ef_construction = %s)',
        v_vectors, p_row.storage, v_operators, p_row.m, p_row.ef_construction
      )
    end,
    case when p_tenant is null then '' else format(' where tenant_id = %L', p_tenant) end
  );
end;
$$;

comment on function haive_private.memory_index(haive_private.memory_collections, text, boolean) is
'The statement that makes an index of vectors.';

create or replace function haive_private.memory_index_name(
  p_row haive_private.memory_collections, p_tenant text
)
returns text
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return case
    when p_tenant is not null then 'ix_own_' || left(md5(p_row.table_name || '/' || p_tenant), 16)
    when p_row.index_type = 'binary' then 'ix_bits_' || left(md5(p_row.table_name), 16)
    else format(
      'ix_vector_%s_ops_%s_%s',
      case p_row.metric when 'cosine' then 'cosine' when 'l2' then 'l2' else 'ip' end,
      p_row.index_type, left(md5(p_row.table_name), 16)
    )
  end;
end;
$$;

comment on function haive_private.memory_index_name(haive_private.memory_collections, text) is
'What an index of vectors is called.';

create or replace function haive.open_memory_collection(settings jsonb, tenant text default null)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.open_memory_collection(
    open_memory_collection.tenant, open_memory_collection.settings
  )
$$;

comment on function haive.open_memory_collection(jsonb, text) is
'Makes a collection of memories where there is none of the name, and returns what it is: {name, table, '
'model, dimensions, storage, metric, language, index_type, m, ef_construction, created_at}. Takes the '
'same but table, storage and created_at. For services only; all tenants of the installation share it.';

-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.put_memories(
  p_tenant text, p_collection text, p_memories jsonb, p_replace_only boolean
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, true);
  v_type text := format('%s.%I', haive_private.vector_schema(), (v.collection).storage);
  -- What is nobody's is everybody's to read, and not to replace.
  v_own text := v.own || case when v.actor is null then '' else ' and t.user_id is not null' end;
  v_changes constant text := $q$
    vec = coalesce(%1$s.vec, t.vec),
    metadata = %1$s.metadata,
    tokens = case when %1$s.vec is null then coalesce(%1$s.tokens, t.tokens) else %1$s.tokens end
  $q$;
  v_write text;
  v_given bigint;
  v_written bigint;
begin
  perform haive_private.refuse_sealed_memories();
  if jsonb_typeof(p_memories) is distinct from 'array' or jsonb_array_length(p_memories) > 10000 then
    raise exception using
      errcode = 'PT422',
      message = 'memories is no list of at most 10,000',
      hint = 'Each is {id, metadata, vector, tokens}.';
  end if;
  perform from jsonb_array_elements(p_memories) as m (memory)
  where
    (
      jsonb_typeof(m.memory -> 'id') = 'string' and length(m.memory ->> 'id') between 1 and 200
      and jsonb_typeof(m.memory -> 'metadata') = 'object'
      and coalesce(jsonb_typeof(m.memory -> 'vector'), 'null') in ('null', 'string')
      and coalesce(jsonb_typeof(m.memory -> 'tokens'), 'null') in ('null', 'string')
    ) is not true;
  if found then
    raise exception using
      errcode = 'PT422',
      message = 'a memory is not {id, metadata, vector, tokens}',
      hint = 'id is a text of 1 to 200 characters, metadata an object, vector a text such as [1,2], '
        'tokens base64; the last two may be left out.';
  end if;
  perform from jsonb_array_elements(p_memories) as m (memory)
  where
    pg_column_size(m.memory -> 'metadata') > 1048576
    or octet_length(m.memory ->> 'tokens') > 4194304;
  if found then
    raise exception using
      errcode = 'PT413',
      message = 'a memory is too large',
      hint = 'Metadata, its text included, is at most 1 MiB, and tokens 3 MiB.';
  end if;
  if v.actor is not null then
    perform from jsonb_array_elements(p_memories) as m (memory)
    -- A number is no user's id, and would make a memory of nobody's.
    where m.memory -> 'metadata' -> 'user_id' is distinct from to_jsonb(v.actor);
    if found then
      raise exception using
        errcode = 'PT403',
        message = 'members write memories of their own',
        hint = 'The user_id of each is the user''s; administrators and services write all.';
    end if;
  end if;
  if (v.collection).model is null and jsonb_path_exists(
    p_memories, '$[*].vector ? (@ != null)', '{}', true
  ) then
    raise exception using
      errcode = 'PT422',
      message = format('the collection %s has no vectors', (v.collection).name),
      hint = 'It was opened without a model.';
  end if;

  -- In one order, so that writers of the same memories do not wait in a circle. What is only replaced
  -- is locked first: it is there then, or somebody has removed it and it stays away.
  v_write := case
    when p_replace_only then format(
      $q$
        there as (
          select t.id from %1$s as t
          where %2$s and t.id in (select g.id from given as g)
          order by t.id
          for update
        ),
        written as (
          update %1$s as t set %3$s
          from given as g join there as h on h.id = g.id
          where t.id = g.id
          returning 1
        ),
        wanted as (
          select from written
          union all
          select from %1$s as t where t.id in (select g.id from given as g) and (%2$s) is not true
        )
      $q$, v.relation, v_own, format(v_changes, 'g')
    )
    else format(
      $q$
        written as (
          insert into %1$s as t (id, vec, metadata, tenant_id, tokens)
          select g.id, g.vec, g.metadata, $2, g.tokens from given as g order by g.id
          on conflict (id) do update set %3$s
          where %2$s
          returning 1
        ),
        wanted as (select from given)
      $q$, v.relation, v_own, format(v_changes, 'excluded')
    )
  end;
  perform set_config('persistence.putting', 'on', true);
  begin
    execute format(
      $q$
        with given as (
          select distinct on (m.memory ->> 'id')
            m.memory ->> 'id' as id, (m.memory ->> 'vector')::%1$s as vec,
            m.memory -> 'metadata' as metadata, decode(m.memory ->> 'tokens', 'base64') as tokens
          from jsonb_array_elements($1) with ordinality as m (memory, place)
          order by m.memory ->> 'id', m.place desc
        ),
        %2$s
        select (select count(*) from wanted), (select count(*) from written)
      $q$, v_type, v_write
    ) into v_given, v_written using p_memories, v.tenant;
  exception
    -- Of the values, and nothing else: what a trigger refuses has codes of ours.
    when data_exception or invalid_text_representation or numeric_value_out_of_range then
      raise exception using
        errcode = 'PT422',
        message = 'a vector or the tokens of a memory cannot be read',
        hint = format(
          'Vectors are of %s finite numbers, tokens base64.',
          coalesce((v.collection).dimensions::text, 'no')
        );
  end;
  perform set_config('persistence.putting', '', true);
  if v_written < v_given then
    raise exception using
      errcode = 'PT409',
      message = 'the id of a memory is taken',
      hint = 'It is another user''s or tenant''s. Give each memory an id of its own, a UUIDv7.';
  end if;
  return v_written;
end;
$$;

alter function haive_private.put_memories(text, text, jsonb, boolean) owner to haive_writer;

comment on function haive_private.put_memories(text, text, jsonb, boolean) is
'What haive.put_memories does, for a caller without rights on the tables.';

create or replace function haive.put_memories(
  collection text, memories jsonb, tenant text default null, replace_only boolean default false
)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.put_memories(
    put_memories.tenant, put_memories.collection, put_memories.memories, put_memories.replace_only
  )
$$;

comment on function haive.put_memories(text, jsonb, text, boolean) is
'Writes memories, all or none, replacing those of the same id, and returns how many. Each is {id, '
'metadata, vector, tokens}: vector as text, [1,2,3]; tokens as base64. Without a vector the one that is '
'there stays, and without either the tokens too. With replace_only those that are not there (any more) '
'are left out: it does not bring back what was forgotten meanwhile.';

-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.get_memories(
  p_tenant text, p_collection text, p_ids text[], p_vectors boolean
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
begin
  if cardinality(p_ids) > 10000 then
    raise exception using
      errcode = 'PT422',
      message = 'ids are more than 10,000',
      hint = 'Ask for them in several calls.';
  end if;
  execute format(
    $q$
      select coalesce(json_agg(m.doc order by m.place), '[]')
      from (
        select u.place, %2$s as doc
        from unnest($1) with ordinality as u (id, place)
        join %1$s as t on t.id = u.id
        where %3$s
      ) as m
    $q$, v.relation, haive_private.memory_doc(p_vectors), v.own
  ) into v_answer using p_ids;
  if v.audit_reads then
    perform haive_private.audit_read(
      'get_memories', jsonb_build_object((v.collection).name, json_array_length(v_answer)),
      json_array_length(v_answer)
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.get_memories(text, text, text[], boolean) owner to haive_writer;

comment on function haive_private.get_memories(text, text, text[], boolean) is
'What haive.get_memories does, for a caller without rights on the tables.';

create or replace function haive_private.memory_doc(p_vectors boolean)
returns text
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return case
    when p_vectors then
      'json_build_object(''id'', t.id, ''metadata'', t.metadata, ''vector'', t.vec::text)'
    else 'json_build_object(''id'', t.id, ''metadata'', t.metadata)'
  end;
end;
$$;

comment on function haive_private.memory_doc(boolean) is
'The expression that makes a memory JSON, with its vector as text where that is wanted.';

create or replace function haive.get_memories(
  collection text, ids text[], vectors boolean default false, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.get_memories(
    get_memories.tenant, get_memories.collection, get_memories.ids, get_memories.vectors
  )
$$;

comment on function haive.get_memories(text, text[], boolean, text) is
'Memories by id in the order asked for, without those that are not there: a list of {id, metadata} '
'and, where wanted, vector.';

-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.find_memories(
  p_tenant text,
  p_collection text,
  p_filter jsonb,
  p_page_size int,
  p_page_after text,
  p_vectors boolean
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
begin
  if (p_page_size between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 10000',
      hint = 'Read on with page_after, the last id of a page.';
  end if;
  execute format(
    $q$
      select coalesce(json_agg(%2$s order by t.id), '[]')
      from (
        select t.* from %1$s as t
        where %3$s and %4$s and ($2 is null or t.id > $2)
        order by t.id
        limit $1
      ) as t
    $q$, v.relation, haive_private.memory_doc(p_vectors), v.own,
    haive_private.memory_condition(p_filter)
  ) into v_answer using p_page_size, p_page_after;
  if v.audit_reads then
    perform haive_private.audit_read(
      'find_memories', jsonb_build_object((v.collection).name, json_array_length(v_answer)),
      json_array_length(v_answer)
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.find_memories(text, text, jsonb, int, text, boolean)
owner to haive_writer;

comment on function haive_private.find_memories(text, text, jsonb, int, text, boolean) is
'What haive.find_memories does, for a caller without rights on the tables.';

create or replace function haive.find_memories(
  collection text,
  filter jsonb default null,
  page_size int default 100,
  page_after text default null,
  vectors boolean default false,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.find_memories(
    find_memories.tenant, find_memories.collection, find_memories.filter, find_memories.page_size,
    find_memories.page_after, find_memories.vectors
  )
$$;

comment on function haive.find_memories(text, jsonb, int, text, boolean, text) is
'A page of the memories that pass a filter, by id: a list of {id, metadata} and, where wanted, vector. '
'Archived and superseded ones are among them. A filter is {op, path, value} or {op, parts}.';

-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.number_of_memories(
  p_tenant text, p_collection text, p_filter jsonb
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, false);
  v_answer bigint;
begin
  execute format(
    'select count(*) from %s as t where %s and %s', v.relation, v.own,
    haive_private.memory_condition(p_filter)
  ) into v_answer;
  if v.audit_reads then
    perform haive_private.audit_read(
      'count_memories', jsonb_build_object((v.collection).name, v_answer), v_answer
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.number_of_memories(text, text, jsonb) owner to haive_writer;

comment on function haive_private.number_of_memories(text, text, jsonb) is
'What haive.count_memories does, for a caller without rights on the tables.';

create or replace function haive.count_memories(
  collection text, filter jsonb default null, tenant text default null
)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.number_of_memories(
    count_memories.tenant, count_memories.collection, count_memories.filter
  )
$$;

comment on function haive.count_memories(text, jsonb, text) is
'How many memories pass a filter, archived and superseded ones among them.';

-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.delete_memories(
  p_tenant text, p_collection text, p_ids text[]
)
returns text[]
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, true);
  v_own text := v.own;
  v_answer text[];
begin
  if cardinality(p_ids) > 10000 then
    raise exception using
      errcode = 'PT422',
      message = 'ids are more than 10,000',
      hint = 'Delete them in several calls.';
  end if;
  if v.actor is not null then
    -- What is nobody's is everybody's to read, and not to remove.
    v_own := v_own || ' and t.user_id is not null';
  end if;
  execute format(
    $q$
      with doomed as (
        select t.id from %1$s as t where %2$s and t.id = any($1) order by t.id for update
      ),
      gone as (
        delete from %1$s as t using doomed as d where t.id = d.id returning t.id
      )
      select coalesce(array_agg(g.id::text order by array_position($1, g.id::text)), '{}')
      from gone as g
    $q$, v.relation, v_own
  ) into v_answer using p_ids;
  return v_answer;
end;
$$;

alter function haive_private.delete_memories(text, text, text[]) owner to haive_writer;

comment on function haive_private.delete_memories(text, text, text[]) is
'What haive.delete_memories does, for a caller without rights on the tables.';

create or replace function haive.delete_memories(
  collection text, ids text[], tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select to_json(haive_private.delete_memories(
    delete_memories.tenant, delete_memories.collection, delete_memories.ids
  ))
$$;

comment on function haive.delete_memories(text, text[], text) is
'Removes memories, and returns the ids of those that were there.';

-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.memory_tokens(
  p_tenant text, p_collection text, p_ids text[]
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
begin
  if cardinality(p_ids) > 10000 then
    raise exception using
      errcode = 'PT422',
      message = 'ids are more than 10,000',
      hint = 'Ask for them in several calls.';
  end if;
  execute format(
    $q$
      select coalesce(json_object_agg(t.id, encode(t.tokens, 'base64')), '{}')
      from %s as t
      where %s and t.id = any($1) and t.tokens is not null
    $q$, v.relation, v.own
  ) into v_answer using p_ids;
  if v.audit_reads then
    perform haive_private.audit_read(
      'memory_tokens', jsonb_build_object((v.collection).name, cardinality(p_ids)),
      cardinality(p_ids)
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.memory_tokens(text, text, text[]) owner to haive_writer;

comment on function haive_private.memory_tokens(text, text, text[]) is
'What haive.memory_tokens does, for a caller without rights on the tables.';

create or replace function haive.memory_tokens(
  collection text, ids text[], tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.memory_tokens(
    memory_tokens.tenant, memory_tokens.collection, memory_tokens.ids
  )
$$;

comment on function haive.memory_tokens(text, text[], text) is
'The vectors of words that memories were stored with, for reranking: base64 by id, without those that '
'have none.';

-- The nearest vectors, by a way that was chosen by counting and not by the planner's luck:
--  * all that pass are compared where they are few: the answer is exact, and a filter loses nothing;
--  * else the index is read, on and on until enough rows have passed the filter (iterative scan). A
--    tenant with many rows, and yet few of all, has an index of its own, which plan_memory_indexes
--    made: reading on in the one of all would lose half of them;
--  * where even that found less than was asked for, all are compared after all.
-- Definer, for it reads the tables in schema vecs: the condition has the tenant in it.
create or replace function haive_private.nearest_memories(
  p_collection haive_private.memory_collections,
  p_condition text, -- on t, a row of the collection
  p_filtered boolean, -- whether it leaves out more than the tenant's archive
  p_tenant text,
  p_vector text,
  p_limit int,
  p_recall double precision,
  p_candidates int default null -- of the index, to measure what it finds
)
returns text[]
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  c_few constant bigint := 10000; -- 10,000 of 384 dimensions are compared in 20 ms
  v_vectors text := haive_private.vector_schema();
  v_relation text := format('vecs.%I', p_collection.table_name);
  v_distance text;
  v_order text;
  v_found text[];
  v_tenant_rows bigint;
  v_all bigint;
  v_share double precision;
  v_few boolean := true;
  v_recalls jsonb;
  v_ef int;
  v_wide int := p_limit;
  v_settings text[];
  v_done text;
begin
  v_distance := format(
    't.vec operator(%1$s.%2$s) %3$L::%1$s.%4$I', v_vectors,
    case p_collection.metric when 'cosine' then '<=>' when 'l2' then '<->' else '<#>' end,
    p_vector, p_collection.storage
  );
  -- Of the tenant, exactly; of all, as the last analyze left it.
  select coalesce(sum(s.memories), 0), min(s.recalls::text)::jsonb into v_tenant_rows, v_recalls
  from haive_private.memory_sizes as s
  where s.tenant_id = p_tenant and s.collection = p_collection.name;
  if p_collection.index_type <> 'flat' and p_recall < 1 and v_tenant_rows > c_few then
    v_few := false;
    if p_filtered then
      select greatest(c.reltuples, v_tenant_rows)::bigint into v_all
      from pg_class as c where c.oid = v_relation::regclass;
      -- Some 2,000 rows tell a broad filter; where they do not, counting goes no further than it must.
      execute format(
        'select avg(((%s) is true)::int) from %s as t tablesample system (%s) repeatable (1)',
        p_condition, v_relation, least(100, greatest(0.01, 200000.0 / v_all))
      ) into v_share;
      if coalesce(v_share, 0) * v_all < 3 * c_few then
        execute format(
          'select count(*) <= %s from (select from %s as t where %s limit %1$s + 1) as p',
          c_few, v_relation, p_condition
        ) into v_few;
      end if;
    end if;
  end if;

  if not v_few then
    -- As it was measured, on a sample, so with something in hand; else as it usually is.
    select min(m.candidates::int) into v_ef
    from jsonb_each_text(v_recalls) as m (candidates, recall)
    where m.recall::double precision >= (1 + 2 * p_recall) / 3;
    v_ef := case
      when p_candidates is not null then p_candidates
      when v_ef is not null then v_ef
      when v_recalls is not null then 1000
      when p_recall <= 0.95 then 40 when p_recall <= 0.975 then 64 when p_recall <= 0.985 then 100
      when p_recall <= 0.99 then 160 when p_recall <= 0.995 then 250 else 500
    end;
    -- By the bits is not quite by distance: more are fetched, and sorted again.
    if p_collection.index_type = 'binary' then
      v_wide := greatest(
        p_limit,
        case
          when p_candidates is not null or v_recalls is not null then v_ef
          when p_recall > 0.97 then 400
          else 200
        end
      );
      v_order := format(
        '%1$s.binary_quantize(t.vec)::bit(%2$s) operator(%1$s.<~>) '
        '%1$s.binary_quantize(%3$L::%1$s.%4$I)::bit(%2$s)',
        v_vectors, p_collection.dimensions, p_vector, p_collection.storage
      );
    else
      v_order := v_distance;
    end if;
    v_settings := array[
      current_setting('enable_seqscan'), current_setting('enable_bitmapscan'),
      current_setting('enable_sort'), current_setting('jit')
    ];
    v_done := set_config('enable_seqscan', 'off', true);
    v_done := set_config('enable_bitmapscan', 'off', true);
    v_done := set_config('enable_sort', 'off', true);
    v_done := set_config('jit', 'off', true);
    if p_collection.index_type = 'ivfflat' then
      v_done := set_config('ivfflat.probes', greatest(1, v_ef / 4)::text, true);
      v_done := set_config('ivfflat.iterative_scan', 'relaxed_order', true);
    else
      v_done := set_config('hnsw.ef_search', least(1000, greatest(v_ef, v_wide))::text, true);
      v_done := set_config('hnsw.iterative_scan', 'relaxed_order', true);
      v_done := set_config('hnsw.max_scan_tuples', 40000::text, true);
    end if;
    execute format(
      $q$
        with wide as materialized (
          select t.id, %1$s as distance from %2$s as t
          where %3$s and t.vec is not null
          order by %4$s
          limit %5$s
        )
        select array_agg(n.id order by n.distance, n.id)
        from (select w.* from wide as w order by w.distance, w.id limit %6$s) as n
      $q$, v_distance, v_relation, p_condition, v_order, v_wide, p_limit
    ) into v_found;
    v_done := set_config('enable_seqscan', v_settings[1], true);
    v_done := set_config('enable_bitmapscan', v_settings[2], true);
    v_done := set_config('enable_sort', v_settings[3], true);
    v_done := set_config('jit', v_settings[4], true);
    if cardinality(v_found) >= p_limit then
      return v_found;
    end if;
  end if;

  -- The sum keeps any index of vectors out of it.
  execute format(
    $q$
      select coalesce(array_agg(n.id order by n.distance, n.id), '{}')
      from (
        select t.id, (%1$s) + 0.0 as distance from %2$s as t
        where %3$s and t.vec is not null
        order by 2, 1
        limit %4$s
      ) as n
    $q$, v_distance, v_relation, p_condition, p_limit
  ) into v_found;
  return v_found;
end;
$$;

alter function haive_private.nearest_memories(
  haive_private.memory_collections, text, boolean, text, text, int, double precision,
  int
) owner to haive_writer;

comment on function haive_private.nearest_memories(
  haive_private.memory_collections, text, boolean, text, text, int, double precision,
  int
) is 'The memories whose vectors are nearest, nearest first.';

-- What BM25 needs to know of the words of a query: in how many memories they are. For who sees all of
-- the tenant it is exact, and kept by the triggers. A member's answers must not tell how many of the
-- others' memories have a word, so for them only what they may see is counted: of what has one of the
-- words, the first 4,000; of how many there are, theirs and nobody's up to 10,000 each.
-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.weigh_words(
  p_tenant text,
  p_actor text, -- null: all memories of the tenant
  p_collection haive_private.memory_collections,
  p_words tsvector,
  out memories double precision,
  out text_words double precision,
  out all_words double precision,
  out lexemes text[], -- of the query, the rarest 64 of those that are there at all, the rarest first
  out in_text double precision[], -- in how many texts each is
  out in_all double precision[]
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
  c_words constant int := 64;
begin
  if p_actor is null then
    select coalesce(sum(s.memories), 0), sum(s.text_words), sum(s.all_words)
    into memories, text_words, all_words
    from haive_private.memory_sizes as s
    where s.tenant_id = p_tenant and s.collection = p_collection.name;
    select
      array_agg(g.lexeme order by g.in_all, g.lexeme),
      array_agg(g.in_text order by g.in_all, g.lexeme),
      array_agg(g.in_all order by g.in_all, g.lexeme)
    into lexemes, in_text, in_all
    from (
      select w.lexeme, sum(w.in_text) as in_text, sum(w.in_all) as in_all
      from haive_private.memory_words as w
      where
        w.tenant_id = p_tenant and w.collection = p_collection.name
        and w.lexeme = any(tsvector_to_array(p_words))
      group by w.lexeme
      having sum(w.in_all) > 0
      order by 3, 1
      limit c_words
    ) as g;
  else
    execute format(
      $q$
        with matched as materialized (
          select t.words from %1$s as t
          where
            t.tenant_id = $1 and (t.user_id is null or t.user_id = $2)
            and t.words @@ (
              select string_agg(quote_literal(u.lexeme), ' | ')::tsquery from unnest($3) as u
            )
          limit 4000
        ),
        lengths as (
          select
            avg(l.in_text) as in_text, avg(l.in_all) as in_all
          from (select m.words from matched as m limit 600) as m
          cross join lateral (
            select
              coalesce(sum(cardinality(array_positions(u.weights, 'A'))), 0) as in_text,
              coalesce(sum(cardinality(u.positions)), 0) as in_all
            from unnest(m.words) as u
          ) as l
        ),
        counted as (
          select u.lexeme, sum(('A' = any(u.weights))::int) as in_text, count(*) as in_all
          from matched as m cross join unnest(m.words) as u
          where u.lexeme = any(tsvector_to_array($3))
          group by u.lexeme
          order by 3, 1
          limit $4
        )
        select
          n.number, l.in_text * n.number, l.in_all * n.number,
          (select array_agg(c.lexeme order by c.in_all, c.lexeme) from counted as c),
          (select array_agg(c.in_text order by c.in_all, c.lexeme) from counted as c),
          (select array_agg(c.in_all order by c.in_all, c.lexeme) from counted as c)
        from (
          select count(*) as number
          from (
            (select from %1$s as t where t.tenant_id = $1 and t.user_id = $2 limit 10000)
            union all
            (select from %1$s as t where t.tenant_id = $1 and t.user_id is null limit 10000)
          ) as o
        ) as n
        cross join lengths as l
      $q$, format('vecs.%I', p_collection.table_name)
    ) into memories, text_words, all_words, lexemes, in_text, in_all
    using p_tenant, p_actor, p_words, c_words;
  end if;
  text_words := greatest(text_words, 1);
  all_words := greatest(all_words, 1);
  lexemes := coalesce(lexemes, '{}');
end;
$$;

alter function haive_private.weigh_words(
  text, text, haive_private.memory_collections, tsvector
) owner to haive_writer;

comment on function haive_private.weigh_words(
  text, text, haive_private.memory_collections, tsvector
) is 'In how many memories the words of a query are, among those that the caller may see.';

-- One round trip: candidates by words and by vectors, every signal for each of them, one order.
-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.search_memories(
  p_tenant text, p_collection text, p_query jsonb
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  c_matched constant int := 4000; -- by words, before they are weighed
  c_weighed constant int := 600;
  v record := haive_private.enter_collection(p_tenant, p_collection, false);
  v_language regconfig := 'pg_catalog.' || (v.collection).language;
  v_limit int;
  v_now timestamptz;
  v_recall double precision;
  v_half_life double precision;
  v_weights double precision[]; -- words, context, vector, speaker, recency, importance, neighbours
  v_vector text := p_query ->> 'vector';
  v_text text := left(coalesce(p_query ->> 'text', ''), 20000);
  v_spoken text;
  v_where text;
  v_as_of text;
  v_size record;
  v_terms record;
  v_rare text := ''; -- a tsquery of the words that candidates are found by
  v_common text := ''; -- of the others
  v_prescore text := '0 + 0';
  v_near text[] := '{}';
  v_alone boolean; -- whether nearness is all that there is to go by
  v_distance text;
  v_answer json;
begin
  perform haive_private.refuse_sealed_memories();
  begin
    v_limit := (p_query ->> 'limit')::int;
    v_now := coalesce((p_query ->> 'now')::timestamptz, now());
    v_as_of := to_char(
      coalesce((p_query ->> 'as_of')::timestamptz, v_now) at time zone 'UTC',
      'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
    );
    v_recall := coalesce((p_query ->> 'recall')::double precision, 0.97);
    v_half_life := coalesce((p_query -> 'weights' ->> 'recency_half_life')::double precision, 30);
    v_weights := array(
      select coalesce((p_query -> 'weights' ->> u.name)::double precision, u.usual)
      from unnest(
        array['words', 'context', 'vector', 'speaker', 'recency', 'importance', 'neighbours'],
        array[0.7, 1, 1, 1, 0, 0, 0.25]::double precision[]
      ) with ordinality as u (name, usual, place)
      order by u.place
    );
  exception
    when data_exception or invalid_text_representation then
      raise exception using
        errcode = 'PT422',
        message = 'a part of the query cannot be read',
        hint = 'limit is a whole number, weights and recall are numbers, now and as_of times.';
  end;
  if
    (v_limit between 1 and 1000 and v_recall > 0 and v_recall <= 1 and v_half_life > 0) is not true
    or exists (select from unnest(v_weights) as w where (w between 0 and 1e6) is not true)
  then
    raise exception using
      errcode = 'PT422',
      message = 'a part of the query is out of bounds',
      hint = 'limit is 1 to 1,000, recall above 0 and at most 1, weights are not negative.';
  elsif v_vector is not null and (v.collection).model is null then
    raise exception using
      errcode = 'PT422',
      message = format('the collection %s has no vectors', (v.collection).name),
      hint = 'It was opened without a model, and is searched by words.';
  end if;

  v_where := format(
    '%1$s and (t.valid_from is null or t.valid_from <= %2$L) and (t.valid_to is null or t.valid_to > %2$L)'
    ' and (t.expires_at is null or t.expires_at > %3$L) and %4$s and %5$s',
    v.own, v_as_of,
    to_char(v_now at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    case when p_query -> 'include_archived' = 'true' then 'true' else 'not t.archived' end,
    haive_private.memory_condition(p_query -> 'filter')
  );

  -- The words of the query, the rarest first; those that no memory has add nothing.
  v_size := haive_private.weigh_words(
    v.tenant, v.actor, v.collection, to_tsvector(v_language, v_text)
  );
  select
    coalesce(array_agg(f.lexeme order by f.in_all, f.lexeme), '{}') as lexemes,
    array_agg(ln(1 + greatest(v_size.memories - f.in_text + 0.5, 0.5) / (f.in_text + 0.5))
      order by f.in_all, f.lexeme) as of_text,
    array_agg(ln(1 + greatest(v_size.memories - f.in_all + 0.5, 0.5) / (f.in_all + 0.5))
      order by f.in_all, f.lexeme) as of_all,
    string_agg(quote_literal(f.lexeme), ' | ') filter (where f.before < c_matched) as rare,
    string_agg(quote_literal(f.lexeme), ' | ') filter (where f.before >= c_matched) as common,
    string_agg(
      format(
        '%s * (t.words @@ %L)::int',
        ln(1 + greatest(v_size.memories - f.in_all + 0.5, 0.5) / (f.in_all + 0.5)),
        quote_literal(f.lexeme)
      ), ' + '
    ) filter (where f.place <= 16) as prescore
  into v_terms
  from (
    select
      g.*,
      coalesce(sum(g.in_all) over (
        order by g.in_all, g.lexeme rows between unbounded preceding and 1 preceding
      ), 0) as before,
      row_number() over (order by g.in_all, g.lexeme) as place
    from unnest(v_size.lexemes, v_size.in_text, v_size.in_all) as g (lexeme, in_text, in_all)
  ) as f;
  if v_weights[1] + v_weights[2] > 0 and v_terms.rare is not null then
    v_rare := v_terms.rare;
    v_common := coalesce(v_terms.common, '');
    v_prescore := v_terms.prescore;
  end if;
  v_spoken := ' ' || btrim(regexp_replace(lower(v_text), '[^[:alnum:]]+', ' ', 'g')) || ' ';
  v_alone := v_rare = '' and (v_weights[4] = 0 or v_spoken = '  ') and v_weights[5] + v_weights[6] = 0;
  if v_alone then
    v_weights[7] := 0; -- a query of no words is about vectors, and not about a conversation
  end if;

  if v_vector is not null and v_weights[3] > 0 then
    begin
      v_near := haive_private.nearest_memories(
        v.collection, v_where,
        coalesce(p_query -> 'filter', 'null') <> 'null' or v.actor is not null, v.tenant, v_vector,
        -- Alone, the nearest are the answer; with other signals one that is not may be better.
        case when v_alone then v_limit else greatest(100, 3 * v_limit) end,
        v_recall
      );
    exception
      when data_exception or invalid_text_representation or numeric_value_out_of_range then
        raise exception using
          errcode = 'PT422',
          message = 'the vector of the query cannot be read',
          hint = format('It is a text such as [1,2] of %s finite numbers.', (v.collection).dimensions);
    end;
    v_distance := format(
      'nullif(%1$s(t.vec operator(%2$s.%3$s) %4$L::%2$s.%5$I), ''NaN'')',
      case when (v.collection).metric = 'cosine' then '1 - ' else '-' end,
      haive_private.vector_schema(),
      case (v.collection).metric when 'cosine' then '<=>' when 'l2' then '<->' else '<#>' end,
      v_vector, (v.collection).storage
    );
  end if;

  if v_alone and cardinality(v_near) = v_limit then
    -- What follows, without what is zero: half of the time would be its planning.
    execute format(
      $q$
        select coalesce(
          json_agg(
            case
              when $3 then json_build_object(
                'id', b.id, 'metadata', b.metadata, 'score', b.score, 'parts', json_build_object(
                  'words', 0, 'context', 0, 'vector', b.score, 'neighbours', 0, 'speaker', 0,
                  'recency', 0, 'importance', 0
                )
              )
              else json_build_object('id', b.id, 'metadata', b.metadata, 'score', b.score)
            end
            order by b.score desc, b.id
          ),
          '[]'
        )
        from (
          select
            s.id, s.metadata,
            $2 * coalesce(
              (s.vector - min(s.vector) over ())
              / nullif(max(s.vector) over () - min(s.vector) over (), 0),
              (s.vector is not null)::int
            ) as score
          from (
            -- The condition once more: what is read now may have been changed since they were found.
            select t.id, t.metadata, %2$s as vector from %1$s as t
            where t.id = any($1) and %3$s
          ) as s
        ) as b
      $q$, v.relation, v_distance, v_where
    ) into v_answer using v_near, v_weights[3], coalesce(p_query -> 'parts' = 'true', false);
  else
    execute format(
      $q$
        with matched as materialized (
          select t.id, t.words from %1$s as t
          where $1 <> '' and %2$s and t.words @@ $1::tsquery
          limit $2
        ),
        -- What is rare among all may be another's or fail the filter: then the common words are all
        -- that there is to go by. Not read where the rare ones found enough.
        more as materialized (
          select t.id, t.words from %1$s as t
          where $18 <> '' and (select count(*) from matched) < $5
            and %2$s and t.words @@ $18::tsquery and not t.words @@ $1::tsquery
          limit $2
        ),
        weighed as (
          select t.id
          from (select * from matched union all select * from more) as t
          order by %3$s desc, t.id
          limit $3
        ),
        found as materialized (
          select w.id from weighed as w
          union
          select t.id from %1$s as t where t.id = any($4) and %2$s
        ),
        -- A query that matches less than was asked for still gets what passes the filter.
        rest as (
          select t.id from %1$s as t
          where (select count(*) from found) < $5 and %2$s
          order by t.id desc
          limit $5
        ),
        candidates as (
          select f.id from found as f
          union
          select r.id from rest as r
        ),
        told as materialized (
          select
            c.id, p.name,
            -- A name or its first word, and no role.
            case
              when p.name not in ('', 'user', 'assistant', 'system', 'tool', 'human', 'ai', 'bot')
                and (
                  strpos($6, ' ' || p.name || ' ') > 0
                  or (
                    length(split_part(p.name, ' ', 1)) > 2
                    and strpos($6, ' ' || split_part(p.name, ' ', 1) || ' ') > 0
                  )
                )
                then 1
              else 0
            end as speaker
          from candidates as c
          join %1$s as t on t.id = c.id
          cross join lateral (
            select
              btrim(regexp_replace(
                lower(left(coalesce(t.metadata ->> 'speaker', ''), 200)), '[^[:alnum:]]+', ' ', 'g'
              )) as name
          ) as p
        ),
        -- Whom the query names the speaker's signal finds already, and others call them by that name:
        -- as a word it counts a quarter. It is rare among all users of a tenant, and not with one.
        names as (
          select
            case
              when $15[4] > 0
                then tsvector_to_array(to_tsvector($17, coalesce(string_agg(distinct d.name, ' '), '')))
              else '{}'
            end as lexemes
          from told as d
          where d.speaker = 1
        ),
        signals as materialized (
          select
            t.id,
            coalesce(b.words, 0) as words, coalesce(b.context, 0) as context,
            %4$s as vector,
            c.speaker,
            case
              -- A date, and neither now nor infinity.
              when coalesce(t.happened_at, t.metadata ->> 'created_at') ~ '^\d{4}-'
                and pg_input_is_valid(coalesce(t.happened_at, t.metadata ->> 'created_at'), 'timestamptz')
                then power(
                  0.5, least(1000, greatest(0, extract(epoch from (
                    $7 - coalesce(t.happened_at, t.metadata ->> 'created_at')::timestamptz
                  )) / 86400 / $8))::double precision
                )
              else 0
            end as recency,
            coalesce(t.importance, 0) as importance,
            case when t.metadata ->> 'kind' = 'turn' then t.metadata ->> 'conversation_id' end as talk,
            case
              -- Of an int, so that the one beside it is in bounds too.
              when pg_input_is_valid(t.metadata ->> 'seq', 'int')
                then (t.metadata ->> 'seq')::int::bigint
            end as seq
          from told as c
          join %1$s as t on t.id = c.id
          cross join names as n
          cross join lateral (
            -- BM25 of both at once, with the k1 and b of Trotman et al. 2014, Improvements to BM25.
            select
              sum(
                $10[x.term] * x.share * x.tf * 1.9
                / (x.tf + 0.9 * (0.6 + 0.4 * x.text_words * $14 / $12))
              ) as words,
              sum(
                $11[x.term] * x.share * x.tf_all * 1.9
                / (x.tf_all + 0.9 * (0.6 + 0.4 * x.all_words * $14 / $13))
              ) as context
            from (
              select
                array_position($9, u.lexeme) as term,
                case when u.lexeme = any(n.lexemes) then 0.25 else 1 end as share,
                cardinality(array_positions(u.weights, 'A'))::double precision as tf,
                cardinality(u.positions)::double precision as tf_all,
                sum(cardinality(array_positions(u.weights, 'A'))) over () as text_words,
                sum(cardinality(u.positions)) over () as all_words
              from unnest(t.words) as u
              where cardinality($9) > 0
            ) as x
            where x.term is not null
          ) as b
        ),
        scaled as (
          select
            s.id, s.talk, s.seq,
            $15[1] * coalesce(
              (s.words - min(s.words) over ()) / nullif(max(s.words) over () - min(s.words) over (), 0),
              (s.words > 0)::int
            ) as words,
            $15[2] * coalesce(
              (s.context - min(s.context) over ())
              / nullif(max(s.context) over () - min(s.context) over (), 0),
              (s.context > 0)::int
            ) as context,
            $15[3] * coalesce(
              (s.vector - min(s.vector) over ())
              / nullif(max(s.vector) over () - min(s.vector) over (), 0),
              (s.vector is not null)::int
            ) as vector,
            $15[4] * coalesce(
              (s.speaker - min(s.speaker) over ())::double precision
              / nullif(max(s.speaker) over () - min(s.speaker) over (), 0), s.speaker
            ) as speaker,
            $15[5] * coalesce(
              (s.recency - min(s.recency) over ())
              / nullif(max(s.recency) over () - min(s.recency) over (), 0), (s.recency > 0)::int
            ) as recency,
            $15[6] * coalesce(
              (s.importance - min(s.importance) over ())
              / nullif(max(s.importance) over () - min(s.importance) over (), 0),
              (s.importance > 0)::int
            ) as importance
          from signals as s
        ),
        -- A turn between others that fit is likely to be of the same matter.
        beside as (
          select
            s.*,
            $15[7] * (
              case
                when lag(s.seq) over talk = s.seq - 1
                  then lag(s.words + s.context + coalesce(s.vector, 0)) over talk
                else 0
              end
              + case
                when lead(s.seq) over talk = s.seq + 1
                  then lead(s.words + s.context + coalesce(s.vector, 0)) over talk
                else 0
              end
            ) * (s.talk is not null)::int as neighbours
          from scaled as s
          window talk as (partition by s.talk order by s.seq, s.id)
        ),
        best as (
          select
            s.*,
            s.words + s.context + s.vector + s.neighbours + s.speaker + s.recency + s.importance
              as score
          from beside as s
          order by score desc, s.id
          limit $5
        )
        select coalesce(
          json_agg(
            case
              when $16 then json_build_object(
                'id', b.id, 'metadata', t.metadata, 'score', b.score, 'parts', json_build_object(
                  'words', b.words, 'context', b.context, 'vector', b.vector,
                  'neighbours', b.neighbours, 'speaker', b.speaker, 'recency', b.recency,
                  'importance', b.importance
                )
              )
              else json_build_object('id', b.id, 'metadata', t.metadata, 'score', b.score)
            end
            order by b.score desc, b.id
          ),
          '[]'
        )
        from best as b
        join %1$s as t on t.id = b.id
      $q$, v.relation, v_where, v_prescore, coalesce(v_distance, 'null::double precision')
    ) into v_answer using
      v_rare, c_matched, c_weighed, v_near, v_limit, v_spoken, v_now, v_half_life,
      v_terms.lexemes, v_terms.of_text, v_terms.of_all, v_size.text_words, v_size.all_words,
      v_size.memories, v_weights, coalesce(p_query -> 'parts' = 'true', false), v_language,
      v_common;
  end if;
  if v.audit_reads then
    perform haive_private.audit_read(
      'search_memories', jsonb_build_object((v.collection).name, json_array_length(v_answer)),
      json_array_length(v_answer)
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.search_memories(text, text, jsonb) owner to haive_writer;

comment on function haive_private.search_memories(text, text, jsonb) is
'What haive.search_memories does, for a caller without rights on the tables.';

create or replace function haive.search_memories(
  collection text, query jsonb, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.search_memories(
    search_memories.tenant, search_memories.collection, search_memories.query
  )
$$;

comment on function haive.search_memories(text, jsonb, text) is
'The best memories for {text, vector, limit, filter, weights, now, as_of, include_archived, recall, '
'parts}, of which limit is needed: a list of {id, metadata, score} and, where wanted, parts, best '
'first. weights has words, context, vector, speaker, recency and importance, each scaled to 0…1 over '
'the candidates; neighbours, the share of the first three that a turn has of those beside it; and '
'recency_half_life in days.';

-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.memory_stats(p_tenant text, p_collection text)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, false);
  v_size record;
  v_words bigint;
  v_vectors json;
begin
  if v.actor is not null then
    raise exception using
      errcode = 'PT403',
      message = 'only an administrator of the tenant sees how much there is of all',
      hint = 'count_memories counts what the user may see.';
  end if;
  select
    coalesce(sum(s.memories), 0) as memories, coalesce(sum(s.text_words), 0) as text_words
  into v_size
  from haive_private.memory_sizes as s
  where s.tenant_id = v.tenant and s.collection = (v.collection).name;
  select count(distinct w.lexeme) into v_words
  from haive_private.memory_words as w
  where w.tenant_id = v.tenant and w.collection = (v.collection).name;
  select json_agg(json_build_object(
    'name', c.relname, 'bytes', pg_relation_size(c.oid), 'valid', i.indisvalid
  ) order by c.relname) into v_vectors
  from pg_index as i
  join pg_class as c on c.oid = i.indexrelid
  where
    i.indrelid = v.relation::regclass and c.relname in (
      haive_private.memory_index_name(v.collection, null),
      haive_private.memory_index_name(v.collection, v.tenant)
    );
  return json_build_object(
    'collection', haive_private.memory_collection_doc(v.collection),
    'memories', v_size.memories,
    'words', v_size.text_words,
    'different_words', v_words,
    'indexes', coalesce(v_vectors, '[]'),
    'bytes', pg_total_relation_size(v.relation::regclass)
  );
end;
$$;

alter function haive_private.memory_stats(text, text) owner to haive_writer;

comment on function haive_private.memory_stats(text, text) is
'What haive.memory_stats does, for a caller without rights on the tables.';

create or replace function haive.memory_stats(collection text, tenant text default null)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.memory_stats(memory_stats.tenant, memory_stats.collection)
$$;

comment on function haive.memory_stats(text, text) is
'How much a tenant has in a collection, for its administrators: {collection, memories, words, '
'different_words, indexes, bytes}; bytes are of all tenants, indexes those that its searches may use.';

-- What builds an index concurrently cannot be done by a function: this says what to do, and whoever
-- owns the tables does it on a direct connection.
-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.plan_memory_indexes(
  p_tenant text, p_collection text, p_own_from bigint
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, true);
  v_memories bigint;
  v_all bigint;
  v_tenant text;
begin
  if v.actor is not null then
    raise exception using
      errcode = 'PT403',
      message = 'only services build indexes',
      hint = 'Call on a direct connection.';
  end if;
  if (v.collection).model is null or (v.collection).index_type = 'flat' then
    return '[]';
  end if;
  select coalesce(sum(s.memories), 0) into v_memories
  from haive_private.memory_sizes as s
  where s.tenant_id = v.tenant and s.collection = (v.collection).name;
  select greatest(c.reltuples, 0)::bigint into v_all
  from pg_class as c where c.oid = v.relation::regclass;
  -- An index of all loses the rows of a tenant that has few of them, and a tenant that has most of
  -- them is served by it.
  if v_memories > p_own_from and v_memories * 2 < v_all then
    v_tenant := v.tenant;
  end if;
  return (
    select json_agg(json_build_object(
      'name', format('vecs.%I', haive_private.memory_index_name(v.collection, o.tenant)),
      'statement', haive_private.memory_index(v.collection, o.tenant, true)
    ))
    from (
      select null as tenant
      union all
      select v_tenant where v_tenant is not null
    ) as o
  );
end;
$$;

alter function haive_private.plan_memory_indexes(text, text, bigint) owner to haive_writer;

comment on function haive_private.plan_memory_indexes(text, text, bigint) is
'What haive.plan_memory_indexes does, for a caller without rights on the tables.';

create or replace function haive.plan_memory_indexes(
  collection text, own_from bigint default 10000, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.plan_memory_indexes(
    plan_memory_indexes.tenant, plan_memory_indexes.collection, plan_memory_indexes.own_from
  )
$$;

comment on function haive.plan_memory_indexes(text, bigint, text) is
'The indexes that a collection and the tenant in it should have, each {name, statement}: for services, '
'to be built by the owner on a direct connection. A tenant with more memories than own_from, and less '
'than half of all, gets one of its own.';

-- Recall does not carry over from one size, or kind of vectors, to another: so it is measured where it
-- is used. A sample of the tenant's own vectors is looked for, each by comparing all and by the index,
-- itself not counted; a search then looks at as many candidates as the wanted recall took.
-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.measure_memory_recall(
  p_tenant text, p_collection text, p_samples int
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, true);
  v_memories bigint;
  v_all bigint;
  v_vectors text[];
  v_vector text;
  v_candidates int;
  v_exact text[];
  v_near text[];
  v_recalls jsonb := '{}';
begin
  if v.actor is not null then
    raise exception using
      errcode = 'PT403',
      message = 'only services measure a collection',
      hint = 'Call with a secret key, or on a direct connection.';
  elsif (p_samples between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'samples is not between 1 and 1000',
      hint = 'Each is compared with all memories of the tenant once.';
  end if;
  select coalesce(sum(s.memories), 0) into v_memories
  from haive_private.memory_sizes as s
  where s.tenant_id = v.tenant and s.collection = (v.collection).name;
  if (v.collection).model is null or (v.collection).index_type = 'flat' or v_memories <= 10000 then
    return '{}'; -- all are compared anyway
  end if;
  select greatest(c.reltuples, v_memories)::bigint into v_all
  from pg_class as c where c.oid = v.relation::regclass;
  execute format(
    $q$
      select array_agg((s.vec operator(%1$s.+) s.vec operator(%1$s.+) s.other)::text)
      from (
        select t.vec, lag(t.vec, 1, t.vec) over (order by t.id desc) as other
        from %2$s as t tablesample bernoulli (%3$s) repeatable (1)
        where %4$s and t.vec is not null
        limit %5$s
      ) as s
    $q$, haive_private.vector_schema(), v.relation, least(100, 300.0 * p_samples / v_memories), v.own,
    p_samples
  ) into v_vectors;
  foreach v_vector in array coalesce(v_vectors, '{}') loop
    v_exact := haive_private.nearest_memories(
      v.collection, v.own, false, v.tenant, v_vector, 10, 1
    );
    foreach v_candidates in array array[40, 64, 100, 160, 250, 400, 640, 1000] loop
      v_near := haive_private.nearest_memories(
        v.collection, v.own, false, v.tenant, v_vector, 10, 0.5, v_candidates
      );
      v_recalls := v_recalls || jsonb_build_object(
        v_candidates::text,
        coalesce((v_recalls ->> v_candidates::text)::double precision, 0) + (
          select count(*) from unnest(v_exact) as e where e = any(v_near)
        )::double precision / greatest(cardinality(v_exact), 1) / cardinality(v_vectors)
      );
    end loop;
  end loop;
  perform pg_advisory_xact_lock(
    hashtextextended('haive/memory words/' || v.tenant || '/' || (v.collection).name, 0)
  );
  perform haive_private.gather_memory_words(v.tenant, (v.collection).name, 0);
  update haive_private.memory_sizes as s
  set recalls = v_recalls
  where s.tenant_id = v.tenant and s.collection = (v.collection).name and s.part = 0;
  return v_recalls;
end;
$$;

alter function haive_private.measure_memory_recall(text, text, int) owner to haive_writer;

comment on function haive_private.measure_memory_recall(text, text, int) is
'What haive.measure_memory_recall does, for a caller without rights on the tables.';

create or replace function haive.measure_memory_recall(
  collection text, samples int default 30, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.measure_memory_recall(
    measure_memory_recall.tenant, measure_memory_recall.collection, measure_memory_recall.samples
  )
$$;

comment on function haive.measure_memory_recall(text, int, text) is
'Measures, for services, which share of the nearest the index of a collection finds of a tenant''s '
'memories when it looks at 40 to 1,000 candidates, and keeps it: searches take as many as the wanted '
'recall needs. Returns {candidates: recall}; nothing where there are so few that all are compared.';

-- The trigger of all other statements: "changed" is the rows they wrote, of deletions those that
-- were there. What a foreign key takes along is no row of its own: it went with what is on record.
create or replace function haive_private.audit_rows()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered text := current_setting('persistence.tenant', true);
  v_tenant text;
  v_rows record;
  -- The tables of collections are one thing, whatever their names.
  v_object text := case when tg_table_schema = 'vecs' then 'memories' else tg_table_name end;
begin
  if current_setting('persistence.watch', true) like '_-%' then
    return null;
  end if;
  for v_tenant in select distinct c.tenant_id from changed as c loop
    continue when not haive_private.is_audited(v_tenant);
    -- Entered for the while, since the owner's own statements enter none.
    perform set_config('persistence.tenant', v_tenant, true);
    case v_object
      when 'conversations' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            c.id, 1 as n, row_number() over () as place,
            case
              when tg_op = 'DELETE' and c.message_count > 0
                then jsonb_build_array(1, c.message_count)
            end as detail
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'messages' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            c.conversation_id as id, count(*) as n, row_number() over () as place,
            jsonb_build_array(min(c.seq), max(c.seq)) as detail
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.conversations as p
                where p.tenant_id = c.tenant_id and p.id = c.conversation_id
              )
            )
          group by c.conversation_id
        ) as g;
      when 'sessions' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.id, c.parent_id as detail, 1 as n, row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.conversations as p
                where p.tenant_id = c.tenant_id and p.id = c.id
              )
            )
        ) as g;
      when 'session_segments' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.session_id as id, c.number as detail, 1 as n, row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.sessions as p
                where p.tenant_id = c.tenant_id and p.id = c.session_id
              )
            )
        ) as g;
      when 'session_merges' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            c.id, jsonb_build_array(c.session_id, c.secondary_id) as detail, 1 as n,
            row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.sessions as p
                where p.tenant_id = c.tenant_id and p.id = c.session_id
              )
            )
        ) as g;
      when 'memories' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.id, tg_table_name as detail, 1 as n, row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (select from haive.tenants as p where p.tenant_id = c.tenant_id)
            )
        ) as g;
      when 'members' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.user_id as id, c.role as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'threads' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.thread_key as id, null as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'branches' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.branch_id as id, c.thread_key as detail, 1 as n, row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.threads as p
                where p.tenant_id = c.tenant_id and p.thread_key = c.thread_key
              )
            )
        ) as g;
      when 'checkpoints' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.id, c.thread_key as detail, 1 as n, row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.branches as p
                where p.tenant_id = c.tenant_id and p.branch_id = c.branch_id
              )
            )
        ) as g;
      when 'checkpoint_writes' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            c.checkpoint_id as id, c.thread_key as detail, count(*) as n,
            row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.threads as p
                where p.tenant_id = c.tenant_id and p.thread_key = c.thread_key
              )
            )
          group by c.thread_key, c.checkpoint_id
        ) as g;
      when 'checkpoint_schemas' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            encode(c.hash, 'hex') as id, c.key_id as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'invitations' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.id, c.role as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'erasures' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            encode(c.subject_hash, 'hex') as id, c.counts as detail, 1 as n,
            row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'tenant_keys' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.key_id as id, c.status as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
    end case;
    insert into haive_private.audit_queue (tenant_id, action, object, rows, row_count)
    select
      v_tenant, lower(tg_op), v_object,
      v_rows.ids || case
        when v_rows.places > 1000 then jsonb_build_object('more', v_rows.places - 1000) else '{}'
      end,
      v_rows.n
    where v_rows.n > 0;
  end loop;
  perform set_config('persistence.tenant', coalesce(v_entered, ''), true);
  return null;
end;
$$;

alter function haive_private.audit_rows() owner to haive_writer;

comment on function haive_private.audit_rows() is
'Puts what a statement wrote on record: one row for each tenant, with the ids of the rows.';

insert into haive_private.migrations (version, name) values
  ('20261128211000', 'memory_functions')
on conflict do nothing;
