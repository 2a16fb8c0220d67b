-- The first call writes the tombstone, which is what late writers meet; each one after it deletes a
-- batch, and the last one finds nothing. Whoever stops between two goes on with the next.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.erase_user(p_tenant text, p_user_id text, p_batch int)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_as_administrator(p_tenant, true);
  v_salt bytea;
  v_tomb haive.erasures;
  v_ids uuid[];
  v_counts jsonb := '{}';
  v_rows bigint;
  v_memories bigint;
  v_more boolean := true;
begin
  if (length(p_user_id) between 1 and 200) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'user_id is not 1 to 200 characters',
      hint = 'It is the "sub" of the user''s tokens, or what conversations have as user_id.';
  elsif (p_batch between 1 and 100000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'batch is not between 1 and 100000',
      hint = 'It is how many rows go in one transaction.';
  end if;
  if v_caller.role = 'admin' and exists (
    select from haive.members as m
    where
      m.tenant_id = v_caller.tenant and m.user_id = p_user_id and m.role in ('owner', 'admin')
  ) then
    raise exception using
      errcode = 'PT403',
      message = 'only an owner erases owners and admins',
      hint = 'Admins erase members, readers and users who are no members.';
  elsif v_caller.role <> 'platform' then
    perform haive_private.keep_an_owner(v_caller.tenant, p_user_id);
  end if;

  select e.salt into v_salt from haive.erasures as e where e.tenant_id = v_caller.tenant limit 1;
  select * into v_tomb from haive.erasures as e
  where
    e.tenant_id = v_caller.tenant
    and e.subject_hash = sha256(v_salt || convert_to(p_user_id, 'UTF8'))
  for update;
  if not found then
    -- All who looked before it was there have ended when this lock is granted, or are this transaction.
    perform
      pg_advisory_xact_lock(hashtextextended('erasures of ' || v_caller.tenant, 0)),
      set_config('persistence.not_erased', '', true);
    select e.salt into v_salt from haive.erasures as e where e.tenant_id = v_caller.tenant limit 1;
    v_salt := coalesce(v_salt, uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
    insert into haive.erasures (tenant_id, subject_hash, salt)
    values (v_caller.tenant, sha256(v_salt || convert_to(p_user_id, 'UTF8')), v_salt)
    on conflict (tenant_id, subject_hash) do update set tenant_id = excluded.tenant_id
    returning * into v_tomb;
    return json_build_object(
      'done', false, 'counts', v_tomb.counts, 'erased_at', v_tomb.erased_at, 'finished_at', null
    );
  end if;

  -- First, for what was made of their conversations is found by those.
  v_memories := haive_private.drop_memories(v_caller.tenant, p_user_id, null, p_batch);
  if v_memories > 0 then
    v_counts := jsonb_build_object('memories', v_memories);
  else
    -- A conversation goes whole, so that the last one may exceed the batch.
    v_ids := array(
      select s.id
      from (
        select c.id, sum(c.message_count + 1) over (order by c.id) - c.message_count - 1 as rows
        from haive.conversations as c
        where c.tenant_id = v_caller.tenant and c.user_id = p_user_id
      ) as s
      where s.rows < p_batch
      order by s.id
    );
    if cardinality(v_ids) > 0 then
      v_counts := haive_private.drop_conversations(v_caller.tenant, v_ids);
    else
      v_ids := array(
        select c.id from haive.conversations as c
        where c.tenant_id = v_caller.tenant and c.participants::text[] @> array[p_user_id]
        order by c.id
        limit p_batch
        for update
      );
      update haive.conversations as c
      set participants = array_remove(c.participants::text[], p_user_id), updated_at = now()
      where c.tenant_id = v_caller.tenant and c.id = any(v_ids);
      get diagnostics v_rows = row_count;
      update haive.sessions as s
      set
        room = s.room + 1,
        writers = nullif(array_remove(s.writers::text[], p_user_id), '{}'),
        moderators = nullif(array_remove(s.moderators::text[], p_user_id), '{}')
      where s.tenant_id = v_caller.tenant and s.id = any(v_ids);
      insert into haive.events (tenant_id, kind, conversation_id)
      select
        v_caller.tenant,
        case when c.is_session then 'participant.changed' else 'conversation.updated' end,
        c.id
      from haive.conversations as c
      where c.tenant_id = v_caller.tenant and c.id = any(v_ids);
      v_counts := jsonb_build_object('participations', v_rows);
    end if;
    if cardinality(v_ids) = 0 then
      -- What they wrote in sessions of others stays, without their name.
      v_ids := array(
        select m.id from haive.messages as m
        where m.author = p_user_id and m.tenant_id = v_caller.tenant
        limit p_batch
      );
      update haive.messages as m
      set author = null
      where m.id = any(v_ids) and m.tenant_id = v_caller.tenant;
      get diagnostics v_rows = row_count;
      v_counts := jsonb_build_object('authorships', v_rows);
    end if;
    if cardinality(v_ids) = 0 then
      v_ids := array(
        select t.thread_key from haive.threads as t
        where t.tenant_id = v_caller.tenant and t.user_id = p_user_id
        order by t.thread_key
        limit greatest(p_batch / 100, 1)
      );
      if cardinality(v_ids) > 0 then
        v_counts := haive_private.drop_threads(v_caller.tenant, v_ids);
      end if;
    end if;
    if cardinality(v_ids) = 0 then
      delete from haive.members as m
      where m.tenant_id = v_caller.tenant and m.user_id = p_user_id;
      get diagnostics v_rows = row_count;
      v_counts := v_counts || jsonb_build_object('members', v_rows);
      delete from haive.invitations as i
      where i.tenant_id = v_caller.tenant and (i.accepted_by = p_user_id or i.label = p_user_id);
      get diagnostics v_rows = row_count;
      v_counts := v_counts || jsonb_build_object('invitations', v_rows);
      update haive.invitations as i
      set
        created_by = null,
        revoked_at = case when i.accepted_at is null then coalesce(i.revoked_at, now()) end
      where i.tenant_id = v_caller.tenant and i.created_by = p_user_id;
      v_more := false;
    end if;
  end if;

  update haive.erasures as e
  set
    counts = haive_private.sum_counts(e.counts, v_counts),
    finished_at = case when not v_more then coalesce(e.finished_at, now()) end
  where e.tenant_id = v_caller.tenant and e.subject_hash = v_tomb.subject_hash
  returning e.* into v_tomb;
  return json_build_object(
    'done', not v_more, 'counts', v_tomb.counts, 'erased_at', v_tomb.erased_at,
    'finished_at', v_tomb.finished_at
  );
end;
$$;

alter function haive_private.erase_user(text, text, int) owner to haive_writer;

comment on function haive_private.erase_user(text, text, int) is
'What haive.erase_user does, for a caller without rights on the tables.';

create or replace function haive.erase_user(
  user_id text, batch int default 10000, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.erase_user(erase_user.tenant, erase_user.user_id, erase_user.batch)
$$;

comment on function haive.erase_user(text, int, text) is
'Erases a user from the tenant, for its administrators: their conversations with messages, threads '
'with checkpoints, memories, events, their name among participants, membership and invitations. Returns {done, '
'counts, erased_at, finished_at}; call again until done. From the first call on nothing more is '
'stored that names them.';
