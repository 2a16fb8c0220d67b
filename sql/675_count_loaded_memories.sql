-- What count_memories does, once for all rows of a table that was empty: its triggers would keep a copy
-- of each row that is loaded.
create or replace function haive_private.count_loaded_memories(p_tenant text, p_collection text)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v haive_private.memory_collections;
  v_users text[];
  v_rows bigint;
  v_bytes bigint;
  v_worded boolean;
  v_in_context boolean;
  v_words record;
begin
  select c.* into v from haive_private.memory_collections as c where c.name = p_collection;
  if exists (
    select from haive_private.memory_sizes as s
    where s.tenant_id = p_tenant and s.collection = p_collection
    having sum(s.memories) > 0
  ) then
    raise exception using
      errcode = 'PT409',
      message = format('the memories in %s are counted', v.name),
      hint = 'Those of a collection that was empty are counted at once, all others as they are written.';
  end if;
  execute format(
    $q$
      select
        count(*),
        array_agg(distinct t.user_id) filter (where t.user_id is not null),
        case
          when $3 then coalesce(sum(haive_private.memory_bytes(
            t.metadata, case when t.vec is null then 0 else $2 end, t.tokens
          )), 0)
          else 0
        end,
        coalesce(bool_or(t.words <> ''), false),
        coalesce(bool_or(t.metadata ->> 'context' <> ''), false)
      from vecs.%I as t where t.tenant_id = $1
    $q$, v.table_name
  ) into v_rows, v_users, v_bytes, v_worded, v_in_context using
    p_tenant, coalesce(v.dimensions * case v.storage when 'halfvec' then 2 else 4 end, 0),
    current_setting('persistence.watch', true) like '-%' is not true;
  perform haive_private.refuse_memories(p_tenant, v_users);
  -- A table is read for its words only where there are any, and twice only where some are of a context.
  select
    array_agg(w.word order by w.word) as lexemes,
    array_agg(w.in_text order by w.word) as in_text,
    array_agg(w.in_all order by w.word) as in_all,
    coalesce(sum(w.text_words), 0)::bigint as text_words,
    coalesce(sum(w.all_words), 0)::bigint as all_words
  into v_words
  from (
    select
      a.word collate "C" as word, a.ndoc as in_all,
      case when v_in_context then coalesce(t.ndoc, 0) else a.ndoc end as in_text,
      a.nentry::bigint as all_words,
      case when v_in_context then coalesce(t.nentry, 0) else a.nentry end::bigint as text_words
    from ts_stat(
      format(
        'select t.words from vecs.%I as t where t.tenant_id = %L limit %s', v.table_name, p_tenant,
        case when v_worded then 'all' else '0' end
      )
    ) as a
    left join ts_stat(
      format(
        'select t.words from vecs.%I as t where t.tenant_id = %L limit %s', v.table_name, p_tenant,
        case when v_in_context then 'all' else '0' end
      ), 'a'
    ) as t on t.word = a.word
  ) as w;
  if v_rows > 0 then
    perform haive_private.add_memory_words(
      p_tenant, v.name, v_words.lexemes, v_words.in_text, v_words.in_all, v_rows,
      v_words.text_words, v_words.all_words
    );
  end if;
  if v_bytes > 0 then
    perform haive_private.meter(p_tenant, 0, v_bytes);
  end if;
  return v_rows;
end;
$$;

alter function haive_private.count_loaded_memories(text, text) owner to haive_writer;

comment on function haive_private.count_loaded_memories(text, text) is
'Counts what was loaded for a tenant into a collection that was empty, without its triggers, and refuses '
'what these would; the tenant was entered. Returns how many rows there are.';
