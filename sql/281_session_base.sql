-- Segment 0 is told by the session itself, the later ones by their rows.
create or replace function haive_private.session_base(
  p_tenant text, p_session_id uuid, p_segment int
)
returns table (
  base_id uuid, base_segment int, base_count bigint, borrowed bigint, start_seq bigint,
  conversation_ids uuid[], first_seqs bigint[], last_seqs bigint[]
)
language plpgsql
stable
security invoker
rows 1
set search_path = ''
as $$
#variable_conflict use_column
begin
  if p_segment = 0 then
    return query
    select
      s.parent_id, s.parent_segment::int, s.branch_index, 0::bigint, 0::bigint,
      '{}'::uuid[], '{}'::bigint[], '{}'::bigint[]
    from haive.sessions as s
    where s.tenant_id = p_tenant and s.id = p_session_id;
  else
    return query
    select
      g.session_id, g.base_segment::int, g.base_count, g.borrowed, g.start_seq,
      g.conversation_ids, g.first_seqs, g.last_seqs
    from haive.session_segments as g
    where g.tenant_id = p_tenant and g.session_id = p_session_id and g.number = p_segment;
  end if;
end;
$$;

comment on function haive_private.session_base(text, uuid, int) is
'What a segment of a session is built on: a beginning of another one, a list, its own messages.';
