-- A room that nobody owns went on as the property of who filled it. Each begins with the owner that
-- its caller names now. No row is touched.
grant usage, create on schema haive_private to haive_writer;

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

  perform haive_private.check_sealed(false)
  from jsonb_to_recordset(p_conversations) as g (sealed text)
  where g.sealed is null;

  with fresh as (
    insert into haive.conversations (
      tenant_id, id, agent_id, user_id, title, tags, context, participants, settings,
      created_at, updated_at, last_message_at, sealed, sealed_with, is_session
    )
    select
      p_tenant, g.id, g.agent_id, g.user_id, g.title, coalesce(g.tags, '{}'),
      coalesce(g.context, '{}'), coalesce(g.participants, '{}'), coalesce(g.settings, '{}'),
      t.at, t.at, t.at, decode(g.sealed, 'base64'), g.sealed_with, p_are_sessions
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

-- Any number of conversations in one call. Definer, for nobody writes tables directly.
create or replace function haive_private.create_conversations(p_tenant text, p_conversations jsonb)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_user text := haive.current_actor();
  v_given jsonb;
  v_fresh bigint;
  v_docs json;
begin
  -- Ids come from the client, for a safe retry; who sends none gets one here. And a user who
  -- names no owner is it.
  select jsonb_agg(
    jsonb_build_object('id', gen_random_uuid()) || u.doc
    || jsonb_build_object('user_id', coalesce(u.doc ->> 'user_id', v_user))
    order by u.place
  )
  into v_given
  from jsonb_array_elements(p_conversations) with ordinality as u (doc, place);
  v_fresh := haive_private.begin_conversations(v_caller.tenant, v_caller.actor, v_given);

  -- offset 0: as in begin_conversations.
  select json_agg(haive_private.conversation_doc(c.found) order by g.place) into v_docs
  from jsonb_array_elements(v_given) with ordinality as g (doc, place)
  cross join lateral (
    select c as found from haive.conversations as c
    where c.tenant_id = v_caller.tenant and c.id = (g.doc ->> 'id')::uuid
    offset 0
  ) as c;
  if v_caller.audit_reads and v_fresh < jsonb_array_length(v_given) then
    perform haive_private.audit_read(
      'create_conversations',
      (select jsonb_object_agg(u.doc ->> 'id', null) from jsonb_array_elements(v_given) as u (doc)),
      jsonb_array_length(v_given) - v_fresh
    );
  end if;
  return coalesce(v_docs, '[]');
end;
$$;

alter function haive_private.create_conversations(text, jsonb) owner to haive_writer;

comment on function haive_private.create_conversations(text, jsonb) is
'What haive.create_conversations does, for a caller without rights on the table.';

-- A session and its conversation in one call. A branch is one with a parent, and copies nothing of it:
-- what the parent is at this moment, its segment and its length, is read in one snapshot.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.create_session(p_tenant text, p_session jsonb)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_given record;
  v_id uuid;
  v_segment int;
  v_length bigint;
  v_parent haive.sessions;
  v_owner haive.conversations;
  v_found record;
begin
  select * into v_given
  from jsonb_to_record(p_session) as g (
    id uuid, agent_id text, user_id text, parent_id uuid, branch_index bigint, ttl int,
    max_messages int, participants text[], writers text[], moderators text[], live boolean
  );
  v_id := coalesce(v_given.id, gen_random_uuid());
  if v_given.parent_id is not null then
    select s as session, c as conversation into v_found
    from haive.conversations as c
    join haive.sessions as s on s.tenant_id = c.tenant_id and s.id = c.id
    where
      c.tenant_id = v_caller.tenant and c.id = v_given.parent_id and c.id <> v_id
      and (
        v_caller.actor is null or c.user_id = v_caller.actor
        or v_caller.actor = any(c.participants)
      );
    v_parent := v_found.session;
    v_owner := v_found.conversation;
    if v_parent.id is null then
      raise exception using
        errcode = 'PT404',
        message = format('no session %s', v_given.parent_id),
        hint = 'It was deleted, belongs to another tenant, or is not the caller''s to see.';
    end if;
    v_length := v_parent.index_offset + v_owner.message_count;
    v_given.branch_index := coalesce(v_given.branch_index, v_length);
    if v_given.branch_index not between 0 and v_length then
      raise exception using
        errcode = 'PT422',
        message = format('the index to branch at is not between 0 and %s', v_length),
        hint = 'It is how many messages of the parent the branch begins with.';
    end if;
    -- A service's branch is of the same people; a user's own is theirs alone.
    v_given.agent_id := coalesce(v_given.agent_id, v_owner.agent_id);
    if v_caller.trusted then
      v_given.user_id := coalesce(v_given.user_id, v_owner.user_id);
      if v_given.participants is null then
        v_given.participants := v_owner.participants;
        v_given.writers := v_parent.writers;
        v_given.moderators := v_parent.moderators;
      end if;
    end if;
  elsif v_given.branch_index <> 0 then
    raise exception using
      errcode = 'PT422',
      message = 'an index to branch at without a parent',
      hint = 'Name the session to branch off.';
  end if;
  if not (
    coalesce(v_given.writers, '{}') <@ coalesce(v_given.participants, '{}')
    and coalesce(v_given.moderators, '{}') <@ coalesce(v_given.participants, '{}')
  ) then
    raise exception using
      errcode = 'PT422',
      message = 'who writes or moderates takes part',
      hint = 'Name writers and moderators among the participants, too.';
  end if;

  if haive_private.begin_conversations(
    v_caller.tenant, v_caller.actor,
    jsonb_build_array(
      p_session || jsonb_build_object(
        'id', v_id, 'agent_id', v_given.agent_id,
        'user_id', coalesce(v_given.user_id, haive.current_actor()),
        'participants', coalesce(v_given.participants, '{}')
      )
    ),
    true
  ) = 1 then
    insert into haive.sessions (
      tenant_id, id, parent_id, parent_segment, branch_index, index_offset, live, ttl,
      max_messages, writers, moderators
    )
    values (
      v_caller.tenant, v_id, v_given.parent_id, v_parent.segment,
      coalesce(v_given.branch_index, 0), coalesce(v_given.branch_index, 0),
      coalesce(v_given.live, true), v_given.ttl, v_given.max_messages,
      nullif(v_given.writers, '{}'), nullif(v_given.moderators, '{}')
    );
  elsif v_caller.audit_reads then
    perform haive_private.audit_read('create_session', jsonb_build_object(v_id, null), 1);
  end if;
  select s as session, c as conversation into v_found
  from haive.conversations as c
  join haive.sessions as s on s.tenant_id = c.tenant_id and s.id = c.id
  where c.tenant_id = v_caller.tenant and c.id = v_id;
  if not found or (v_found.session).parent_id is distinct from v_given.parent_id then
    raise exception using
      errcode = 'PT409',
      message = format('another conversation has the id %s', v_id),
      hint = 'Let the SDK choose ids, or repeat a call only with the same content.';
  end if;
  return haive_private.session_doc(v_found.session, v_found.conversation);
end;
$$;

alter function haive_private.create_session(text, jsonb) owner to haive_writer;

comment on function haive_private.create_session(text, jsonb) is
'What haive.create_session does, for a caller without rights on the tables.';

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261130120000', 'people_of_sessions')
on conflict do nothing;
