-- The first step of what is done to a session. Definer, as enter_tenant is.
create or replace function haive_private.enter_session(
  p_tenant text,
  p_session_id uuid,
  p_right text, -- read, write or moderate
  p_acting text, -- for whom a service does it; null: for itself
  p_change boolean, -- lock it, to change it
  out tenant text,
  out actor text, -- null: who may do all
  out audit_reads boolean,
  out session haive.sessions,
  out conversation haive.conversations
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_caller record := haive_private.enter_tenant(p_tenant, p_right <> 'read');
begin
  tenant := v_caller.tenant;
  audit_reads := v_caller.audit_reads;
  actor := haive_private.act_for(v_caller.trusted, v_caller.actor, p_acting);
  if p_change then
    select c.* into conversation from haive.conversations as c
    where c.tenant_id = v_caller.tenant and c.id = p_session_id and c.is_session
    for no key update;
    select s.* into session from haive.sessions as s
    where s.tenant_id = v_caller.tenant and s.id = p_session_id
    for no key update;
  else
    select c.* into conversation from haive.conversations as c
    where c.tenant_id = v_caller.tenant and c.id = p_session_id and c.is_session;
    select s.* into session from haive.sessions as s
    where s.tenant_id = v_caller.tenant and s.id = p_session_id;
  end if;
  if
    session.id is null or conversation.id is null
    or (
      actor is not null and actor is distinct from conversation.user_id
      and actor <> all(conversation.participants)
    )
  then
    raise exception using
      errcode = 'PT404',
      message = format('no session %s', p_session_id),
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to see.';
  end if;
  if
    actor is not null and actor is distinct from conversation.user_id
    and (
      (p_right = 'write' and actor <> all(coalesce(session.writers, '{}')))
      or (p_right = 'moderate' and actor <> all(coalesce(session.moderators, '{}')))
    )
  then
    raise exception using
      errcode = 'PT403',
      message = format('the user may not %s the session', replace(p_right, 'write', 'write to')),
      hint = 'A moderator changes that with set_participant.';
  end if;
end;
$$;

alter function haive_private.enter_session(text, uuid, text, text, boolean) owner to haive_writer;

comment on function haive_private.enter_session(text, uuid, text, text, boolean) is
'Enters the tenant, and checks that the caller, or whom they act for, may read, write to or moderate '
'the session.';

-- For the policy of messages, asked for those that are hidden.
-- Definer: the policy of sessions asks conversations, whose policy the caller has passed already.
create or replace function haive_private.moderates(p_tenant text, p_session_id uuid)
returns boolean
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  v_entered text := coalesce(current_setting('persistence.tenant', true), '');
  v_user text := haive.current_actor();
  v_done text;
  v_moderates boolean;
begin
  if p_tenant in (select haive_private.my_admin_tenants()) then
    return true;
  elsif p_tenant not in (select haive_private.my_tenants()) then
    return false;
  end if;
  v_done := set_config('persistence.tenant', p_tenant, true);
  v_moderates := exists (
    select from haive.conversations as c
    join haive.sessions as s on s.tenant_id = c.tenant_id and s.id = c.id
    where
      c.tenant_id = p_tenant and c.id = p_session_id
      and (c.user_id = v_user or v_user = any(s.moderators))
  );
  v_done := set_config('persistence.tenant', v_entered, true);
  return v_moderates;
end;
$$;

alter function haive_private.moderates(text, uuid) owner to haive_writer;

comment on function haive_private.moderates(text, uuid) is
'Whether the user who calls may see what moderators of a session have hidden.';
