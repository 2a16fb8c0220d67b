-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it; 900_grants takes this away again.
grant usage, create on schema haive_private to haive_writer;

-- Their answers or arguments grow, and of two functions of a name a call could be either.
-- squawk-ignore ban-drop-function
drop function haive_private.enter_tenant(text, boolean);
-- squawk-ignore ban-drop-function
drop function haive_private.append_messages(
  text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[]
);
-- squawk-ignore ban-drop-function
drop function haive_private.append_message(
  text, uuid, uuid, text, text, jsonb, jsonb, int, int, text, numeric, timestamptz
);
-- squawk-ignore ban-drop-function
drop function haive_private.replay_messages(
  text, text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[]
);
-- squawk-ignore ban-drop-function
drop function haive_private.insert_messages(
  text, text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[]
);
-- squawk-ignore ban-drop-function
drop function haive_private.reserve_messages(
  text, text, uuid[], int[], int[], numeric[], timestamptz[]
);

-- Every error of ours: SQLSTATE, HTTP status through PostgREST, and the SDK's class.
-- PTnnn sets the HTTP status. 40001 is never used: PostgREST before 16 retries it for ever.
create or replace function haive.error_catalogue()
returns table (sqlstate text, http_status int, error text, retryable boolean, meaning text)
language sql
immutable
security invoker
set search_path = ''
as $$
  values
    ('PT401', 401, 'AccessDeniedError', false, 'the token names no user'),
    ('PT403', 403, 'AccessDeniedError', false, 'the caller may not do this in this tenant'),
    ('PT404', 404, 'NotFoundError', false, 'no such row, or none that the caller may see'),
    ('PT409', 409, 'ConflictError', false, 'the id is taken by other content'),
    ('PT410', 410, 'SubjectErasedError', false, 'the user was erased, and nothing is stored about them'),
    ('PT412', 412, 'SessionClosedError', false, 'the session was closed, has expired, or goes on elsewhere'),
    ('PT413', 413, 'ContentTooLargeError', false, 'content, parts or metadata are over their limit'),
    ('PT416', 416, 'CursorExpiredError', false, 'the cursor is older than the events that are kept'),
    ('PT421', 421, 'TenantMovedError', true, 'the tenant''s rows are in another place now'),
    ('PT422', 422, 'InvalidInputError', false, 'an argument does not mean anything'),
    ('PT423', 423, 'TenantSuspendedError', false, 'the tenant is closed until an administrator opens it'),
    ('PT429', 429, 'QuotaExceededError', false, 'the tenant is at one of its limits'),
    ('PT507', 507, 'SessionFullError', false, 'the session is at max_messages'),
    ('PT503', 503, 'TenantMovingError', true, 'the tenant is being moved and takes no writes now')
$$;

comment on function haive.error_catalogue() is
'The errors that the functions of this schema raise themselves.';

-- The caller's tenants as sets, for policies: evaluated once a statement, whatever the rows.
-- A tenant that is suspended, deleted or has moved shows nothing to its members either.
-- One whose reads are on record is shown to functions only, which have entered it and write the record.
-- Definer: the policies of haive.members themselves ask them.
create or replace function haive_private.my_tenants()
returns setof text
language sql
stable
security definer
set search_path = ''
as $$
  select m.tenant_id
  from haive.members as m
  join haive.tenants as t on t.tenant_id = m.tenant_id
  where
    m.user_id = (select haive.current_actor())
    and t.status in ('active', 'moving') and t.isolation = 'row'
    and (t.audit <> 'all' or t.tenant_id = current_setting('persistence.tenant', true))
$$;

create or replace function haive_private.my_admin_tenants()
returns setof text
language sql
stable
security definer
set search_path = ''
as $$
  select m.tenant_id
  from haive.members as m
  join haive.tenants as t on t.tenant_id = m.tenant_id
  where
    m.user_id = (select haive.current_actor()) and m.role in ('owner', 'admin')
    and t.status in ('active', 'moving') and t.isolation = 'row'
    and (t.audit <> 'all' or t.tenant_id = current_setting('persistence.tenant', true))
$$;

alter function haive_private.my_tenants() owner to haive_writer;
alter function haive_private.my_admin_tenants() owner to haive_writer;

comment on function haive_private.my_tenants() is 'The tenants that the caller is a member of.';
comment on function haive_private.my_admin_tenants() is
'The tenants that the caller owns or administers.';

-- What rows weigh against the limit of storage: text, JSON and payloads as they are before the server
-- compresses them, and for each row about what its other columns take. Here alone: the triggers that
-- count and the job that recounts both ask these functions. None of them unpacks a payload.
create or replace function haive_private.message_bytes(
  p_content text, p_parts jsonb, p_metadata jsonb
)
returns bigint
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return 100 + octet_length(p_content) + coalesce(octet_length(p_parts::text), 0)
    -- Most have none: 2 of the 3 µs that a row takes.
    + case when p_metadata = '{}' then 2 else octet_length(p_metadata::text) end;
end;
$$;

comment on function haive_private.message_bytes(text, jsonb, jsonb) is
'Bytes that a message counts for.';

create or replace function haive_private.conversation_bytes(
  p_title text, p_tags text[], p_context jsonb, p_participants text[], p_settings jsonb
)
returns bigint
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return 200 + coalesce(octet_length(p_title), 0)
    + octet_length(array_to_string(p_tags, ','))
    + octet_length(array_to_string(p_participants, ','))
    + octet_length(p_context::text) + octet_length(p_settings::text);
end;
$$;

comment on function haive_private.conversation_bytes(text, text[], jsonb, text[], jsonb) is
'Bytes that a conversation counts for, without its messages.';

create or replace function haive_private.checkpoint_bytes(
  p_payload bytea,
  p_sealed bytea default null,
  p_metadata jsonb default null,
  p_tags text[] default null,
  p_search jsonb default null
)
returns bigint
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return 100 + coalesce(octet_length(p_payload), 0) + coalesce(octet_length(p_sealed), 0)
    + coalesce(octet_length(p_metadata::text), 0)
    + coalesce(octet_length(array_to_string(p_tags, ',')), 0)
    + coalesce(octet_length(p_search::text), 0);
end;
$$;

comment on function haive_private.checkpoint_bytes(bytea, bytea, jsonb, text[], jsonb) is
'Bytes that a checkpoint, a pending write, a schema or what is noted of a branch counts for.';

create or replace function haive_private.count_rows(
  p_tenant text, out conversations bigint, out bytes bigint
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_more numeric;
begin
  select
    count(*),
    coalesce(
      sum(
        haive_private.conversation_bytes(c.title, c.tags, c.context, c.participants, c.settings)
        + coalesce(octet_length(c.sealed), 0)
      ),
      0
    )
  into conversations, bytes
  from haive.conversations as c where c.tenant_id = p_tenant;
  select sum(u.bytes) into v_more
  from (
    select
      sum(
        haive_private.message_bytes(m.content, m.parts, m.metadata)
        + coalesce(octet_length(m.sealed), 0)
      ) as bytes
    from haive.messages as m where m.tenant_id = p_tenant
    union all
    select sum(haive_private.checkpoint_bytes(c.payload, c.sealed, c.metadata, c.tags, c.search))
    from haive.checkpoints as c where c.tenant_id = p_tenant
    union all
    select sum(haive_private.checkpoint_bytes(w.payload))
    from haive.checkpoint_writes as w where w.tenant_id = p_tenant
    union all
    select sum(haive_private.checkpoint_bytes(s.payload))
    from haive.checkpoint_schemas as s where s.tenant_id = p_tenant
    union all
    select sum(haive_private.checkpoint_bytes(null, b.sealed, b.metadata))
    from haive.branches as b
    where b.tenant_id = p_tenant and num_nulls(b.metadata, b.sealed) < 2
  ) as u;
  bytes := bytes + coalesce(v_more, 0);
end;
$$;

alter function haive_private.count_rows(text) owner to haive_writer;

comment on function haive_private.count_rows(text) is
'What the tenant that was entered has, counted from its rows.';

-- PostgREST makes the status and the headers of its answer from an error of the SQLSTATE PGRST; on a
-- direct connection it is PT429, with the same facts.
create or replace function haive_private.refuse_over_quota(
  p_tenant text, p_resource text, p_limit bigint, p_used bigint, p_resets_at timestamptz
)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_seconds bigint := greatest(ceil(extract(epoch from p_resets_at - clock_timestamp())), 1);
  v_message text := format(
    'the tenant %s is at its limit of %s %s', p_tenant, p_limit,
    case p_resource
      when 'storage' then 'bytes of storage'
      when 'requests' then 'requests a minute'
      when 'tokens' then 'tokens a month'
      else p_resource
    end
  );
  v_hint text := case p_resource
    when 'requests' then 'Repeat the call after retry_after seconds.'
    when 'tokens' then 'The month begins anew at resets_at; or raise the limit with update_tenant.'
    else 'Delete what is not needed, or raise the limit with update_tenant.'
  end;
  v_facts text := json_build_object(
    'resource', p_resource, 'limit', p_limit, 'used', p_used, 'resets_at', p_resets_at,
    'retry_after', case when p_resets_at is not null then v_seconds end
  );
begin
  if nullif(current_setting('request.method', true), '') is null then
    raise exception using
      errcode = 'PT429', message = v_message, detail = v_facts, hint = v_hint;
  end if;
  raise exception using
    errcode = 'PGRST',
    message = json_build_object(
      'code', 'PT429', 'message', v_message, 'details', v_facts, 'hint', v_hint
    ),
    detail = json_build_object(
      'status', 429,
      'headers', case
        when p_resets_at is null then '{}'::json
        else json_build_object('Retry-After', v_seconds::text)
      end
    );
end;
$$;

comment on function haive_private.refuse_over_quota(text, text, bigint, bigint, timestamptz) is
'Raises the error of a tenant that is at a limit, with what it has used and when that begins anew.';

-- Also for a day of the tenant that is not today: months end at midnight there, whatever the season.
create or replace function haive_private.month_end(p_tenant text, p_today date)
returns timestamptz
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return (
    select
      (date_trunc('month', p_today::timestamp) + interval '1 month')
      at time zone coalesce(t.settings ->> 'timezone', 'UTC')
    from haive.tenants as t where t.tenant_id = p_tenant
  );
end;
$$;

alter function haive_private.month_end(text, date) owner to haive_writer;

comment on function haive_private.month_end(text, date) is
'When the month of a day ends in the time zone of a tenant.';

-- Takes one request out of the tenant's token buckets, which fill up within a minute. A bucket is held
-- until the transaction ends, so there are up to 8: whoever finds one held takes another one, and waits
-- only where there is nothing in those that are free. What a transaction that fails has taken comes
-- back: refused calls do not count.
create or replace function haive_private.take_request(p_tenant text, p_limit bigint)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  -- A bucket is of at least 8 requests, or, where the limit is lower, the only one.
  v_buckets int := least(greatest(p_limit / 8, 1), 8);
  v_size bigint := p_limit / v_buckets;
  v_larger int := p_limit % v_buckets; -- so many hold one more
  v_lock bigint := hashtextextended('haive/requests/' || p_tenant, 0);
  v_slot int := pg_backend_pid() % v_buckets;
  v_cost interval;
  v_counts boolean := current_setting('transaction_read_only') = 'off';
  v_used double precision;
  v_next timestamptz;
begin
  if v_counts and v_size > 0 then
    for v_try in 1..v_buckets loop
      -- Who holds a bucket has its lock: to try a lock is cheaper than to skip a row that is locked.
      if pg_try_advisory_xact_lock(v_lock + v_slot) then
        v_cost := interval '1 microsecond' * (60000000 / (v_size + (v_slot < v_larger)::int));
        -- One request more, where the bucket is full again within a minute after it.
        update haive_private.request_buckets as b
        set full_at = greatest(b.full_at, clock_timestamp()) + v_cost
        where
          b.tenant_id = p_tenant and b.slot = v_slot
          and b.full_at <= clock_timestamp() + interval '1 minute' - v_cost;
        if found then
          return true;
        end if;
      end if;
      v_slot := (v_slot + 1) % v_buckets;
    end loop;
    insert into haive_private.request_buckets (tenant_id, slot, full_at)
    select p_tenant, s.slot, clock_timestamp()
    from generate_series(0, v_buckets - 1) as s (slot)
    on conflict do nothing;
    -- Waits for those that are held: they may have something left.
    perform from haive_private.request_buckets as b
    where b.tenant_id = p_tenant and b.slot < v_buckets
    order by b.slot
    for no key update;
    update haive_private.request_buckets as b
    set
      full_at = greatest(b.full_at, clock_timestamp())
      + interval '1 microsecond' * (60000000 / (v_size + (b.slot < v_larger)::int))
    where
      b.tenant_id = p_tenant
      and b.slot = (
        select f.slot from haive_private.request_buckets as f
        where
          f.tenant_id = p_tenant and f.slot < v_buckets
          and f.full_at <= clock_timestamp() + interval '1 minute'
          - interval '1 microsecond' * (60000000 / (v_size + (f.slot < v_larger)::int))
        order by f.full_at
        limit 1
      );
    if found then
      return true;
    end if;
  end if;
  select
    sum(
      greatest(extract(epoch from f.full_at - clock_timestamp()), 0)
      * (v_size + (f.slot < v_larger)::int) / 60
    ),
    min(
      f.full_at - interval '1 minute'
      + interval '1 microsecond' * (60000000 / nullif(v_size + (f.slot < v_larger)::int, 0))
    )
  into v_used, v_next
  from haive_private.request_buckets as f
  where f.tenant_id = p_tenant and f.slot < v_buckets;
  if v_counts or v_next > clock_timestamp() then
    perform haive_private.refuse_over_quota(
      p_tenant, 'requests', p_limit, least(ceil(v_used), p_limit)::bigint,
      coalesce(v_next, clock_timestamp() + interval '1 minute')
    );
  end if;
  return false;
end;
$$;

alter function haive_private.take_request(text, bigint) owner to haive_writer;

comment on function haive_private.take_request(text, bigint) is
'Counts a request of a tenant with a limit of them a minute, or refuses it. A transaction that may not '
'write is refused over the limit and not counted.';

-- What a write has to know of its tenant: its id, the day there, the limits of conversations, bytes and
-- tokens, and whether it was warned of any. Text, for a setting of the transaction.
create or replace function haive_private.meter_facts(p_row haive.tenants)
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return concat_ws(
    ' ', p_row.tenant_id, (now() at time zone coalesce(p_row.settings ->> 'timezone', 'UTC'))::date,
    coalesce(p_row.max_conversations::text, '-'), coalesce(p_row.max_storage_bytes::text, '-'),
    coalesce(p_row.max_tokens_per_month::text, '-'), left(p_row.warned, 1)
  );
end;
$$;

comment on function haive_private.meter_facts(haive.tenants) is
'What it takes to count what is written to a metered tenant.';

-- Begins a day, or the use of a tenant, in one part of its meters.
create or replace function haive_private.turn_meter(p_tenant text, p_slot int, p_today date)
returns date
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_row haive_private.meters;
begin
  insert into haive_private.meters (tenant_id, slot, day) values (p_tenant, p_slot, p_today)
  on conflict do nothing;
  select * into v_row
  from haive_private.meters as m
  where m.tenant_id = p_tenant and m.slot = p_slot
  for no key update;
  if v_row.day >= p_today then
    -- Another one has turned it, or the tenant's clock was put back: days only go on.
    return v_row.day;
  end if;
  if (
    v_row.day_conversations, v_row.day_messages, v_row.day_input_tokens, v_row.day_output_tokens,
    v_row.day_cost
  ) <> (0, 0, 0, 0, 0) then
    insert into haive_private.meter_days as d (
      tenant_id, day, slot, conversations, messages, input_tokens, output_tokens, cost
    )
    values (
      p_tenant, v_row.day, p_slot, v_row.day_conversations, v_row.day_messages,
      v_row.day_input_tokens, v_row.day_output_tokens, v_row.day_cost
    )
    on conflict (tenant_id, day, slot) do update
    set
      conversations = d.conversations + excluded.conversations,
      messages = d.messages + excluded.messages,
      input_tokens = d.input_tokens + excluded.input_tokens,
      output_tokens = d.output_tokens + excluded.output_tokens,
      cost = d.cost + excluded.cost;
  end if;
  update haive_private.meters as m
  set
    day = p_today,
    month_tokens = case
      when date_trunc('month', m.day) = date_trunc('month', p_today) then m.month_tokens
      else 0
    end,
    day_conversations = 0, day_messages = 0, day_input_tokens = 0,
    day_output_tokens = 0, day_cost = 0
  where m.tenant_id = p_tenant and m.slot = p_slot;
  return p_today;
end;
$$;

alter function haive_private.turn_meter(text, int, date) owner to haive_writer;

comment on function haive_private.turn_meter(text, int, date) is
'Puts down what the last day of a part came to and begins the next one; returns the day that it is on.';

create or replace function haive_private.metered_use(p_tenant text, p_today date)
returns bigint[]
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  return (
    select array[
      coalesce(sum(m.conversations), 0)::bigint,
      coalesce(sum(m.bytes), 0)::bigint,
      coalesce(
        sum(m.month_tokens) filter (where m.day >= date_trunc('month', p_today)::date), 0
      )::bigint
    ]
    from haive_private.meters as m
    where m.tenant_id = p_tenant
  );
end;
$$;

alter function haive_private.metered_use(text, date) owner to haive_writer;

comment on function haive_private.metered_use(text, date) is
'What a metered tenant uses: conversations, bytes, and tokens of the month of a day.';

-- Who is at 0.8 of a limit is told so by an event: once, as whoever comes second finds it noted.
create or replace function haive_private.judge_use(
  p_tenant text,
  p_today date,
  p_limits bigint[], -- of conversations, bytes, tokens
  p_used bigint[], -- with what was just added
  p_added bigint[]
)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_names constant text[] := array['conversations', 'storage', 'tokens'];
  v_notes constant text[] := array[
    'conversations', 'storage', to_char(p_today, '"tokens-"YYYY-MM')
  ];
begin
  for i in 1..3 loop
    if p_used[i] > p_limits[i] then
      perform haive_private.refuse_over_quota(
        p_tenant, v_names[i], p_limits[i], p_used[i] - p_added[i],
        case when v_names[i] = 'tokens' then haive_private.month_end(p_tenant, p_today) end
      );
    elsif
      p_used[i] >= p_limits[i] - p_limits[i] / 5
      and exists (
        select from haive.tenants as t
        where t.tenant_id = p_tenant and strpos(t.warned, v_notes[i]) = 0
      )
    then
      update haive.tenants as t
      set
        warned = case
          when i = 3 then trim(regexp_replace(t.warned, 'tokens-[0-9-]+', '') || ' ' || v_notes[i])
          else trim(t.warned || ' ' || v_notes[i])
        end
      where t.tenant_id = p_tenant and strpos(t.warned, v_notes[i]) = 0;
      if found then
        insert into haive.events (tenant_id, kind) values (p_tenant, 'quota.warning');
      end if;
    end if;
  end loop;
end;
$$;

alter function haive_private.judge_use(text, date, bigint[], bigint[], bigint[]) owner to haive_writer;

comment on function haive_private.judge_use(text, date, bigint[], bigint[], bigint[]) is
'Refuses what is over a limit, and warns of what comes near.';

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
  tenant := coalesce(
    p_tenant, nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-haive-tenant'
  );
  -- Trusted are the members of haive_client, which no API user can become. The setting "role"
  -- keeps what PostgREST or SET ROLE chose, in a definer function too; no API call can set it.
  trusted := pg_has_role(
    coalesce(nullif(current_setting('role', true), 'none'), session_user::text),
    'haive_client', 'member'
  );
  if trusted then
    tenant := coalesce(tenant, nullif(current_setting('persistence.tenant', true), ''), 'default');
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
  -- Assigned and not performed, which is a query for each.
  v_done := set_config('persistence.tenant', tenant, true);
  if v_tenant.max_requests_per_minute is not null then
    v_done := haive_private.take_request(tenant, v_tenant.max_requests_per_minute);
  end if;
  audit_reads := v_tenant.audit = 'all';
  -- For those who would look the tenant up once more: m for metered, w for audited writes, s for
  -- content that is sealed by the client.
  v_done := set_config(
    'persistence.watch',
    case when v_tenant.metered then 'm' else '-' end
    || case when v_tenant.audit <> 'off' then 'w' else '-' end
    || case when v_tenant.encrypted then 's' else '-' end,
    true
  );
  if p_write and v_tenant.metered then
    v_done := set_config('persistence.meter', haive_private.meter_facts(v_tenant), true);
  end if;
end;
$$;

alter function haive_private.enter_tenant(text, boolean) owner to haive_writer;

comment on function haive_private.enter_tenant(text, boolean) is
'Resolves and checks the tenant of an operation: argument, header, session setting, the caller''s '
'only membership; "default" for trusted callers. Refuses one that is closed or elsewhere.';

-- A limit is exact however many write at once. All who add to what is limited hold the tenant's lock
-- until they commit: alone, or shared with others.
--  * Alone, nobody else has an addition on its way. Every statement has a snapshot of its own, so the
--    sum is all that there is, and an addition fits below the limit or is refused.
--  * Shared, a transaction passes while the sum, with all that it has added itself, is at most 0.9 of
--    the limit. It does not see what the others have on their way; but that is, of each, at most 0.1 of
--    the limit over the number of transactions that there can be. Take the last of them that passed:
--    what was committed then, with its own, was at most 0.9, and the others bring at most 0.1.
-- Who adds more at once, or finds the sum above 0.9, waits until alone. What is removed needs no lock:
-- while it is on its way the sum is too high, never too low.
--
-- The lock comes after those of the rows that a statement writes. Writers of messages and conversations
-- take no row's lock after it, so they do not wait for each other in a circle. What changes several
-- tables of checkpoints can, near a limit: Postgres ends one of the two, and it is safe to repeat.
--
-- A lone message waits for all of this, so it is one function, with one statement where the lock is
-- shared (functions of its parts took 175 µs in place of 70).
create or replace function haive_private.meter(
  p_tenant text,
  p_conversations bigint,
  p_bytes bigint,
  p_messages bigint default 0,
  p_input_tokens bigint default 0,
  p_output_tokens bigint default 0,
  p_cost numeric default 0
)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_facts text[] := string_to_array(current_setting('persistence.meter', true), ' ', '-');
  v_tokens bigint := p_input_tokens + p_output_tokens;
  v_today date;
  v_slot int := pg_backend_pid() % 16;
  -- Limits of what is added to; null where there is none.
  v_max_conversations bigint;
  v_max_bytes bigint;
  v_max_tokens bigint;
  v_limited boolean;
  v_lock bigint;
  v_share double precision;
  v_alone boolean := false;
  v_used bigint[];
  v_entered text;
  v_done text;
begin
  if v_facts[1] is distinct from p_tenant then
    select string_to_array(haive_private.meter_facts(t), ' ', '-') into v_facts
    from haive.tenants as t where t.tenant_id = p_tenant and t.metered;
    if not found then
      return false;
    end if;
    if current_setting('persistence.tenant', true) is distinct from p_tenant then
      -- Rows changed outside of a tenant, by the owner of the tables.
      v_entered := coalesce(current_setting('persistence.tenant', true), '');
      v_done := set_config('persistence.tenant', p_tenant, true);
    end if;
  end if;
  v_today := v_facts[2];
  if p_conversations > 0 then
    v_max_conversations := v_facts[3];
  end if;
  if p_bytes > 0 then
    v_max_bytes := v_facts[4];
  end if;
  if v_tokens > 0 then
    v_max_tokens := v_facts[5];
  end if;
  v_limited := num_nonnulls(v_max_conversations, v_max_bytes, v_max_tokens) > 0;

  if v_limited then
    if current_setting('transaction_isolation') <> 'read committed' then
      raise exception using
        errcode = 'PT422',
        message = 'this transaction does not see what others write to a tenant with limits',
        hint = 'Use the isolation level read committed.';
    end if;
    v_lock := hashtextextended('haive/quota/' || p_tenant, 0);
    -- Its part of the limits, with what came before in the transaction. The half is for a limit of 0.
    v_share := coalesce(nullif(current_setting('persistence.share', true), '')::double precision, 0)
      + greatest(
        p_conversations / (v_max_conversations + 0.5::double precision),
        p_bytes / (v_max_bytes + 0.5::double precision),
        v_tokens / (v_max_tokens + 0.5::double precision)
      );
    v_alone := v_share * 11 * (
      current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int
    ) > 1;
    if not v_alone and v_facts[6] <> '' then
      -- Above 0.8. Whoever finds out with the lock in hand that the sum is above 0.9 can only wait for
      -- others who wait likewise: better to know before.
      v_used := haive_private.metered_use(p_tenant, v_today);
      v_alone := coalesce(
        v_used[1] + p_conversations > v_max_conversations - v_max_conversations / 10
        or v_used[2] + p_bytes > v_max_bytes - v_max_bytes / 10
        or v_used[3] + v_tokens > v_max_tokens - v_max_tokens / 10,
        false
      );
    end if;
    if v_alone then
      perform pg_advisory_xact_lock(v_lock);
    elsif not pg_try_advisory_xact_lock_shared(v_lock) then
      perform pg_advisory_xact_lock_shared(v_lock);
    end if;
    v_done := set_config('persistence.share', v_share::text, true);
  end if;

  for v_try in 1..2 loop
    update haive_private.meters as m
    set
      conversations = m.conversations + p_conversations,
      bytes = m.bytes + p_bytes,
      month_tokens = m.month_tokens + v_tokens,
      day_conversations = m.day_conversations + greatest(p_conversations, 0),
      day_messages = m.day_messages + p_messages,
      day_input_tokens = m.day_input_tokens + p_input_tokens,
      day_output_tokens = m.day_output_tokens + p_output_tokens,
      day_cost = m.day_cost + p_cost
    where m.tenant_id = p_tenant and m.slot = v_slot and m.day = v_today
    returning
      case
        when v_limited then (
          -- A statement does not see its own change: it is added.
          select array[
            sum(s.conversations) + p_conversations, sum(s.bytes) + p_bytes,
            v_tokens + coalesce(
              sum(s.month_tokens) filter (where s.day >= date_trunc('month', v_today::timestamp)), 0
            )
          ]
          from haive_private.meters as s where s.tenant_id = p_tenant
        )
      end
    into v_used;
    exit when found;
    v_today := haive_private.turn_meter(p_tenant, v_slot, v_today);
  end loop;

  if
    v_used[1] >= v_max_conversations - v_max_conversations / 5
    or v_used[2] >= v_max_bytes - v_max_bytes / 5
    or v_used[3] >= v_max_tokens - v_max_tokens / 5
  then
    if not v_alone and coalesce(
      v_used[1] > v_max_conversations - v_max_conversations / 10
      or v_used[2] > v_max_bytes - v_max_bytes / 10
      or v_used[3] > v_max_tokens - v_max_tokens / 10,
      false
    ) then
      perform pg_advisory_xact_lock(v_lock);
      v_used := haive_private.metered_use(p_tenant, v_today);
    end if;
    perform haive_private.judge_use(
      p_tenant, v_today, array[v_max_conversations, v_max_bytes, v_max_tokens], v_used,
      array[p_conversations, p_bytes, v_tokens]
    );
  end if;
  if v_facts[6] <> '' and least(p_conversations, p_bytes) < 0 then
    perform haive_private.rearm_warnings(p_tenant, v_today);
  end if;
  if v_entered is not null then
    v_done := set_config('persistence.tenant', v_entered, true);
  end if;
  return true;
end;
$$;

alter function haive_private.meter(text, bigint, bigint, bigint, bigint, bigint, numeric)
owner to haive_writer;

comment on function haive_private.meter(text, bigint, bigint, bigint, bigint, bigint, numeric) is
'Counts what a statement has added to a tenant or, below zero, removed, and holds its limits.';

-- The way in for those who run the platform: a tenant that is closed can still be administered.
-- Definer, as enter_tenant is.
create or replace function haive_private.administer_tenant(p_tenant text)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  if not pg_has_role(
    coalesce(nullif(current_setting('role', true), 'none'), session_user::text),
    'haive_client', 'member'
  ) then
    raise exception using
      errcode = 'PT403',
      message = 'only the platform administers tenants',
      hint = 'Call with a secret key, or on a direct connection.';
  end if;
  if current_setting('lock_timeout') = '0' then
    perform set_config('lock_timeout', '10s', true);
  end if;
  perform set_config('persistence.tenant', coalesce(p_tenant, ''), true);
  -- Triggers look the tenant up: what was known of another one does not hold for it.
  perform set_config('persistence.watch', '', true);
  perform set_config('persistence.meter', '', true);
end;
$$;

alter function haive_private.administer_tenant(text) owner to haive_writer;

comment on function haive_private.administer_tenant(text) is
'Lets a trusted caller work on a tenant whatever its status, and nobody else.';

-- Counts the rows of a tenant and corrects its meters by the difference. Who calls it holds the lock of
-- the tenant's writers, and has entered the tenant.
-- Tokens are not counted again: those of messages that were deleted have been used all the same. Only a
-- tenant that was never counted gets them, and its days, from its messages.
create or replace function haive_private.recount_tenant(
  p_tenant text,
  out conversations bigint, -- as they are
  out bytes bigint,
  out conversations_drift bigint, -- what they are more than the meters said
  out bytes_drift bigint
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_zone text;
  v_today date;
  v_new boolean := not exists (
    select from haive_private.meters as m where m.tenant_id = p_tenant
  );
  v_used bigint[];
begin
  select
    coalesce(t.settings ->> 'timezone', 'UTC'),
    (now() at time zone coalesce(t.settings ->> 'timezone', 'UTC'))::date
  into v_zone, v_today
  from haive.tenants as t where t.tenant_id = p_tenant;
  select u.conversations, u.bytes into recount_tenant.conversations, recount_tenant.bytes
  from haive_private.count_rows(p_tenant) as u;
  v_today := haive_private.turn_meter(p_tenant, 0, v_today);
  v_used := haive_private.metered_use(p_tenant, v_today);
  conversations_drift := recount_tenant.conversations - v_used[1];
  bytes_drift := recount_tenant.bytes - v_used[2];
  update haive_private.meters as m
  set
    conversations = m.conversations + recount_tenant.conversations_drift,
    bytes = m.bytes + recount_tenant.bytes_drift
  where m.tenant_id = p_tenant and m.slot = 0;

  if v_new then
    insert into haive_private.meter_days (
      tenant_id, day, slot, conversations, messages, input_tokens, output_tokens, cost
    )
    select
      p_tenant, d.day, 0, sum(d.conversations), sum(d.messages), sum(d.input_tokens),
      sum(d.output_tokens), sum(d.cost)
    from (
      select
        least((m.created_at at time zone v_zone)::date, v_today) as day, 0 as conversations,
        1 as messages, coalesce(m.input_tokens, 0) as input_tokens,
        coalesce(m.output_tokens, 0) as output_tokens, coalesce(m.cost, 0) as cost
      from haive.messages as m
      where m.tenant_id = p_tenant
      union all
      select least((c.created_at at time zone v_zone)::date, v_today), 1, 0, 0, 0, 0
      from haive.conversations as c
      where c.tenant_id = p_tenant
    ) as d
    group by d.day;
    update haive_private.meters as m
    set month_tokens = (
      select coalesce(sum(d.input_tokens + d.output_tokens), 0)
      from haive_private.meter_days as d
      where d.tenant_id = p_tenant and d.day >= date_trunc('month', v_today)::date
    )
    where m.tenant_id = p_tenant and m.slot = 0;
  else
    -- The parts of days that are over become one.
    with parts as (
      delete from haive_private.meter_days as d
      where d.tenant_id = p_tenant and d.slot > 0
      returning d.*
    )
    insert into haive_private.meter_days as d (
      tenant_id, day, slot, conversations, messages, input_tokens, output_tokens, cost
    )
    select
      p_tenant, p.day, 0, sum(p.conversations), sum(p.messages), sum(p.input_tokens),
      sum(p.output_tokens), sum(p.cost)
    from parts as p
    group by p.day
    on conflict (tenant_id, day, slot) do update
    set
      conversations = d.conversations + excluded.conversations,
      messages = d.messages + excluded.messages,
      input_tokens = d.input_tokens + excluded.input_tokens,
      output_tokens = d.output_tokens + excluded.output_tokens,
      cost = d.cost + excluded.cost;
  end if;
  perform haive_private.rearm_warnings(p_tenant, v_today);
end;
$$;

alter function haive_private.recount_tenant(text) owner to haive_writer;

comment on function haive_private.recount_tenant(text) is
'Makes the meters of a tenant what its rows say, and tells what they were wrong by.';

create or replace function haive_private.rearm_warnings(p_tenant text, p_today date)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_used bigint[] := haive_private.metered_use(p_tenant, p_today);
  v_row haive.tenants;
  v_limits bigint[];
  v_warned text;
begin
  select * into v_row from haive.tenants as t where t.tenant_id = p_tenant;
  v_limits := array[v_row.max_conversations, v_row.max_storage_bytes, v_row.max_tokens_per_month];
  select coalesce(string_agg(n.note, ' ' order by n.note), '') into v_warned
  from string_to_table(nullif(v_row.warned, ''), ' ') as n (note)
  where
    case n.note
      when 'conversations' then v_used[1] >= v_limits[1] - v_limits[1] / 5
      when 'storage' then v_used[2] >= v_limits[2] - v_limits[2] / 5
      when to_char(p_today, '"tokens-"YYYY-MM') then v_used[3] >= v_limits[3] - v_limits[3] / 5
    end;
  if v_warned <> v_row.warned then
    update haive.tenants as t set warned = v_warned where t.tenant_id = p_tenant;
  end if;
  -- More than a limit is nothing to refuse here: it was there before the limit.
  perform haive_private.judge_use(
    p_tenant, p_today, v_limits,
    array[
      least(v_used[1], v_limits[1]), least(v_used[2], v_limits[2]), least(v_used[3], v_limits[3])
    ],
    array[0, 0, 0]
  );
end;
$$;

alter function haive_private.rearm_warnings(text, date) owner to haive_writer;

comment on function haive_private.rearm_warnings(text, date) is
'Makes the warnings of a tenant what its use and its limits are now.';

create or replace function haive_private.usage_doc(
  p_used bigint, p_limit bigint, p_resets_at timestamptz default null
)
returns json
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return json_build_object(
    'used', p_used,
    'limit', p_limit,
    -- Of a limit of nothing, all is used.
    'fraction', case
      when p_limit is not null then coalesce(round(p_used::numeric / nullif(p_limit, 0), 4), 1)
    end,
    'resets_at', p_resets_at
  );
end;
$$;

comment on function haive_private.usage_doc(bigint, bigint, timestamptz) is
'The use of one resource as the functions of the API return it.';

-- Days of metered tenants are read off: 30 rows in place of all their messages. Everything else comes
-- from the rows, by their own times.
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
          c.tenant_id = p_tenant and c.last_message_at >= v_since and c.created_at < v_until
          and c.message_count > 0
      )
    end
  );
end;
$$;

alter function haive_private.analytics_doc(text, text[], int, timestamptz, timestamptz)
owner to haive_writer;

comment on function haive_private.analytics_doc(text, text[], int, timestamptz, timestamptz) is
'What the tenant that was entered did in a time.';

-- Takes the next places of the conversations that messages go to: locks each conversation's row,
-- moves its counters and writes its event, in one statement each however many messages come.
-- Messages of a conversation that is unknown, or closed to the caller, get no place.
create or replace function haive_private.reserve_messages(
  p_tenant text,
  p_actor text,
  p_conversation_ids uuid[],
  p_input_tokens int[],
  p_output_tokens int[],
  p_costs numeric[],
  p_created_at timestamptz[],
  p_sealed boolean, -- all of them
  out conversation_ids uuid[], -- sorted, each once
  out last_seqs bigint[], -- of each, after the reservation
  out counts bigint[] -- of each, how many places were taken
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
-- One plan for all calls: planning each time is 1.5 of 25 µs a message, at 128 rows. The tables may
-- be empty when it is made, and it stays: without the other scans the key is what is left to it.
-- (Before 17, a plan made for an empty table reads the tenant's keys until autovacuum sees rows.)
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_ids uuid[]; -- as conversation_ids, a name that columns have
  v_inputs bigint[];
  v_outputs bigint[];
  v_costs numeric[];
  v_latest timestamptz[];
  v_owner text;
  v_is_session boolean := false;
begin
  perform haive_private.check_sealed(p_sealed);
  select
    array_agg(g.conversation_id), array_agg(g.n), array_agg(g.input_tokens),
    array_agg(g.output_tokens), array_agg(g.cost), array_agg(g.latest)
  into v_ids, counts, v_inputs, v_outputs, v_costs, v_latest
  from (
    select
      u.conversation_id,
      count(*) as n,
      coalesce(sum(u.input_tokens), 0) as input_tokens,
      coalesce(sum(u.output_tokens), 0) as output_tokens,
      coalesce(sum(u.cost), 0) as cost,
      max(coalesce(u.created_at, now())) as latest
    from unnest(p_conversation_ids, p_input_tokens, p_output_tokens, p_costs, p_created_at)
      as u (conversation_id, input_tokens, output_tokens, cost, created_at)
    group by u.conversation_id
    order by u.conversation_id
  ) as g;

  if cardinality(v_ids) = 1 then
    update haive.conversations as c
    set
      message_count = c.message_count + counts[1],
      input_tokens = c.input_tokens + v_inputs[1],
      output_tokens = c.output_tokens + v_outputs[1],
      cost = c.cost + v_costs[1],
      last_message_at = greatest(c.last_message_at, v_latest[1])
    where
      c.tenant_id = p_tenant and c.id = v_ids[1]
      and (p_actor is null or c.user_id = p_actor or p_actor = any(c.participants))
    returning array[c.message_count], c.is_session, c.user_id
    into last_seqs, v_is_session, v_owner;
    if not found then
      last_seqs := array[null::bigint];
    elsif v_is_session then
      perform haive_private.check_session_write(p_tenant, p_actor, v_ids[1], v_owner, last_seqs[1]);
    end if;
  else
    -- The scan of the key finds the rows in the order of their ids, so two writers never wait for
    -- each other in a circle; width_bucket is the binary search for a row's place in the array.
    with grown as (
      update haive.conversations as c
      set
        message_count = c.message_count + counts[width_bucket(c.id, v_ids)],
        input_tokens = c.input_tokens + v_inputs[width_bucket(c.id, v_ids)],
        output_tokens = c.output_tokens + v_outputs[width_bucket(c.id, v_ids)],
        cost = c.cost + v_costs[width_bucket(c.id, v_ids)],
        last_message_at = greatest(c.last_message_at, v_latest[width_bucket(c.id, v_ids)])
      where
        c.tenant_id = p_tenant and c.id = any(v_ids)
        and (p_actor is null or c.user_id = p_actor or p_actor = any(c.participants))
      returning c.id, c.message_count, c.is_session
    )
    select array_agg(g.message_count order by u.id), bool_or(g.is_session)
    into last_seqs, v_is_session
    from unnest(v_ids) as u (id)
    left join grown as g on g.id = u.id;
    if v_is_session then
      perform haive_private.check_session_write(p_tenant, p_actor, c.id, c.user_id, c.message_count)
      from haive.conversations as c
      where c.tenant_id = p_tenant and c.id = any(v_ids) and c.is_session;
    end if;
  end if;

  insert into haive.events (tenant_id, kind, conversation_id, first_seq, last_seq)
  select p_tenant, 'messages.added', u.id, u.last_seq - u.n + 1, u.last_seq
  from unnest(v_ids, last_seqs, counts) as u (id, last_seq, n)
  where u.last_seq is not null;
  conversation_ids := v_ids;
end;
$$;

alter function haive_private.reserve_messages(
  text, text, uuid[], int[], int[], numeric[], timestamptz[], boolean
) owner to haive_writer;

comment on function haive_private.reserve_messages(
  text, text, uuid[], int[], int[], numeric[], timestamptz[], boolean
) is 'Gives places (seq) to messages that are about to be written in the same transaction.';

-- Reserves places and writes the messages into them. Rows come and go as arrays of columns, all of
-- one length (or null where no row has the column): 8 to 16 % cheaper than jsonb at 256 rows.
create or replace function haive_private.insert_messages(
  p_tenant text,
  p_actor text,
  p_conversation_ids uuid[],
  p_ids uuid[],
  p_roles text[],
  p_contents text[],
  p_parts jsonb[],
  p_metadata jsonb[],
  p_input_tokens int[],
  p_output_tokens int[],
  p_models text[],
  p_costs numeric[],
  p_created_at timestamptz[],
  p_sealed bytea[],
  p_sealed_with text[],
  out seqs bigint[], -- in the order given; null: the conversation is not the caller's to write to
  out times timestamptz[]
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_places record;
begin
  v_places := haive_private.reserve_messages(
    p_tenant, p_actor, p_conversation_ids, p_input_tokens, p_output_tokens, p_costs, p_created_at,
    p_sealed is not null and array_position(p_sealed, null) is null
  );
  with placed as materialized (
    select
      u.*,
      v_places.last_seqs[width_bucket(u.conversation_id, v_places.conversation_ids)]
      - v_places.counts[width_bucket(u.conversation_id, v_places.conversation_ids)]
      + row_number() over (partition by u.conversation_id order by u.place) as seq
    from unnest(
      p_conversation_ids, p_ids, p_roles, p_contents, p_parts, p_metadata,
      p_input_tokens, p_output_tokens, p_models, p_costs, p_created_at, p_sealed,
      p_sealed_with
    ) with ordinality as u (
      conversation_id, id, role, content, parts, metadata,
      input_tokens, output_tokens, model, cost, created_at, sealed, sealed_with, place
    )
  ),
  written as (
    insert into haive.messages (
      tenant_id, conversation_id, seq, id, role, content, parts, metadata,
      input_tokens, output_tokens, model, cost, created_at, sealed, sealed_with
    )
    select
      p_tenant, p.conversation_id, p.seq, p.id, p.role, p.content, p.parts,
      coalesce(p.metadata, '{}'), p.input_tokens, p.output_tokens, p.model, p.cost,
      coalesce(p.created_at, now()), p.sealed, p.sealed_with
    from placed as p
    where p.seq is not null
  )
  select array_agg(p.seq order by p.place), array_agg(coalesce(p.created_at, now()) order by p.place)
  into seqs, times
  from placed as p;
end;
$$;

alter function haive_private.insert_messages(
  text, text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
) owner to haive_writer;

comment on function haive_private.insert_messages(
  text, text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
) is 'Writes new messages; an id that exists already is a unique violation.';

-- What the hash of a row covers, as text: the writer, the check and the export read it here, so an
-- export can be verified where there is no database.
create or replace function haive_private.audit_entry(p_row haive.audit_log)
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return jsonb_build_array(
    p_row.tenant_id, p_row.seq,
    to_char(p_row.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    p_row.actor, p_row.login, p_row.role, p_row.action, p_row.object, p_row.rows, p_row.row_count,
    p_row.address, p_row.application, p_row.request_id
  )::text;
end;
$$;

comment on function haive_private.audit_entry(haive.audit_log) is
'A row of the log as canonical text, without its hash: a JSON array of the columns in their order.';

-- Definer, for nobody writes the log directly.
create or replace function haive_private.audit_read(p_function text, p_rows jsonb, p_count bigint)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  if current_setting('transaction_read_only') = 'on' then
    raise exception using
      errcode = 'PT403',
      message = 'what is read of this tenant goes on record, which this transaction may not write',
      hint = 'Call the function by POST and on a primary, in a transaction that may write.';
  end if;
  insert into haive_private.audit_queue (tenant_id, action, object, rows, row_count)
  values (
    current_setting('persistence.tenant'), 'read', p_function, coalesce(p_rows, '{}'),
    coalesce(p_count, 0)
  );
end;
$$;

alter function haive_private.audit_read(text, jsonb, bigint) owner to haive_writer;

comment on function haive_private.audit_read(text, jsonb, bigint) is
'Puts on record what a function reads of the tenant that was entered; called where enter_tenant '
'answers audit_reads.';

-- The log of a tenant that is closed, or purged, can still be read by those who run the platform.
-- Definer, as enter_tenant is.
create or replace function haive_private.enter_audit(p_tenant text)
returns text
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_tenant text;
  v_caller record;
  v_location text;
begin
  if pg_has_role(
    coalesce(nullif(current_setting('role', true), 'none'), session_user::text),
    'haive_client', 'member'
  ) then
    v_tenant := coalesce(
      p_tenant,
      nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-haive-tenant',
      nullif(current_setting('persistence.tenant', true), ''),
      'default'
    );
    perform haive_private.administer_tenant(v_tenant);
    -- What is here of a tenant that lives elsewhere is about its entry alone: not to be taken for its log.
    select t.location into v_location from haive.tenants as t
    where t.tenant_id = v_tenant and t.isolation <> 'row';
    if found then
      raise exception using
        errcode = 'PT421',
        message = format('the log of tenant %s is where its rows are, in %s', v_tenant, v_location),
        hint = 'Work in tenant_context, which knows where, or name that schema.';
    end if;
    return v_tenant;
  end if;
  v_caller := haive_private.enter_tenant(p_tenant, false);
  if v_caller.actor is not null then
    raise exception using
      errcode = 'PT403',
      message = 'only an administrator reads the log of a tenant',
      hint = 'Owners and admins do; they change roles with set_member.';
  end if;
  return v_caller.tenant;
end;
$$;

alter function haive_private.enter_audit(text) owner to haive_writer;

comment on function haive_private.enter_audit(text) is
'Lets trusted callers read the log of any tenant, and owners and admins that of their own.';

-- For triggers where no operation has entered a tenant: the owner's own statements.
create or replace function haive_private.is_audited(p_tenant text)
returns boolean
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return exists (
    select from haive.tenants as t where t.tenant_id = p_tenant and t.audit <> 'off'
  );
end;
$$;

alter function haive_private.is_audited(text) owner to haive_writer;

comment on function haive_private.is_audited(text) is
'Whether what is written goes on record; false for a tenant that is gone.';

-- The slow way in, taken when an id exists already: a retry after a lost answer. Under the locks
-- of the conversations it writes what is missing and compares the rest.
create or replace function haive_private.replay_messages(
  p_tenant text,
  p_actor text,
  p_conversation_ids uuid[],
  p_ids uuid[],
  p_roles text[],
  p_contents text[],
  p_parts jsonb[],
  p_metadata jsonb[],
  p_input_tokens int[],
  p_output_tokens int[],
  p_models text[],
  p_costs numeric[],
  p_created_at timestamptz[],
  p_sealed bytea[],
  p_sealed_with text[],
  out seqs bigint[],
  out times timestamptz[],
  out failures text[]
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_missing bigint[];
begin
  perform from haive.conversations as c
  where c.tenant_id = p_tenant and c.id = any(p_conversation_ids)
  order by c.id
  for no key update;

  v_missing := array(
    select min(u.place) from unnest(p_ids) with ordinality as u (id, place)
    where not exists (select from haive.messages as m where m.id = u.id and m.tenant_id = p_tenant)
    group by u.id
    order by min(u.place)
  );
  perform haive_private.insert_messages(
    p_tenant,
    p_actor,
    array(select p_conversation_ids[i] from unnest(v_missing) as i),
    array(select p_ids[i] from unnest(v_missing) as i),
    array(select p_roles[i] from unnest(v_missing) as i),
    array(select p_contents[i] from unnest(v_missing) as i),
    array(select p_parts[i] from unnest(v_missing) as i),
    array(select p_metadata[i] from unnest(v_missing) as i),
    array(select p_input_tokens[i] from unnest(v_missing) as i),
    array(select p_output_tokens[i] from unnest(v_missing) as i),
    array(select p_models[i] from unnest(v_missing) as i),
    array(select p_costs[i] from unnest(v_missing) as i),
    array(select p_created_at[i] from unnest(v_missing) as i),
    array(select p_sealed[i] from unnest(v_missing) as i),
    array(select p_sealed_with[i] from unnest(v_missing) as i)
  )
  where cardinality(v_missing) > 0;

  select
    array_agg(case when s.failure is null then s.seq end order by s.place),
    array_agg(s.created_at order by s.place),
    array_agg(s.failure order by s.place)
  into seqs, times, failures
  from (
    select
      u.place, m.seq, m.created_at,
      case
        when c.id is null then 'PT404'
        when m.id is null or (
          m.conversation_id, m.role, m.content, m.parts, m.metadata,
          m.input_tokens, m.output_tokens, m.model, m.cost, m.created_at, m.sealed, m.sealed_with
        ) is distinct from (
          u.conversation_id, u.role, u.content, u.parts, coalesce(u.metadata, '{}'),
          u.input_tokens, u.output_tokens, u.model, u.cost, coalesce(u.created_at, m.created_at),
          u.sealed, u.sealed_with
        ) then 'PT409'
      end as failure
    from unnest(
      p_conversation_ids, p_ids, p_roles, p_contents, p_parts, p_metadata,
      p_input_tokens, p_output_tokens, p_models, p_costs, p_created_at, p_sealed,
      p_sealed_with
    ) with ordinality as u (
      conversation_id, id, role, content, parts, metadata,
      input_tokens, output_tokens, model, cost, created_at, sealed, sealed_with, place
    )
    left join haive.conversations as c
      on c.tenant_id = p_tenant and c.id = u.conversation_id
      and (p_actor is null or c.user_id = p_actor or p_actor = any(c.participants))
    left join haive.messages as m on m.id = u.id and m.tenant_id = p_tenant
  ) as s;
end;
$$;

alter function haive_private.replay_messages(
  text, text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
) owner to haive_writer;

comment on function haive_private.replay_messages(
  text, text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
) is 'Writes those messages that are not there yet and answers for all.';

-- One message, the statements of insert_messages for a single row: 0.1 ms less than by arrays,
-- which is what a lone caller waits for.
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
  v_session record;
begin
  perform haive_private.check_sealed(p_sealed is not null);
  created_at := coalesce(p_created_at, now());
  update haive.conversations as c
  set
    message_count = c.message_count + 1,
    input_tokens = c.input_tokens + coalesce(p_input_tokens, 0),
    output_tokens = c.output_tokens + coalesce(p_output_tokens, 0),
    cost = c.cost + coalesce(p_cost, 0),
    last_message_at = greatest(c.last_message_at, append_message.created_at)
  where
    c.tenant_id = v_caller.tenant and c.id = p_conversation_id
    and (
      v_caller.actor is null or c.user_id = v_caller.actor
      or v_caller.actor = any(c.participants)
    )
  returning c.message_count, c.is_session, c.user_id into v_session;
  if not found then
    failure := 'PT404';
    return;
  end if;
  seq := v_session.message_count;
  if v_session.is_session then
    perform haive_private.check_session_write(
      v_caller.tenant, v_caller.actor, p_conversation_id, v_session.user_id, append_message.seq
    );
  end if;
  insert into haive.messages (
    tenant_id, conversation_id, seq, id, role, content, parts, metadata,
    input_tokens, output_tokens, model, cost, created_at, sealed, sealed_with
  )
  values (
    v_caller.tenant, p_conversation_id, append_message.seq, p_id, p_role, p_content, p_parts,
    coalesce(p_metadata, '{}'), p_input_tokens, p_output_tokens, p_model, p_cost,
    append_message.created_at, p_sealed, p_sealed_with
  );
  insert into haive.events (tenant_id, kind, conversation_id, first_seq, last_seq)
  values (
    v_caller.tenant, 'messages.added', p_conversation_id, append_message.seq, append_message.seq
  );
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

-- The fast path of writing: what the SDK calls on a direct connection, and add_messages for all
-- others. One bad message does not spoil the others: it gets a SQLSTATE in failures.
create or replace function haive_private.append_messages(
  p_tenant text,
  p_conversation_ids uuid[],
  p_ids uuid[],
  p_roles text[],
  p_contents text[],
  p_parts jsonb[] default null,
  p_metadata jsonb[] default null,
  p_input_tokens int[] default null,
  p_output_tokens int[] default null,
  p_models text[] default null,
  p_costs numeric[] default null,
  p_created_at timestamptz[] default null,
  p_sealed bytea[] default null,
  p_sealed_with text[] default null,
  out seqs bigint[],
  out times timestamptz[],
  out failures text[] -- null: all were written
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
begin
  begin
    select w.seqs, w.times into seqs, times
    from haive_private.insert_messages(
      v_caller.tenant, v_caller.actor, p_conversation_ids, p_ids, p_roles, p_contents, p_parts,
      p_metadata, p_input_tokens, p_output_tokens, p_models, p_costs, p_created_at,
      p_sealed, p_sealed_with
    ) as w;
    if array_position(seqs, null) is not null then
      failures := array(
        select case when u.seq is null then 'PT404' end
        from unnest(seqs) with ordinality as u (seq, place)
        order by u.place
      );
    end if;
  exception
    when unique_violation or sqlstate 'PT412' or sqlstate 'PT507' then
      -- A session that has closed or filled up since knows the messages that it has already.
      if sqlstate in ('PT412', 'PT507') and not exists (
        select from unnest(p_ids, p_conversation_ids) as u (id, conversation_id)
        join haive.messages as m
          on m.id = u.id and m.tenant_id = v_caller.tenant and m.conversation_id = u.conversation_id
      ) then
        raise;
      end if;
      select w.seqs, w.times, w.failures into seqs, times, failures
      from haive_private.replay_messages(
        v_caller.tenant, v_caller.actor, p_conversation_ids, p_ids, p_roles, p_contents, p_parts,
        p_metadata, p_input_tokens, p_output_tokens, p_models, p_costs, p_created_at,
        p_sealed, p_sealed_with
      ) as w;
  end;
end;
$$;

alter function haive_private.append_messages(
  text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
) owner to haive_writer;

comment on function haive_private.append_messages(
  text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[], bytea[], text[]
) is 'Writes messages of any conversations; those that exist already are answered as they are.';

-- A client that has no keys, or forgot them, must not store in the clear what its tenant seals.
create or replace function haive_private.check_sealed(p_sealed boolean)
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
  end if;
end;
$$;

comment on function haive_private.check_sealed(boolean) is
'Refuses content in the clear where the tenant that was entered seals it.';

-- Checkpoints come in by several functions, and each row names its key.
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
for each row when (new.key_id is null)
execute function haive_private.refuse_plain();

create or replace trigger checkpoint_writes_are_sealed
before insert or update of payload on haive.checkpoint_writes
for each row when (new.key_id is null)
execute function haive_private.refuse_plain();

create or replace trigger checkpoint_schemas_are_sealed
before insert or update of payload on haive.checkpoint_schemas
for each row when (new.key_id is null)
execute function haive_private.refuse_plain();

create or replace trigger branches_are_sealed
before insert or update of metadata on haive.branches
for each row when (new.key_id is null and new.metadata is not null)
execute function haive_private.refuse_plain();

-- A tenant as JSON. Limits are together, as a quota.
create or replace function haive_private.tenant_doc(p_row haive.tenants)
returns json
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return json_build_object(
    'tenant_id', p_row.tenant_id,
    'name', p_row.name,
    'status', p_row.status::text,
    'isolation', p_row.isolation::text,
    'location', p_row.location::text,
    'settings', p_row.settings,
    'quota', json_build_object(
      'max_conversations', p_row.max_conversations::bigint,
      'max_storage_bytes', p_row.max_storage_bytes::bigint,
      'max_requests_per_minute', p_row.max_requests_per_minute::bigint,
      'max_tokens_per_month', p_row.max_tokens_per_month::bigint
    ),
    'audit', p_row.audit::text,
    'encrypted', p_row.encrypted,
    'metered', p_row.metered,
    'created_at', p_row.created_at,
    'updated_at', p_row.updated_at,
    'deleted_at', p_row.deleted_at
  );
end;
$$;

comment on function haive_private.tenant_doc(haive.tenants) is
'A tenant as the functions of the API return it.';

-- What the settings of a tenant mean to us; anything else in them is the application's.
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

-- A conversation as JSON. Money is text: JSON numbers become floats on the way.
-- plpgsql, whose single expression costs less than an SQL function that cannot be inlined.
-- The casts take the domains off, as in message_docs.
create or replace function haive_private.conversation_doc(
  p_row haive.conversations, p_messages json default null
)
returns json
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return json_build_object(
    'id', p_row.id,
    'tenant_id', p_row.tenant_id,
    'agent_id', p_row.agent_id::text,
    'user_id', p_row.user_id::text,
    'metadata', case
      when p_row.sealed is null then json_build_object(
        'title', p_row.title::text,
        'tags', p_row.tags::text[],
        'context', p_row.context::jsonb,
        'participants', p_row.participants::text[],
        'settings', p_row.settings::jsonb
      )
      else json_build_object(
        'tags', p_row.tags::text[],
        'participants', p_row.participants::text[],
        'sealed', json_build_object(
          'sealed', replace(encode(p_row.sealed, 'base64'), e'\n', ''),
          'sealed_with', p_row.sealed_with::text
        )
      )
    end,
    'message_count', p_row.message_count,
    'input_tokens', p_row.input_tokens,
    'output_tokens', p_row.output_tokens,
    'cost', p_row.cost::text,
    'created_at', p_row.created_at::timestamptz,
    'updated_at', p_row.updated_at,
    'last_message_at', p_row.last_message_at,
    'messages', p_messages
  );
end;
$$;

comment on function haive_private.conversation_doc(haive.conversations, json) is
'A conversation as the functions of the API return it.';

-- The messages of some conversations as JSON, a list for each, always in the order of seq. A page
-- is a range of seq, which has no gaps: it is known without reading what lies before it.
-- The casts take the domains off: to_json looks a domain up for every value (a fifth of the time).
create or replace function haive_private.message_docs(
  p_tenant text,
  p_conversation_ids uuid[],
  p_from bigint[],
  p_to bigint[]
)
returns json[]
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return array(
    select (
      select coalesce(json_agg(d), '[]')
      from (
        select
          m.id, m.conversation_id, m.seq, m.role::text,
          case
            when m.sealed is not null then json_build_object(
              'sealed', replace(encode(m.sealed, 'base64'), e'\n', ''),
              'sealed_with', m.sealed_with::text
            )
            when m.parts is null then to_json(m.content::text)
            else m.parts::json
          end as content,
          m.metadata::jsonb,
          case
            when m.input_tokens is not null then json_build_object(
              'input_tokens', m.input_tokens::int,
              'output_tokens', m.output_tokens::int,
              'total_tokens', m.input_tokens + m.output_tokens,
              'model', m.model::text,
              'cost', m.cost::text
            )
          end as token_usage,
          m.created_at::timestamptz
        from haive.messages as m
        where
          m.tenant_id = p_tenant and m.conversation_id = w.conversation_id
          and m.seq between w.first_seq and w.last_seq
        order by m.seq
      ) as d
    )
    from unnest(p_conversation_ids, p_from, p_to) with ordinality
      as w (conversation_id, first_seq, last_seq, place)
    order by w.place
  );
end;
$$;

comment on function haive_private.message_docs(text, uuid[], bigint[], bigint[]) is
'Ranges of messages as the functions of the API return them.';

-- A thread has one owner, in all of its namespaces: whoever began it. Nobody else gets in, neither by
-- a part of it that is not there yet nor by being there first, before a service names the user.
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
  select t.thread_key, t.user_id into v_key, v_owner
  from haive.threads as t
  where t.thread_id = p_thread_id and t.namespace = p_namespace and t.tenant_id = p_tenant;
  if not found then
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
    select t.thread_key, t.user_id into v_key, v_owner
    from haive.threads as t
    where t.thread_id = p_thread_id and t.namespace = p_namespace and t.tenant_id = p_tenant;
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

create or replace function haive.row_security()
returns json
language sql
stable
security invoker
set search_path = ''
as $$
  select json_build_object(
    'without', coalesce(
      json_agg(c.relname order by c.relname) filter (where not c.relrowsecurity), '[]'
    ),
    'binds', row_security_active('haive.conversations'::regclass),
    -- The REST API sets this; there a secret key is bound by the functions that it calls.
    'direct', nullif(current_setting('request.method', true), '') is null
  )
  from pg_class as c
  where
    c.relnamespace = 'haive'::regnamespace and c.relkind in ('r', 'p')
    -- The schema may be one that others use too, such as public.
    and exists (
      select from pg_attribute as a
      where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
    )
$$;

comment on function haive.row_security() is
'Which tables are without row level security, whether it binds the caller, and whether that one is '
'connected directly: {without, binds, direct}.';

-- Any number of conversations in one call. Definer, for nobody writes tables directly.
create or replace function haive_private.create_conversations(p_tenant text, p_conversations jsonb)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_given jsonb;
  v_fresh bigint;
  v_docs json;
begin
  -- Ids come from the client, for a safe retry; who sends none gets one here.
  select jsonb_agg(jsonb_build_object('id', gen_random_uuid()) || u.doc order by u.place)
  into v_given
  from jsonb_array_elements(p_conversations) with ordinality as u (doc, place);
  v_fresh := haive_private.begin_conversations(v_caller.tenant, v_caller.actor, v_given);

  -- offset 0: as in begin_conversations.
  select json_agg(haive_private.conversation_doc(c.found) order by g.place) into v_docs
  from jsonb_array_elements(v_given) with ordinality as g (doc, place)
  cross join lateral (
    select c as found from haive.conversations as c
    where c.tenant_id = v_caller.tenant and c.id = (g.doc ->> 'id')::uuid
    offset 0
  ) as c;
  if v_caller.audit_reads and v_fresh < jsonb_array_length(v_given) then
    perform haive_private.audit_read(
      'create_conversations',
      (select jsonb_object_agg(u.doc ->> 'id', null) from jsonb_array_elements(v_given) as u (doc)),
      jsonb_array_length(v_given) - v_fresh
    );
  end if;
  return coalesce(v_docs, '[]');
end;
$$;

alter function haive_private.create_conversations(text, jsonb) owner to haive_writer;

comment on function haive_private.create_conversations(text, jsonb) is
'What haive.create_conversations does, for a caller without rights on the table.';

create or replace function haive.create_conversations(conversations jsonb, tenant text default null)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.create_conversations(
    create_conversations.tenant, create_conversations.conversations
  )
$$;

comment on function haive.create_conversations(jsonb, text) is
'Begins conversations: a list of {id, agent_id, user_id, title, tags, context, participants, '
'settings, created_at, sealed, sealed_with}. Returns them. The same id with the same agent and user is the same one.';

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
  v_row haive.conversations;
begin
  if (get_conversation.message_limit between 0 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'message_limit is not between 0 and 1000',
      hint = 'Read on with get_messages.';
  end if;
  select * into v_row
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
        v_row.id,
        case
          when least(get_conversation.message_limit, v_row.message_count) > 0
            then jsonb_build_array(
              greatest(v_row.message_count - get_conversation.message_limit + 1, 1),
              v_row.message_count
            )
        end
      ),
      1
    );
  end if;
  return haive_private.conversation_doc(
    v_row,
    case
      when get_conversation.message_limit > 0 then (
        haive_private.message_docs(
          v_row.tenant_id, array[v_row.id],
          array[v_row.message_count - get_conversation.message_limit + 1],
          array[v_row.message_count]
        )
      )[1]
    end
  );
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

-- add_messages for JavaScript, psql and PostgREST: rows as JSON, all or nothing.
create or replace function haive.add_messages(messages jsonb, tenant text default null)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_rows record;
  v_failed int;
  v_result record;
begin
  select
    array_agg(m.conversation_id order by m.place) as conversation_ids,
    array_agg(coalesce(m.id, gen_random_uuid()) order by m.place) as ids,
    array_agg(m.role order by m.place) as roles,
    array_agg(m.content order by m.place) as contents,
    array_agg(m.parts order by m.place) as parts,
    array_agg(m.metadata order by m.place) as metadata,
    array_agg(m.input_tokens order by m.place) as input_tokens,
    array_agg(m.output_tokens order by m.place) as output_tokens,
    array_agg(m.model order by m.place) as models,
    array_agg(m.cost order by m.place) as costs,
    array_agg(m.created_at order by m.place) as created_at,
    array_agg(decode(m.sealed, 'base64') order by m.place) as sealed,
    array_agg(m.sealed_with order by m.place) as sealed_with,
    bool_or(m.total_tokens <> m.input_tokens + m.output_tokens) as has_wrong_total
  into v_rows
  from (
    select u.place, d.*
    from jsonb_array_elements(add_messages.messages) with ordinality as u (doc, place)
    cross join lateral jsonb_to_record(u.doc) as d (
      conversation_id uuid, id uuid, role text, content text, parts jsonb, metadata jsonb,
      input_tokens int, output_tokens int, total_tokens int, model text, cost numeric,
      created_at timestamptz, sealed text, sealed_with text
    )
  ) as m;
  if v_rows.conversation_ids is null then
    return '[]';
  end if;
  if v_rows.has_wrong_total then
    raise exception using
      errcode = 'PT422',
      message = 'total_tokens is not the sum of input_tokens and output_tokens',
      hint = 'Leave total_tokens out: it is computed.';
  end if;

  v_result := haive_private.append_messages(
    add_messages.tenant, v_rows.conversation_ids, v_rows.ids, v_rows.roles, v_rows.contents,
    v_rows.parts, v_rows.metadata, v_rows.input_tokens, v_rows.output_tokens, v_rows.models,
    v_rows.costs, v_rows.created_at, v_rows.sealed, v_rows.sealed_with
  );
  select min(f.place) into v_failed
  from unnest(v_result.failures) with ordinality as f (code, place)
  where f.code is not null;
  if v_failed is not null then
    raise exception using
      errcode = v_result.failures[v_failed],
      message = case v_result.failures[v_failed]
        when 'PT409' then format('another message has the id %s', v_rows.ids[v_failed])
        else format('no conversation %s', v_rows.conversation_ids[v_failed])
      end,
      hint = case v_result.failures[v_failed]
        when 'PT409' then 'Repeat a call only with the same content.'
        else 'It was deleted, belongs to another tenant, or is not the caller''s to write to.'
      end;
  end if;
  return (
    select json_agg(
      json_build_object('id', u.id, 'seq', u.seq, 'created_at', u.created_at) order by u.place
    )
    from unnest(v_rows.ids, v_result.seqs, v_result.times) with ordinality
      as u (id, seq, created_at, place)
  );
end;
$$;

comment on function haive.add_messages(jsonb, text) is
'Adds messages, all or none: a list of {conversation_id, id, role, content, parts, metadata, '
'input_tokens, output_tokens, model, cost, created_at, sealed, sealed_with}. Returns id, seq and created_at of each. '
'The same id with the same content is the same message.';

create or replace function haive_private.get_messages(
  conversation_id uuid,
  after bigint default 0,
  before bigint default null,
  page_size int default 100,
  last boolean default false,
  tenant text default null
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(get_messages.tenant, false);
  v_count bigint;
  v_from bigint;
  v_to bigint;
begin
  if (get_messages.page_size between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 10000',
      hint = 'Read on with after, the seq of the last message of a page.';
  end if;
  select c.message_count into v_count
  from haive.conversations as c
  where c.tenant_id = v_caller.tenant and c.id = get_messages.conversation_id;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no conversation %s', get_messages.conversation_id),
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to see.';
  end if;
  v_from := greatest(get_messages.after, 0) + 1;
  v_to := least(get_messages.before - 1, v_count);
  if get_messages.last then
    v_from := greatest(v_from, v_to - get_messages.page_size + 1);
  else
    v_to := least(v_to, v_from + get_messages.page_size - 1);
  end if;
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'get_messages',
      jsonb_build_object(
        get_messages.conversation_id,
        case when v_from <= v_to then jsonb_build_array(v_from, v_to) end
      ),
      greatest(v_to - v_from + 1, 0)
    );
  end if;
  return (
    haive_private.message_docs(
      v_caller.tenant, array[get_messages.conversation_id], array[v_from], array[v_to]
    )
  )[1];
end;
$$;

comment on function haive_private.get_messages(uuid, bigint, bigint, int, boolean, text) is
'What haive.get_messages does, in one snapshot.';

-- Volatile, for a request is counted, and PostgREST lets no other function write; what it reads is read
-- in one snapshot all the same.
create or replace function haive.get_messages(
  conversation_id uuid,
  after bigint default 0,
  before bigint default null,
  page_size int default 100,
  last boolean default false,
  tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return haive_private.get_messages(
    get_messages.conversation_id, get_messages.after, get_messages.before,
    get_messages.page_size, get_messages.last, get_messages.tenant
  );
end;
$$;

comment on function haive.get_messages(uuid, bigint, bigint, int, boolean, text) is
'A page of messages in order: those after a seq, or the last ones before a seq.';

-- The statement is put together from the fixed fragments below, one for each filter in use, and
-- values go in as parameters: the planner sees only what is asked, and no text of the caller's.
create or replace function haive_private.query_conversations(
  filters jsonb default '{}',
  order_by text default 'last_message_at',
  ascending boolean default false,
  page_size int default 10,
  page_after text default null,
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
  v_caller record := haive_private.enter_tenant(query_conversations.tenant, false);
  v_filter record;
  v_kind text;
  v_fragment text;
  v_type text;
  v_keys text;
  v_cursor_keys text;
  v_cursor text[];
  v_where text := 'c.tenant_id = $1';
  v_tags text[];
  v_any_tags text[];
  v_participants text[];
  v_rows haive.conversations[];
  v_size int;
  v_docs json;
begin
  for v_filter in
    select f.key, f.value
    from jsonb_each(coalesce(query_conversations.filters, '{}')) as f
    where jsonb_typeof(f.value) <> 'null'
    order by f.key
  loop
    v_kind := case
      when v_filter.key in ('tags', 'any_tags', 'participants') then 'array'
      when v_filter.key in ('min_messages', 'max_messages') then 'number'
      when v_filter.key = 'context' then 'object'
      else 'string'
    end;
    v_fragment := case v_filter.key
      when 'user_id' then 'c.user_id = $2 ->> ''user_id'''
      when 'agent_id' then 'c.agent_id = $2 ->> ''agent_id'''
      when 'tags' then 'c.tags @> $5'
      when 'any_tags' then 'c.tags && $6'
      when 'participants'
        then 'c.participants @> $7'
      when 'context' then 'c.context @> ($2 -> ''context'')'
      when 'title' then 'strpos(lower(c.title), lower($2 ->> ''title'')) > 0'
      when 'text' then $f$(
        strpos(lower(c.title), lower($2 ->> 'text')) > 0
        or exists (
          select from haive.messages as m
          where m.tenant_id = c.tenant_id and m.conversation_id = c.id
            and strpos(lower(m.content), lower($2 ->> 'text')) > 0
        )
      )$f$
      when 'min_messages' then 'c.message_count >= ($2 ->> ''min_messages'')::bigint'
      when 'max_messages' then 'c.message_count <= ($2 ->> ''max_messages'')::bigint'
      when 'created_after' then 'c.created_at >= ($2 ->> ''created_after'')::timestamptz'
      when 'created_before' then 'c.created_at < ($2 ->> ''created_before'')::timestamptz'
      when 'updated_after' then 'c.updated_at >= ($2 ->> ''updated_after'')::timestamptz'
      when 'updated_before' then 'c.updated_at < ($2 ->> ''updated_before'')::timestamptz'
      when 'active_after' then $f$
        c.last_message_at >= ($2 ->> 'active_after')::timestamptz
        and c.active_hour >= date_bin(
          '1 hour', ($2 ->> 'active_after')::timestamptz, '2000-01-01 00:00:00+00'
        )
      $f$
      when 'active_before' then 'c.last_message_at < ($2 ->> ''active_before'')::timestamptz'
    end;
    if v_fragment is null then
      raise exception using
        errcode = 'PT422',
        message = format('unknown filter: %s', left(v_filter.key, 200)),
        hint = 'Filters are user_id, agent_id, tags, any_tags, participants, context, title, text, '
          'min_messages, max_messages, and created_, updated_ and active_ with after and before.';
    elsif
      v_filter.key in ('context', 'title', 'text')
      and current_setting('persistence.watch', true) like '%s%'
    then
      raise exception using
        errcode = 'PT422',
        message = format('filter %s: this tenant''s content is sealed by the client', v_filter.key),
        hint = 'Filter by user_id, agent_id, tags, participants, counts and times.';
    elsif jsonb_typeof(v_filter.value) <> v_kind then
      raise exception using
        errcode = 'PT422',
        message = format('filter %s is no %s', v_filter.key, v_kind),
        hint = 'Lists of text for tags, any_tags and participants; ISO 8601 for times.';
    elsif v_filter.key like '%\_after' or v_filter.key like '%\_before' then
      -- A time is a string that is one: the cast says so where it is not.
      perform (v_filter.value #>> '{}')::timestamptz;
    elsif v_kind = 'array' then
      case v_filter.key
        when 'tags' then
          v_tags := array(select jsonb_array_elements_text(v_filter.value));
        when 'any_tags' then
          v_any_tags := array(select jsonb_array_elements_text(v_filter.value));
        else
          v_participants := array(select jsonb_array_elements_text(v_filter.value));
      end case;
    end if;
    v_where := v_where || ' and ' || v_fragment;
  end loop;

  if (
    query_conversations.page_size between 1 and 1000
    and query_conversations.message_limit between 0 and 1000
  ) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000, or message_limit not between 0 and 1000',
      hint = 'Read on with page_after, and with get_messages.';
  end if;

  v_type := case query_conversations.order_by
    when 'message_count' then 'bigint'
    when 'last_message_at' then 'timestamptz'
    when 'created_at' then 'timestamptz'
    when 'updated_at' then 'timestamptz'
  end;
  if v_type is null then
    raise exception using
      errcode = 'PT422',
      message = format('unknown order_by: %s', left(query_conversations.order_by, 200)),
      hint = 'Orders are created_at, last_message_at, message_count, updated_at.';
  end if;
  v_keys := 'c.' || query_conversations.order_by;
  v_cursor_keys := '($3[1])::' || v_type;
  if query_conversations.order_by = 'last_message_at' then
    -- The indexed hour first: the same order, and only the hours of the page are sorted.
    v_keys := 'c.active_hour, ' || v_keys;
    v_cursor_keys := 'date_bin(''1 hour'', ($3[1])::timestamptz, ''2000-01-01 00:00:00+00''), '
      || v_cursor_keys;
  end if;
  v_keys := v_keys || ', c.id';
  if query_conversations.page_after is not null then
    v_cursor := string_to_array(query_conversations.page_after, '/');
    if cardinality(v_cursor) <> 2 then
      raise exception using
        errcode = 'PT422',
        message = 'page_after is no cursor',
        hint = 'Pass next_page of the page before, with the same order.';
    end if;
    v_where := v_where || format(
      ' and (%s) %s (%s, ($3[2])::uuid)',
      v_keys, case when query_conversations.ascending then '>' else '<' end, v_cursor_keys
    );
  end if;
  if query_conversations.ascending is not true then
    v_keys := replace(v_keys, ',', ' desc,') || ' desc';
  end if;

  execute format(
    'select array(select c from haive.conversations as c where %s order by %s limit $4 + 1)',
    v_where, v_keys
  )
  into v_rows
  using
    v_caller.tenant, query_conversations.filters, v_cursor, query_conversations.page_size,
    -- Known to the planner: of an array made in the statement it expects few rows, and reads all
    -- that have a tag (1.5 against 0.2 ms at 50,000 conversations).
    v_tags, v_any_tags, v_participants;

  v_size := least(cardinality(v_rows), query_conversations.page_size);
  if query_conversations.message_limit > 0 then
    select json_agg(haive_private.conversation_doc(v_rows[p.place], p.messages) order by p.place)
    into v_docs
    from unnest(
      haive_private.message_docs(
        v_caller.tenant,
        array(select (v_rows[i]).id from generate_series(1, v_size) as i),
        array(
          select (v_rows[i]).message_count - query_conversations.message_limit + 1
          from generate_series(1, v_size) as i
        ),
        array(select (v_rows[i]).message_count from generate_series(1, v_size) as i)
      )
    ) with ordinality as p (messages, place);
  else
    select json_agg(haive_private.conversation_doc(v_rows[i]) order by i) into v_docs
    from generate_series(1, v_size) as i;
  end if;
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'query_conversations',
      (
        select jsonb_object_agg(
          (v_rows[i]).id,
          case
            when least(query_conversations.message_limit, (v_rows[i]).message_count) > 0
              then jsonb_build_array(
                greatest((v_rows[i]).message_count - query_conversations.message_limit + 1, 1),
                (v_rows[i]).message_count
              )
          end
        )
        from generate_series(1, v_size) as i
      ),
      v_size
    );
  end if;
  return json_build_object(
    'conversations', coalesce(v_docs, '[]'),
    'next_page', case
      when cardinality(v_rows) > v_size
        -- As JSON a time is ISO 8601, whatever the session's DateStyle.
        then (to_json(v_rows[v_size]) ->> query_conversations.order_by) || '/' || (v_rows[v_size]).id
    end
  );
end;
$$;

comment on function haive_private.query_conversations(jsonb, text, boolean, int, text, int, text) is
'What haive.query_conversations does, in one snapshot.';

-- Volatile, for a request is counted, and PostgREST lets no other function write; what it reads is read
-- in one snapshot all the same.
create or replace function haive.query_conversations(
  filters jsonb default '{}',
  order_by text default 'last_message_at',
  ascending boolean default false,
  page_size int default 10,
  page_after text default null,
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
  return haive_private.query_conversations(
    query_conversations.filters, query_conversations.order_by, query_conversations.ascending,
    query_conversations.page_size, query_conversations.page_after,
    query_conversations.message_limit, query_conversations.tenant
  );
end;
$$;

comment on function haive.query_conversations(jsonb, text, boolean, int, text, int, text) is
'A page of conversations by filters and order, with the last message_limit messages of each if '
'asked: {conversations, next_page}. Text filters read every candidate: narrow them by user or time.';

-- Definer, for nobody writes tables directly.
create or replace function haive_private.update_conversation(
  p_tenant text, p_conversation_id uuid, p_changes jsonb
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_unknown text;
  v_row haive.conversations;
begin
  select string_agg(k, ', ' order by k) into v_unknown
  from jsonb_object_keys(p_changes) as k
  where k not in (
    'agent_id', 'title', 'tags', 'context', 'participants', 'settings', 'sealed', 'sealed_with',
    'was_updated_at'
  );
  if v_unknown is not null then
    raise exception using
      errcode = 'PT422',
      message = format('cannot change: %s', left(v_unknown, 200)),
      hint = 'What changes is agent_id, title, tags, context, participants, settings.';
  end if;
  if p_changes ?| array['title', 'context', 'settings'] then
    perform haive_private.check_sealed(false);
  end if;
  perform haive_private.check_session_change(
    v_caller.tenant, v_caller.actor, p_conversation_id, p_changes ? 'participants'
  );
  update haive.conversations as c
  set
    agent_id = case when p_changes ? 'agent_id' then g.agent_id else c.agent_id end,
    title = case
      when p_changes ? 'title' then g.title
      when g.sealed is null then c.title
    end,
    tags = coalesce(g.tags, c.tags),
    context = coalesce(g.context, case when g.sealed is null then c.context else '{}' end),
    participants = coalesce(g.participants, c.participants),
    settings = coalesce(g.settings, case when g.sealed is null then c.settings else '{}' end),
    sealed = coalesce(decode(g.sealed, 'base64'), c.sealed),
    sealed_with = coalesce(g.sealed_with, c.sealed_with),
    -- Never twice the same: it says whether a row is still what somebody has read.
    updated_at = greatest(now(), c.updated_at + interval '1 microsecond')
  from jsonb_to_record(p_changes) as g (
    agent_id text, title text, tags text[], context jsonb, participants text[], settings jsonb,
    sealed text, sealed_with text, was_updated_at timestamptz
  )
  where
    c.tenant_id = v_caller.tenant and c.id = p_conversation_id
    -- What is sealed is changed as a whole, by who has read it.
    and (g.was_updated_at is null or c.updated_at = g.was_updated_at)
    and (
      v_caller.actor is null or c.user_id = v_caller.actor
      or v_caller.actor = any(c.participants)
    )
  returning c.* into v_row;
  if
    not found and p_changes ? 'was_updated_at' and exists (
      select from haive.conversations as c
      where
        c.tenant_id = v_caller.tenant and c.id = p_conversation_id
        and (
          v_caller.actor is null or c.user_id = v_caller.actor
          or v_caller.actor = any(c.participants)
        )
    )
  then
    raise exception using
      errcode = 'PT409',
      message = 'the conversation was changed meanwhile',
      hint = 'Read it again, and change what it says now.';
  elsif v_row.id is null then
    raise exception using
      errcode = 'PT404',
      message = format('no conversation %s', p_conversation_id),
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to write to.';
  end if;
  insert into haive.events (tenant_id, kind, conversation_id)
  values (v_caller.tenant, 'conversation.updated', p_conversation_id);
  return haive_private.conversation_doc(v_row);
end;
$$;

alter function haive_private.update_conversation(text, uuid, jsonb) owner to haive_writer;

comment on function haive_private.update_conversation(text, uuid, jsonb) is
'What haive.update_conversation does, for a caller without rights on the table.';

create or replace function haive.update_conversation(
  conversation_id uuid, changes jsonb, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.update_conversation(
    update_conversation.tenant, update_conversation.conversation_id, update_conversation.changes
  )
$$;

comment on function haive.update_conversation(uuid, jsonb, text) is
'Replaces the given fields among agent_id, title, tags, context, participants and settings. Those '
'that a client seals come as {sealed, sealed_with, was_updated_at}, all at once.';

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
  v_admin boolean := v_caller.trusted;
begin
  if not v_admin then
    -- An owner sets every role; an admin neither makes, changes nor removes owners and admins.
    select
      m.role = 'owner'
      or (
        m.role = 'admin' and coalesce(p_role, 'member') in ('member', 'reader')
        and not exists (
          select from haive.members as o
          where o.tenant_id = v_caller.tenant and o.user_id = p_user_id
            and o.role in ('owner', 'admin')
        )
      )
    into v_admin
    from haive.members as m
    where m.tenant_id = v_caller.tenant and m.user_id = haive.current_actor();
  end if;
  if v_admin is not true then
    raise exception using
      errcode = 'PT403',
      message = 'only an administrator changes the members of a tenant',
      hint = 'Owners set every role; admins set member and reader.';
  end if;
  if not v_caller.trusted and p_role is distinct from 'owner' then
    perform haive_private.keep_an_owner(v_caller.tenant, p_user_id);
  end if;
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
  if p_role is null then
    delete from haive.members as m where m.tenant_id = v_caller.tenant and m.user_id = p_user_id;
  else
    insert into haive.members (tenant_id, user_id, role)
    values (v_caller.tenant, p_user_id, p_role)
    on conflict (tenant_id, user_id) do update set role = excluded.role;
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
'Makes a user owner, admin, member or reader of a tenant; a null role removes them. The last owner '
'stays, unless a trusted caller takes them away.';

-- One function for history, search and states, so that each is one round trip. With states it also
-- answers every frame that the found ones are decoded from, each once.
create or replace function haive_private.find_checkpoints(
  thread_id text default null,
  namespace text default '',
  branch text default null,
  checkpoint_id uuid default null,
  tags text[] default null,
  failed boolean default null,
  created_after timestamptz default null,
  created_before timestamptz default null,
  metadata jsonb default null,
  search jsonb default null,
  before_id uuid default null,
  before_seq bigint default null,
  page_size int default 100,
  details boolean default true,
  states boolean default false,
  writes boolean default false,
  tenant text default null
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_caller record := haive_private.enter_tenant(find_checkpoints.tenant, false);
  v_before bigint := coalesce(find_checkpoints.before_seq, 9223372036854775807);
  v_threads uuid[];
  v_branches uuid[];
  v_from bigint[];
  v_upto bigint[];
  v_seqs bigint[];
  v_places uuid[];
  v_by_id boolean := false;
  v_everywhere boolean := find_checkpoints.search is not null and coalesce(
    find_checkpoints.thread_id, find_checkpoints.branch, find_checkpoints.checkpoint_id::text,
    find_checkpoints.before_id::text
  ) is null;
  v_checkpoints json;
  v_next bigint;
begin
  if (find_checkpoints.page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on with before_seq.';
  end if;

  if find_checkpoints.thread_id is not null and find_checkpoints.namespace is not null then
    v_threads := array(
      select t.thread_key from haive.threads as t
      where
        t.thread_id = find_checkpoints.thread_id and t.namespace = find_checkpoints.namespace
        and t.tenant_id = v_caller.tenant
        and (v_caller.actor is null or t.user_id = v_caller.actor)
    );
  elsif
    (find_checkpoints.checkpoint_id is null or find_checkpoints.thread_id is not null)
    and not v_everywhere
  then
    v_threads := array(
      select t.thread_key from haive.threads as t
      where
        t.tenant_id = v_caller.tenant
        and (find_checkpoints.thread_id is null or t.thread_id = find_checkpoints.thread_id)
        and (find_checkpoints.namespace is null or t.namespace = find_checkpoints.namespace)
        and (v_caller.actor is null or t.user_id = v_caller.actor)
    );
  end if;

  if find_checkpoints.before_id is not null then
    select least(v_before, max(c.seq)), max(c.seq) is null into v_before, v_by_id
    from haive.checkpoints as c
    where
      c.id = find_checkpoints.before_id and c.thread_key = any(v_threads)
      and c.tenant_id = v_caller.tenant;
  end if;

  -- Where to look: parts of branches.
  if find_checkpoints.checkpoint_id is not null then
    select array_agg(c.branch_id), array_agg(c.seq), array_agg(c.seq)
    into v_branches, v_from, v_upto
    from haive.checkpoints as c
    where
      c.id = find_checkpoints.checkpoint_id and c.tenant_id = v_caller.tenant
      and (v_threads is null or c.thread_key = any(v_threads))
      and (
        v_caller.actor is null
        or exists (
          select from haive.threads as t
          where
            t.tenant_id = c.tenant_id and t.thread_key = c.thread_key
            and t.user_id = v_caller.actor
        )
      );
  elsif v_everywhere then
    -- In all threads: by what the state holds, for which there is an index (service keys use it).
    select array_agg(f.branch_id), array_agg(f.seq), array_agg(f.seq)
    into v_branches, v_from, v_upto
    from (
      select c.branch_id, c.seq
      from jsonb_array_elements(find_checkpoints.search) as p (pattern)
      cross join lateral (
        select c.branch_id, c.seq
        from haive.checkpoints as c
        where
          c.tenant_id = v_caller.tenant and c.search @> p.pattern and c.seq < v_before
          and (find_checkpoints.failed is null or c.failed = find_checkpoints.failed)
          and (find_checkpoints.tags is null or c.tags @> find_checkpoints.tags)
          and (find_checkpoints.created_after is null or c.created_at >= find_checkpoints.created_after)
          and (find_checkpoints.created_before is null or c.created_at < find_checkpoints.created_before)
          and (find_checkpoints.metadata is null or c.metadata @> find_checkpoints.metadata)
          and exists (
            select from haive.threads as t
            where
              t.tenant_id = c.tenant_id and t.thread_key = c.thread_key
              and (find_checkpoints.namespace is null or t.namespace = find_checkpoints.namespace)
              and (v_caller.actor is null or t.user_id = v_caller.actor)
          )
        offset 0
      ) as c
      group by c.branch_id, c.seq
      order by c.seq desc
      limit find_checkpoints.page_size + 1
    ) as f;
  elsif find_checkpoints.branch is null then
    select array_agg(b.branch_id) into v_branches
    from unnest(v_threads) as k (thread_key)
    cross join lateral (
      select b.branch_id from haive.branches as b
      where b.thread_key = k.thread_key and b.tenant_id = v_caller.tenant
      offset 0
    ) as b;
  else
    -- A branch, and what lies before the place where it left another one.
    with recursive lines as (
      select b.branch_id, b.root_branch_id, b.root_seq, null::bigint as upto
      from haive.branches as b
      where
        b.thread_key = any(v_threads) and b.tenant_id = v_caller.tenant
        and find_checkpoints.branch in (b.name, b.branch_id::text)
      union all
      select b.branch_id, b.root_branch_id, b.root_seq, l.root_seq
      from lines as l
      join haive.branches as b on b.branch_id = l.root_branch_id and b.tenant_id = v_caller.tenant
    )
    select array_agg(l.branch_id), array_agg(l.upto) into v_branches, v_upto from lines as l;
  end if;

  -- LIMIT and OFFSET keep what is looked up apart from what it is looked up for: a join is planned,
  -- where tables are empty yet, to read all rows of the tenant.
  with lines as materialized (
    select l.branch_id, l.from_seq, l.upto, b.name, t.thread_id, t.namespace
    from unnest(v_branches, v_from, v_upto) as l (branch_id, from_seq, upto)
    cross join lateral (
      select b.name, b.thread_key from haive.branches as b
      where b.branch_id = l.branch_id and b.tenant_id = v_caller.tenant
      limit 1
    ) as b
    cross join lateral (
      select t.thread_id, t.namespace from haive.threads as t
      where t.thread_key = b.thread_key and t.tenant_id = v_caller.tenant
      limit 1
    ) as t
  ),
  -- In order, and without the payloads, which are a half of the rows' bytes.
  page as materialized (
    select c.*, row_number() over w as place, sum(c.bytes) over w - c.bytes as bytes_before
    from (
      select l.name, l.thread_id, l.namespace, c.*
      from lines as l
      cross join lateral (
        select
          c.branch_id, c.seq, c.thread_key, c.id, c.parent_id, c.created_at, c.size,
          octet_length(c.payload) as bytes, c.depth, c.failed, c.key_id, c.schema_hash, c.tags,
          c.metadata, c.search, c.sealed
        from haive.checkpoints as c
        where
          c.tenant_id = v_caller.tenant and c.branch_id = l.branch_id
          and c.seq < v_before and c.seq >= coalesce(l.from_seq, 0)
          and c.seq <= coalesce(l.upto, 9223372036854775807)
          -- Of another namespace: its ids are of the same clock, so they tell what was before.
          and (not v_by_id or c.id < find_checkpoints.before_id)
          and (find_checkpoints.failed is null or c.failed = find_checkpoints.failed)
          and (find_checkpoints.tags is null or c.tags @> find_checkpoints.tags)
          and (find_checkpoints.created_after is null or c.created_at >= find_checkpoints.created_after)
          and (find_checkpoints.created_before is null or c.created_at < find_checkpoints.created_before)
          and (find_checkpoints.metadata is null or c.metadata @> find_checkpoints.metadata)
          and (
            find_checkpoints.search is null
            or c.search @> any(array(select jsonb_array_elements(find_checkpoints.search)))
          )
        order by c.seq desc
        limit find_checkpoints.page_size + 1
      ) as c
      order by c.seq desc
      limit find_checkpoints.page_size + 1
    ) as c
    window w as (order by c.seq desc rows unbounded preceding)
  )
  select
    -- Of a row, as its types are looked up once: 200 checkpoints are built in 0.75 ms, by
    -- json_build_object in 1.07.
    json_agg(
      (
        select d
        from (
          values (
            c.id, c.thread_id, c.namespace, c.thread_key, c.name, c.seq, c.parent_id,
            c.created_at, c.size, c.bytes, c.depth, c.failed, c.key_id,
            encode(c.schema_hash, 'hex'),
            case when find_checkpoints.details then c.tags::text[] end,
            case when find_checkpoints.details then c.metadata::jsonb end,
            case
              when find_checkpoints.details and find_checkpoints.states and c.key_id is null
                then c.search
            end,
            case when find_checkpoints.details then encode(c.sealed, 'base64') end
          )
        ) as d (
          id, thread_id, namespace, thread_key, branch, seq, parent_id, created_at, size, bytes,
          depth, failed, key_id, schema_hash, tags, metadata, search, sealed
        )
      )
    ),
    array_agg(c.branch_id), array_agg(c.seq),
    case when (select count(*) from page as p) > count(*) then min(c.seq) end
  into v_checkpoints, v_places, v_seqs, v_next
  from page as c
  where
    c.place <= find_checkpoints.page_size
    -- An answer of json is at most 1 GB: states come until there are 32 MiB of them.
    and (
      c.bytes_before < 33554432 or not find_checkpoints.states
      or find_checkpoints.checkpoint_id is not null
    );

  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'find_checkpoints',
      (
        select jsonb_object_agg(d.doc ->> 'id', d.doc ->> 'thread_key')
        from json_array_elements(v_checkpoints) as d (doc)
      ),
      json_array_length(coalesce(v_checkpoints, '[]'))
    );
  end if;
  return json_build_object(
    'checkpoints', coalesce(v_checkpoints, '[]'),
    'now', now(),
    'next_seq', v_next,
    'frames', case
      when find_checkpoints.states
        then haive_private.checkpoint_frames(v_caller.tenant, v_places, v_seqs)
    end,
    'writes', case
      when find_checkpoints.writes
        then haive_private.checkpoint_write_docs(v_caller.tenant, v_places, v_seqs)
    end
  );
end;
$$;

comment on function haive_private.find_checkpoints(
  text, text, text, uuid, text[], boolean, timestamptz, timestamptz, jsonb, jsonb, uuid, bigint,
  int, boolean, boolean, boolean, text
) is
'What haive.find_checkpoints does, in one snapshot.';

-- Volatile, for a request is counted, and PostgREST lets no other function write; what it reads is read
-- in one snapshot all the same.
create or replace function haive.find_checkpoints(
  thread_id text default null,
  namespace text default '',
  branch text default null,
  checkpoint_id uuid default null,
  tags text[] default null,
  failed boolean default null,
  created_after timestamptz default null,
  created_before timestamptz default null,
  metadata jsonb default null,
  search jsonb default null,
  before_id uuid default null,
  before_seq bigint default null,
  page_size int default 100,
  details boolean default true,
  states boolean default false,
  writes boolean default false,
  tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return haive_private.find_checkpoints(
    find_checkpoints.thread_id, find_checkpoints.namespace, find_checkpoints.branch,
    find_checkpoints.checkpoint_id, find_checkpoints.tags, find_checkpoints.failed,
    find_checkpoints.created_after, find_checkpoints.created_before, find_checkpoints.metadata,
    find_checkpoints.search, find_checkpoints.before_id, find_checkpoints.before_seq,
    find_checkpoints.page_size, find_checkpoints.details, find_checkpoints.states,
    find_checkpoints.writes, find_checkpoints.tenant
  );
end;
$$;

comment on function haive.find_checkpoints(
  text, text, text, uuid, text[], boolean, timestamptz, timestamptz, jsonb, jsonb, uuid, bigint,
  int, boolean, boolean, boolean, text
) is
'Checkpoints of a thread, of one of its branches with what lies before it, or by id, newest first: '
'{checkpoints, now, next_seq, frames, writes}. search is a list of patterns of which one must match; '
'with states, a page ends after 32 MiB of them: next_seq tells that there is more. What a checkpoint '
'is found by comes with states.';

-- Pending writes are found by their checkpoints, but their checkpoints need not be saved yet.
create or replace function haive.list_checkpoint_writes(
  thread_id text,
  namespace text default '',
  after_checkpoint_id uuid default null,
  after_task_id uuid default null,
  after_idx int default null,
  page_size int default 1000,
  tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_caller record := haive_private.enter_tenant(list_checkpoint_writes.tenant, false);
  v_docs json;
begin
  if (list_checkpoint_writes.page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on after the last one.';
  end if;
  v_docs := (
    select coalesce(
      json_agg(
        json_build_object(
          'thread_key', w.thread_key, 'checkpoint_id', w.checkpoint_id, 'task_id', w.task_id,
          'idx', w.idx, 'channel', w.channel::text, 'task_path', w.task_path::text,
          'codec', w.codec::int2, 'size', w.size, 'key_id', w.key_id::text,
          'payload', replace(encode(w.payload, 'base64'), e'\n', '')
        )
        order by w.checkpoint_id, w.task_id, w.idx
      ),
      '[]'
    )
    from (
      select
        p.*,
        sum(octet_length(p.payload)) over (order by p.checkpoint_id, p.task_id, p.idx)
        - octet_length(p.payload) as bytes_before
      from haive.threads as t
      cross join lateral (
        select w.*
        from haive.checkpoint_writes as w
        where
          w.tenant_id = t.tenant_id and w.thread_key = t.thread_key
          and (w.checkpoint_id, w.task_id, w.idx::int) > (
            coalesce(
              list_checkpoint_writes.after_checkpoint_id, '00000000-0000-0000-0000-000000000000'
            ),
            coalesce(
              list_checkpoint_writes.after_task_id, '00000000-0000-0000-0000-000000000000'
            ),
            coalesce(list_checkpoint_writes.after_idx, -2147483648)
          )
        order by w.checkpoint_id, w.task_id, w.idx
        limit list_checkpoint_writes.page_size
      ) as p
      where
        t.tenant_id = v_caller.tenant and t.thread_id = list_checkpoint_writes.thread_id
        and t.namespace = list_checkpoint_writes.namespace
        and (v_caller.actor is null or t.user_id = v_caller.actor)
    ) as w
    where w.bytes_before < 33554432 -- as in find_checkpoints
  );
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'list_checkpoint_writes',
      (
        select jsonb_object_agg(d.doc ->> 'checkpoint_id', d.doc -> 'thread_key')
        from json_array_elements(v_docs) as d (doc)
      ),
      json_array_length(v_docs)
    );
  end if;
  return v_docs;
end;
$$;

comment on function haive.list_checkpoint_writes(text, text, uuid, uuid, int, int, text) is
'The pending writes of a thread by checkpoint, task and place, also where the checkpoint is not saved '
'yet: at most page_size, ending after 32 MiB; empty when there are no more.';

create or replace function haive.list_branches(
  thread_id text, namespace text default '', tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(list_branches.tenant, false);
  v_docs json;
begin
  v_docs := (
    select coalesce(
      json_agg(
        json_build_object(
          'branch_id', b.branch_id, 'name', b.name, 'head_id', b.head_id,
          'root_id', (
            select c.id from haive.checkpoints as c
            where
              c.tenant_id = b.tenant_id and c.branch_id = b.root_branch_id and c.seq <= b.root_seq
            order by c.seq desc
            limit 1
          ),
          'metadata', b.metadata::jsonb, 'sealed', encode(b.sealed, 'base64'), 'key_id', b.key_id,
          'created_at', b.created_at, 'updated_at', b.updated_at
        )
        order by b.created_at, b.branch_id
      ),
      '[]'
    )
    from haive.threads as t
    join haive.branches as b on b.tenant_id = t.tenant_id and b.thread_key = t.thread_key
    where
      t.thread_id = list_branches.thread_id and t.namespace = list_branches.namespace
      and t.tenant_id = v_caller.tenant
      and (v_caller.actor is null or t.user_id = v_caller.actor)
  );
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'list_branches',
      (
        select jsonb_object_agg(d.doc ->> 'branch_id', null)
        from json_array_elements(v_docs) as d (doc)
      ),
      json_array_length(v_docs)
    );
  end if;
  return v_docs;
end;
$$;

comment on function haive.list_branches(text, text, text) is
'The branches of a thread, oldest first, with their heads and where they begin.';

create or replace function haive.list_threads(
  user_id text default null,
  thread_id text default null,
  page_size int default 100,
  page_after text default null,
  tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(list_threads.tenant, false);
  v_docs json;
begin
  if (list_threads.page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on with page_after, the last thread_id.';
  end if;
  v_docs := (
    select coalesce(
      json_agg(
        json_build_object(
          'thread_id', p.thread_id, 'user_id', p.user_id, 'namespaces', p.namespaces,
          'branches', s.branches, 'checkpoints', s.checkpoints, 'bytes', s.bytes,
          'created_at', p.created_at, 'updated_at', s.updated_at
        )
        order by p.thread_id
      ),
      '[]'
    )
    from (
      select
        t.thread_id::text as thread_id, min(t.user_id::text) as user_id,
        array_agg(t.namespace::text order by t.namespace) as namespaces,
        array_agg(t.thread_key) as keys, min(t.created_at) as created_at
      from haive.threads as t
      where
        t.tenant_id = v_caller.tenant
        and (list_threads.page_after is null or t.thread_id > list_threads.page_after)
        and (list_threads.thread_id is null or t.thread_id = list_threads.thread_id)
        and (list_threads.user_id is null or t.user_id = list_threads.user_id)
        and (v_caller.actor is null or t.user_id = v_caller.actor)
      group by t.thread_id
      order by t.thread_id
      limit list_threads.page_size
    ) as p
    cross join lateral (
      select
        count(distinct b.branch_id) as branches, count(c.id) as checkpoints,
        coalesce(sum(octet_length(c.payload)), 0) as bytes, max(b.updated_at) as updated_at
      from haive.branches as b
      left join haive.checkpoints as c
        on c.tenant_id = b.tenant_id and c.branch_id = b.branch_id
      where b.tenant_id = v_caller.tenant and b.thread_key = any(p.keys)
    ) as s
  );
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'list_threads',
      (
        select jsonb_object_agg(d.doc ->> 'thread_id', d.doc -> 'checkpoints')
        from json_array_elements(v_docs) as d (doc)
      ),
      json_array_length(v_docs)
    );
  end if;
  return v_docs;
end;
$$;

comment on function haive.list_threads(text, text, int, text, text) is
'The threads of the tenant by their names, with how many checkpoints they have and of what size.';

create or replace function haive.get_checkpoint_schema(hash bytea, tenant text default null)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(get_checkpoint_schema.tenant, false);
begin
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'get_checkpoint_schema',
      jsonb_build_object(encode(get_checkpoint_schema.hash, 'hex'), null),
      1
    );
  end if;
  return (
    select json_build_object('payload', encode(s.payload, 'base64'), 'key_id', s.key_id)
    from haive.checkpoint_schemas as s
    where s.tenant_id = v_caller.tenant and s.hash = get_checkpoint_schema.hash
  );
end;
$$;

comment on function haive.get_checkpoint_schema(bytea, text) is
'The JSON Schema that a checkpoint''s schema_hash stands for, as the SDK packed it.';

-- Definer, for nobody writes tables directly.
create or replace function haive_private.create_tenant(
  p_tenant_id text, p_name text, p_settings jsonb, p_options jsonb
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_unknown text;
  v_row haive.tenants;
begin
  perform haive_private.administer_tenant(p_tenant_id);
  if p_tenant_id is null or p_tenant_id !~ '^[a-z0-9][a-z0-9_-]{0,62}$' then
    raise exception using
      errcode = 'PT422',
      message = 'the id of a tenant is no slug',
      hint = 'Use 1 to 63 of a-z, 0-9, - and _, with a letter or digit first.';
  end if;
  if jsonb_typeof(p_options) is distinct from 'object' then
    raise exception using
      errcode = 'PT422',
      message = 'options is no JSON object',
      hint = 'Options are isolation, location, audit, encrypted, metered and the limits.';
  end if;
  select string_agg(k, ', ' order by k) into v_unknown
  from jsonb_object_keys(p_options) as k
  where k not in (
    'isolation', 'location', 'audit', 'encrypted', 'metered', 'max_conversations',
    'max_storage_bytes', 'max_requests_per_minute', 'max_tokens_per_month'
  );
  if v_unknown is not null then
    raise exception using
      errcode = 'PT422',
      message = format('unknown options: %s', left(v_unknown, 200)),
      hint = 'Options are isolation, location, audit, encrypted, metered and the limits.';
  end if;
  perform haive_private.check_tenant_settings(p_settings);
  if exists (select from haive_private.audit_heads as h where h.tenant_id = p_tenant_id)
    and not exists (select from haive.tenants as t where t.tenant_id = p_tenant_id)
  then
    raise exception using
      errcode = 'PT409',
      message = format('another tenant had the id %s', p_tenant_id),
      hint = 'Its audit log is kept, and must not be read by others: choose another id.';
  end if;

  insert into haive.tenants as t (
    tenant_id, name, settings, isolation, location, audit, encrypted, metered,
    max_conversations, max_storage_bytes, max_requests_per_minute, max_tokens_per_month
  )
  select
    p_tenant_id, coalesce(p_name, p_tenant_id), p_settings,
    coalesce(o.isolation, 'row'), o.location, coalesce(o.audit, 'off'),
    coalesce(o.encrypted, false),
    coalesce(o.metered, false) or num_nonnulls(
      o.max_conversations, o.max_storage_bytes, o.max_requests_per_minute, o.max_tokens_per_month
    ) > 0,
    o.max_conversations, o.max_storage_bytes, o.max_requests_per_minute, o.max_tokens_per_month
  from jsonb_to_record(p_options) as o (
    isolation text, location text, audit text, encrypted boolean, metered boolean,
    max_conversations bigint, max_storage_bytes bigint, max_requests_per_minute bigint,
    max_tokens_per_month bigint
  )
  on conflict (tenant_id) do nothing
  returning t.* into v_row;
  if not found then
    select t.* into v_row from haive.tenants as t where t.tenant_id = p_tenant_id;
    if (v_row.name, v_row.settings) is distinct from (coalesce(p_name, p_tenant_id), p_settings)
      or v_row.status <> 'active'
      -- Where it is may have changed since, and whether it is counted follows from its limits.
      or exists (
        select from jsonb_each(p_options - '{isolation,location,metered}'::text[]) as o
        where to_jsonb(v_row) -> o.key is distinct from o.value
      )
    then
      raise exception using
        errcode = 'PT409',
        message = format('another tenant has the id %s', p_tenant_id),
        hint = 'Change it with update_tenant, or choose another id.';
    end if;
  end if;
  return haive_private.tenant_doc(v_row);
end;
$$;

alter function haive_private.create_tenant(text, text, jsonb, jsonb) owner to haive_writer;

comment on function haive_private.create_tenant(text, text, jsonb, jsonb) is
'What haive.create_tenant does, for a caller without rights on the table.';

create or replace function haive.create_tenant(
  tenant_id text, name text default null, settings jsonb default '{}', options jsonb default '{}'
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.create_tenant(
    create_tenant.tenant_id, create_tenant.name, create_tenant.settings, create_tenant.options
  )
$$;

comment on function haive.create_tenant(text, text, jsonb, jsonb) is
'Makes a tenant, for trusted callers only. Options are isolation, location, audit, encrypted, '
'metered and the limits. The same id with the same name and settings is the same tenant.';

-- Definer: a closed tenant is read too.
create or replace function haive_private.get_tenant(p_tenant_id text)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_row haive.tenants;
begin
  perform haive_private.administer_tenant(p_tenant_id);
  select t.* into v_row from haive.tenants as t where t.tenant_id = p_tenant_id;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no tenant %s', left(p_tenant_id, 63)),
      hint = 'Create it with create_tenant.';
  end if;
  return haive_private.tenant_doc(v_row);
end;
$$;

alter function haive_private.get_tenant(text) owner to haive_writer;

comment on function haive_private.get_tenant(text) is
'What haive.get_tenant does, for a caller without rights on the table.';

create or replace function haive.get_tenant(tenant_id text)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.get_tenant(get_tenant.tenant_id)
$$;

comment on function haive.get_tenant(text) is
'A tenant with its settings and limits, whatever its status; for trusted callers only.';

-- Definer: closed tenants are read too.
create or replace function haive_private.list_tenants(
  p_page_size int, p_page_after text, p_status text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_docs json;
begin
  perform haive_private.administer_tenant(null);
  if (p_page_size between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 10000',
      hint = 'Read on with page_after, the id of the last tenant of a page.';
  end if;
  select coalesce(json_agg(haive_private.tenant_doc(t.*) order by t.tenant_id), '[]') into v_docs
  from (
    select s.* from haive.tenants as s
    where
      s.tenant_id > coalesce(p_page_after, '')
      and (p_status is null or s.status = p_status)
    order by s.tenant_id
    limit p_page_size
  ) as t;
  return v_docs;
end;
$$;

alter function haive_private.list_tenants(int, text, text) owner to haive_writer;

comment on function haive_private.list_tenants(int, text, text) is
'What haive.list_tenants does, for a caller without rights on the table.';

create or replace function haive.list_tenants(
  page_size int default 100, page_after text default '', status text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.list_tenants(
    list_tenants.page_size, list_tenants.page_after, list_tenants.status
  )
$$;

comment on function haive.list_tenants(int, text, text) is
'A page of tenants in the order of their ids; for trusted callers only.';

-- Definer, for nobody writes tables directly.
create or replace function haive_private.update_tenant(p_tenant_id text, p_changes jsonb)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_unknown text;
  v_counts boolean := p_changes ?| array[
    'settings', 'metered', 'max_conversations', 'max_storage_bytes', 'max_requests_per_minute',
    'max_tokens_per_month'
  ];
  v_row haive.tenants;
begin
  perform haive_private.administer_tenant(p_tenant_id);
  if jsonb_typeof(p_changes) is distinct from 'object' then
    raise exception using
      errcode = 'PT422',
      message = 'changes is no JSON object',
      hint = 'What changes is name, settings, status, audit, encrypted, metered and the limits.';
  end if;
  if v_counts or p_changes ?| array['audit', 'encrypted'] then
    -- Nothing is on its way that was written under other limits, not counted, not on record, or in
    -- the clear.
    perform pg_advisory_xact_lock(hashtextextended('haive/writers/' || p_tenant_id, 0));
  end if;
  select string_agg(k, ', ' order by k) into v_unknown
  from jsonb_object_keys(p_changes) as k
  where k not in (
    'name', 'settings', 'status', 'audit', 'encrypted', 'metered',
    'max_conversations', 'max_storage_bytes', 'max_requests_per_minute', 'max_tokens_per_month'
  );
  if v_unknown is not null then
    raise exception using
      errcode = 'PT422',
      message = format('cannot change: %s', left(v_unknown, 200)),
      hint = 'What changes is name, settings, status, audit, encrypted, metered and the limits.';
  end if;
  if p_changes ? 'settings' then
    perform haive_private.check_tenant_settings(p_changes -> 'settings');
  end if;
  if p_tenant_id = 'default' and coalesce(p_changes ->> 'status', 'active') = 'deleted' then
    raise exception using
      errcode = 'PT422',
      message = 'the tenant "default" always exists',
      hint = 'Suspend it, or delete its conversations.';
  end if;
  update haive.tenants as t
  set
    name = coalesce(g.name, t.name),
    settings = coalesce(g.settings, t.settings),
    status = coalesce(g.status, t.status),
    audit = coalesce(g.audit, t.audit),
    encrypted = coalesce(g.encrypted, t.encrypted),
    metered = coalesce(g.metered, t.metered) or num_nonnulls(
      case when p_changes ? 'max_conversations' then g.max_conversations else t.max_conversations end,
      case when p_changes ? 'max_storage_bytes' then g.max_storage_bytes else t.max_storage_bytes end,
      case
        when p_changes ? 'max_requests_per_minute'
          then g.max_requests_per_minute
        else t.max_requests_per_minute
      end,
      case
        when p_changes ? 'max_tokens_per_month' then g.max_tokens_per_month
        else t.max_tokens_per_month
      end
    ) > 0,
    max_conversations = case
      when p_changes ? 'max_conversations' then g.max_conversations else t.max_conversations
    end,
    max_storage_bytes = case
      when p_changes ? 'max_storage_bytes' then g.max_storage_bytes else t.max_storage_bytes
    end,
    max_requests_per_minute = case
      when p_changes ? 'max_requests_per_minute'
        then g.max_requests_per_minute
      else t.max_requests_per_minute
    end,
    max_tokens_per_month = case
      when p_changes ? 'max_tokens_per_month' then g.max_tokens_per_month else t.max_tokens_per_month
    end,
    updated_at = now(),
    deleted_at = case
      when coalesce(g.status, t.status) = 'deleted' then coalesce(t.deleted_at, now())
    end
  from jsonb_to_record(p_changes) as g (
    name text, settings jsonb, status text, audit text,
    encrypted boolean, metered boolean, max_conversations bigint, max_storage_bytes bigint,
    max_requests_per_minute bigint, max_tokens_per_month bigint
  )
  where t.tenant_id = p_tenant_id
  returning t.* into v_row;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no tenant %s', left(p_tenant_id, 63)),
      hint = 'Create it with create_tenant.';
  end if;
  if v_counts and not v_row.metered then
    delete from haive_private.meters as m where m.tenant_id = p_tenant_id;
    delete from haive_private.meter_days as d where d.tenant_id = p_tenant_id;
    update haive.tenants as t set warned = '' where t.tenant_id = p_tenant_id;
  elsif v_counts and not exists (
    select from haive_private.meters as m where m.tenant_id = p_tenant_id
  ) then
    perform haive_private.recount_tenant(p_tenant_id);
  elsif v_counts then
    perform haive_private.rearm_warnings(
      p_tenant_id, (now() at time zone coalesce(v_row.settings ->> 'timezone', 'UTC'))::date
    );
  end if;
  return haive_private.tenant_doc(v_row);
end;
$$;

alter function haive_private.update_tenant(text, jsonb) owner to haive_writer;

comment on function haive_private.update_tenant(text, jsonb) is
'What haive.update_tenant does, for a caller without rights on the table.';

create or replace function haive.update_tenant(tenant_id text, changes jsonb)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.update_tenant(update_tenant.tenant_id, update_tenant.changes)
$$;

comment on function haive.update_tenant(text, jsonb) is
'Replaces the given fields of a tenant; for trusted callers only. A status of suspended or deleted '
'closes it at once, active opens it again.';

-- Definer, for nobody writes tables directly.
create or replace function haive_private.purge_tenant(p_tenant_id text)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_conversations bigint;
begin
  perform haive_private.administer_tenant(p_tenant_id);
  perform from haive.tenants as t
  where t.tenant_id = p_tenant_id and t.status = 'deleted'
  for update;
  if not found then
    raise exception using
      errcode = 'PT409',
      message = format('the tenant %s is not deleted', left(p_tenant_id, 63)),
      hint = 'Delete it first: that can be undone, and this cannot.';
  end if;
  select count(*) into v_conversations
  from haive.conversations as c where c.tenant_id = p_tenant_id;
  -- All that belongs to it goes with it, by the foreign keys.
  delete from haive.tenants as t where t.tenant_id = p_tenant_id;
  delete from haive.events as e where e.tenant_id = p_tenant_id;
  return v_conversations;
end;
$$;

alter function haive_private.purge_tenant(text) owner to haive_writer;

comment on function haive_private.purge_tenant(text) is
'What haive.purge_tenant does, for a caller without rights on the table.';

create or replace function haive.purge_tenant(tenant_id text)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.purge_tenant(purge_tenant.tenant_id)
$$;

comment on function haive.purge_tenant(text) is
'Removes a deleted tenant with all that it has, and returns how many conversations those were; for '
'trusted callers only.';

-- Definer: the meters are nobody's to read.
create or replace function haive_private.tenant_usage(p_tenant text)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_tenant text := coalesce(
    p_tenant, nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-haive-tenant',
    nullif(current_setting('persistence.tenant', true), ''), 'default'
  );
  v_caller record;
  v_row haive.tenants;
  v_today date;
  v_used bigint[];
  v_requests bigint;
begin
  if pg_has_role(
    coalesce(nullif(current_setting('role', true), 'none'), session_user::text),
    'haive_client', 'member'
  ) then
    -- A tenant that is closed has used something too.
    perform haive_private.administer_tenant(v_tenant);
  else
    v_caller := haive_private.enter_tenant(p_tenant, false);
    v_tenant := v_caller.tenant;
    if v_caller.actor is not null then
      raise exception using
        errcode = 'PT403',
        message = 'only an administrator sees what the tenant uses',
        hint = 'Owners and admins of the tenant do.';
    end if;
  end if;
  select * into v_row from haive.tenants as t where t.tenant_id = v_tenant;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no tenant %s', left(v_tenant, 63)),
      hint = 'Create it with create_tenant.';
  end if;
  v_today := (now() at time zone coalesce(v_row.settings ->> 'timezone', 'UTC'))::date;
  if v_row.metered then
    v_used := haive_private.metered_use(v_tenant, v_today);
  else
    select
      array[
        u.conversations, u.bytes,
        (
          select coalesce(sum(m.input_tokens::bigint + m.output_tokens), 0)::bigint
          from haive.messages as m
          where
            m.tenant_id = v_tenant
            and m.created_at >= haive_private.month_end(
              v_tenant, v_today - extract(day from v_today)::int
            )
        )
      ]
    into v_used
    from haive_private.count_rows(v_tenant) as u;
  end if;
  select
    coalesce(
      ceil(
        sum(greatest(extract(epoch from b.full_at - clock_timestamp()), 0)) / 60
        / greatest(count(*), 1) * v_row.max_requests_per_minute
      ),
      0
    )
  into v_requests
  from haive_private.request_buckets as b
  where b.tenant_id = v_tenant and v_row.max_requests_per_minute is not null;
  return json_build_object(
    'tenant_id', v_tenant,
    'metered', v_row.metered,
    'timezone', coalesce(v_row.settings ->> 'timezone', 'UTC'),
    'conversations', haive_private.usage_doc(v_used[1], v_row.max_conversations),
    'storage', haive_private.usage_doc(v_used[2], v_row.max_storage_bytes),
    'requests', haive_private.usage_doc(v_requests, v_row.max_requests_per_minute),
    'tokens', haive_private.usage_doc(
      v_used[3], v_row.max_tokens_per_month, haive_private.month_end(v_tenant, v_today)
    )
  );
end;
$$;

alter function haive_private.tenant_usage(text) owner to haive_writer;

comment on function haive_private.tenant_usage(text) is
'What haive.tenant_usage does, for a caller without rights on the tables.';

create or replace function haive.tenant_usage(tenant text default null)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.tenant_usage(tenant_usage.tenant)
$$;

comment on function haive.tenant_usage(text) is
'What a tenant uses of conversations, bytes of storage, requests a minute and tokens a month: {used, '
'limit, fraction, resets_at} of each. For trusted callers, owners and admins. Of a tenant that is not '
'metered the rows are counted.';

-- Definer: it reads and corrects what is nobody's to write.
create or replace function haive_private.reconcile_usage(p_tenant_id text)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_found record;
begin
  perform haive_private.administer_tenant(p_tenant_id);
  -- Nobody writes while the rows are counted, and nothing is on its way.
  perform pg_advisory_xact_lock(hashtextextended('haive/writers/' || p_tenant_id, 0));
  perform from haive.tenants as t where t.tenant_id = p_tenant_id and t.metered;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no metered tenant %s', left(p_tenant_id, 63)),
      hint = 'A limit, or metered, is set with update_tenant.';
  end if;
  v_found := haive_private.recount_tenant(p_tenant_id);
  return json_build_object(
    'tenant_id', p_tenant_id,
    'conversations', v_found.conversations,
    'conversations_drift', v_found.conversations_drift,
    'storage', v_found.bytes,
    'storage_drift', v_found.bytes_drift
  );
end;
$$;

alter function haive_private.reconcile_usage(text) owner to haive_writer;

comment on function haive_private.reconcile_usage(text) is
'What haive.reconcile_usage does, for a caller without rights on the tables.';

create or replace function haive.reconcile_usage(tenant_id text)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.reconcile_usage(reconcile_usage.tenant_id)
$$;

comment on function haive.reconcile_usage(text) is
'Counts the rows of a metered tenant, whose writers wait meanwhile, corrects its meters and returns '
'{conversations, conversations_drift, storage, storage_drift}; a drift is what the rows were more than '
'the meters said. For trusted callers only, as a job: nightly is plenty.';

-- Definer: it reads several tenants, one after the other, each as the one that was entered.
create or replace function haive_private.tenant_analytics(
  p_tenant_ids text[], p_metrics text[], p_days int, p_since timestamptz, p_until timestamptz
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_unknown text;
  v_tenant_id text;
  v_docs json[] := '{}';
begin
  perform haive_private.administer_tenant(null);
  select string_agg(m, ', ' order by m) into v_unknown
  from unnest(p_metrics) as m
  where m not in (
    'conversation_count', 'message_count', 'token_usage', 'storage_used', 'active_users'
  );
  if v_unknown is not null or coalesce(cardinality(p_metrics), 0) = 0 then
    raise exception using
      errcode = 'PT422',
      message = format('unknown metrics: %s', left(coalesce(v_unknown, 'none'), 200)),
      hint = 'Metrics are conversation_count, message_count, token_usage, storage_used, active_users.';
  end if;
  if p_days is not null and (p_days between 0 and 36500 and num_nulls(p_since, p_until) = 2) is not true
  then
    raise exception using
      errcode = 'PT422',
      message = 'days is not from 0 to 36500, or given with since or until',
      hint = 'Days up to today, 0 for the month so far; or since and until, as times.';
  end if;
  for v_tenant_id in
    select t.tenant_id from haive.tenants as t where p_tenant_ids is null
    union
    select u.id from unnest(p_tenant_ids) as u (id) where u.id is not null
    order by 1
  loop
    perform haive_private.administer_tenant(v_tenant_id);
    v_docs := v_docs || haive_private.analytics_doc(
      v_tenant_id, p_metrics, p_days, p_since, p_until
    );
  end loop;
  return array_to_json(v_docs);
end;
$$;

alter function haive_private.tenant_analytics(text[], text[], int, timestamptz, timestamptz)
owner to haive_writer;

comment on function haive_private.tenant_analytics(text[], text[], int, timestamptz, timestamptz) is
'What haive.tenant_analytics does, for a caller without rights on the tables.';

create or replace function haive.tenant_analytics(
  tenant_ids text[] default null,
  metrics text[] default '{conversation_count,message_count,token_usage,storage_used,active_users}',
  days int default null,
  since timestamptz default null,
  until timestamptz default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.tenant_analytics(
    tenant_analytics.tenant_ids, tenant_analytics.metrics, tenant_analytics.days,
    tenant_analytics.since, tenant_analytics.until
  )
$$;

comment on function haive.tenant_analytics(text[], text[], int, timestamptz, timestamptz) is
'What tenants did, one object each, for trusted callers only. In days up to today in the time zone of '
'each (0: the month so far), which of metered tenants are counted already; or from since until before '
'until, by the times of their rows; or ever. storage_used is what is stored now.';

-- Definer: nobody but trusted callers reads the table itself.
create or replace function haive_private.audit_page(
  p_tenant text, p_after bigint, p_page_size int, p_last boolean, p_entries boolean
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_tenant text := haive_private.enter_audit(p_tenant);
  v_after bigint := coalesce(p_after, 0);
begin
  if (p_page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on with after, the seq of the last row of a page.';
  end if;
  if p_last then
    select greatest(v_after, max(l.seq) - p_page_size) into v_after
    from haive.audit_log as l where l.tenant_id = v_tenant;
  end if;
  return (
    select coalesce(
      json_agg(
        case
          when p_entries then json_build_object(
            'seq', l.seq, 'hash', encode(l.hash, 'hex'), 'entry', haive_private.audit_entry(l)
          )
          else json_build_object(
            'seq', l.seq, 'at', l.at, 'actor', l.actor, 'login', l.login, 'role', l.role,
            'action', l.action, 'object', l.object, 'rows', l.rows, 'row_count', l.row_count,
            'address', l.address, 'application', l.application, 'request_id', l.request_id,
            'hash', encode(l.hash, 'hex')
          )
        end
        order by l.seq
      ),
      '[]'
    )
    from (
      select a.* from haive.audit_log as a
      where a.tenant_id = v_tenant and a.seq > v_after
      order by a.seq
      limit p_page_size
    ) as l
  );
end;
$$;

alter function haive_private.audit_page(text, bigint, int, boolean, boolean) owner to haive_writer;

comment on function haive_private.audit_page(text, bigint, int, boolean, boolean) is
'What haive.audit_page does, for a caller without rights on the table.';

create or replace function haive.audit_page(
  after bigint default 0,
  page_size int default 100,
  last boolean default false,
  entries boolean default false,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.audit_page(
    audit_page.tenant, audit_page.after, audit_page.page_size, audit_page.last, audit_page.entries
  )
$$;

comment on function haive.audit_page(bigint, int, boolean, boolean, text) is
'A page of a tenant''s audit log: the rows after a seq, or the last ones. With entries, the text that '
'each hash covers in place of the columns: {seq, hash, entry}.';

-- Definer: nobody else reads the heads.
create or replace function haive_private.audit_head(p_tenant text)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_tenant text := haive_private.enter_audit(p_tenant);
begin
  return (
    select json_build_object(
      'tenant', v_tenant, 'seq', coalesce(max(h.seq), 0),
      'hash', encode(coalesce((array_agg(h.hash))[1], ''), 'hex'), 'at', now()
    )
    from haive_private.audit_heads as h
    where h.tenant_id = v_tenant
  );
end;
$$;

alter function haive_private.audit_head(text) owner to haive_writer;

comment on function haive_private.audit_head(text) is
'What haive.audit_head does, for a caller without rights on the table.';

create or replace function haive.audit_head(tenant text default null)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.audit_head(audit_head.tenant)
$$;

comment on function haive.audit_head(text) is
'Where the audit log of a tenant ends, as {tenant, seq, hash, at}. Kept elsewhere it proves what the '
'log was.';

-- Definer: it reads the log and its head at one moment.
create or replace function haive_private.verify_audit(
  p_tenant text,
  p_after bigint,
  p_hash text,
  p_head_seq bigint,
  p_head_hash text,
  p_max_rows int
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_tenant text := haive_private.enter_audit(p_tenant);
  v_after bigint := coalesce(p_after, 0);
  v_previous bytea := '';
  v_found record;
  v_bad bigint;
  v_reason text;
begin
  if (v_after >= 0 and p_max_rows between 1 and 1000000) is not true
    or coalesce(p_hash, '') !~ '^([0-9a-f]{64})?$'
    or coalesce(p_head_hash, '') !~ '^([0-9a-f]{64})?$'
    or num_nulls(p_head_seq, p_head_hash) = 1
  then
    raise exception using
      errcode = 'PT422',
      message = 'the arguments of a check mean nothing',
      hint = 'max_rows is 1 to 1,000,000, hashes are 64 hex digits, a head has seq and hash.';
  end if;
  if v_after > 0 then
    select l.hash into v_previous
    from haive.audit_log as l where l.tenant_id = v_tenant and l.seq = v_after;
    if not found then
      v_bad := v_after;
      v_reason := 'missing';
    elsif p_hash is not null and v_previous <> decode(p_hash, 'hex') then
      v_bad := v_after;
      v_reason := 'changed';
    end if;
  end if;

  -- One statement, so that what is written meanwhile is in both the rows and the head, or in none.
  with chain as materialized (
    select
      l.seq, l.hash,
      lag(l.seq, 1, v_after) over (order by l.seq) as previous_seq,
      sha256(
        lag(l.hash, 1, v_previous) over (order by l.seq)
        || convert_to(haive_private.audit_entry(l), 'UTF8')
      ) as expected
    from (
      select a.* from haive.audit_log as a
      where a.tenant_id = v_tenant and a.seq > v_after
      order by a.seq
      limit p_max_rows
    ) as l
  )
  select
    c.checked, coalesce(c.last_seq, v_after) as last_seq, coalesce(c.last_hash, v_previous) as last_hash,
    c.checked < p_max_rows as complete,
    b.seq as bad_seq, b.previous_seq,
    coalesce(h.seq, 0) as head_seq, coalesce(h.hash, '') as head_hash
  into v_found
  from (
    select
      count(*) as checked, max(k.seq) as last_seq,
      (array_agg(k.hash order by k.seq desc))[1] as last_hash
    from chain as k
  ) as c
  left join lateral (
    select k.seq, k.previous_seq from chain as k
    where k.seq <> k.previous_seq + 1 or k.hash <> k.expected
    order by k.seq
    limit 1
  ) as b on true
  left join haive_private.audit_heads as h on h.tenant_id = v_tenant;

  if v_reason is not null then
    v_found.complete := true; -- where to go on from is not sound
  elsif v_found.bad_seq > v_found.previous_seq + 1 then
    v_bad := v_found.previous_seq + 1;
    v_reason := 'missing';
  elsif v_found.bad_seq is not null then
    v_bad := v_found.bad_seq;
    v_reason := 'changed';
  elsif v_found.complete and v_found.head_seq > v_found.last_seq then
    v_bad := v_found.last_seq + 1;
    v_reason := 'missing';
  elsif v_found.complete and v_found.head_seq < v_found.last_seq then
    v_bad := v_found.head_seq + 1;
    v_reason := 'added';
  elsif v_found.complete and v_found.head_hash <> v_found.last_hash then
    v_bad := v_found.last_seq;
    v_reason := 'changed';
  elsif v_found.complete and p_head_seq > v_found.last_seq then
    v_bad := v_found.last_seq + 1;
    v_reason := 'missing';
  elsif p_head_seq between 1 and v_found.last_seq and not exists (
    select from haive.audit_log as l
    where l.tenant_id = v_tenant and l.seq = p_head_seq and l.hash = decode(p_head_hash, 'hex')
  ) then
    v_bad := p_head_seq;
    v_reason := 'rewritten';
  end if;
  return json_build_object(
    'tenant', v_tenant, 'ok', v_bad is null, 'bad_seq', v_bad, 'reason', v_reason,
    'checked', v_found.checked, 'seq', v_found.last_seq, 'hash', encode(v_found.last_hash, 'hex'),
    'complete', v_found.complete
  );
end;
$$;

alter function haive_private.verify_audit(text, bigint, text, bigint, text, int)
owner to haive_writer;

comment on function haive_private.verify_audit(text, bigint, text, bigint, text, int) is
'What haive.verify_audit does, for a caller without rights on the tables.';

create or replace function haive.verify_audit(
  after bigint default 0,
  hash text default null,
  head_seq bigint default null,
  head_hash text default null,
  max_rows int default 100000,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.verify_audit(
    verify_audit.tenant, verify_audit.after, verify_audit.hash, verify_audit.head_seq,
    verify_audit.head_hash, verify_audit.max_rows
  )
$$;

comment on function haive.verify_audit(bigint, text, bigint, text, int, text) is
'Checks the chain of a tenant''s log from the row after a seq, whose hash may be given, and whether it '
'holds a head that was kept: {ok, bad_seq, reason, checked, seq, hash, complete}. Not complete: go on '
'after seq, with hash. Reasons are changed, missing, added and rewritten (bad_seq or a row before it).';

-- Definer: nobody but the functions reads the table.
create or replace function haive_private.list_tenant_keys(p_tenant text)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  perform haive_private.administer_tenant(p_tenant);
  return (
    select coalesce(
      json_agg(
        json_build_object(
          'key_id', k.key_id::text, 'wrapped', encode(k.wrapped, 'base64'),
          'kek_id', k.kek_id::text, 'status', k.status::text, 'created_at', k.created_at
        )
        order by k.created_at, k.key_id
      ),
      '[]'
    )
    from haive_private.tenant_keys as k
    where k.tenant_id = p_tenant
  );
end;
$$;

alter function haive_private.list_tenant_keys(text) owner to haive_writer;

comment on function haive_private.list_tenant_keys(text) is
'What haive.list_tenant_keys does, for a caller without rights on the table.';

create or replace function haive.list_tenant_keys(tenant text)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.list_tenant_keys(list_tenant_keys.tenant)
$$;

comment on function haive.list_tenant_keys(text) is
'The wrapped data keys of a tenant, oldest first, whatever its status; for trusted callers only.';

-- Writes a key if it still is as the caller knows it. A tenant's keys take turns: what becomes active
-- retires the one that was, and once they were destroyed there are no more.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.put_tenant_key(
  p_tenant text, p_key_id text, p_wrapped bytea, p_kek_id text, p_status text, p_was_status text
)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_was text;
begin
  perform haive_private.administer_tenant(p_tenant);
  if p_status not in ('next', 'active', 'retired') or p_wrapped is null then
    raise exception using
      errcode = 'PT422',
      message = 'a key that is written is next, active or retired, and wrapped',
      hint = 'Destroy keys with destroy_tenant_keys.';
  end if;
  perform from haive.tenants as t where t.tenant_id = p_tenant for update;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no tenant %s', left(p_tenant, 63)),
      hint = 'Create it with create_tenant.';
  end if;
  select k.status into v_was
  from haive_private.tenant_keys as k
  where k.tenant_id = p_tenant and k.key_id = p_key_id;
  if
    v_was is distinct from p_was_status
    or exists (
      select from haive_private.tenant_keys as k
      where
        k.tenant_id = p_tenant and (
          k.status = 'destroyed'
          or (
            k.key_id <> p_key_id and k.status = p_status
            and (p_status = 'next' or (p_status = 'active' and p_was_status is null))
          )
        )
    )
  then
    return false;
  end if;
  if p_status = 'active' then
    update haive_private.tenant_keys as k
    set status = 'retired'
    where k.tenant_id = p_tenant and k.status = 'active' and k.key_id <> p_key_id;
  end if;
  insert into haive_private.tenant_keys as k (tenant_id, key_id, wrapped, kek_id, status)
  values (p_tenant, p_key_id, p_wrapped, p_kek_id, p_status)
  on conflict (tenant_id, key_id) do update
  set wrapped = excluded.wrapped, kek_id = excluded.kek_id, status = excluded.status;
  return true;
end;
$$;

alter function haive_private.put_tenant_key(text, text, bytea, text, text, text)
owner to haive_writer;

comment on function haive_private.put_tenant_key(text, text, bytea, text, text, text) is
'What haive.put_tenant_key does, for a caller without rights on the table.';

create or replace function haive.put_tenant_key(
  key_id text, wrapped bytea, kek_id text, status text, tenant text, was_status text default null
)
returns boolean
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.put_tenant_key(
    put_tenant_key.tenant, put_tenant_key.key_id, put_tenant_key.wrapped, put_tenant_key.kek_id,
    put_tenant_key.status, put_tenant_key.was_status
  )
$$;

comment on function haive.put_tenant_key(text, bytea, text, text, text, text) is
'Adds a wrapped data key of a tenant (was_status null) or changes one; false: it is not as the '
'caller knows it, its turn is taken, or the keys were destroyed. For trusted callers only.';

-- Definer, for nobody writes tables directly.
create or replace function haive_private.drop_tenant_key(p_tenant text, p_key_id text)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  perform haive_private.administer_tenant(p_tenant);
  delete from haive_private.tenant_keys as k
  where k.tenant_id = p_tenant and k.key_id = p_key_id and k.status in ('next', 'retired');
  return found;
end;
$$;

alter function haive_private.drop_tenant_key(text, text) owner to haive_writer;

comment on function haive_private.drop_tenant_key(text, text) is
'What haive.drop_tenant_key does, for a caller without rights on the table.';

create or replace function haive.drop_tenant_key(key_id text, tenant text)
returns boolean
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.drop_tenant_key(drop_tenant_key.tenant, drop_tenant_key.key_id)
$$;

comment on function haive.drop_tenant_key(text, text) is
'Removes a data key that seals nothing any more: see count_sealed. Never the active one. For trusted '
'callers only.';

-- What is left says that there were keys: a tenant that has lost them gets no new ones by mistake.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.destroy_tenant_keys(p_tenant text)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_count bigint;
begin
  perform haive_private.administer_tenant(p_tenant);
  perform from haive.tenants as t where t.tenant_id = p_tenant for update;
  update haive_private.tenant_keys as k
  set wrapped = null, status = 'destroyed'
  where k.tenant_id = p_tenant and k.status <> 'destroyed';
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

alter function haive_private.destroy_tenant_keys(text) owner to haive_writer;

comment on function haive_private.destroy_tenant_keys(text) is
'What haive.destroy_tenant_keys does, for a caller without rights on the table.';

create or replace function haive.destroy_tenant_keys(tenant text)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.destroy_tenant_keys(destroy_tenant_keys.tenant)
$$;

comment on function haive.destroy_tenant_keys(text) is
'Destroys the data keys of a tenant, so that nothing that they sealed can be read here any more, and '
'returns how many those were; for trusted callers only.';

create or replace function haive.find_stale_messages(
  key_id text,
  after_conversation uuid default '00000000-0000-0000-0000-000000000000',
  after_seq bigint default 0,
  page_size int default 500,
  tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(find_stale_messages.tenant, true);
  v_docs json;
begin
  if (find_stale_messages.page_size between 1 and 5000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 5000',
      hint = 'Read on after the last conversation_id and seq.';
  end if;
  v_docs := (
    select coalesce(
      json_agg(
        json_build_object(
          'conversation_id', p.conversation_id, 'seq', p.seq, 'id', p.id, 'role', p.role::text,
          'content', case when p.sealed is null then p.content::text end,
          -- As text: what is sealed is exactly what was stored, whatever a client makes of numbers.
          'parts', p.parts::text,
          'metadata', p.metadata::text,
          'sealed', replace(encode(p.sealed, 'base64'), e'\n', ''),
          'sealed_with', p.sealed_with::text
        )
        order by p.conversation_id, p.seq
      ),
      '[]'
    )
    from (
      select
        m.*,
        row_number() over w as place,
        sum(
          octet_length(m.content) + coalesce(octet_length(m.parts::text), 0)
          + coalesce(octet_length(m.sealed), 0)
        ) over w as bytes
      from (
        select m.* from haive.messages as m
        where
          m.tenant_id = v_caller.tenant
          and (m.conversation_id, m.seq) > (
            find_stale_messages.after_conversation, find_stale_messages.after_seq
          )
          and m.sealed_with is distinct from find_stale_messages.key_id
        order by m.conversation_id, m.seq
        limit find_stale_messages.page_size
      ) as m
      window w as (order by m.conversation_id, m.seq)
    ) as p
    -- No answer grows with the messages: those of 16 MiB, and one at least.
    where p.bytes <= 16777216 or p.place = 1
  );
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'find_stale_messages',
      (
        select jsonb_object_agg(d.doc ->> 'id', jsonb_build_array(d.doc ->> 'conversation_id', d.doc -> 'seq'))
        from json_array_elements(v_docs) as d (doc)
      ),
      json_array_length(v_docs)
    );
  end if;
  return v_docs;
end;
$$;

comment on function haive.find_stale_messages(text, uuid, bigint, int, text) is
'Messages that are not sealed with this key, in the order of the table: those after a place in it, as '
'they are stored. For trusted callers only.';

create or replace function haive.find_stale_conversations(
  key_id text,
  after uuid default '00000000-0000-0000-0000-000000000000',
  page_size int default 500,
  tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(find_stale_conversations.tenant, true);
  v_docs json;
begin
  if (find_stale_conversations.page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on after the last id.';
  end if;
  v_docs := (
    select coalesce(
      json_agg(
        json_build_object(
          'id', p.id, 'title', p.title::text, 'context', p.context::text,
          'settings', p.settings::text,
          'sealed', replace(encode(p.sealed, 'base64'), e'\n', ''),
          'sealed_with', p.sealed_with::text, 'updated_at', p.updated_at
        )
        order by p.id
      ),
      '[]'
    )
    from (
      select
        c.*,
        row_number() over w as place,
        sum(
          octet_length(c.context::text) + octet_length(c.settings::text)
          + coalesce(octet_length(c.sealed), 0)
        ) over w as bytes
      from (
        select c.* from haive.conversations as c
        where
          c.tenant_id = v_caller.tenant and c.id > find_stale_conversations.after
          and c.sealed_with is distinct from find_stale_conversations.key_id
        order by c.id
        limit find_stale_conversations.page_size
      ) as c
      window w as (order by c.id)
    ) as p
    where p.bytes <= 16777216 or p.place = 1
  );
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'find_stale_conversations',
      (
        select jsonb_object_agg(d.doc ->> 'id', null)
        from json_array_elements(v_docs) as d (doc)
      ),
      json_array_length(v_docs)
    );
  end if;
  return v_docs;
end;
$$;

comment on function haive.find_stale_conversations(text, uuid, int, text) is
'Conversations that are not sealed with this key, by id, as they are stored. For trusted callers only.';

-- How messages are stored, and nothing of what they say: each that is still as it was read.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.reseal_messages(p_tenant text, p_messages jsonb)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_count bigint;
begin
  if not v_caller.trusted then
    raise exception using
      errcode = 'PT403',
      message = 'only services seal what others wrote',
      hint = 'Call with a secret key, or on a direct connection.';
  end if;
  update haive.messages as m
  set
    content = '', parts = null, metadata = '{}',
    sealed = decode(d.sealed, 'base64'), sealed_with = d.sealed_with
  from jsonb_to_recordset(p_messages) as d (
    conversation_id uuid, seq bigint, id uuid, was_sealed_with text, sealed text, sealed_with text
  )
  where
    m.tenant_id = v_caller.tenant and m.conversation_id = d.conversation_id and m.seq = d.seq
    and m.id = d.id and m.sealed_with is not distinct from d.was_sealed_with
    and d.sealed is not null;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

alter function haive_private.reseal_messages(text, jsonb) owner to haive_writer;

comment on function haive_private.reseal_messages(text, jsonb) is
'What haive.reseal_messages does, for a caller without rights on the table.';

create or replace function haive.reseal_messages(messages jsonb, tenant text default null)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.reseal_messages(reseal_messages.tenant, reseal_messages.messages)
$$;

comment on function haive.reseal_messages(jsonb, text) is
'Replaces how messages are sealed: a list of {conversation_id, seq, id, was_sealed_with, sealed, '
'sealed_with}. Those with another key by now stay. Returns how many were. For trusted callers only.';

-- How conversations are stored, and nothing of what they say: each that is still as it was read.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.reseal_conversations(p_tenant text, p_conversations jsonb)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_count bigint;
begin
  if not v_caller.trusted then
    raise exception using
      errcode = 'PT403',
      message = 'only services seal what others wrote',
      hint = 'Call with a secret key, or on a direct connection.';
  end if;
  update haive.conversations as c
  set
    title = null, context = '{}', settings = '{}',
    sealed = decode(d.sealed, 'base64'), sealed_with = d.sealed_with
  from jsonb_to_recordset(p_conversations) as d (
    id uuid, was_sealed_with text, was_updated_at timestamptz, sealed text, sealed_with text
  )
  where
    c.tenant_id = v_caller.tenant and c.id = d.id
    and c.sealed_with is not distinct from d.was_sealed_with and c.updated_at = d.was_updated_at
    and d.sealed is not null;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

alter function haive_private.reseal_conversations(text, jsonb) owner to haive_writer;

comment on function haive_private.reseal_conversations(text, jsonb) is
'What haive.reseal_conversations does, for a caller without rights on the table.';

create or replace function haive.reseal_conversations(
  conversations jsonb, tenant text default null
)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.reseal_conversations(
    reseal_conversations.tenant, reseal_conversations.conversations
  )
$$;

comment on function haive.reseal_conversations(jsonb, text) is
'Replaces how conversations are sealed: a list of {id, was_sealed_with, was_updated_at, sealed, '
'sealed_with}. Those that were changed meanwhile stay. Returns how many were. For trusted callers '
'only.';

create or replace function haive.count_sealed(tenant text default null)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(count_sealed.tenant, false);
begin
  return (
    select coalesce(
      json_agg(
        json_build_object('table', s.name, 'key_id', s.key_id, 'rows', s.n)
        order by s.name, s.key_id
      ),
      '[]'
    )
    from (
      select 'conversations' as name, c.sealed_with::text as key_id, count(*) as n
      from haive.conversations as c where c.tenant_id = v_caller.tenant group by 2
      union all
      select 'messages', m.sealed_with::text, count(*)
      from haive.messages as m where m.tenant_id = v_caller.tenant group by 2
      union all
      select 'checkpoints', k.key_id::text, count(*)
      from haive.checkpoints as k where k.tenant_id = v_caller.tenant group by 2
      union all
      select 'checkpoint_writes', w.key_id::text, count(*)
      from haive.checkpoint_writes as w where w.tenant_id = v_caller.tenant group by 2
      union all
      select 'checkpoint_schemas', s.key_id::text, count(*)
      from haive.checkpoint_schemas as s where s.tenant_id = v_caller.tenant group by 2
      union all
      select 'branches', b.key_id::text, count(*)
      from haive.branches as b
      where b.tenant_id = v_caller.tenant and num_nonnulls(b.metadata, b.sealed) > 0
      group by 2
    ) as s
  );
end;
$$;

comment on function haive.count_sealed(text) is
'How many rows of the tenant are sealed with which key, by table; without a key_id: in the clear. For '
'trusted callers only.';

create or replace function haive.find_messages(ids uuid[], tenant text default null)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(find_messages.tenant, false);
  v_conversation_ids uuid[];
  v_seqs bigint[];
begin
  if (cardinality(find_messages.ids) between 0 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'there are more than 10000 ids, or none were given',
      hint = 'Ask for some at a time.';
  end if;
  select array_agg(m.conversation_id), array_agg(m.seq) into v_conversation_ids, v_seqs
  from haive.messages as m
  where m.id = any(find_messages.ids) and m.tenant_id = v_caller.tenant;
  if v_caller.audit_reads then
    -- As get_messages says it: within which places of which conversations.
    perform haive_private.audit_read(
      'find_messages',
      coalesce(
        (
          select jsonb_object_agg(g.conversation_id, jsonb_build_array(g.first_seq, g.last_seq))
          from (
            select u.conversation_id, min(u.seq) as first_seq, max(u.seq) as last_seq
            from unnest(v_conversation_ids, v_seqs) as u (conversation_id, seq)
            group by u.conversation_id
          ) as g
        ),
        '{}'
      ),
      coalesce(cardinality(v_seqs), 0)
    );
  end if;
  return (
    select coalesce(json_agg(d.doc -> 0), '[]')
    from unnest(
      haive_private.message_docs(v_caller.tenant, v_conversation_ids, v_seqs, v_seqs)
    ) as d (doc)
    where json_array_length(d.doc) > 0 -- not deleted since
  );
end;
$$;

comment on function haive.find_messages(uuid[], text) is
'Messages by their ids, in any order; those that are not there, or not the caller''s to see, are '
'left out.';

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

-- What a mode of compliance asks of a tenant: multitenancy/compliance.py has the same table.
-- A trigger, so that nothing lowers a switch without changing the mode first.
create or replace function haive_private.check_tenant_switches()
returns trigger
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_mode text := new.settings ->> 'compliance_mode';
begin
  if v_mode = 'HIPAA' and not new.encrypted then
    raise exception using
      errcode = 'PT422',
      message = 'a tenant of mode HIPAA is encrypted',
      hint = 'Make it with enable_encryption_at_rest and a key, or choose another compliance_mode.';
  elsif v_mode = 'HIPAA' and new.audit <> 'all' then
    raise exception using
      errcode = 'PT422',
      message = 'a tenant of mode HIPAA has reads and writes on record',
      hint = 'Set audit to all, or choose another compliance_mode.';
  elsif v_mode in ('GDPR', 'SOC2') and new.audit = 'off' then
    raise exception using
      errcode = 'PT422',
      message = format('a tenant of mode %s has writes on record', v_mode),
      hint = 'Set audit to writes or all, or choose another compliance_mode.';
  elsif v_mode = 'GDPR' and new.settings ->> 'data_retention_days' is null then
    raise exception using
      errcode = 'PT422',
      message = 'a tenant of mode GDPR says how long it keeps data',
      hint = 'Set data_retention_days, or choose another compliance_mode.';
  end if;
  return new;
end;
$$;

comment on function haive_private.check_tenant_switches() is
'Refuses a tenant whose switches are below what its compliance_mode asks for.';

create trigger tenants_check_switches
before insert or update of settings, audit, encrypted on haive.tenants
for each row when (new.settings ? 'compliance_mode')
execute function haive_private.check_tenant_switches();

-- The first step of what only administrators do. Definer, as enter_tenant is.
create or replace function haive_private.enter_as_administrator(
  p_tenant text,
  p_write boolean,
  out tenant text,
  out role text -- owner or admin; platform: a service key or a direct connection
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, p_write);
begin
  tenant := v_caller.tenant;
  if v_caller.trusted then
    role := 'platform';
    return;
  end if;
  select m.role into enter_as_administrator.role
  from haive.members as m
  where
    m.tenant_id = v_caller.tenant and m.user_id = haive.current_actor()
    and m.role in ('owner', 'admin');
  if not found then
    raise exception using
      errcode = 'PT403',
      message = 'only an administrator of the tenant does this',
      hint = 'Owners and admins do; an owner makes them with set_member.';
  end if;
end;
$$;

alter function haive_private.enter_as_administrator(text, boolean) owner to haive_writer;

comment on function haive_private.enter_as_administrator(text, boolean) is
'Enters a tenant for those who administer it, and says as what they do.';

-- Whether a user may cease to be an owner. Owners are locked in one order: of two who remove each
-- other at the same time, the second finds one owner left.
create or replace function haive_private.keep_an_owner(p_tenant text, p_user_id text)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_owners text[] := array(
    select m.user_id::text from haive.members as m
    where m.tenant_id = p_tenant and m.role = 'owner'
    order by m.user_id
    for update
  );
begin
  if v_owners = array[p_user_id] then
    raise exception using
      errcode = 'PT403',
      message = 'the last owner of a tenant stays',
      hint = 'Make somebody else an owner first.';
  end if;
end;
$$;

comment on function haive_private.keep_an_owner(text, text) is
'Refuses to take the last owner from a tenant.';

create or replace function haive.list_members(
  page_size int default 1000, page_after text default '', tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(list_members.tenant, false);
  v_docs json;
begin
  if (list_members.page_size between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 10000',
      hint = 'Read on with page_after, the user_id of the last member of a page.';
  end if;
  v_docs := (
    select coalesce(
      json_agg(
        json_build_object('user_id', m.user_id, 'role', m.role, 'created_at', m.created_at)
        order by m.user_id
      ),
      '[]'
    )
    from (
      select o.user_id::text as user_id, o.role, o.created_at
      from haive.members as o
      where
        o.tenant_id = v_caller.tenant and o.user_id > coalesce(list_members.page_after, '')
        and (v_caller.actor is null or o.user_id = v_caller.actor)
      order by o.user_id
      limit list_members.page_size
    ) as m
  );
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'list_members',
      (
        select jsonb_object_agg(d.doc ->> 'user_id', d.doc ->> 'role')
        from json_array_elements(v_docs) as d (doc)
      ),
      json_array_length(v_docs)
    );
  end if;
  return v_docs;
end;
$$;

comment on function haive.list_members(int, text, text) is
'A page of the tenant''s members in the order of their ids; who is no administrator sees themself.';

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

-- Definer: the table itself is closed.
create or replace function haive_private.list_invitations(
  p_tenant text, p_page_size int, p_page_after uuid
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_as_administrator(p_tenant, false);
begin
  if (p_page_size between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 10000',
      hint = 'Read on with page_after, the id of the last invitation of a page.';
  end if;
  return (
    select coalesce(json_agg(haive_private.invitation_doc(i.*) order by i.id), '[]')
    from (
      select o.* from haive.invitations as o
      where o.tenant_id = v_caller.tenant and (p_page_after is null or o.id > p_page_after)
      order by o.id
      limit p_page_size
    ) as i
  );
end;
$$;

alter function haive_private.list_invitations(text, int, uuid) owner to haive_writer;

comment on function haive_private.list_invitations(text, int, uuid) is
'What haive.list_invitations does, for a caller without rights on the table.';

create or replace function haive.list_invitations(
  page_size int default 1000, page_after uuid default null, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.list_invitations(
    list_invitations.tenant, list_invitations.page_size, list_invitations.page_after
  )
$$;

comment on function haive.list_invitations(int, uuid, text) is
'A page of the tenant''s invitations, used and expired ones too, for its administrators.';

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

-- Table by table and not by the foreign keys alone, to count what goes. The rows of the
-- conversations are locked first: who writes to one then finds it gone.
create or replace function haive_private.drop_conversations(p_tenant text, p_ids uuid[])
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_messages bigint;
  v_conversations bigint;
  v_events bigint;
begin
  perform from haive.conversations as c
  where c.tenant_id = p_tenant and c.id = any(p_ids)
  order by c.id
  for update;
  delete from haive.messages as m
  where m.tenant_id = p_tenant and m.conversation_id = any(p_ids);
  get diagnostics v_messages = row_count;
  delete from haive.conversations as c where c.tenant_id = p_tenant and c.id = any(p_ids);
  get diagnostics v_conversations = row_count;
  delete from haive.events as e where e.tenant_id = p_tenant and e.conversation_id = any(p_ids);
  get diagnostics v_events = row_count;
  -- Whoever keeps copies hears of it.
  insert into haive.events (tenant_id, kind, conversation_id)
  select p_tenant, 'conversation.deleted', u.id from unnest(p_ids) as u (id);
  return jsonb_build_object(
    'conversations', v_conversations, 'messages', v_messages, 'events', v_events
  );
end;
$$;

comment on function haive_private.drop_conversations(text, uuid[]) is
'Deletes conversations with their messages and events; returns how many rows of each table.';

-- Table by table, as drop_conversations does. The rows of the branches are locked first: who saves
-- to one then finds it gone.
create or replace function haive_private.drop_threads(p_tenant text, p_keys uuid[])
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_branches uuid[];
  v_checkpoints bigint;
  v_writes bigint;
  v_threads bigint;
  v_events bigint;
begin
  perform from haive.threads as t
  where t.tenant_id = p_tenant and t.thread_key = any(p_keys)
  order by t.thread_key
  for update;
  v_branches := array(
    select b.branch_id from haive.branches as b
    where b.tenant_id = p_tenant and b.thread_key = any(p_keys)
    order by b.branch_id
    for update
  );
  delete from haive.checkpoints as c
  where c.tenant_id = p_tenant and c.branch_id = any(v_branches);
  get diagnostics v_checkpoints = row_count;
  delete from haive.checkpoint_writes as w
  where w.tenant_id = p_tenant and w.thread_key = any(p_keys);
  get diagnostics v_writes = row_count;
  delete from haive.threads as t where t.tenant_id = p_tenant and t.thread_key = any(p_keys);
  get diagnostics v_threads = row_count;
  delete from haive.events as e where e.tenant_id = p_tenant and e.thread_key = any(p_keys);
  get diagnostics v_events = row_count;
  insert into haive.events (tenant_id, kind, thread_key)
  select p_tenant, 'thread.deleted', u.thread_key from unnest(p_keys) as u (thread_key);
  return jsonb_build_object(
    'threads', v_threads, 'branches', cardinality(v_branches), 'checkpoints', v_checkpoints,
    'checkpoint_writes', v_writes, 'events', v_events
  );
end;
$$;

comment on function haive_private.drop_threads(text, uuid[]) is
'Deletes threads with all that is in them and their events; returns how many rows of each table.';

create or replace function haive_private.sum_counts(p_one jsonb, p_other jsonb)
returns jsonb
language sql
immutable
security invoker
set search_path = ''
as $$
  select coalesce(jsonb_object_agg(s.name, s.rows), '{}')
  from (
    select c.key as name, sum(c.value::bigint) as rows
    from (
      select o.key, o.value from jsonb_each_text(p_one) as o
      union all
      select t.key, t.value from jsonb_each_text(p_other) as t
    ) as c
    group by c.key
  ) as s
  where s.rows > 0
$$;

comment on function haive_private.sum_counts(jsonb, jsonb) is
'Two objects of numbers by table as one, without those that are zero.';

-- One batch, and one transaction: whoever runs the job calls again until it is done. Records of the
-- audit log are not touched, whatever their age: a mode of compliance sets a minimum for those.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.apply_retention(p_tenant text, p_batch int)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_as_administrator(p_tenant, true);
  v_before timestamptz;
  v_events_before timestamptz;
  v_floor xid8;
  v_ids uuid[];
  v_keys uuid[];
  v_counts jsonb := '{}';
  v_events bigint;
  v_invitations bigint;
  v_more boolean := true;
begin
  if (p_batch between 1 and 100000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'batch is not between 1 and 100000',
      hint = 'It is how many rows go in one transaction.';
  end if;
  -- Of a tenant that keeps everything no conversation and no thread is older than null.
  select
    now() - (t.settings ->> 'data_retention_days')::numeric::int * interval '1 day',
    now() - coalesce((t.settings ->> 'event_retention_days')::numeric::int, 7) * interval '1 day'
  into v_before, v_events_before
  from haive.tenants as t where t.tenant_id = v_caller.tenant;
  v_events_before := greatest(v_before, v_events_before);

  -- A conversation goes whole, so that the last one may exceed the batch.
  v_ids := array(
    select s.id
    from (
      select c.id, sum(c.message_count + 1) over (order by c.active_hour, c.id) as rows
      from haive.conversations as c
      where
        c.tenant_id = v_caller.tenant
        and c.active_hour < v_before and c.last_message_at < v_before
      order by c.active_hour, c.id
      limit p_batch
    ) as s
    where s.rows <= p_batch
  );
  if cardinality(v_ids) = 0 then
    v_ids := array(
      select c.id from haive.conversations as c
      where
        c.tenant_id = v_caller.tenant
        and c.active_hour < v_before and c.last_message_at < v_before
      order by c.active_hour, c.id
      limit 1
    );
  end if;
  if cardinality(v_ids) > 0 then
    -- Looked at again under their locks: somebody may have gone on with one.
    v_ids := array(
      select c.id from haive.conversations as c
      where
        c.tenant_id = v_caller.tenant and c.id = any(v_ids) and c.last_message_at < v_before
      order by c.id
      for update
    );
    v_counts := haive_private.drop_conversations(v_caller.tenant, v_ids);
  else
    -- A thread goes with all of its namespaces, and not while one has something newer.
    v_keys := array(
      select t.thread_key
      from haive.threads as t
      where
        t.tenant_id = v_caller.tenant and t.created_at < v_before
        and not exists (
          select from haive.threads as s
          where
            s.thread_id = t.thread_id and s.tenant_id = t.tenant_id
            and (
              s.created_at >= v_before
              or exists (
                select from haive.branches as b
                where
                  b.tenant_id = s.tenant_id and b.thread_key = s.thread_key
                  and b.updated_at >= v_before
              )
            )
        )
      order by t.thread_id
      limit greatest(p_batch / 100, 1)
    );
    v_more := cardinality(v_keys) > 0;
    -- Looked at again under the locks of their branches, which every save takes.
    perform from haive.branches as b
    where b.tenant_id = v_caller.tenant and b.thread_key = any(v_keys)
    order by b.branch_id
    for update;
    v_keys := array(
      select t.thread_key from haive.threads as t
      where
        t.tenant_id = v_caller.tenant and t.thread_key = any(v_keys)
        and not exists (
          select from haive.threads as s
          join haive.branches as b on b.tenant_id = s.tenant_id and b.thread_key = s.thread_key
          where
            s.thread_id = t.thread_id and s.tenant_id = t.tenant_id and b.updated_at >= v_before
        )
    );
    v_counts := haive_private.drop_threads(v_caller.tenant, v_keys);
  end if;
  if not v_more then
    with oldest as (
      select o.xid, o.id, o.created_at from haive.events as o
      where o.tenant_id = v_caller.tenant
      order by o.xid, o.id
      limit p_batch
    ),
    gone as (
      delete from haive.events as e
      using oldest as o
      where
        e.tenant_id = v_caller.tenant and e.xid = o.xid and e.id = o.id
        and o.created_at < v_events_before
      returning e.xid
    )
    select count(*), max(g.xid) into v_events, v_floor from gone as g;
    if v_floor is not null then
      insert into haive_private.event_floors as f (tenant_id, xid)
      values (v_caller.tenant, v_floor)
      on conflict (tenant_id) do update set xid = greatest(f.xid, excluded.xid);
    end if;
    delete from haive.invitations as i
    where
      i.tenant_id = v_caller.tenant
      and least(i.expires_at, i.accepted_at, i.revoked_at) < v_before;
    get diagnostics v_invitations = row_count;
    v_counts := jsonb_build_object('events', v_events, 'invitations', v_invitations);
  end if;
  return json_build_object(
    'before', v_before,
    'done', not v_more and v_events < p_batch,
    'counts', haive_private.sum_counts(v_counts, '{}')
  );
end;
$$;

alter function haive_private.apply_retention(text, int) owner to haive_writer;

comment on function haive_private.apply_retention(text, int) is
'What haive.apply_retention does, for a caller without rights on the tables.';

create or replace function haive.apply_retention(
  batch int default 10000, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.apply_retention(apply_retention.tenant, apply_retention.batch)
$$;

comment on function haive.apply_retention(int, text) is
'Deletes a batch of what is older than the data_retention_days of the tenant: conversations by their '
'last message, threads by their last checkpoint, and invitations; and events after '
'event_retention_days, 7 if not set. Returns {before, done, counts}; call again until done.';

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
    v_counts := jsonb_build_object('members', v_rows);
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
'with checkpoints, events, their name among participants, membership and invitations. Returns {done, '
'counts, erased_at, finished_at}; call again until done. From the first call on nothing more is '
'stored that names them.';

-- What has no function of its own to be read by: conversations and threads have theirs.
-- Definer: some of the tables are closed to callers. Users read what is about themselves.
create or replace function haive_private.export_user(
  p_tenant text, p_user_id text, p_kind text, p_page_size int, p_page_after text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, false);
  v_answer json;
begin
  if v_caller.actor <> p_user_id then
    raise exception using
      errcode = 'PT403',
      message = 'only administrators export what is about others',
      hint = 'Name yourself, or ask an administrator of the tenant.';
  end if;
  if (p_page_size between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 10000',
      hint = 'Read on with page_after, the next of a page.';
  end if;
  if p_kind = 'memberships' then
    select json_build_object('rows', coalesce(json_agg(m), '[]'), 'next', null) into v_answer
    from (
      select o.tenant_id, o.user_id::text, o.role, o.created_at
      from haive.members as o
      where o.tenant_id = v_caller.tenant and o.user_id = p_user_id
    ) as m;
  elsif p_kind = 'invitations' then
    select
      json_build_object(
        'rows', coalesce(json_agg(haive_private.invitation_doc(i.*) order by i.id), '[]'),
        'next', case when count(*) = p_page_size then max(i.id::text) end
      )
    into v_answer
    from (
      select o.* from haive.invitations as o
      where
        o.tenant_id = v_caller.tenant
        and p_user_id in (o.accepted_by, o.created_by, o.label)
        and (p_page_after is null or o.id > p_page_after::uuid)
      order by o.id
      limit p_page_size
    ) as i;
  elsif p_kind = 'participations' then
    select
      json_build_object(
        'rows', coalesce(json_agg(c order by c.id), '[]'),
        'next', case when count(*) = p_page_size then max(c.id::text) end
      )
    into v_answer
    from (
      select o.id, o.agent_id::text, o.title::text, o.created_at::timestamptz, o.last_message_at
      from haive.conversations as o
      where
        o.tenant_id = v_caller.tenant and o.participants::text[] @> array[p_user_id]
        and o.user_id is distinct from p_user_id
        and (p_page_after is null or o.id > p_page_after::uuid)
      order by o.id
      limit p_page_size
    ) as c;
  elsif p_kind = 'authorships' then
    -- By their places: the content is another's conversation, and sealed where the tenant's content is.
    select
      json_build_object(
        'rows', coalesce(json_agg(m order by m.id), '[]'),
        'next', case when count(*) = p_page_size then max(m.id::text) end
      )
    into v_answer
    from (
      select o.id, o.conversation_id, o.seq, o.created_at::timestamptz
      from haive.messages as o
      where
        o.author = p_user_id and o.tenant_id = v_caller.tenant
        and (p_page_after is null or o.id > p_page_after::uuid)
        and not exists (
          select from haive.conversations as c
          where
            c.tenant_id = o.tenant_id and c.id = o.conversation_id and c.user_id = p_user_id
        )
      order by o.id
      limit p_page_size
    ) as m;
  elsif p_kind = 'events' then
    select
      json_build_object(
        'rows', coalesce(json_agg(e order by e.xid, e.id), '[]'),
        'next', case
          when count(*) = p_page_size then (
            array_agg(format('%s/%s', e.xid, e.id) order by e.xid, e.id)
          )[p_page_size]
        end
      )
    into v_answer
    from (
      select
        o.xid, o.id, o.kind::text, o.conversation_id, o.first_seq, o.last_seq, o.thread_key,
        o.checkpoint_id, o.created_at
      from haive.events as o
      where
        o.tenant_id = v_caller.tenant
        and (
          p_page_after is null
          or (o.xid, o.id) > (
            split_part(p_page_after, '/', 1)::xid8, split_part(p_page_after, '/', 2)::bigint
          )
        )
        and (
          o.conversation_id in (
            select c.id from haive.conversations as c
            where c.tenant_id = v_caller.tenant and c.user_id = p_user_id
          )
          or o.thread_key in (
            select t.thread_key from haive.threads as t
            where t.tenant_id = v_caller.tenant and t.user_id = p_user_id
          )
        )
      order by o.xid, o.id
      limit p_page_size
    ) as e;
  elsif p_kind = 'audit' then
    -- What they did and, for administrators, what was done to their membership: that names others.
    select
      json_build_object(
        'rows', coalesce(json_agg(a order by a.seq), '[]'),
        'next', case when count(*) = p_page_size then max(a.seq)::text end
      )
    into v_answer
    from (
      select
        o.seq, o.at, o.actor, o.login, o.role, o.action, o.object, o.rows, o.row_count,
        o.address, o.application, o.request_id
      from haive.audit_log as o
      where
        o.tenant_id = v_caller.tenant
        and (
          o.actor = p_user_id
          or (v_caller.actor is null and o.object = 'members' and o.rows ? p_user_id)
        )
        and o.seq > coalesce(p_page_after, '0')::bigint
      order by o.seq
      limit p_page_size
    ) as a;
  else
    raise exception using
      errcode = 'PT422',
      message = 'the kind is unknown',
      hint = 'Kinds are memberships, invitations, participations, authorships, events and audit.';
  end if;
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'export_user', jsonb_build_object(p_user_id, p_kind), json_array_length(v_answer -> 'rows')
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.export_user(text, text, text, int, text) owner to haive_writer;

comment on function haive_private.export_user(text, text, text, int, text) is
'What haive.export_user does, for a caller without rights on the tables.';

create or replace function haive.export_user(
  user_id text,
  kind text,
  page_size int default 1000,
  page_after text default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.export_user(
    export_user.tenant, export_user.user_id, export_user.kind, export_user.page_size,
    export_user.page_after
  )
$$;

comment on function haive.export_user(text, text, int, text, text) is
'A page of what is held about a user: memberships, invitations, participations (conversations of '
'others that name them), authorships (messages there), events or audit. Returns {rows, next}; read on with page_after, the next of '
'the page before. For administrators, and for the users themselves.';

insert into haive_private.migrations (version, name) values
  ('20261122121000', 'tenant_functions')
on conflict do nothing;
