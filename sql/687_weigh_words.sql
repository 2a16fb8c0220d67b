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
