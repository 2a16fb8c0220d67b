-- Definer, for nobody writes tables directly.
create or replace function haive_private.begin_conversations(
  p_tenant text, p_actor text, p_conversations jsonb, p_are_sessions boolean default false
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_taken uuid;
  v_fresh bigint;
begin
  if exists (
    select from jsonb_to_recordset(p_conversations) as g (user_id text)
    where g.user_id <> p_actor
  ) then
    raise exception using
      errcode = 'PT403',
      message = 'a member begins conversations of their own',
      hint = 'Leave out user_id; name others as participants.';
  end if;

  perform haive_private.check_sealed(g.sealed is not null)
  from jsonb_to_recordset(p_conversations) as g (sealed text);

  with fresh as (
    insert into haive.conversations (
      tenant_id, id, agent_id, user_id, title, tags, context, participants, settings,
      created_at, updated_at, last_message_at, sealed, sealed_with, is_session
    )
    select
      p_tenant, g.id, g.agent_id, g.user_id, g.title, coalesce(g.tags, '{}'),
      coalesce(g.context, '{}'), coalesce(g.participants, '{}'), coalesce(g.settings, '{}'),
      t.at, least(t.at, now()), least(t.at, now()), decode(g.sealed, 'base64'), g.sealed_with,
      p_are_sessions
    from jsonb_to_recordset(p_conversations) as g (
      id uuid, agent_id text, user_id text, title text, tags text[], context jsonb,
      participants text[], settings jsonb, created_at timestamptz, sealed text, sealed_with text
    )
    cross join lateral (select coalesce(g.created_at, now()) as at) as t
    on conflict (tenant_id, id) do nothing
    returning id
  )
  insert into haive.events (tenant_id, kind, conversation_id)
  select
    p_tenant, case when p_are_sessions then 'session.created' else 'conversation.created' end, f.id
  from fresh as f;
  get diagnostics v_fresh = row_count;

  -- Here and below, offset 0 keeps what is looked up apart from what it is looked up for: joined, a
  -- hundred rows are expected, and all of the tenant's are read (7.8 ms, not 1.1, at 5,000).
  -- A retry finds its own row, and of two with one id in a call each its equal; anything else that
  -- sits at the id is a conflict, and so is what the caller may not see, whatever they know of it.
  select g.id into v_taken
  from jsonb_to_recordset(p_conversations) as g (
    id uuid, agent_id text, user_id text, created_at timestamptz
  )
  cross join lateral (
    select c.* from haive.conversations as c
    where c.tenant_id = p_tenant and c.id = g.id
    offset 0
  ) as c
  where
    (c.agent_id, c.user_id) is distinct from (g.agent_id, g.user_id)
    or c.created_at <> g.created_at
    or (
      p_actor is null or c.user_id = p_actor
      or p_actor = any(c.participants)
    ) is not true
  limit 1;
  if found then
    raise exception using
      errcode = 'PT409',
      message = format('another conversation has the id %s', v_taken),
      hint = 'Let the SDK choose ids, or repeat a call only with the same content.';
  end if;
  return v_fresh;
end;
$$;

alter function haive_private.begin_conversations(text, text, jsonb, boolean) owner to haive_writer;

comment on function haive_private.begin_conversations(text, text, jsonb, boolean) is
'Writes conversations, each with an id and, unless nobody owns it, its owner; returns how many were '
'not there yet.';
