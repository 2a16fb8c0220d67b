-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it; the last lines take this away again.
grant usage, create on schema haive_private to haive_writer;

-- Postgres looks for an abbreviation before a name, and those know no summer. No data change: what
-- tenants have stays until their settings are changed.
create or replace function haive_private.check_tenant_settings(p_settings jsonb)
returns void
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  if jsonb_typeof(p_settings) is distinct from 'object' or pg_column_size(p_settings) > 65536 then
    raise exception using
      errcode = 'PT422',
      message = 'settings is no JSON object of at most 64 KiB',
      hint = 'Settings are timezone, data_retention_days, compliance_mode, and your own.';
  end if;
  if coalesce(jsonb_typeof(p_settings -> 'timezone'), 'string') not in ('string', 'null') then
    raise exception using
      errcode = 'PT422',
      message = 'settings.timezone is no text',
      hint = 'A name of the IANA database, such as America/New_York.';
  end if;
  -- What Postgres takes besides, such as XYZ+3, counts in a direction that nobody expects.
  if p_settings ->> 'timezone' !~ '^([A-Za-z_]+(/[A-Za-z0-9_+-]+)*|[A-Z]{3}[0-9][A-Z]{3})$' then
    raise exception using
      errcode = 'PT422',
      message = 'settings.timezone is no name of a time zone',
      hint = 'A name of the IANA database, such as America/New_York.';
  end if;
  -- Postgres looks for an abbreviation first, and those know no summer: CET is none of Brussels' then.
  if exists (
    select from pg_timezone_abbrevs as a
    where a.abbrev = upper(p_settings ->> 'timezone') and a.abbrev not in ('UTC', 'GMT')
  ) then
    raise exception using
      errcode = 'PT422',
      message = 'settings.timezone is an abbreviation, which knows no summer time',
      hint = 'A name of the IANA database, such as America/New_York.';
  end if;
  begin
    perform now() at time zone (p_settings ->> 'timezone');
  exception
    when invalid_parameter_value then
      raise exception using
        errcode = 'PT422',
        message = 'settings.timezone is no time zone that Postgres knows',
        hint = 'A name of the IANA database, such as America/New_York.';
  end;
  if p_settings ->> 'data_retention_days' is not null and not coalesce(
    jsonb_typeof(p_settings -> 'data_retention_days') = 'number'
    and (p_settings ->> 'data_retention_days')::numeric between 1 and 36500
    and (p_settings ->> 'data_retention_days')::numeric % 1 = 0,
    false
  ) then
    raise exception using
      errcode = 'PT422',
      message = 'settings.data_retention_days is no number of days',
      hint = 'A whole number from 1 to 36,500; leave it out to keep everything.';
  end if;
  if p_settings ->> 'event_retention_days' is not null and not coalesce(
    jsonb_typeof(p_settings -> 'event_retention_days') = 'number'
    and (p_settings ->> 'event_retention_days')::numeric between 1 and 365
    and (p_settings ->> 'event_retention_days')::numeric % 1 = 0,
    false
  ) then
    raise exception using
      errcode = 'PT422',
      message = 'settings.event_retention_days is no number of days',
      hint = 'A whole number from 1 to 365; 7 if it is left out.';
  end if;
  if p_settings ->> 'compliance_mode' is not null
    and not p_settings ->> 'compliance_mode' in ('HIPAA', 'GDPR', 'SOC2')
  then
    raise exception using
      errcode = 'PT422',
      message = 'settings.compliance_mode is unknown',
      hint = 'Modes are HIPAA, GDPR and SOC2.';
  end if;
end;
$$;

comment on function haive_private.check_tenant_settings(jsonb) is
'Refuses settings of a tenant that mean nothing.';

-- Users were counted whose conversation had messages before a time and after it, and none in it.
create or replace function haive_private.analytics_doc(
  p_tenant text, p_metrics text[], p_days int, p_since timestamptz, p_until timestamptz
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_row haive.tenants;
  v_zone text;
  v_today date;
  v_first date;
  v_since timestamptz := coalesce(p_since, '-infinity');
  v_until timestamptz := coalesce(p_until, 'infinity');
  v_conversations bigint;
  v_messages bigint;
  v_input_tokens bigint;
  v_output_tokens bigint;
  v_cost numeric;
  v_bytes bigint;
begin
  select * into v_row from haive.tenants as t where t.tenant_id = p_tenant;
  if not found then
    return json_build_object('tenant_id', p_tenant, 'known', false);
  end if;
  v_zone := coalesce(v_row.settings ->> 'timezone', 'UTC');
  v_today := (now() at time zone v_zone)::date;
  if p_days is not null then
    v_first := case
      when p_days = 0 then date_trunc('month', v_today)::date
      else v_today - p_days + 1
    end;
    v_since := v_first::timestamp at time zone v_zone;
  end if;

  if v_row.metered and num_nulls(p_since, p_until) = 2 then
    select
      coalesce(sum(d.conversations), 0), coalesce(sum(d.messages), 0),
      coalesce(sum(d.input_tokens), 0), coalesce(sum(d.output_tokens), 0), coalesce(sum(d.cost), 0)
    into v_conversations, v_messages, v_input_tokens, v_output_tokens, v_cost
    from (
      select
        d.day, d.conversations, d.messages, d.input_tokens, d.output_tokens, d.cost
      from haive_private.meter_days as d
      where d.tenant_id = p_tenant
      union all
      select
        m.day, m.day_conversations, m.day_messages, m.day_input_tokens, m.day_output_tokens,
        m.day_cost
      from haive_private.meters as m
      where m.tenant_id = p_tenant
    ) as d
    where v_first is null or d.day >= v_first;
  else
    if p_metrics && array['message_count', 'token_usage'] then
      select
        count(*), coalesce(sum(m.input_tokens), 0), coalesce(sum(m.output_tokens), 0),
        coalesce(sum(m.cost), 0)
      into v_messages, v_input_tokens, v_output_tokens, v_cost
      from haive.messages as m
      where m.tenant_id = p_tenant and m.created_at >= v_since and m.created_at < v_until;
    end if;
    if 'conversation_count' = any(p_metrics) then
      select count(*) into v_conversations
      from haive.conversations as c
      where c.tenant_id = p_tenant and c.created_at >= v_since and c.created_at < v_until;
    end if;
  end if;
  if 'storage_used' = any(p_metrics) then
    v_bytes := case
      when v_row.metered then (haive_private.metered_use(p_tenant, v_today))[2]
      else (select u.bytes from haive_private.count_rows(p_tenant) as u)
    end;
  end if;
  return json_build_object(
    'tenant_id', p_tenant,
    'known', true,
    'isolation', v_row.isolation::text,
    'conversation_count', case when 'conversation_count' = any(p_metrics) then v_conversations end,
    'message_count', case when 'message_count' = any(p_metrics) then v_messages end,
    'token_usage', case
      when 'token_usage' = any(p_metrics) then json_build_object(
        'input_tokens', v_input_tokens, 'output_tokens', v_output_tokens,
        'total_tokens', v_input_tokens + v_output_tokens, 'cost', v_cost::text
      )
    end,
    'storage_used', v_bytes,
    'active_users', case
      when 'active_users' = any(p_metrics) then (
        select count(distinct c.user_id)
        from haive.conversations as c
        where
          c.tenant_id = p_tenant and c.last_message_at >= v_since and c.message_count > 0
          -- The last message is known, and of others it takes a look.
          and (
            p_until is null or exists (
              select from haive.messages as m
              where
                m.tenant_id = p_tenant and m.conversation_id = c.id
                and m.created_at >= v_since and m.created_at < v_until
            )
          )
      )
    end
  );
end;
$$;

alter function haive_private.analytics_doc(text, text[], int, timestamptz, timestamptz)
owner to haive_writer;

comment on function haive_private.analytics_doc(text, text[], int, timestamptz, timestamptz) is
'What the tenant that was entered did in a time.';

-- An invitation to a user who was erased was stored with their id.
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

-- What was made of a user's conversations and not called theirs was neither exported nor erased.
create or replace function haive_private.drop_memories(
  p_tenant text, p_user_id text, p_before text, p_batch int
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v haive_private.memory_collections;
  v_ids text[];
  v_count bigint := 0;
begin
  for v in select c.* from haive_private.memory_collections as c order by c.name loop
    execute format(
      $q$
        with doomed as (
          select t.id from vecs.%1$I as t
          where t.tenant_id = $1 and %2$s
          order by t.id
          limit $4
          for update
        ),
        gone as (delete from vecs.%1$I as t using doomed as d where t.id = d.id returning t.id)
        select coalesce(array_agg(g.id), '{}') from gone as g
      $q$, v.table_name,
      case
        when p_user_id is null then '(t.metadata ->> ''created_at'') collate "C" < $3'
        else format(
          $q$
            t.id in (
              select m.id from vecs.%1$I as m where m.tenant_id = $1 and m.user_id = $2
              union all
              select m.id
              from haive.conversations as c
              join vecs.%1$I as m on m.metadata @> jsonb_build_object('conversation_id', c.id)
              where c.tenant_id = $1 and c.user_id = $2 and m.tenant_id = $1
            )
          $q$, v.table_name
        )
      end
    ) into v_ids using p_tenant, p_user_id, p_before, p_batch - v_count;
    v_count := v_count + cardinality(v_ids);
    if cardinality(v_ids) > 0 then
      v_count := v_count + haive_private.unquote_memories(p_tenant, v.table_name, v_ids);
    end if;
    if cardinality(v_ids) > 0 then
      perform pg_advisory_xact_lock(
        hashtextextended('haive/memory words/' || p_tenant || '/' || v.name, 0)
      );
      perform haive_private.gather_memory_words(p_tenant, v.name, null);
    end if;
    exit when v_count >= p_batch;
  end loop;
  return v_count;
end;
$$;

alter function haive_private.drop_memories(text, text, text, int) owner to haive_writer;

comment on function haive_private.drop_memories(text, text, text, int) is
'Deletes memories of a user and of their conversations, or from before a time, with what was made of them, '
'in every collection; returns how many.';

create or replace function haive_private.memories_of_user(
  p_tenant text, p_user_id text, p_page_size int, p_page_after text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v haive_private.memory_collections;
  v_page json;
  v_rows jsonb := '[]';
begin
  for v in
    select c.* from haive_private.memory_collections as c
    where p_page_after is null or c.name >= split_part(p_page_after, '/', 1)
    order by c.name
  loop
    execute format(
      $q$
        select json_agg(
          json_build_object('collection', $1, 'id', p.id, 'metadata', p.metadata) order by p.id
        )
        from (
          select t.id, t.metadata from vecs.%1$I as t
          where
            t.tenant_id = $2 and ($4 is null or t.id > $4)
            and t.id in (
              select m.id from vecs.%1$I as m where m.tenant_id = $2 and m.user_id = $3
              union all
              select m.id
              from haive.conversations as c
              join vecs.%1$I as m on m.metadata @> jsonb_build_object('conversation_id', c.id)
              where
                c.tenant_id = $2 and c.user_id = $3 and m.tenant_id = $2 and m.user_id is null
            )
          order by t.id
          limit $5
        ) as p
      $q$, v.table_name
    ) into v_page using
      v.name, p_tenant, p_user_id,
      case
        when v.name = split_part(p_page_after, '/', 1)
          then substr(p_page_after, length(v.name) + 2)
      end,
      p_page_size - jsonb_array_length(v_rows);
    v_rows := v_rows || coalesce(v_page::jsonb, '[]');
    exit when jsonb_array_length(v_rows) >= p_page_size;
  end loop;
  return json_build_object(
    'rows', v_rows,
    'next', case
      when jsonb_array_length(v_rows) = p_page_size
        then (v_rows -> -1 ->> 'collection') || '/' || (v_rows -> -1 ->> 'id')
    end
  );
end;
$$;

alter function haive_private.memories_of_user(text, text, int, text) owner to haive_writer;

comment on function haive_private.memories_of_user(text, text, int, text) is
'A page of the memories of a user, and of those of nobody that were made of their conversations, in '
'every collection.';

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
    -- All who looked before it was there have ended when this lock is granted.
    perform pg_advisory_xact_lock(hashtextextended('erasures of ' || v_caller.tenant, 0));
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
      select v_caller.tenant, 'conversation.updated', u.id from unnest(v_ids) as u (id);
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

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261129140000', 'made_of_conversations')
on conflict do nothing;
