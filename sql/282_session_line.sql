-- Which messages a session has at some of its indexes, as ranges of the conversations that they are in.
-- Read from its end towards its beginning, a step for each segment, and no further than is asked for.
-- A step that comes again is no step (union): it ends a circle of parents, which only the owner of the
-- tables can make.
create or replace function haive_private.session_line(
  p_tenant text, p_session_id uuid, p_segment int, p_from bigint, p_to bigint
)
returns table (
  first_index bigint, last_index bigint, conversation_id uuid, first_seq bigint
)
language plpgsql
stable
security invoker
rows 20
set search_path = ''
as $$
#variable_conflict use_column
begin
  return query
  with recursive walk as (
    select p_session_id as session_id, p_segment as segment, p_to as upto, g.*
    from haive_private.session_base(p_tenant, p_session_id, p_segment) as g
    union
    select w.base_id, w.base_segment, least(w.upto, w.base_count), g.*
    from walk as w
    cross join lateral haive_private.session_base(p_tenant, w.base_id, w.base_segment) as g
    where w.base_id is not null and p_from <= least(w.upto, w.base_count)
  )
  select l.from_index, l.to_index, l.id, l.seq
  from (
    select
      greatest(p_from, w.base_count + w.borrowed + 1) as from_index,
      w.upto as to_index,
      w.session_id as id,
      w.start_seq + greatest(p_from - w.base_count - w.borrowed, 1) as seq
    from walk as w
    union all
    select
      greatest(p_from, w.base_count + r.before + 1),
      least(w.upto, w.base_count + r.before + r.n),
      r.conversation_id,
      r.first_seq + greatest(p_from - w.base_count - r.before - 1, 0)
    from walk as w
    cross join lateral (
      select
        u.conversation_id, u.first_seq, u.last_seq - u.first_seq + 1 as n,
        (
          sum(u.last_seq - u.first_seq + 1) over (order by u.place)
          - (u.last_seq - u.first_seq + 1)
        )::bigint as before
      from unnest(w.conversation_ids, w.first_seqs, w.last_seqs) with ordinality
        as u (conversation_id, first_seq, last_seq, place)
    ) as r
    where w.borrowed > 0
  ) as l
  where l.from_index <= l.to_index
  order by l.from_index;
end;
$$;

comment on function haive_private.session_line(text, uuid, int, bigint, bigint) is
'The messages of a session from one index to another, as ranges of the conversations they are in.';
