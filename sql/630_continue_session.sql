-- Two that find a session full at the same time come one after the other, and the second one is told the
-- successor that the first one made.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.continue_session(
  p_tenant text, p_session_id uuid, p_successor jsonb, p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered record := haive_private.enter_session(p_tenant, p_session_id, 'write', p_acting, true);
  v_session haive.sessions := v_entered.session;
  v_conversation haive.conversations := v_entered.conversation;
  v_id uuid := v_session.successor_id;
  v_context jsonb;
begin
  if v_id is null then
    perform haive_private.refuse_closed_session(v_session);
    -- A successor has no parent: what a branch inherits, as far as all see it, is its own there.
    select coalesce(jsonb_object_agg(e.key, e.value order by u.place desc), '{}') into v_context
    from json_array_elements(
      haive_private.session_doc(v_session, v_conversation, null) -> 'inherited'
    ) with ordinality as u (doc, place)
    cross join lateral jsonb_each((u.doc -> 'metadata' -> 'context')::jsonb) as e
    where (u.doc ->> 'shared')::boolean;
    v_id := coalesce((p_successor ->> 'id')::uuid, gen_random_uuid());
    if haive_private.begin_conversations(
      v_entered.tenant, null,
      jsonb_build_array(
        case
          when p_successor ? 'sealed' then '{}'
          else jsonb_build_object(
            'title', v_conversation.title, 'context', v_context || v_conversation.context::jsonb,
            'settings', v_conversation.settings
          )
        end
        || p_successor
        || jsonb_build_object(
          'id', v_id, 'agent_id', v_conversation.agent_id, 'user_id', v_conversation.user_id,
          'tags', v_conversation.tags, 'participants', v_conversation.participants
        )
      ),
      true
    ) = 0 then
      raise exception using
        errcode = 'PT409',
        message = format('another conversation has the id %s', v_id),
        hint = 'Let the SDK choose ids.';
    end if;
    insert into haive.sessions (
      tenant_id, id, live, ttl, max_messages, predecessor_id, writers, moderators
    )
    values (
      v_entered.tenant, v_id, v_session.live, v_session.ttl, v_session.max_messages, p_session_id,
      v_session.writers, v_session.moderators
    );
    update haive.sessions as s
    set status = 'continued', closed_at = now(), successor_id = v_id
    where s.tenant_id = v_entered.tenant and s.id = p_session_id;
    insert into haive.events (tenant_id, kind, conversation_id)
    values (v_entered.tenant, 'session.updated', p_session_id);
  elsif v_entered.audit_reads then
    perform haive_private.audit_read('continue_session', jsonb_build_object(v_id, null), 1);
  end if;
  return (
    select haive_private.session_doc(s, c, v_entered.actor)
    from haive.sessions as s
    join haive.conversations as c on c.tenant_id = s.tenant_id and c.id = s.id
    where s.tenant_id = v_entered.tenant and s.id = v_id
  );
end;
$$;

alter function haive_private.continue_session(text, uuid, jsonb, text) owner to haive_writer;

comment on function haive_private.continue_session(text, uuid, jsonb, text) is
'What haive.continue_session does, for a caller without rights on the tables.';

create or replace function haive.continue_session(
  session_id uuid,
  successor jsonb default '{}',
  acting_user text default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.continue_session(
    continue_session.tenant, continue_session.session_id, continue_session.successor,
    continue_session.acting_user
  )
$$;

comment on function haive.continue_session(uuid, jsonb, text, text) is
'Lets a session go on in a successor, of the same people, with its title, context and settings (which '
'a client that seals them gives anew: {id, sealed, sealed_with}), and returns that; the same one '
'however often it is called.';
