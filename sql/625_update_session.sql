-- Definer, for nobody writes tables directly.
create or replace function haive_private.update_session(
  p_tenant text, p_session_id uuid, p_changes jsonb, p_acting text
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
  v_given record;
  v_unknown text;
begin
  select string_agg(k, ', ' order by k) into v_unknown
  from jsonb_object_keys(p_changes) as k
  where k not in ('status', 'ttl', 'max_messages', 'touch', 'live');
  if v_unknown is not null then
    raise exception using
      errcode = 'PT422',
      message = format('cannot change: %s', left(v_unknown, 200)),
      hint = 'What changes is status, ttl, max_messages, touch, live; update_conversation does the rest.';
  end if;
  select * into v_given
  from jsonb_to_record(p_changes) as g (
    status text, ttl int, max_messages int, touch boolean, live boolean
  );
  if v_given.status is not null and v_given.status not in ('open', 'closed') then
    raise exception using
      errcode = 'PT422',
      message = 'a session is set open or closed',
      hint = 'It expires, is merged or continued by itself.';
  elsif v_session.status = 'continued' or v_given.status is null then
    -- What goes on elsewhere stays as it is, and what is closed is opened before it changes.
    perform haive_private.refuse_closed_session(v_session);
  end if;
  update haive.sessions as s
  set
    status = coalesce(v_given.status, s.status),
    closed_at = case v_given.status
      when 'closed' then coalesce(s.closed_at, now())
      when 'open' then null
      else s.closed_at
    end,
    active_at = case
      when v_given.touch or v_given.status = 'open' then now() else s.active_at
    end,
    ttl = case when p_changes ? 'ttl' then v_given.ttl else s.ttl end,
    max_messages = case
      when p_changes ? 'max_messages' then v_given.max_messages else s.max_messages
    end,
    live = coalesce(v_given.live, s.live)
  where s.tenant_id = v_entered.tenant and s.id = p_session_id
  returning s.* into v_session;
  if p_changes <> '{"touch": true}' then
    insert into haive.events (tenant_id, kind, conversation_id)
    values (v_entered.tenant, 'session.updated', p_session_id);
  end if;
  return haive_private.session_doc(v_session, v_entered.conversation, v_entered.actor);
end;
$$;

alter function haive_private.update_session(text, uuid, jsonb, text) owner to haive_writer;

comment on function haive_private.update_session(text, uuid, jsonb, text) is
'What haive.update_session does, for a caller without rights on the tables.';

create or replace function haive.update_session(
  session_id uuid, changes jsonb, acting_user text default null, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.update_session(
    update_session.tenant, update_session.session_id, update_session.changes,
    update_session.acting_user
  )
$$;

comment on function haive.update_session(uuid, jsonb, text, text) is
'Changes a session: {status: open or closed, ttl, max_messages, live, touch: true to begin its ttl '
'anew}.';
