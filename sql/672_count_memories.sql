-- The trigger of every collection's table: whoever writes to it, vecs itself included, the statistics
-- of its words stay exact, its bytes are metered, and nothing is stored of who was erased, of a tenant
-- that is not there, or in the clear where content is sealed. A foreign key would look for the tenant
-- row by row. Its arguments are the collection and the bytes of a vector.
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
    continue when not v.written
    and not exists (select from haive.tenants as t where t.tenant_id = v.tenant_id);
    perform set_config('persistence.tenant', v.tenant_id, true);
    if v.written then
      perform haive_private.refuse_memories(v.tenant_id, v.users);
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

-- Its tenant stays there until the transaction ends.
create or replace function haive_private.refuse_memories(p_tenant text, p_users text[])
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_encrypted boolean;
begin
  select t.encrypted into v_encrypted
  from haive.tenants as t where t.tenant_id = p_tenant
  for key share;
  if v_encrypted is null then
    raise exception using
      errcode = 'PT404',
      message = format('no tenant %s', left(p_tenant, 63)),
      hint = 'Create it with create_tenant.';
  elsif v_encrypted then
    raise exception using
      errcode = 'PT422',
      message = 'this tenant''s content is sealed by the client',
      hint = 'Memories are searched by their words, which the database would have to see.';
  end if;
  if p_users is not null then
    perform haive_private.refuse_erased(p_tenant, p_users);
  end if;
end;
$$;

alter function haive_private.refuse_memories(text, text[]) owner to haive_writer;

comment on function haive_private.refuse_memories(text, text[]) is
'Refuses memories of a tenant that is not there or is sealed, and of users who were erased; the tenant '
'was entered.';

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
