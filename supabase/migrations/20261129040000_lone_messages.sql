-- haive_writer owns the functions, and an owner must be able to create in the schema while they are
-- replaced; a line below takes this away again.
grant usage, create on schema haive_private to haive_writer;

-- The first step of every operation: which tenant, and may the caller. The policies of
-- haive_client and haive_writer read the setting made here, so that an operation needs no
-- round trip to announce its tenant. It ends with the transaction.
-- Definer: it reads memberships before the tenant, which their policies ask for, is known.
create or replace function haive_private.enter_tenant(
  p_tenant text,
  p_write boolean,
  out tenant text,
  out actor text, -- null: all rows of the tenant; else: only where this user takes part
  out trusted boolean, -- a service key or a direct connection, and no user with a token
  out audit_reads boolean -- what is read goes on record
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_role text;
  v_count bigint;
  v_tenant haive.tenants;
  v_done text;
begin
  -- Each expression costs a microsecond, once a transaction: what is seldom needed stands in an if.
  tenant := p_tenant;
  if tenant is null then
    tenant := nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-haive-tenant';
  end if;
  -- Trusted are the members of haive_client, which no API user can become. The setting "role"
  -- keeps what PostgREST or SET ROLE chose, in a definer function too; no API call can set it.
  trusted := pg_has_role(
    coalesce(nullif(current_setting('role', true), 'none'), session_user::text),
    'haive_client', 'member'
  );
  if trusted then
    if tenant is null then
      tenant := coalesce(nullif(current_setting('persistence.tenant', true), ''), 'default');
    end if;
  else
    actor := haive.current_actor();
    if actor is null then
      raise exception using
        errcode = 'PT401',
        message = 'the token names no user',
        hint = 'Sign in and send the user''s token, or call with a secret key.';
    end if;
    select count(*), min(m.tenant_id), min(m.role) into v_count, tenant, v_role
    from haive.members as m
    where m.user_id = actor and m.tenant_id = coalesce(enter_tenant.tenant, m.tenant_id);
    if v_count = 0 then
      raise exception using
        errcode = 'PT403',
        message = 'the caller is no member of the tenant',
        hint = 'An administrator of the tenant adds members with set_member.';
    elsif v_count > 1 then
      raise exception using
        errcode = 'PT422',
        message = 'the caller belongs to several tenants and names none',
        hint = 'Pass the argument tenant, or the header x-haive-tenant.';
    end if;
    if p_write and v_role = 'reader' then
      raise exception using
        errcode = 'PT403',
        message = 'a reader of the tenant may not write',
        hint = 'An administrator of the tenant changes roles with set_member.';
    end if;
    -- Who writes, for what is written; a service may say so of others (add_session_messages).
    v_done := set_config('persistence.author', actor, true);
    if v_role in ('owner', 'admin') then
      actor := null;
    end if;
  end if;

  if p_write then
    if current_setting('lock_timeout') = '0' then
      -- A row that somebody holds must not hold up a statement that others share for ever.
      v_done := set_config('lock_timeout', '10s', true);
    end if;
    -- Shared by all who write; who counts the rows of the tenant, or begins to, is here alone.
    if not pg_try_advisory_xact_lock_shared(hashtextextended('haive/writers/' || tenant, 0)) then
      perform pg_advisory_xact_lock_shared(hashtextextended('haive/writers/' || tenant, 0));
    end if;
  end if;
  select * into v_tenant from haive.tenants as t where t.tenant_id = enter_tenant.tenant;
  if (v_tenant.status = 'active' and v_tenant.isolation = 'row') is not true then
    if v_tenant.status = 'moving' and not p_write then
      -- Until this call has ended, its rows are where they are now; the move waits for it.
      perform pg_advisory_xact_lock_shared(hashtextextended('haive/readers/' || tenant, 0));
      select * into v_tenant from haive.tenants as t where t.tenant_id = enter_tenant.tenant;
    end if;
    if v_tenant.status is null or v_tenant.status = 'deleted' then
      raise exception using
        errcode = 'PT404',
        message = format('no tenant %s', left(tenant, 63)),
        hint = 'Create it with create_tenant.';
    elsif v_tenant.status = 'suspended' then
      raise exception using
        errcode = 'PT423',
        message = format('the tenant %s is suspended', tenant),
        hint = 'An administrator of the platform opens it with resume_tenant.';
    elsif v_tenant.isolation <> 'row' then
      raise exception using
        errcode = 'PT421',
        message = format('the rows of tenant %s are in a %s of its own', tenant, v_tenant.isolation),
        hint = 'Work in tenant_context, which knows where.';
    elsif p_write and v_tenant.status = 'moving' then
      raise exception using
        errcode = 'PT503',
        message = format('the tenant %s is being moved', tenant),
        hint = 'Repeat the call in a second.';
    end if;
  end if;
  -- Assigned and not performed, which is a query. For those who would look the tenant up once more: m
  -- for metered, w for audited writes, s for content that is sealed by the client.
  v_done := set_config('persistence.tenant', tenant, true) || set_config(
    'persistence.watch',
    case when v_tenant.metered then 'm' else '-' end
    || case when v_tenant.audit <> 'off' then 'w' else '-' end
    || case when v_tenant.encrypted then 's' else '-' end,
    true
  );
  audit_reads := v_tenant.audit = 'all';
  if v_tenant.max_requests_per_minute is not null then
    v_done := haive_private.take_request(tenant, v_tenant.max_requests_per_minute);
  end if;
  if p_write and v_tenant.metered then
    v_done := set_config('persistence.meter', haive_private.meter_facts(v_tenant), true);
  end if;
end;
$$;

alter function haive_private.enter_tenant(text, boolean) owner to haive_writer;

comment on function haive_private.enter_tenant(text, boolean) is
'Resolves and checks the tenant of an operation: argument, header, session setting, the caller''s '
'only membership; "default" for trusted callers. Refuses one that is closed or elsewhere.';

-- One message, what insert_messages does for a single row: 0.1 ms less than by arrays, which is what a
-- lone caller waits for.
create or replace function haive_private.append_message(
  p_tenant text,
  p_conversation_id uuid,
  p_id uuid,
  p_role text,
  p_content text,
  p_parts jsonb default null,
  p_metadata jsonb default null,
  p_input_tokens int default null,
  p_output_tokens int default null,
  p_model text default null,
  p_cost numeric default null,
  p_created_at timestamptz default null,
  p_sealed bytea default null,
  p_sealed_with text default null,
  out seq bigint,
  out created_at timestamptz,
  out failure text
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_replay record;
begin
  if p_sealed is null and current_setting('persistence.watch') <> '---' then
    perform haive_private.check_sealed(false);
  end if;
  -- One statement in place of three: 4 to 8 % of the server's time. Its triggers run after all of it.
  with place as (
    update haive.conversations as c
    set
      message_count = c.message_count + 1,
      input_tokens = c.input_tokens + coalesce(p_input_tokens, 0),
      output_tokens = c.output_tokens + coalesce(p_output_tokens, 0),
      cost = c.cost + coalesce(p_cost, 0),
      last_message_at = greatest(c.last_message_at, coalesce(p_created_at, now()))
    where
      c.tenant_id = v_caller.tenant and c.id = p_conversation_id
      and (
        v_caller.actor is null or c.user_id = v_caller.actor
        or v_caller.actor = any(c.participants)
      )
    returning c.message_count as seq, c.is_session, c.user_id
  ),
  told as (
    insert into haive.events (tenant_id, kind, conversation_id, first_seq, last_seq)
    select v_caller.tenant, 'messages.added', p_conversation_id, p.seq, p.seq
    from place as p
  ),
  written as (
    insert into haive.messages (
      tenant_id, conversation_id, seq, id, role, content, parts, metadata,
      input_tokens, output_tokens, model, cost, created_at, sealed, sealed_with
    )
    select
      v_caller.tenant, p_conversation_id, p.seq, p_id, p_role, p_content, p_parts,
      coalesce(p_metadata, '{}'), p_input_tokens, p_output_tokens, p_model, p_cost,
      coalesce(p_created_at, now()), p_sealed, p_sealed_with
    from place as p
    -- Of a session that is full or closed the writer hears that, before anything of the id.
    where
      case
        when p.is_session then haive_private.check_session_write(
          v_caller.tenant, v_caller.actor, p_conversation_id, p.user_id, p.seq
        ) is not null
        else true
      end
  )
  select p.seq, coalesce(p_created_at, now()) into seq, created_at
  from place as p;
  if not found then
    failure := 'PT404';
  end if;
exception
  when unique_violation or sqlstate 'PT412' or sqlstate 'PT507' then
    -- A session that has closed or filled up since knows a message that it has already.
    if sqlstate in ('PT412', 'PT507') and not exists (
      select from haive.messages as m
      where
        m.id = p_id and m.tenant_id = v_caller.tenant and m.conversation_id = p_conversation_id
    ) then
      raise;
    end if;
    v_replay := haive_private.replay_messages(
      v_caller.tenant, v_caller.actor, array[p_conversation_id], array[p_id], array[p_role],
      array[p_content], array[p_parts], array[p_metadata], array[p_input_tokens],
      array[p_output_tokens], array[p_model], array[p_cost], array[p_created_at],
      array[p_sealed], array[p_sealed_with]
    );
    seq := v_replay.seqs[1];
    created_at := v_replay.times[1];
    failure := v_replay.failures[1];
end;
$$;

alter function haive_private.append_message(
  text, uuid, uuid, text, text, jsonb, jsonb, int, int, text, numeric, timestamptz, bytea,
  text
) owner to haive_writer;

comment on function haive_private.append_message(
  text, uuid, uuid, text, text, jsonb, jsonb, int, int, text, numeric, timestamptz, bytea,
  text
) is 'What append_messages does, for one message.';

create or replace function haive_private.get_conversation(
  conversation_id uuid,
  message_limit int default 0,
  tenant text default null
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(get_conversation.tenant, false);
  v_doc json;
  v_count bigint;
begin
  if (get_conversation.message_limit between 0 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'message_limit is not between 0 and 1000',
      hint = 'Read on with get_messages.';
  end if;
  select
    haive_private.conversation_doc(
      c,
      case
        when get_conversation.message_limit > 0 then (
          haive_private.message_docs(
            c.tenant_id, array[c.id],
            array[c.message_count - get_conversation.message_limit + 1], array[c.message_count]
          )
        )[1]
      end
    ),
    c.message_count
  into v_doc, v_count
  from haive.conversations as c
  where c.tenant_id = v_caller.tenant and c.id = get_conversation.conversation_id;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no conversation %s', get_conversation.conversation_id),
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to see.';
  end if;
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'get_conversation',
      jsonb_build_object(
        get_conversation.conversation_id,
        case
          when least(get_conversation.message_limit, v_count) > 0
            then jsonb_build_array(
              greatest(v_count - get_conversation.message_limit + 1, 1), v_count
            )
        end
      ),
      1
    );
  end if;
  return v_doc;
end;
$$;

comment on function haive_private.get_conversation(uuid, int, text) is
'What haive.get_conversation does, in one snapshot.';

-- Volatile, for a request is counted, and PostgREST lets no other function write; what it reads is read
-- in one snapshot all the same.
create or replace function haive.get_conversation(
  conversation_id uuid,
  message_limit int default 0,
  tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return haive_private.get_conversation(
    get_conversation.conversation_id, get_conversation.message_limit, get_conversation.tenant
  );
end;
$$;

comment on function haive.get_conversation(uuid, int, text) is
'One conversation, with its last message_limit messages if asked.';

drop trigger meter_added on haive.messages;
create trigger meter_added after insert on haive.messages
referencing new table as changed
for each statement when (current_setting('persistence.watch', true) is distinct from '---')
execute function haive_private.meter_messages('added');
drop trigger audit_insert on haive.messages;
create trigger audit_insert after insert on haive.messages
referencing new table as changed
for each statement when (current_setting('persistence.watch', true) is distinct from '---')
execute function haive_private.audit_messages();
drop trigger hint_events on haive.events;
create trigger hint_events after insert on haive.events
referencing new table as added
for each statement when (pg_relation_size('haive_private.watches', 'main') > 0)
execute function haive_private.hint_events();

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261129040000', 'lone_messages')
on conflict do nothing;
