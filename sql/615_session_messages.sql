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
  if v_entered.audit_reads then
    perform haive_private.audit_read(
      'session_messages',
      jsonb_build_object(
        p_session_id, case when v_from <= v_to then jsonb_build_array(v_from, v_to) end
      ),
      greatest(v_to - v_from + 1, 0)
    );
  end if;
  -- Each message as message_docs has it, with its place: in one pass, for a page of a branch is of many
  -- conversations, and a query for each of them takes longer than the messages.
  return (
    select coalesce(json_agg(d), '[]')
    from (
      select
        m.id, m.conversation_id, m.seq, m.role::text,
        case
          when m.sealed is not null then json_build_object(
            'sealed', replace(encode(m.sealed, 'base64'), e'\n', ''),
            'sealed_with', m.sealed_with::text
          )
          when m.parts is null then to_json(m.content::text)
          else m.parts::json
        end as content,
        m.metadata::jsonb,
        case
          when m.input_tokens is not null then json_build_object(
            'input_tokens', m.input_tokens::int,
            'output_tokens', m.output_tokens::int,
            'total_tokens', m.input_tokens + m.output_tokens,
            'model', m.model::text,
            'cost', m.cost::text
          )
        end as token_usage,
        m.created_at::timestamptz,
        l.first_index + m.seq - l.first_seq as index,
        m.author::text,
        m.hidden_at is not null as hidden
      from haive_private.session_line(
        v_entered.tenant, p_session_id, v_session.segment, v_from, v_to
      ) as l
      cross join lateral (
        select * from haive.messages as m
        where
          m.tenant_id = v_entered.tenant and m.conversation_id = l.conversation_id
          and m.seq between l.first_seq and l.first_seq + l.last_index - l.first_index
        offset 0
      ) as m
      -- Of its own messages moderators may see what is hidden, of others only those of that session.
      where m.hidden_at is null or (p_hidden and m.conversation_id = p_session_id)
      order by index
    ) as d
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
'A page of a session''s messages by their indexes, what it shares with its parents included, each with '
'its index, author and hidden. Moderators see with hidden what they have hidden.';
