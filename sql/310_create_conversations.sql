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
  v_taken uuid;
  v_fresh bigint;
  v_docs json;
begin
  -- Ids come from the client, for a safe retry; who sends none gets one here.
  select jsonb_agg(jsonb_build_object('id', gen_random_uuid()) || u.doc order by u.place)
  into v_given
  from jsonb_array_elements(p_conversations) with ordinality as u (doc, place);

  if exists (
    select from jsonb_to_recordset(v_given) as g (user_id text)
    where g.user_id <> v_caller.actor
  ) then
    raise exception using
      errcode = 'PT403',
      message = 'a member begins conversations of their own',
      hint = 'Leave out user_id; name others as participants.';
  end if;

  perform haive_private.check_sealed(false)
  from jsonb_to_recordset(v_given) as g (sealed text)
  where g.sealed is null;

  with fresh as (
    insert into haive.conversations (
      tenant_id, id, agent_id, user_id, title, tags, context, participants, settings,
      created_at, updated_at, last_message_at, sealed, sealed_with
    )
    select
      v_caller.tenant, g.id, g.agent_id, coalesce(g.user_id, v_user),
      g.title, coalesce(g.tags, '{}'), coalesce(g.context, '{}'), coalesce(g.participants, '{}'),
      coalesce(g.settings, '{}'), t.at, t.at, t.at,
      decode(g.sealed, 'base64'), g.sealed_with
    from jsonb_to_recordset(v_given) as g (
      id uuid, agent_id text, user_id text, title text, tags text[], context jsonb,
      participants text[], settings jsonb, created_at timestamptz, sealed text, sealed_with text
    )
    cross join lateral (select coalesce(g.created_at, now()) as at) as t
    on conflict (tenant_id, id) do nothing
    returning id
  )
  insert into haive.events (tenant_id, kind, conversation_id)
  select v_caller.tenant, 'conversation.created', f.id from fresh as f;
  get diagnostics v_fresh = row_count;

  -- Here and below, offset 0 keeps what is looked up apart from what it is looked up for: joined, a
  -- hundred rows are expected, and all of the tenant's are read (7.8 ms, not 1.1, at 5,000).
  -- A retry finds its own row, and of two with one id in a call each its equal; anything else that
  -- sits at the id is a conflict, and so is what the caller may not see, whatever they know of it.
  select g.id into v_taken
  from jsonb_to_recordset(v_given) as g (
    id uuid, agent_id text, user_id text, created_at timestamptz
  )
  cross join lateral (
    select c.* from haive.conversations as c
    where c.tenant_id = v_caller.tenant and c.id = g.id
    offset 0
  ) as c
  where
    (c.agent_id, c.user_id) is distinct from (g.agent_id, coalesce(g.user_id, v_user))
    or c.created_at <> g.created_at
    or (
      v_caller.actor is null or c.user_id = v_caller.actor
      or v_caller.actor = any(c.participants)
    ) is not true
  limit 1;
  if found then
    raise exception using
      errcode = 'PT409',
      message = format('another conversation has the id %s', v_taken),
      hint = 'Let the SDK choose ids, or repeat a call only with the same content.';
  end if;

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

create or replace function haive.create_conversations(conversations jsonb, tenant text default null)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.create_conversations(
    create_conversations.tenant, create_conversations.conversations
  )
$$;

comment on function haive.create_conversations(jsonb, text) is
'Begins conversations: a list of {id, agent_id, user_id, title, tags, context, participants, '
'settings, created_at, sealed, sealed_with}. Returns them. The same id with the same agent and user is the same one.';
