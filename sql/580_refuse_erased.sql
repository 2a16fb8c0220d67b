-- Whether a user was erased. A trigger of the tables and not a step of the functions: it stands in
-- every way to them. The lock is shared with other writers and exclusive to the one who erases, so
-- that nobody who looked before is still writing when the rows are searched for.
create or replace function haive_private.refuse_erased(p_tenant text, p_users text[])
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_salt bytea;
begin
  perform pg_advisory_xact_lock_shared(hashtextextended('erasures of ' || p_tenant, 0));
  select e.salt into v_salt from haive.erasures as e where e.tenant_id = p_tenant limit 1;
  if v_salt is null then
    return;
  end if;
  perform from unnest(p_users) as u (user_id)
  join haive.erasures as e
    on e.tenant_id = p_tenant
    and e.subject_hash = sha256(v_salt || convert_to(u.user_id, 'UTF8'));
  if found then
    raise exception using
      errcode = 'PT410',
      message = 'the user was erased from this tenant',
      hint = 'Nothing is stored about them any more.';
  end if;
end;
$$;

comment on function haive_private.refuse_erased(text, text[]) is
'Refuses what is about users that were erased from the tenant.';

create or replace function haive_private.refuse_erased_owner()
returns trigger
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  perform haive_private.refuse_erased(new.tenant_id, array[new.user_id::text]);
  return null;
end;
$$;

comment on function haive_private.refuse_erased_owner() is
'Refuses a row that belongs to a user who was erased.';

create or replace function haive_private.refuse_erased_participants()
returns trigger
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  if tg_op = 'INSERT' then
    perform haive_private.refuse_erased(
      new.tenant_id, array_append(new.participants::text[], new.user_id::text)
    );
  else
    -- Of a change only who comes: who is there may be marked, and about to be taken out.
    perform haive_private.refuse_erased(
      new.tenant_id,
      array(
        select unnest(new.participants::text[]) except select unnest(old.participants::text[])
      )
    );
  end if;
  return null;
end;
$$;

comment on function haive_private.refuse_erased_participants() is
'Refuses a conversation that names a user who was erased.';

-- Many messages come at once, mostly of one author, who is looked for once in a transaction: the lock is
-- held until it ends, and meanwhile nobody else erases them.
create or replace function haive_private.refuse_erased_author()
returns trigger
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_author text := new.tenant_id || ' ' || new.author;
  v_done text;
begin
  if current_setting('persistence.not_erased', true) is distinct from v_author then
    perform haive_private.refuse_erased(new.tenant_id, array[new.author::text]);
    v_done := set_config('persistence.not_erased', v_author, true);
  end if;
  return null;
end;
$$;

comment on function haive_private.refuse_erased_author() is
'Refuses a message whose author was erased.';

create trigger conversations_refuse_erased after insert on haive.conversations
for each row when (new.user_id is not null or new.participants::text[] <> '{}')
execute function haive_private.refuse_erased_participants();

create trigger conversations_refuse_erased_again after update of participants on haive.conversations
for each row
when (
  new.participants::text[] <> '{}'
  and new.participants::text[] is distinct from old.participants::text[]
)
execute function haive_private.refuse_erased_participants();

create trigger threads_refuse_erased after insert on haive.threads
for each row when (new.user_id is not null)
execute function haive_private.refuse_erased_owner();

create trigger members_refuse_erased after insert or update on haive.members
for each row execute function haive_private.refuse_erased_owner();

-- Most messages have no author, and are not asked for it.
create trigger messages_refuse_erased after insert or update of author on haive.messages
for each row when (new.author is not null)
execute function haive_private.refuse_erased_author();
