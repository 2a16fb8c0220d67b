-- Definer: what a branch inherits may be in sessions that the caller does not see by themselves.
create or replace function haive_private.get_session(
  p_tenant text, p_session_id uuid, p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered record := haive_private.enter_session(p_tenant, p_session_id, 'read', p_acting, false);
begin
  if v_entered.audit_reads then
    perform haive_private.audit_read(
      'get_session', jsonb_build_object(p_session_id, null), 1
    );
  end if;
  return haive_private.session_doc(
    v_entered.session, v_entered.conversation, v_entered.actor
  );
end;
$$;

alter function haive_private.get_session(text, uuid, text) owner to haive_writer;

comment on function haive_private.get_session(text, uuid, text) is
'What haive.get_session does, for a caller without rights on what a branch inherits.';

create or replace function haive.get_session(
  session_id uuid, acting_user text default null, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.get_session(
    get_session.tenant, get_session.session_id, get_session.acting_user
  )
$$;

comment on function haive.get_session(uuid, text, text) is
'One session, with its conversation, who may do what, and the contexts that it inherits '
'from sessions that the caller sees.';
