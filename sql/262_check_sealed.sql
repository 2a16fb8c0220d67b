-- A client that has no keys, or forgot them, must not store in the clear what its tenant seals. And a user
-- has none: what they send as sealed nobody could open, nor read past it.
create or replace function haive_private.check_sealed(
  p_sealed boolean -- null: some of it
)
returns void
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  -- Made by enter_tenant: no row is read for it.
  if p_sealed is not true and current_setting('persistence.watch', true) like '%s%' then
    raise exception using
      errcode = 'PT422',
      message = 'this tenant''s content is sealed by the client',
      hint = 'Work in tenant_context, which has the tenant''s keys.';
  elsif p_sealed is not false then
    -- Trusted as in enter_tenant.
    if not pg_has_role(
      coalesce(nullif(current_setting('role', true), 'none'), session_user::text),
      'haive_client', 'member'
    ) then
      raise exception using
        errcode = 'PT403',
        message = 'only services seal content',
        hint = 'Write through a service that has the tenant''s keys.';
    end if;
  end if;
end;
$$;

comment on function haive_private.check_sealed(boolean) is
'Refuses content in the clear where the tenant that was entered seals it, and sealed content of users.';

-- Checkpoints come in by several functions, and each row names its key. Where rows are many, what is
-- checked stands in the condition too: a call is a tenth of what a row takes.
create or replace function haive_private.refuse_plain()
returns trigger
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  perform haive_private.check_sealed(false);
  return new;
end;
$$;

comment on function haive_private.refuse_plain() is
'Refuses a row in the clear where the tenant that was entered seals it.';

create or replace trigger checkpoints_are_sealed
before insert or update of payload on haive.checkpoints
for each row
when (new.key_id is null and current_setting('persistence.watch', true) like '%s%')
execute function haive_private.refuse_plain();

create or replace trigger checkpoint_writes_are_sealed
before insert or update of payload on haive.checkpoint_writes
for each row
when (new.key_id is null and current_setting('persistence.watch', true) like '%s%')
execute function haive_private.refuse_plain();

create or replace trigger checkpoint_schemas_are_sealed
before insert or update of payload on haive.checkpoint_schemas
for each row when (new.key_id is null)
execute function haive_private.refuse_plain();

create or replace trigger branches_are_sealed
before insert or update of metadata on haive.branches
for each row when (new.key_id is null and new.metadata is not null)
execute function haive_private.refuse_plain();
