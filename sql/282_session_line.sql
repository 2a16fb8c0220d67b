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
    -- A step on the way to it, and then each segment with what it is built on: the session itself
    -- tells its segment 0, rows tell the others. In the query, for a call a level costs more than the
    -- level; offset 0 keeps the arms from being joined, which reads all sessions of the tenant.
    select
      null::uuid as session_id, null::int as segment, p_to as upto,
      p_session_id as base_id, p_segment as base_segment, p_to as base_count,
      0::bigint as borrowed, 0::bigint as start_seq,
      null::uuid[] as conversation_ids, null::bigint[] as first_seqs, null::bigint[] as last_seqs
    union
    select w.base_id, w.base_segment, least(w.upto, w.base_count), g.*
    from walk as w
    cross join lateral (
      select s.parent_id, s.parent_segment::int, s.branch_index, 0, 0, null, null, null
      from haive.sessions as s
      where w.base_segment = 0 and s.tenant_id = p_tenant and s.id = w.base_id
      union all
      select
        g.session_id, g.base_segment::int, g.base_count, g.borrowed, g.start_seq,
        g.conversation_ids, g.first_seqs, g.last_seqs
      from haive.session_segments as g
      where
        w.base_segment > 0 and g.tenant_id = p_tenant and g.session_id = w.base_id
        and g.number = w.base_segment
      offset 0
    ) as g
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
    where w.session_id is not null
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
