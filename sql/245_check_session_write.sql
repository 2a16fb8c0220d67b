-- What stands between a message and a session, whichever way it comes: the row of the conversation is
-- locked already, and that lock always comes before the session's.
create or replace function haive_private.check_session_write(
  p_tenant text, p_actor text, p_session_id uuid, p_owner text, p_last_seq bigint
)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  -- For whom a service writes, if it says so.
  v_actor text := coalesce(p_actor, nullif(current_setting('persistence.acting', true), ''));
  v_row haive.sessions;
begin
  update haive.sessions as s
  set active_at = now()
  where
    s.tenant_id = p_tenant and s.id = p_session_id and s.status = 'open'
    and (s.ttl is null or s.active_at + s.ttl * interval '1 second' > now())
    and (s.max_messages is null or s.index_offset + p_last_seq <= s.max_messages)
    and (v_actor is null or v_actor = p_owner or v_actor = any(s.writers));
  if found then
    return;
  end if;
  select * into v_row from haive.sessions as s
  where s.tenant_id = p_tenant and s.id = p_session_id;
  if not found then
    -- A plain conversation, by the function that writes to sessions.
    raise exception using
      errcode = 'PT404',
      message = format('no session %s', p_session_id),
      hint = 'A conversation that is no session is written to with add_messages.';
  elsif
    v_actor is not null and v_actor is distinct from p_owner
    and v_actor <> all(coalesce(v_row.writers, '{}'))
  then
    perform from haive.conversations as c
    where c.tenant_id = p_tenant and c.id = p_session_id and v_actor = any(c.participants);
    if not found then
      raise exception using
        errcode = 'PT404',
        message = format('no session %s', p_session_id),
        hint = 'It was deleted, belongs to another tenant, or is not the user''s to see.';
    end if;
    raise exception using
      errcode = 'PT403',
      message = 'the user may not write to the session',
      hint = 'A moderator changes that with set_participant.';
  end if;
  perform haive_private.refuse_closed_session(v_row);
  raise exception using
    errcode = 'PT507',
    message = format('the session %s is at max_messages', p_session_id),
    hint = 'It goes on in a successor: continue_session.';
end;
$$;

alter function haive_private.check_session_write(text, text, uuid, text, bigint)
owner to haive_writer;

comment on function haive_private.check_session_write(text, text, uuid, text, bigint) is
'Refuses a message to a session that is closed, expired or full, or by who may not write to it, and '
'to what is none where a session is written to; else the session stays open for its ttl from now on.';

create or replace function haive_private.check_session_change(
  p_tenant text, p_actor text, p_session_id uuid, p_participants boolean
)
returns void
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  v_writers text[];
  v_readers text[];
begin
  select
    array_append(coalesce(s.writers::text[], '{}'), c.user_id::text),
    array_append(c.participants::text[], c.user_id::text)
  into v_writers, v_readers
  from haive.sessions as s
  join haive.conversations as c on c.tenant_id = s.tenant_id and c.id = s.id
  where s.tenant_id = p_tenant and s.id = p_session_id;
  if not found or (p_actor is not null and p_actor <> all(v_readers) is not false) then
    return; -- no session, or none that they may know of: to them there is nothing to change
  end if;
  if p_participants then
    raise exception using
      errcode = 'PT422',
      message = 'participants of a session have permissions',
      hint = 'Change them with set_participant.';
  elsif p_actor is not null and p_actor <> all(v_writers) is not false then
    raise exception using
      errcode = 'PT403',
      message = 'the user may not write to the session',
      hint = 'A moderator changes that with set_participant.';
  end if;
end;
$$;

alter function haive_private.check_session_change(text, text, uuid, boolean) owner to haive_writer;

comment on function haive_private.check_session_change(text, text, uuid, boolean) is
'Refuses to change a conversation that is a session by who may only read it, or past the functions '
'that keep its permissions.';
