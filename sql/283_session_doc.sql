-- A session as JSON, with the contexts of the sessions that it branched off, nearest first: they stay
-- where they are, as the messages do. They may have changed since: who does not see one is not told.
create or replace function haive_private.session_doc(
  p_session haive.sessions,
  p_conversation haive.conversations,
  p_actor text -- who reads it; null: who may do all
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return json_build_object(
    'id', p_session.id,
    'tenant_id', p_session.tenant_id,
    'status', haive_private.session_status_now(p_session),
    'message_count', p_session.index_offset + p_conversation.message_count,
    'parent_id', p_session.parent_id,
    'branch_index', p_session.branch_index,
    'segment', p_session.segment,
    'predecessor_id', p_session.predecessor_id,
    'successor_id', p_session.successor_id,
    'merged_into', case
      when p_session.status = 'merged' then (
        select m.session_id
        from haive.session_merges as m
        where
          m.tenant_id = p_session.tenant_id and m.secondary_id = p_session.id
          and m.undone_at is null
        order by m.created_at desc
        limit 1
      )
    end,
    'live', p_session.live,
    'topic', format('haive:%s:session:%s:%s', p_session.tenant_id, p_session.id, p_session.room),
    'ttl', p_session.ttl,
    'max_messages', p_session.max_messages,
    'active_at', p_session.active_at,
    'idle', greatest(extract(epoch from now() - p_session.active_at), 0),
    'expires_at', p_session.active_at + p_session.ttl * interval '1 second',
    'closed_at', p_session.closed_at,
    'permissions', (
      select coalesce(
        json_object_agg(
          u.user_id,
          array['read']
          || case when u.user_id = any(p_session.writers) then array['write'] else '{}' end
          || case when u.user_id = any(p_session.moderators) then array['moderate'] else '{}' end
          order by u.place
        ),
        '{}'
      )
      from unnest(p_conversation.participants::text[]) with ordinality as u (user_id, place)
    ),
    'conversation', haive_private.conversation_doc(p_conversation),
    'inherited', case
      when p_session.parent_id is null then '[]'::json
      else (
        with recursive line as (
          select p_session.parent_id as id, 1 as depth
          union all
          select s.parent_id, l.depth + 1
          from line as l
          cross join lateral (
            select s.parent_id from haive.sessions as s
            where s.tenant_id = p_session.tenant_id and s.id = l.id
            offset 0
          ) as s
          where s.parent_id is not null and l.depth < 1000
        )
        select coalesce(
          json_agg(
            json_build_object(
              'id', l.id,
              'metadata', case
                when c.sealed is null then json_build_object('context', c.context::jsonb)
                else json_build_object(
                  'sealed', json_build_object(
                    'sealed', replace(encode(c.sealed, 'base64'), e'\n', ''),
                    'sealed_with', c.sealed_with::text
                  )
                )
              end,
              -- Whether all see it who see the session: a successor of this takes that along.
              'shared',
                array_remove(p_conversation.participants::text[] || p_conversation.user_id::text, null)
                <@ array_remove(c.participants::text[] || c.user_id::text, null)
            )
            order by l.depth
          ),
          '[]'
        )
        from line as l
        cross join lateral (
          select c.* from haive.conversations as c
          where
            c.tenant_id = p_session.tenant_id and c.id = l.id
            and (p_actor is null or c.user_id = p_actor or p_actor = any(c.participants))
          offset 0
        ) as c
      )
    end
  );
end;
$$;

comment on function haive_private.session_doc(haive.sessions, haive.conversations, text) is
'A session as the functions of the API return it to a user, or to who may do all.';
