-- Definer, for nobody writes tables directly.
create or replace function haive_private.update_conversation(
  p_tenant text, p_conversation_id uuid, p_changes jsonb
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_unknown text;
  v_row haive.conversations;
begin
  select string_agg(k, ', ' order by k) into v_unknown
  from jsonb_object_keys(p_changes) as k
  where k not in (
    'agent_id', 'title', 'tags', 'context', 'participants', 'settings', 'sealed', 'sealed_with',
    'was_updated_at'
  );
  if v_unknown is not null then
    raise exception using
      errcode = 'PT422',
      message = format('cannot change: %s', left(v_unknown, 200)),
      hint = 'What changes is agent_id, title, tags, context, participants, settings.';
  end if;
  if p_changes ?| array['title', 'context', 'settings'] then
    perform haive_private.check_sealed(false);
  end if;
  if p_changes ?| array['sealed', 'sealed_with'] then
    perform haive_private.check_sealed(true);
  end if;
  perform haive_private.check_session_change(
    v_caller.tenant, v_caller.actor, p_conversation_id, p_changes ? 'participants'
  );
  update haive.conversations as c
  set
    agent_id = case when p_changes ? 'agent_id' then g.agent_id else c.agent_id end,
    title = case
      when p_changes ? 'title' then g.title
      when g.sealed is null then c.title
    end,
    tags = coalesce(g.tags, c.tags),
    context = coalesce(g.context, case when g.sealed is null then c.context else '{}' end),
    participants = coalesce(g.participants, c.participants),
    settings = coalesce(g.settings, case when g.sealed is null then c.settings else '{}' end),
    sealed = coalesce(decode(g.sealed, 'base64'), c.sealed),
    sealed_with = coalesce(g.sealed_with, c.sealed_with),
    -- Never twice the same: it says whether a row is still what somebody has read.
    updated_at = greatest(now(), c.updated_at + interval '1 microsecond')
  from jsonb_to_record(p_changes) as g (
    agent_id text, title text, tags text[], context jsonb, participants text[], settings jsonb,
    sealed text, sealed_with text, was_updated_at timestamptz
  )
  where
    c.tenant_id = v_caller.tenant and c.id = p_conversation_id
    -- What is sealed is changed as a whole, by who has read it.
    and (g.was_updated_at is null or c.updated_at = g.was_updated_at)
    and (
      v_caller.actor is null or c.user_id = v_caller.actor
      or v_caller.actor = any(c.participants)
    )
  returning c.* into v_row;
  if
    not found and p_changes ? 'was_updated_at' and exists (
      select from haive.conversations as c
      where
        c.tenant_id = v_caller.tenant and c.id = p_conversation_id
        and (
          v_caller.actor is null or c.user_id = v_caller.actor
          or v_caller.actor = any(c.participants)
        )
    )
  then
    raise exception using
      errcode = 'PT409',
      message = 'the conversation was changed meanwhile',
      hint = 'Read it again, and change what it says now.';
  elsif v_row.id is null then
    raise exception using
      errcode = 'PT404',
      message = format('no conversation %s', p_conversation_id),
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to write to.';
  end if;
  insert into haive.events (tenant_id, kind, conversation_id)
  values (v_caller.tenant, 'conversation.updated', p_conversation_id);
  return haive_private.conversation_doc(v_row);
end;
$$;

alter function haive_private.update_conversation(text, uuid, jsonb) owner to haive_writer;

comment on function haive_private.update_conversation(text, uuid, jsonb) is
'What haive.update_conversation does, for a caller without rights on the table.';

create or replace function haive.update_conversation(
  conversation_id uuid, changes jsonb, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.update_conversation(
    update_conversation.tenant, update_conversation.conversation_id, update_conversation.changes
  )
$$;

comment on function haive.update_conversation(uuid, jsonb, text) is
'Replaces the given fields among agent_id, title, tags, context, participants and settings. Those '
'that a client seals come as {sealed, sealed_with, was_updated_at}, all at once.';
