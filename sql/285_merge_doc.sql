create or replace function haive_private.merge_doc(p_merge haive.session_merges)
returns json
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    select
      json_build_object(
        'id', p_merge.id,
        'session_id', p_merge.session_id,
        'secondary_id', p_merge.secondary_id,
        'strategy', p_merge.strategy,
        'conflict_resolution', p_merge.conflict_resolution,
        'root_count', p_merge.root_count,
        'entries', (
          select coalesce(
            json_agg(
              json_build_object(
                'conversation_id', u.id, 'first_seq', u.first_seq, 'last_seq', u.last_seq
              )
              order by u.place
            ),
            '[]'
          )
          from unnest(g.conversation_ids, g.first_seqs, g.last_seqs) with ordinality
            as u (id, first_seq, last_seq, place)
        ),
        'dropped', p_merge.dropped::jsonb,
        'conflicts', p_merge.conflicts::jsonb,
        'summary_seq', p_merge.summary_seq,
        'summary_of', p_merge.summary_of::jsonb,
        'created_at', p_merge.created_at,
        'undone_at', p_merge.undone_at
      )
    from haive.session_segments as g
    where
      g.tenant_id = p_merge.tenant_id and g.session_id = p_merge.session_id
      and g.number = p_merge.segment
  );
end;
$$;

comment on function haive_private.merge_doc(haive.session_merges) is
'A merge as the functions of the API return it.';
