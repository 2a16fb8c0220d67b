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
  if
    not found or (v_found.session).parent_id is distinct from v_given.parent_id
    -- As it was given: where it was not, the parent may have grown since.
    or (v_found.session).branch_index <> (p_session ->> 'branch_index')::bigint
    or (
      -- As long as nothing has changed who takes part, or anything else.
      (v_found.conversation).updated_at = (v_found.conversation).created_at
      and p_session ->> 'participants' is not null
      and (
        (v_found.conversation).participants, coalesce((v_found.session).writers, '{}'),
        coalesce((v_found.session).moderators, '{}')
      ) is distinct from (
        v_given.participants, coalesce(v_given.writers, '{}'), coalesce(v_given.moderators, '{}')
      )
    )
  then
    raise exception using
      errcode = 'PT409',
      message = format('another conversation has the id %s', v_id),
      hint = 'Let the SDK choose ids, or repeat a call only with the same content.';
  end if;
  return haive_private.session_doc(v_found.session, v_found.conversation, v_caller.actor);
end;
$$;

alter function haive_private.create_session(text, jsonb) owner to haive_writer;

comment on function haive_private.create_session(text, jsonb) is
'What haive.create_session does, for a caller without rights on the tables.';

create or replace function haive.create_session(session jsonb, tenant text default null)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.create_session(create_session.tenant, create_session.session)
$$;

comment on function haive.create_session(jsonb, text) is
'Begins a session: {id, agent_id, user_id, title, tags, context, settings, sealed, sealed_with, '
'parent_id, branch_index, ttl, max_messages, participants, writers, moderators, live}. With parent_id '
'it is a branch, which begins with the first branch_index messages of the parent, all if not given.';
