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
    ('PT413', 413, 'ContentTooLargeError', false, 'content, parts or metadata are over their limit'),
    ('PT422', 422, 'InvalidInputError', false, 'an argument does not mean anything')
$$;

comment on function haive.error_catalogue() is
'The errors that the functions of this schema raise themselves.';

-- Who calls: the verified subject of a user's token, null for a trusted key or connection.
create or replace function haive.current_actor()
returns text
language sql
stable
security invoker
set search_path = ''
as $$
  select nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
$$;

comment on function haive.current_actor() is
'The user that calls ("sub" of the token), or null for a trusted key or connection.';

-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it; 900_grants takes this away again.
grant usage, create on schema haive_private to haive_writer;

-- The caller's tenants as sets, for policies: evaluated once a statement, whatever the rows.
-- Definer: the policies of haive.members themselves ask them.
create or replace function haive_private.my_tenants()
returns setof text
language sql
stable
security definer
set search_path = ''
as $$
  select m.tenant_id from haive.members as m where m.user_id = (select haive.current_actor())
$$;

create or replace function haive_private.my_admin_tenants()
returns setof text
language sql
stable
security definer
set search_path = ''
as $$
  select m.tenant_id from haive.members as m
  where m.user_id = (select haive.current_actor()) and m.role in ('owner', 'admin')
$$;

alter function haive_private.my_tenants() owner to haive_writer;
alter function haive_private.my_admin_tenants() owner to haive_writer;

comment on function haive_private.my_tenants() is 'The tenants that the caller is a member of.';
comment on function haive_private.my_admin_tenants() is
'The tenants that the caller owns or administers.';

-- The first step of every operation: which tenant, and may the caller. The policies of
-- haive_client and haive_writer read the setting made here, so that an operation needs no
-- round trip to announce its tenant. It ends with the transaction.
-- Definer: it reads memberships before the tenant, which their policies ask for, is known.
create or replace function haive_private.enter_tenant(
  p_tenant text,
  p_write boolean,
  out tenant text,
  out actor text, -- null: all rows of the tenant; else: only where this user takes part
  out trusted boolean -- a service key or a direct connection, and no user with a token
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
    if v_role in ('owner', 'admin') then
      actor := null;
    end if;
  end if;
  if p_write and current_setting('lock_timeout') = '0' then
    -- A row that somebody holds must not hold up a statement that others share for ever.
    perform set_config('lock_timeout', '10s', true);
  end if;
  perform set_config('persistence.tenant', tenant, true);
end;
$$;

alter function haive_private.enter_tenant(text, boolean) owner to haive_writer;

comment on function haive_private.enter_tenant(text, boolean) is
'Resolves and checks the tenant of an operation: argument, header, session setting, the caller''s '
'only membership; "default" for trusted callers.';

create or replace function haive.current_tenant(tenant text default null)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select json_build_object('tenant', e.tenant) from haive_private.enter_tenant(current_tenant.tenant, false) as e
$$;

comment on function haive.current_tenant(text) is
'The tenant that a call with this argument works in, as {tenant}: keys are made for one.';

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
begin
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
    returning array[c.message_count] into last_seqs;
    if not found then
      last_seqs := array[null::bigint];
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
      returning c.id, c.message_count
    )
    select array_agg(g.message_count order by u.id) into last_seqs
    from unnest(v_ids) as u (id)
    left join grown as g on g.id = u.id;
  end if;

  insert into haive.events (tenant_id, kind, conversation_id, first_seq, last_seq)
  select p_tenant, 'messages.added', u.id, u.last_seq - u.n + 1, u.last_seq
  from unnest(v_ids, last_seqs, counts) as u (id, last_seq, n)
  where u.last_seq is not null;
  conversation_ids := v_ids;
end;
$$;

alter function haive_private.reserve_messages(
  text, text, uuid[], int[], int[], numeric[], timestamptz[]
) owner to haive_writer;

comment on function haive_private.reserve_messages(
  text, text, uuid[], int[], int[], numeric[], timestamptz[]
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
    p_tenant, p_actor, p_conversation_ids, p_input_tokens, p_output_tokens, p_costs, p_created_at
  );
  with placed as materialized (
    select
      u.*,
      v_places.last_seqs[width_bucket(u.conversation_id, v_places.conversation_ids)]
      - v_places.counts[width_bucket(u.conversation_id, v_places.conversation_ids)]
      + row_number() over (partition by u.conversation_id order by u.place) as seq
    from unnest(
      p_conversation_ids, p_ids, p_roles, p_contents, p_parts, p_metadata,
      p_input_tokens, p_output_tokens, p_models, p_costs, p_created_at
    ) with ordinality as u (
      conversation_id, id, role, content, parts, metadata,
      input_tokens, output_tokens, model, cost, created_at, place
    )
  ),
  written as (
    insert into haive.messages (
      tenant_id, conversation_id, seq, id, role, content, parts, metadata,
      input_tokens, output_tokens, model, cost, created_at
    )
    select
      p_tenant, p.conversation_id, p.seq, p.id, p.role, p.content, p.parts,
      coalesce(p.metadata, '{}'), p.input_tokens, p.output_tokens, p.model, p.cost,
      coalesce(p.created_at, now())
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
  timestamptz[]
) owner to haive_writer;

comment on function haive_private.insert_messages(
  text, text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[]
) is 'Writes new messages; an id that exists already is a unique violation.';

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
    array(select p_created_at[i] from unnest(v_missing) as i)
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
          m.input_tokens, m.output_tokens, m.model, m.cost, m.created_at
        ) is distinct from (
          u.conversation_id, u.role, u.content, u.parts, coalesce(u.metadata, '{}'),
          u.input_tokens, u.output_tokens, u.model, u.cost, coalesce(u.created_at, m.created_at)
        ) then 'PT409'
      end as failure
    from unnest(
      p_conversation_ids, p_ids, p_roles, p_contents, p_parts, p_metadata,
      p_input_tokens, p_output_tokens, p_models, p_costs, p_created_at
    ) with ordinality as u (
      conversation_id, id, role, content, parts, metadata,
      input_tokens, output_tokens, model, cost, created_at, place
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
  timestamptz[]
) owner to haive_writer;

comment on function haive_private.replay_messages(
  text, text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[]
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
  returning c.message_count into append_message.seq;
  if not found then
    failure := 'PT404';
    return;
  end if;
  insert into haive.messages (
    tenant_id, conversation_id, seq, id, role, content, parts, metadata,
    input_tokens, output_tokens, model, cost, created_at
  )
  values (
    v_caller.tenant, p_conversation_id, append_message.seq, p_id, p_role, p_content, p_parts,
    coalesce(p_metadata, '{}'), p_input_tokens, p_output_tokens, p_model, p_cost,
    append_message.created_at
  );
  insert into haive.events (tenant_id, kind, conversation_id, first_seq, last_seq)
  values (
    v_caller.tenant, 'messages.added', p_conversation_id, append_message.seq, append_message.seq
  );
exception
  when unique_violation then
    v_replay := haive_private.replay_messages(
      v_caller.tenant, v_caller.actor, array[p_conversation_id], array[p_id], array[p_role],
      array[p_content], array[p_parts], array[p_metadata], array[p_input_tokens],
      array[p_output_tokens], array[p_model], array[p_cost], array[p_created_at]
    );
    seq := v_replay.seqs[1];
    created_at := v_replay.times[1];
    failure := v_replay.failures[1];
end;
$$;

alter function haive_private.append_message(
  text, uuid, uuid, text, text, jsonb, jsonb, int, int, text, numeric, timestamptz
) owner to haive_writer;

comment on function haive_private.append_message(
  text, uuid, uuid, text, text, jsonb, jsonb, int, int, text, numeric, timestamptz
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
      p_metadata, p_input_tokens, p_output_tokens, p_models, p_costs, p_created_at
    ) as w;
    if array_position(seqs, null) is not null then
      failures := array(
        select case when u.seq is null then 'PT404' end
        from unnest(seqs) with ordinality as u (seq, place)
        order by u.place
      );
    end if;
  exception
    when unique_violation then
      select w.seqs, w.times, w.failures into seqs, times, failures
      from haive_private.replay_messages(
        v_caller.tenant, v_caller.actor, p_conversation_ids, p_ids, p_roles, p_contents, p_parts,
        p_metadata, p_input_tokens, p_output_tokens, p_models, p_costs, p_created_at
      ) as w;
  end;
end;
$$;

alter function haive_private.append_messages(
  text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[]
) owner to haive_writer;

comment on function haive_private.append_messages(
  text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], int[], int[], text[], numeric[],
  timestamptz[]
) is 'Writes messages of any conversations; those that exist already are answered as they are.';

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
    'metadata', json_build_object(
      'title', p_row.title::text,
      'tags', p_row.tags::text[],
      'context', p_row.context::jsonb,
      'participants', p_row.participants::text[],
      'settings', p_row.settings::jsonb
    ),
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
          case when m.parts is null then to_json(m.content::text) else m.parts::json end as content,
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

create or replace function haive.schema_version()
returns text
language sql
stable
security invoker
set search_path = ''
as $$
  select max(m.version) from haive_private.migrations as m
$$;

comment on function haive.schema_version() is
'The newest migration that this installation has.';

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
  v_user text := haive.current_actor();
  v_given jsonb;
  v_taken uuid;
  v_docs json;
begin
  -- Ids come from the client, for a safe retry; who sends none gets one here.
  select jsonb_agg(jsonb_build_object('id', gen_random_uuid()) || u.doc order by u.place)
  into v_given
  from jsonb_array_elements(p_conversations) with ordinality as u (doc, place);

  if exists (
    select from jsonb_to_recordset(v_given) as g (user_id text)
    where g.user_id <> v_caller.actor
  ) then
    raise exception using
      errcode = 'PT403',
      message = 'a member begins conversations of their own',
      hint = 'Leave out user_id; name others as participants.';
  end if;

  with fresh as (
    insert into haive.conversations (
      tenant_id, id, agent_id, user_id, title, tags, context, participants, settings,
      created_at, updated_at, last_message_at
    )
    select
      v_caller.tenant, g.id, g.agent_id, coalesce(g.user_id, v_user),
      g.title, coalesce(g.tags, '{}'), coalesce(g.context, '{}'), coalesce(g.participants, '{}'),
      coalesce(g.settings, '{}'), t.at, t.at, t.at
    from jsonb_to_recordset(v_given) as g (
      id uuid, agent_id text, user_id text, title text, tags text[], context jsonb,
      participants text[], settings jsonb, created_at timestamptz
    )
    cross join lateral (select coalesce(g.created_at, now()) as at) as t
    on conflict (tenant_id, id) do nothing
    returning id
  )
  insert into haive.events (tenant_id, kind, conversation_id)
  select v_caller.tenant, 'conversation.created', f.id from fresh as f;

  -- A retry finds its own row, and of two with one id in a call each its equal; anything else that
  -- sits at the id is a conflict, and so is what the caller may not see, whatever they know of it.
  select g.id into v_taken
  from jsonb_to_recordset(v_given) as g (
    id uuid, agent_id text, user_id text, created_at timestamptz
  )
  join haive.conversations as c on c.tenant_id = v_caller.tenant and c.id = g.id
  where
    (c.agent_id, c.user_id) is distinct from (g.agent_id, coalesce(g.user_id, v_user))
    or c.created_at <> g.created_at
    or (
      v_caller.actor is null or c.user_id = v_caller.actor
      or v_caller.actor = any(c.participants)
    ) is not true
  limit 1;
  if found then
    raise exception using
      errcode = 'PT409',
      message = format('another conversation has the id %s', v_taken),
      hint = 'Let the SDK choose ids, or repeat a call only with the same content.';
  end if;

  select json_agg(haive_private.conversation_doc(c) order by g.place) into v_docs
  from jsonb_array_elements(v_given) with ordinality as g (doc, place)
  join haive.conversations as c on c.tenant_id = v_caller.tenant and c.id = (g.doc ->> 'id')::uuid;
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
'settings, created_at}. Returns them. The same id with the same agent and user is the same one.';

create or replace function haive.get_conversation(
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
    bool_or(m.total_tokens <> m.input_tokens + m.output_tokens) as has_wrong_total
  into v_rows
  from (
    select u.place, d.*
    from jsonb_array_elements(add_messages.messages) with ordinality as u (doc, place)
    cross join lateral jsonb_to_record(u.doc) as d (
      conversation_id uuid, id uuid, role text, content text, parts jsonb, metadata jsonb,
      input_tokens int, output_tokens int, total_tokens int, model text, cost numeric,
      created_at timestamptz
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
    v_rows.costs, v_rows.created_at
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
'input_tokens, output_tokens, model, cost, created_at}. Returns id, seq and created_at of each. '
'The same id with the same content is the same message.';

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
  return (
    haive_private.message_docs(
      v_caller.tenant, array[get_messages.conversation_id], array[v_from], array[v_to]
    )
  )[1];
end;
$$;

comment on function haive.get_messages(uuid, bigint, bigint, int, boolean, text) is
'A page of messages in order: those after a seq, or the last ones before a seq.';

-- The statement is put together from the fixed fragments below, one for each filter in use, and
-- values go in as parameters: the planner sees only what is asked, and no text of the caller's.
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
  where k not in ('agent_id', 'title', 'tags', 'context', 'participants', 'settings');
  if v_unknown is not null then
    raise exception using
      errcode = 'PT422',
      message = format('cannot change: %s', left(v_unknown, 200)),
      hint = 'What changes is agent_id, title, tags, context, participants, settings.';
  end if;
  update haive.conversations as c
  set
    agent_id = case when p_changes ? 'agent_id' then g.agent_id else c.agent_id end,
    title = case when p_changes ? 'title' then g.title else c.title end,
    tags = coalesce(g.tags, c.tags),
    context = coalesce(g.context, c.context),
    participants = coalesce(g.participants, c.participants),
    settings = coalesce(g.settings, c.settings),
    updated_at = now()
  from jsonb_to_record(p_changes) as g (
    agent_id text, title text, tags text[], context jsonb, participants text[], settings jsonb
  )
  where
    c.tenant_id = v_caller.tenant and c.id = p_conversation_id
    and (
      v_caller.actor is null or c.user_id = v_caller.actor
      or v_caller.actor = any(c.participants)
    )
  returning c.* into v_row;
  if not found then
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
'Replaces the given fields among agent_id, title, tags, context, participants and settings.';

-- Definer, for nobody writes tables directly.
create or replace function haive_private.delete_conversation(p_tenant text, p_conversation_id uuid)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_messages bigint;
begin
  delete from haive.conversations as c
  where
    c.tenant_id = v_caller.tenant and c.id = p_conversation_id
    and (v_caller.actor is null or c.user_id = v_caller.actor)
  returning c.message_count into v_messages;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no conversation %s', p_conversation_id),
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to delete.';
  end if;
  insert into haive.events (tenant_id, kind, conversation_id)
  values (v_caller.tenant, 'conversation.deleted', p_conversation_id);
  return v_messages;
end;
$$;

alter function haive_private.delete_conversation(text, uuid) owner to haive_writer;

comment on function haive_private.delete_conversation(text, uuid) is
'What haive.delete_conversation does, for a caller without rights on the table.';

create or replace function haive.delete_conversation(conversation_id uuid, tenant text default null)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.delete_conversation(
    delete_conversation.tenant, delete_conversation.conversation_id
  )
$$;

comment on function haive.delete_conversation(uuid, text) is
'Deletes a conversation with its messages and returns how many those were.';

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
'Makes a user owner, admin, member or reader of a tenant; a null role removes them.';

insert into haive_private.migrations (version, name) values
  ('20261122102000', 'functions')
on conflict do nothing;
