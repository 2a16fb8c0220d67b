-- Definer, for nobody writes tables directly.
create or replace function haive_private.revoke_invitation(p_tenant text, p_invitation_id uuid)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_as_administrator(p_tenant, true);
  v_row haive.invitations;
begin
  select * into v_row from haive.invitations as i
  where i.tenant_id = v_caller.tenant and i.id = p_invitation_id
  for update;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no invitation %s', p_invitation_id),
      hint = 'list_invitations shows those of the tenant.';
  elsif v_row.accepted_at is not null then
    raise exception using
      errcode = 'PT409',
      message = 'the invitation is accepted',
      hint = 'Remove the member with set_member.';
  elsif v_caller.role = 'admin' and v_row.role in ('owner', 'admin') then
    raise exception using
      errcode = 'PT403',
      message = 'only an owner takes back what invites owners and admins',
      hint = 'Admins invite members and readers.';
  end if;
  update haive.invitations as i
  set revoked_at = coalesce(i.revoked_at, now())
  where i.tenant_id = v_caller.tenant and i.id = p_invitation_id
  returning i.* into v_row;
  return haive_private.invitation_doc(v_row);
end;
$$;

alter function haive_private.revoke_invitation(text, uuid) owner to haive_writer;

comment on function haive_private.revoke_invitation(text, uuid) is
'What haive.revoke_invitation does, for a caller without rights on the table.';

create or replace function haive.revoke_invitation(invitation_id uuid, tenant text default null)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.revoke_invitation(
    revoke_invitation.tenant, revoke_invitation.invitation_id
  )
$$;

comment on function haive.revoke_invitation(uuid, text) is
'Takes an invitation back that nobody has accepted yet, and returns it.';
