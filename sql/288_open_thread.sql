-- A thread has one owner, in all of its namespaces: whoever began it, or whom a service names first
-- where it was begun for nobody. Nobody else gets in, neither by a part of it that is not there yet
-- nor by being there first, before a service names the user.
create or replace function haive_private.open_thread(
  p_tenant text,
  p_actor text,
  p_user_id text,
  p_thread_id text,
  p_namespace text
)
returns uuid
language plpgsql
volatile
security definer
set search_path = ''
set enable_seqscan = off
as $$
declare
  v_key uuid;
  v_owner text;
begin
  loop
    -- Held till the caller has written to it: one that loses its last checkpoint meanwhile goes.
    select t.thread_key, t.user_id into v_key, v_owner
    from haive.threads as t
    where t.thread_id = p_thread_id and t.namespace = p_namespace and t.tenant_id = p_tenant
    for key share;
    exit when found;
    -- Parts that begin at the same time come one after the other, to find the same owner.
    perform pg_advisory_xact_lock(hashtextextended(p_tenant || '/' || p_thread_id, 0));
    select t.user_id into v_owner
    from haive.threads as t
    where t.thread_id = p_thread_id and t.tenant_id = p_tenant
    limit 1;
    if not found then
      v_owner := coalesce(p_actor, p_user_id, haive.current_actor());
    end if;
    insert into haive.threads (tenant_id, thread_id, namespace, user_id)
    values (p_tenant, p_thread_id, p_namespace, v_owner)
    on conflict do nothing;
  end loop;
  if v_owner is null and p_actor is null and p_user_id is not null then
    -- Begun for nobody: whoever may write to all threads now says whose it is.
    perform pg_advisory_xact_lock(hashtextextended(p_tenant || '/' || p_thread_id, 0));
    perform haive_private.refuse_erased(p_tenant, array[p_user_id]);
    update haive.threads as t set user_id = p_user_id
    where t.thread_id = p_thread_id and t.tenant_id = p_tenant and t.user_id is null;
    select t.user_id into v_owner
    from haive.threads as t
    where t.thread_key = v_key and t.tenant_id = p_tenant;
  end if;
  if
    (p_actor is not null and v_owner is distinct from p_actor)
    or (p_user_id is not null and v_owner is distinct from p_user_id)
  then
    raise exception using
      errcode = 'PT403',
      message = 'the thread is another user''s',
      hint = 'Choose thread ids that nobody else uses.';
  end if;
  return v_key;
end;
$$;

alter function haive_private.open_thread(text, text, text, text, text) owner to haive_writer;

comment on function haive_private.open_thread(text, text, text, text, text) is
'The key of a thread, which is made where it is not there yet, for the one whose it is.';
