-- Definer: who accepts is no member yet and may see nothing of the tenant.
create or replace function haive_private.accept_invitation(p_tenant text, p_token text)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_actor text := haive.current_actor();
  v_hash bytea := sha256(convert_to(coalesce(p_token, ''), 'UTF8'));
  v_row haive.invitations;
  v_status text;
begin
  if v_actor is null then
    raise exception using
      errcode = 'PT401',
      message = 'the token names no user',
      hint = 'Whoever is invited signs in and accepts with their own token.';
  end if;
  select i.* into v_row
  from haive.invitations as i
  where i.token_hash = v_hash and (p_tenant is null or i.tenant_id = p_tenant);
  select t.status into v_status from haive.tenants as t
  where t.tenant_id = v_row.tenant_id and t.isolation = 'row';
  if v_status = 'moving' then
    raise exception using
      errcode = 'PT503',
      message = 'the tenant is being moved',
      hint = 'Repeat the call in a second.';
  end if;
  if v_status = 'active' then
    perform set_config('persistence.tenant', v_row.tenant_id, true);
    if current_setting('lock_timeout') = '0' then
      perform set_config('lock_timeout', '10s', true);
    end if;
    -- The lock of the row lets one in; the others find it accepted.
    update haive.invitations as i
    set accepted_at = now(), accepted_by = v_actor
    where
      i.tenant_id = v_row.tenant_id and i.id = v_row.id
      and i.accepted_at is null and i.revoked_at is null and i.expires_at > now()
    returning i.* into v_row;
    if not found then
      -- Theirs already: the answer was lost on its way.
      select i.* into v_row
      from haive.invitations as i
      join haive.members as m on m.tenant_id = i.tenant_id and m.user_id = i.accepted_by
      where i.token_hash = v_hash and i.accepted_by = v_actor;
      if found then
        return json_build_object('tenant_id', v_row.tenant_id, 'role', v_row.role);
      end if;
      v_status := null;
    end if;
  end if;
  if v_status is distinct from 'active' then
    -- One answer, whether it never was or is no more.
    raise exception using
      errcode = 'PT404',
      message = 'the invitation is not valid',
      hint = 'It was used, was taken back, has expired, or never was. Ask for another one.';
  end if;
  insert into haive.members (tenant_id, user_id, role)
  values (v_row.tenant_id, v_actor, v_row.role)
  on conflict do nothing;
  if not found then
    raise exception using
      errcode = 'PT409',
      message = 'the caller is a member of the tenant already',
      hint = 'The invitation stays open for somebody else.';
  end if;
  return json_build_object('tenant_id', v_row.tenant_id, 'role', v_row.role);
end;
$$;

alter function haive_private.accept_invitation(text, text) owner to haive_writer;

comment on function haive_private.accept_invitation(text, text) is
'What haive.accept_invitation does, for a caller without rights on the tables.';

create or replace function haive.accept_invitation(token text, tenant text default null)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.accept_invitation(accept_invitation.tenant, accept_invitation.token)
$$;

comment on function haive.accept_invitation(text, text) is
'Makes the signed-in user a member of the tenant that the token invites to, once. Returns '
'{tenant_id, role}. With a tenant, only of that one.';
