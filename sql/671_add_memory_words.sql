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
