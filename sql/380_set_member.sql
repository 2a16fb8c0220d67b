-- Definer, for nobody writes tables directly.
create or replace function haive_private.set_member(p_tenant text, p_user_id text, p_role text)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_role text := 'owner';
  v_self boolean := false;
  v_allowed boolean;
begin
  if not v_caller.trusted then
    v_self := p_user_id is not distinct from haive.current_actor();
    select m.role into v_role
    from haive.members as m
    where m.tenant_id = v_caller.tenant and m.user_id = haive.current_actor();
    if (v_role = 'owner' or v_self) and p_role is distinct from 'owner' then
      perform haive_private.keep_an_owner(v_caller.tenant, p_user_id);
    end if;
  end if;
  -- An owner sets every role; an admin neither makes, changes nor removes owners and admins. Of their
  -- own everybody who may write may let go.
  v_allowed := v_role = 'owner'
    or (v_role = 'admin' and coalesce(p_role, 'member') in ('member', 'reader'))
    or (v_self and p_role is null);
  if v_allowed then
    -- What somebody may no longer give, their open invitations do not give either.
    update haive.invitations as i
    set revoked_at = now()
    where
      i.tenant_id = v_caller.tenant and i.created_by = p_user_id
      and i.accepted_at is null and i.revoked_at is null
      and (
        p_role is null or p_role in ('member', 'reader')
        or (p_role = 'admin' and i.role in ('owner', 'admin'))
      );
    -- What the user is now is asked where it is written: another one may change it at this moment.
    if p_role is null then
      delete from haive.members as m
      where
        m.tenant_id = v_caller.tenant and m.user_id = p_user_id
        and (v_role = 'owner' or v_self or m.role in ('member', 'reader'));
    else
      insert into haive.members as m (tenant_id, user_id, role)
      values (v_caller.tenant, p_user_id, p_role)
      on conflict (tenant_id, user_id) do update set role = excluded.role
      where v_role = 'owner' or v_self or m.role in ('member', 'reader');
    end if;
    v_allowed := found or not exists (
      select from haive.members as m
      where m.tenant_id = v_caller.tenant and m.user_id = p_user_id
    );
  end if;
  if v_allowed is not true then
    raise exception using
      errcode = 'PT403',
      message = 'only an administrator changes the members of a tenant',
      hint = 'Owners set every role; admins set member and reader; whoever may write may leave.';
  end if;
end;
$$;

alter function haive_private.set_member(text, text, text) owner to haive_writer;

comment on function haive_private.set_member(text, text, text) is
'What haive.set_member does, for a caller without rights on the table.';

create or replace function haive.set_member(user_id text, role text, tenant text default null)
returns void
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.set_member(set_member.tenant, set_member.user_id, set_member.role)
$$;

comment on function haive.set_member(text, text, text) is
'Makes a user owner, admin, member or reader of a tenant; a null role removes them, which users may '
'do to themselves, unless they only read. The last owner stays, unless a trusted caller takes them away.';
