create or replace function haive_private.invitation_doc(
  p_row haive.invitations, p_token text default null
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return json_build_object(
    'id', p_row.id,
    'tenant_id', p_row.tenant_id,
    'label', p_row.label::text,
    'role', p_row.role,
    'status', case
      when p_row.accepted_at is not null then 'accepted'
      when p_row.revoked_at is not null then 'revoked'
      when p_row.expires_at <= now() then 'expired'
      else 'open'
    end,
    'created_by', p_row.created_by::text,
    'created_at', p_row.created_at,
    'expires_at', p_row.expires_at,
    'accepted_at', p_row.accepted_at,
    'accepted_by', p_row.accepted_by::text,
    'revoked_at', p_row.revoked_at,
    'token', p_token
  );
end;
$$;

comment on function haive_private.invitation_doc(haive.invitations, text) is
'An invitation as the functions of the API return it, with its token where it has just been made.';

-- Definer, for nobody writes tables directly.
create or replace function haive_private.create_invitation(
  p_tenant text, p_role text, p_label text, p_expires_at timestamptz
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_as_administrator(p_tenant, true);
  v_token text;
  v_row haive.invitations;
begin
  if (p_role in ('owner', 'admin', 'member', 'reader')) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'the role is unknown',
      hint = 'Roles are owner, admin, member and reader.';
  end if;
  if v_caller.role = 'admin' and p_role in ('owner', 'admin') then
    raise exception using
      errcode = 'PT403',
      message = 'only an owner invites owners and admins',
      hint = 'Admins invite members and readers.';
  end if;
  if p_expires_at <= now() or p_expires_at > now() + interval '366 days' then
    raise exception using
      errcode = 'PT422',
      message = 'expires_at is not within the next year',
      hint = 'Leave it out for a week.';
  end if;
  if p_label is not null then
    -- It may be the id of the user it is for.
    perform haive_private.refuse_erased(v_caller.tenant, array[p_label]);
  end if;
  -- Twice 122 random bits: nobody guesses it, so a hash without a salt keeps it.
  v_token := encode(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()), 'hex');
  insert into haive.invitations (tenant_id, label, role, token_hash, created_by, expires_at)
  values (
    v_caller.tenant, p_label, p_role, sha256(convert_to(v_token, 'UTF8')),
    case when v_caller.role <> 'platform' then haive.current_actor() end,
    coalesce(p_expires_at, now() + interval '7 days')
  )
  returning * into v_row;
  return haive_private.invitation_doc(v_row, v_token);
end;
$$;

alter function haive_private.create_invitation(text, text, text, timestamptz) owner to haive_writer;

comment on function haive_private.create_invitation(text, text, text, timestamptz) is
'What haive.create_invitation does, for a caller without rights on the table.';

create or replace function haive.create_invitation(
  role text default 'member',
  label text default null,
  expires_at timestamptz default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.create_invitation(
    create_invitation.tenant, create_invitation.role, create_invitation.label,
    create_invitation.expires_at
  )
$$;

comment on function haive.create_invitation(text, text, timestamptz, text) is
'Invites somebody to the tenant. Returns the invitation with its token, which is shown this once: '
'whoever has it becomes a member by accept_invitation, until it expires.';
