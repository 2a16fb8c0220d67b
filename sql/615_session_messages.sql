-- Definer: the messages that a branch begins with are in conversations of others.
create or replace function haive_private.session_messages(
  p_tenant text,
  p_session_id uuid,
  p_after bigint,
  p_before bigint,
  p_page_size int,
  p_last boolean,
  p_hidden boolean,
  p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered record := haive_private.enter_session(p_tenant, p_session_id, 'read', p_acting, false);
  v_session haive.sessions := v_entered.session;
  v_conversation haive.conversations := v_entered.conversation;
  v_from bigint := greatest(p_after, 0) + 1;
  v_to bigint := least(p_before - 1, v_session.index_offset + v_conversation.message_count);
  v_indexes bigint[];
  v_ids uuid[];
  v_first bigint[];
  v_last bigint[];
begin
  if (p_page_size between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 10000',
      hint = 'Read on with after, the index of the last message of a page.';
  end if;
  if
    p_hidden and v_entered.actor is not null
    and v_entered.actor is distinct from v_conversation.user_id
    and v_entered.actor <> all(coalesce(v_session.moderators, '{}'))
  then
    raise exception using
      errcode = 'PT403',
      message = 'only moderators see what is hidden',
      hint = 'Read without it.';
  end if;
  if p_last then
    v_from := greatest(v_from, v_to - p_page_size + 1);
  else
    v_to := least(v_to, v_from + p_page_size - 1);
  end if;
  select
    array_agg(l.first_index), array_agg(l.conversation_id), array_agg(l.first_seq),
    array_agg(l.first_seq + l.last_index - l.first_index)
  into v_indexes, v_ids, v_first, v_last
  from haive_private.session_line(
    v_entered.tenant, p_session_id, v_session.segment, v_from, v_to
  ) as l
  where v_from <= v_to;
  if exists (
    select from unnest(v_ids, v_first, v_last) as u (id, first_seq, last_seq)
    join haive.messages as m
      on m.tenant_id = v_entered.tenant and m.conversation_id = u.id
      and m.seq between u.first_seq and u.last_seq and m.hidden_at is not null
    -- Of its own messages moderators may see what is hidden, of others only those of that session.
    where p_hidden is not true or u.id <> p_session_id
  ) then
    -- The ranges between those that are hidden.
    select
      array_agg(g.first_index order by g.first_index), array_agg(g.id order by g.first_index),
      array_agg(g.first_seq order by g.first_index), array_agg(g.last_seq order by g.first_index)
    into v_indexes, v_ids, v_first, v_last
    from (
      select
        i.id, min(i.first_index + i.seq - i.first_seq) as first_index, min(i.seq) as first_seq,
        max(i.seq) as last_seq
      from (
        select
          u.*, m.seq,
          m.seq - row_number() over (partition by u.place order by m.seq) as island
        from unnest(v_indexes, v_ids, v_first, v_last) with ordinality
          as u (first_index, id, first_seq, last_seq, place)
        join haive.messages as m
          on m.tenant_id = v_entered.tenant and m.conversation_id = u.id
          and m.seq between u.first_seq and u.last_seq
        where m.hidden_at is null or (p_hidden and u.id = p_session_id)
      ) as i
      group by i.place, i.id, i.island
    ) as g;
  end if;
  if v_entered.audit_reads then
    perform haive_private.audit_read(
      'session_messages',
      jsonb_build_object(
        p_session_id, case when v_from <= v_to then jsonb_build_array(v_from, v_to) end
      ),
      greatest(v_to - v_from + 1, 0)
    );
  end if;
  return (
    select coalesce(
      json_agg(
        json_build_object(
          'first_index', u.first_index, 'messages', u.messages, 'first_seq', u.first_seq,
          'authors', (
            select json_object_agg(m.seq, m.author)
            from haive.messages as m
            where
              m.tenant_id = v_entered.tenant and m.conversation_id = u.id
              and m.seq between u.first_seq and u.last_seq and m.author is not null
          ),
          'hidden', case
            when p_hidden and u.id = p_session_id then (
              select json_agg(m.seq)
              from haive.messages as m
              where
                m.tenant_id = v_entered.tenant and m.conversation_id = u.id
                and m.seq between u.first_seq and u.last_seq and m.hidden_at is not null
            )
          end
        )
        order by u.first_index
      ),
      '[]'
    )
    from unnest(
      v_indexes, v_ids, v_first, v_last,
      haive_private.message_docs(v_entered.tenant, v_ids, v_first, v_last)
    ) as u (first_index, id, first_seq, last_seq, messages)
  );
end;
$$;

alter function haive_private.session_messages(
  text, uuid, bigint, bigint, int, boolean, boolean, text
) owner to haive_writer;

comment on function haive_private.session_messages(
  text, uuid, bigint, bigint, int, boolean, boolean, text
) is 'What haive.session_messages does, for a caller without rights on what a branch begins with.';

create or replace function haive.session_messages(
  session_id uuid,
  after bigint default 0,
  before bigint default null,
  page_size int default 100,
  last boolean default false,
  hidden boolean default false,
  acting_user text default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.session_messages(
    session_messages.tenant, session_messages.session_id, session_messages.after,
    session_messages.before, session_messages.page_size, session_messages.last,
    session_messages.hidden, session_messages.acting_user
  )
$$;

comment on function haive.session_messages(
  uuid, bigint, bigint, int, boolean, boolean, text, text
) is
'A page of a session''s messages by their indexes, what it shares with its parents included: a list of '
'{first_index, first_seq, messages, authors, hidden}. The index of a message is first_index and its '
'seq beyond first_seq. Moderators see with hidden what they have hidden.';
