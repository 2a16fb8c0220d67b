-- A segment has the same messages at the same indexes wherever it is seen from, so two sessions share
-- what they both see of one segment, and all before it. Walked as in session_line.
create or replace function haive_private.common_root(
  p_tenant text,
  p_one uuid, p_one_segment int, p_one_count bigint,
  p_two uuid, p_two_segment int, p_two_count bigint
)
returns bigint
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    with recursive walk as (
      select u.side, u.id as session_id, u.segment, u.upto
      from (
        values (1, p_one, p_one_segment, p_one_count), (2, p_two, p_two_segment, p_two_count)
      ) as u (side, id, segment, upto)
      union
      select w.side, g.id, g.segment, least(w.upto, g.n)
      from walk as w
      cross join lateral (
        select s.parent_id as id, s.parent_segment::int as segment, s.branch_index as n
        from haive.sessions as s
        where w.segment = 0 and s.tenant_id = p_tenant and s.id = w.session_id
        union all
        select g.session_id, g.base_segment::int, g.base_count
        from haive.session_segments as g
        where
          w.segment > 0 and g.tenant_id = p_tenant and g.session_id = w.session_id
          and g.number = w.segment
        offset 0
      ) as g
      where g.id is not null
    )
    select coalesce(max(least(s.one, s.two)), 0)
    from (
      select
        max(w.upto) filter (where w.side = 1) as one, max(w.upto) filter (where w.side = 2) as two
      from walk as w
      group by w.session_id, w.segment
    ) as s
    where s.one is not null and s.two is not null
  );
end;
$$;

comment on function haive_private.common_root(text, uuid, int, bigint, uuid, int, bigint) is
'How many messages two sessions have in common at their beginning.';

create or replace function haive_private.line_messages(
  p_tenant text, p_session_id uuid, p_segment int, p_from bigint, p_to bigint
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_ids uuid[];
  v_first bigint[];
  v_last bigint[];
begin
  select
    array_agg(l.conversation_id), array_agg(l.first_seq),
    array_agg(l.first_seq + l.last_index - l.first_index)
  into v_ids, v_first, v_last
  from haive_private.session_line(p_tenant, p_session_id, p_segment, p_from, p_to) as l
  where p_from <= p_to;
  return (
    select coalesce(json_agg(m.doc order by u.place, m.place), '[]')
    from unnest(haive_private.message_docs(p_tenant, v_ids, v_first, v_last)) with ordinality
      as u (docs, place)
    cross join lateral json_array_elements(u.docs) with ordinality as m (doc, place)
    where not exists (
      select from haive.messages as h
      where
        h.tenant_id = p_tenant and h.conversation_id = (m.doc ->> 'conversation_id')::uuid
        and h.seq = (m.doc ->> 'seq')::bigint and h.hidden_at is not null
    )
  );
end;
$$;

comment on function haive_private.line_messages(text, uuid, int, bigint, bigint) is
'The messages of a session from one index to another, but for those that are hidden.';
