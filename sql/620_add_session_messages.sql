-- add_messages for a service that acts for a user: as whom it writes is told to the trigger of all
-- writes to sessions, and kept with the message. Users who call with their token are told apart anyway.
-- That it is a session they are told too: a plain conversation has nobody who is asked whether the user
-- may write.
create or replace function haive.add_session_messages(
  session_id uuid, messages jsonb, acting_user text default null, tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_user text := haive.current_actor();
  v_answer json;
begin
  if add_session_messages.acting_user <> v_user then
    raise exception using
      errcode = 'PT403',
      message = 'only services act for others',
      hint = 'Leave out acting_user: the token says who calls.';
  elsif v_user is null then
    perform
      set_config('persistence.author', coalesce(add_session_messages.acting_user, ''), true),
      set_config('persistence.acting', coalesce(add_session_messages.acting_user, ''), true);
  end if;
  perform set_config('persistence.session', 'on', true);
  select
    haive.add_messages(
      coalesce(
        jsonb_agg(
          u.doc || jsonb_build_object('conversation_id', add_session_messages.session_id)
          order by u.place
        ),
        '[]'
      ),
      add_session_messages.tenant
    )
  into v_answer
  from jsonb_array_elements(add_session_messages.messages) with ordinality as u (doc, place);
  perform
    set_config('persistence.author', '', true), set_config('persistence.acting', '', true),
    set_config('persistence.session', '', true);
  return v_answer;
end;
$$;

comment on function haive.add_session_messages(uuid, jsonb, text, text) is
'Adds messages to a session, all or none, for a user (a service says for whom): refused where that '
'user may not write. As add_messages otherwise.';
