-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it; 900_grants takes this away again.
grant usage, create on schema haive_private to haive_writer;

-- Statement triggers: a statement of 256 messages is counted once. Where the tenant that was entered is
-- not metered, nothing is looked at. For what is inserted and what is deleted, "changed" is the rows and
-- the trigger's argument says which.
create or replace function haive_private.meter_messages()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_first text;
  v_last text;
  v_messages bigint;
  v_bytes bigint;
  v_input_tokens bigint;
  v_output_tokens bigint;
  v_cost numeric;
  v record;
  v_done boolean;
begin
  if current_setting('persistence.watch', true) like '-%' then
    return null;
  end if;
  if tg_op = 'UPDATE' then
    -- What is rewritten, sealed or masked is no new message, and its tokens are counted already.
    for v in
      select u.tenant_id, sum(u.bytes)::bigint as bytes
      from (
        select
          a.tenant_id,
          haive_private.message_bytes(a.content, a.parts, a.metadata)
          + coalesce(octet_length(a.sealed), 0) as bytes
        from added as a
        union all
        select
          r.tenant_id,
          -haive_private.message_bytes(r.content, r.parts, r.metadata)
          - coalesce(octet_length(r.sealed), 0)
        from removed as r
      ) as u
      group by u.tenant_id
      having sum(u.bytes) <> 0
    loop
      perform haive_private.meter(v.tenant_id, 0, v.bytes);
    end loop;
    return null;
  end if;
  -- Nearly always they are of one tenant, and a loop costs more than the sum.
  select
    min(c.tenant_id), max(c.tenant_id), count(*),
    sum(
      haive_private.message_bytes(c.content, c.parts, c.metadata)
      + coalesce(octet_length(c.sealed), 0)
    ),
    coalesce(sum(c.input_tokens), 0), coalesce(sum(c.output_tokens), 0), coalesce(sum(c.cost), 0)
  into v_first, v_last, v_messages, v_bytes, v_input_tokens, v_output_tokens, v_cost
  from changed as c;
  if v_first = v_last then
    v_done := case
      when tg_argv[0] = 'added' then haive_private.meter(
        v_first, 0, v_bytes, v_messages, v_input_tokens, v_output_tokens, v_cost
      )
      else haive_private.meter(v_first, 0, -v_bytes)
    end;
    return null;
  end if;
  for v in
    select
      c.tenant_id, count(*) as messages,
      sum(
        haive_private.message_bytes(c.content, c.parts, c.metadata)
        + coalesce(octet_length(c.sealed), 0)
      )::bigint as bytes,
      coalesce(sum(c.input_tokens), 0) as input_tokens,
      coalesce(sum(c.output_tokens), 0) as output_tokens,
      coalesce(sum(c.cost), 0) as cost
    from changed as c
    group by c.tenant_id
    order by c.tenant_id
  loop
    v_done := case
      when tg_argv[0] = 'added' then haive_private.meter(
        v.tenant_id, 0, v.bytes, v.messages, v.input_tokens, v.output_tokens, v.cost
      )
      else haive_private.meter(v.tenant_id, 0, -v.bytes)
    end;
  end loop;
  return null;
end;
$$;

alter function haive_private.meter_messages() owner to haive_writer;

comment on function haive_private.meter_messages() is 'Counts messages that a statement wrote or removed.';

create trigger meter_added after insert on haive.messages
referencing new table as changed
for each statement execute function haive_private.meter_messages('added');

create trigger meter_changed after update on haive.messages
referencing old table as removed new table as added
for each statement execute function haive_private.meter_messages();

create trigger meter_removed after delete on haive.messages
referencing old table as changed
for each statement execute function haive_private.meter_messages('removed');

-- As in meter_messages. Changes are counted by row, and only of what is written by people: every message
-- moves the counters of its conversation, and must not pay for it.
create or replace function haive_private.meter_conversations()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_sign int;
  v_bytes bigint;
  v record;
begin
  if current_setting('persistence.watch', true) like '-%' then
    return null;
  end if;
  if tg_op = 'UPDATE' then
    v_bytes := haive_private.conversation_bytes(
      new.title, new.tags, new.context, new.participants, new.settings
    ) + coalesce(octet_length(new.sealed), 0) - haive_private.conversation_bytes(
      old.title, old.tags, old.context, old.participants, old.settings
    ) - coalesce(octet_length(old.sealed), 0);
    if v_bytes <> 0 then
      perform haive_private.meter(new.tenant_id, 0, v_bytes);
    end if;
    return null;
  end if;
  v_sign := tg_argv[0];
  for v in
    select
      c.tenant_id, count(*) as conversations,
      sum(
        haive_private.conversation_bytes(c.title, c.tags, c.context, c.participants, c.settings)
        + coalesce(octet_length(c.sealed), 0)
      )::bigint as bytes
    from changed as c
    group by c.tenant_id
  loop
    perform haive_private.meter(v.tenant_id, v_sign * v.conversations, v_sign * v.bytes);
  end loop;
  return null;
end;
$$;

alter function haive_private.meter_conversations() owner to haive_writer;

comment on function haive_private.meter_conversations() is
'Counts conversations that a statement wrote or removed.';

create trigger meter_added after insert on haive.conversations
referencing new table as changed
for each statement execute function haive_private.meter_conversations('1');

create trigger meter_changed after update of title, tags, context, participants, settings, sealed
on haive.conversations
for each row execute function haive_private.meter_conversations();

create trigger meter_removed after delete on haive.conversations
referencing old table as changed
for each statement execute function haive_private.meter_conversations('-1');

-- As in meter_messages, for checkpoints.
create or replace function haive_private.meter_checkpoints()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record;
begin
  if current_setting('persistence.watch', true) like '-%' then
    return null;
  end if;
  if tg_op = 'UPDATE' then
    for v in
      select u.tenant_id, sum(u.bytes)::bigint as bytes
      from (
        select
          a.tenant_id,
          haive_private.checkpoint_bytes(
            a.payload, a.sealed, a.metadata, a.tags, a.search
          ) as bytes
        from added as a
        union all
        select
          r.tenant_id,
          -haive_private.checkpoint_bytes(
            r.payload, r.sealed, r.metadata, r.tags, r.search
          ) as bytes
        from removed as r
      ) as u
      group by u.tenant_id
      having sum(u.bytes) <> 0
    loop
      perform haive_private.meter(v.tenant_id, 0, v.bytes);
    end loop;
    return null;
  end if;
  for v in
    select
      c.tenant_id,
      tg_argv[0]::int * sum(
        haive_private.checkpoint_bytes(c.payload, c.sealed, c.metadata, c.tags, c.search)
      )::bigint as bytes
    from changed as c
    group by c.tenant_id
  loop
    perform haive_private.meter(v.tenant_id, 0, v.bytes);
  end loop;
  return null;
end;
$$;

alter function haive_private.meter_checkpoints() owner to haive_writer;

comment on function haive_private.meter_checkpoints() is
'Counts checkpoints that a statement wrote or removed.';

create trigger meter_added after insert on haive.checkpoints
referencing new table as changed
for each statement execute function haive_private.meter_checkpoints('1');

create trigger meter_changed after update on haive.checkpoints
referencing old table as removed new table as added
for each statement execute function haive_private.meter_checkpoints();

create trigger meter_removed after delete on haive.checkpoints
referencing old table as changed
for each statement execute function haive_private.meter_checkpoints('-1');

-- As in meter_messages, for pending writes.
create or replace function haive_private.meter_checkpoint_writes()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record;
begin
  if current_setting('persistence.watch', true) like '-%' then
    return null;
  end if;
  if tg_op = 'UPDATE' then
    for v in
      select u.tenant_id, sum(u.bytes)::bigint as bytes
      from (
        select a.tenant_id, haive_private.checkpoint_bytes(a.payload) as bytes
        from added as a
        union all
        select r.tenant_id, -haive_private.checkpoint_bytes(r.payload) as bytes
        from removed as r
      ) as u
      group by u.tenant_id
      having sum(u.bytes) <> 0
    loop
      perform haive_private.meter(v.tenant_id, 0, v.bytes);
    end loop;
    return null;
  end if;
  for v in
    select
      c.tenant_id,
      tg_argv[0]::int * sum(haive_private.checkpoint_bytes(c.payload))::bigint as bytes
    from changed as c
    group by c.tenant_id
  loop
    perform haive_private.meter(v.tenant_id, 0, v.bytes);
  end loop;
  return null;
end;
$$;

alter function haive_private.meter_checkpoint_writes() owner to haive_writer;

comment on function haive_private.meter_checkpoint_writes() is
'Counts pending writes that a statement wrote or removed.';

create trigger meter_added after insert on haive.checkpoint_writes
referencing new table as changed
for each statement execute function haive_private.meter_checkpoint_writes('1');

create trigger meter_changed after update on haive.checkpoint_writes
referencing old table as removed new table as added
for each statement execute function haive_private.meter_checkpoint_writes();

create trigger meter_removed after delete on haive.checkpoint_writes
referencing old table as changed
for each statement execute function haive_private.meter_checkpoint_writes('-1');

-- As in meter_messages, for schemas of states.
create or replace function haive_private.meter_checkpoint_schemas()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record;
begin
  if current_setting('persistence.watch', true) like '-%' then
    return null;
  end if;
  if tg_op = 'UPDATE' then
    for v in
      select u.tenant_id, sum(u.bytes)::bigint as bytes
      from (
        select a.tenant_id, haive_private.checkpoint_bytes(a.payload) as bytes
        from added as a
        union all
        select r.tenant_id, -haive_private.checkpoint_bytes(r.payload) as bytes
        from removed as r
      ) as u
      group by u.tenant_id
      having sum(u.bytes) <> 0
    loop
      perform haive_private.meter(v.tenant_id, 0, v.bytes);
    end loop;
    return null;
  end if;
  for v in
    select
      c.tenant_id,
      tg_argv[0]::int * sum(haive_private.checkpoint_bytes(c.payload))::bigint as bytes
    from changed as c
    group by c.tenant_id
  loop
    perform haive_private.meter(v.tenant_id, 0, v.bytes);
  end loop;
  return null;
end;
$$;

alter function haive_private.meter_checkpoint_schemas() owner to haive_writer;

comment on function haive_private.meter_checkpoint_schemas() is
'Counts schemas of states that a statement wrote or removed.';

create trigger meter_added after insert on haive.checkpoint_schemas
referencing new table as changed
for each statement execute function haive_private.meter_checkpoint_schemas('1');

create trigger meter_changed after update on haive.checkpoint_schemas
referencing old table as removed new table as added
for each statement execute function haive_private.meter_checkpoint_schemas();

create trigger meter_removed after delete on haive.checkpoint_schemas
referencing old table as changed
for each statement execute function haive_private.meter_checkpoint_schemas('-1');

-- As in meter_messages, for what is noted of branches. Those without notes count for nothing: whoever
-- begins a thread makes one and goes on to other rows, and must not hold a meter while they wait there.
create or replace function haive_private.meter_branches()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_bytes bigint;
  v record;
begin
  if current_setting('persistence.watch', true) like '-%' then
    return null;
  end if;
  if tg_op = 'UPDATE' then
    v_bytes := case
      when num_nulls(new.metadata, new.sealed) = 2 then 0
      else haive_private.checkpoint_bytes(null, new.sealed, new.metadata)
    end - case
      when num_nulls(old.metadata, old.sealed) = 2 then 0
      else haive_private.checkpoint_bytes(null, old.sealed, old.metadata)
    end;
    if v_bytes <> 0 then
      perform haive_private.meter(new.tenant_id, 0, v_bytes);
    end if;
    return null;
  end if;
  for v in
    select
      c.tenant_id,
      tg_argv[0]::int
      * sum(haive_private.checkpoint_bytes(null, c.sealed, c.metadata))::bigint as bytes
    from changed as c
    where num_nulls(c.metadata, c.sealed) < 2
    group by c.tenant_id
  loop
    perform haive_private.meter(v.tenant_id, 0, v.bytes);
  end loop;
  return null;
end;
$$;

alter function haive_private.meter_branches() owner to haive_writer;

comment on function haive_private.meter_branches() is
'Counts notes of branches that a statement wrote or removed.';

create trigger meter_added after insert on haive.branches
referencing new table as changed
for each statement execute function haive_private.meter_branches('1');

create trigger meter_changed after update of metadata, sealed on haive.branches
for each row execute function haive_private.meter_branches();

create trigger meter_removed after delete on haive.branches
referencing old table as changed
for each statement execute function haive_private.meter_branches('-1');

-- The trigger of the fast path. Of a tenant that is not audited it does nothing, and nearly so fast.
create or replace function haive_private.audit_messages()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_one record;
begin
  if current_setting('persistence.watch', true) like '_-%' then
    return null;
  end if;
  select
    count(*) as n, min(m.tenant_id) as tenant_id, min(m.conversation_id::text) as conversation_id,
    min(m.seq) as seq
  into v_one
  from changed as m;
  if v_one.n = 1 then
    -- What a lone caller waits for: groups of one row cost more than all the rest.
    if
      current_setting('persistence.watch', true) like '_w%'
      or haive_private.is_audited(v_one.tenant_id)
    then
      insert into haive_private.audit_queue (tenant_id, action, object, rows, row_count)
      values (
        v_one.tenant_id, 'insert', 'messages',
        jsonb_build_object(v_one.conversation_id, jsonb_build_array(v_one.seq, v_one.seq)), 1
      );
    end if;
    return null;
  end if;
  insert into haive_private.audit_queue (tenant_id, action, object, rows, row_count)
  select
    g.tenant_id, 'insert', 'messages',
    jsonb_object_agg(g.conversation_id, jsonb_build_array(g.first_seq, g.last_seq))
    filter (where g.place <= 1000)
    || case when count(*) > 1000 then jsonb_build_object('more', count(*) - 1000) else '{}' end,
    sum(g.n)
  from (
    select
      m.tenant_id, m.conversation_id, min(m.seq) as first_seq, max(m.seq) as last_seq,
      count(*) as n, row_number() over (partition by m.tenant_id) as place
    from changed as m
    group by m.tenant_id, m.conversation_id
  ) as g
  group by g.tenant_id
  -- The setting and not a variable: with a parameter this would be planned at each call, for what it
  -- spares where the tenant is known.
  having
    current_setting('persistence.watch', true) like '_w%' or haive_private.is_audited(g.tenant_id);
  return null;
end;
$$;

alter function haive_private.audit_messages() owner to haive_writer;

comment on function haive_private.audit_messages() is
'Puts messages that were added on record: one row a statement and tenant.';

-- The trigger of all other statements: "changed" is the rows they wrote, of deletions those that
-- were there. What a foreign key takes along is no row of its own: it went with what is on record.
create or replace function haive_private.audit_rows()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered text := current_setting('persistence.tenant', true);
  v_tenant text;
  v_rows record;
begin
  if current_setting('persistence.watch', true) like '_-%' then
    return null;
  end if;
  for v_tenant in select distinct c.tenant_id from changed as c loop
    continue when not haive_private.is_audited(v_tenant);
    -- Entered for the while, since the owner's own statements enter none.
    perform set_config('persistence.tenant', v_tenant, true);
    case tg_table_name
      when 'conversations' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            c.id, 1 as n, row_number() over () as place,
            case
              when tg_op = 'DELETE' and c.message_count > 0
                then jsonb_build_array(1, c.message_count)
            end as detail
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'messages' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            c.conversation_id as id, count(*) as n, row_number() over () as place,
            jsonb_build_array(min(c.seq), max(c.seq)) as detail
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.conversations as p
                where p.tenant_id = c.tenant_id and p.id = c.conversation_id
              )
            )
          group by c.conversation_id
        ) as g;
      when 'sessions' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.id, c.parent_id as detail, 1 as n, row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.conversations as p
                where p.tenant_id = c.tenant_id and p.id = c.id
              )
            )
        ) as g;
      when 'session_segments' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.session_id as id, c.number as detail, 1 as n, row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.sessions as p
                where p.tenant_id = c.tenant_id and p.id = c.session_id
              )
            )
        ) as g;
      when 'session_merges' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            c.id, jsonb_build_array(c.session_id, c.secondary_id) as detail, 1 as n,
            row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.sessions as p
                where p.tenant_id = c.tenant_id and p.id = c.session_id
              )
            )
        ) as g;
      when 'members' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.user_id as id, c.role as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'threads' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.thread_key as id, null as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'branches' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.branch_id as id, c.thread_key as detail, 1 as n, row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.threads as p
                where p.tenant_id = c.tenant_id and p.thread_key = c.thread_key
              )
            )
        ) as g;
      when 'checkpoints' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.id, c.thread_key as detail, 1 as n, row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.branches as p
                where p.tenant_id = c.tenant_id and p.branch_id = c.branch_id
              )
            )
        ) as g;
      when 'checkpoint_writes' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            c.checkpoint_id as id, c.thread_key as detail, count(*) as n,
            row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.threads as p
                where p.tenant_id = c.tenant_id and p.thread_key = c.thread_key
              )
            )
          group by c.thread_key, c.checkpoint_id
        ) as g;
      when 'checkpoint_schemas' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            encode(c.hash, 'hex') as id, c.key_id as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'invitations' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.id, c.role as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'erasures' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            encode(c.subject_hash, 'hex') as id, c.counts as detail, 1 as n,
            row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'tenant_keys' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.key_id as id, c.status as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
    end case;
    insert into haive_private.audit_queue (tenant_id, action, object, rows, row_count)
    select
      v_tenant, lower(tg_op), tg_table_name,
      v_rows.ids || case
        when v_rows.places > 1000 then jsonb_build_object('more', v_rows.places - 1000) else '{}'
      end,
      v_rows.n
    where v_rows.n > 0;
  end loop;
  perform set_config('persistence.tenant', coalesce(v_entered, ''), true);
  return null;
end;
$$;

alter function haive_private.audit_rows() owner to haive_writer;

comment on function haive_private.audit_rows() is
'Puts what a statement wrote on record: one row for each tenant, with the ids of the rows.';

-- The trigger of tables whose rows are rewritten by what others do, counters and heads: it is asked
-- only where a statement sets one of the columns that it names. And of tenants, of which it tells
-- how they are switched.
create or replace function haive_private.audit_row()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_tenant text := coalesce(new.tenant_id, old.tenant_id);
  v_changed jsonb;
  v_rows jsonb;
begin
  if tg_table_name = 'tenants' then
    if 'off' = all(array[coalesce(old.audit, 'off'), coalesce(new.audit, 'off')]) then
      return null;
    end if;
  elsif
    current_setting('persistence.watch', true) like '_-%' or not haive_private.is_audited(v_tenant)
  then
    return null;
  end if;
  if tg_op = 'UPDATE' then
    select coalesce(jsonb_agg(n.key order by n.key), '[]') into v_changed
    from jsonb_each(to_jsonb(new)) as n
    join jsonb_each(to_jsonb(old)) as o on o.key = n.key
    where o.value is distinct from n.value and n.key <> 'updated_at';
  end if;
  case tg_table_name
    when 'conversations' then
      v_rows := jsonb_build_object(new.id, v_changed);
    when 'sessions' then
      v_rows := jsonb_build_object(new.id, v_changed);
    when 'branches' then
      v_rows := jsonb_build_object(new.branch_id, v_changed);
    when 'tenants' then
      v_rows := jsonb_strip_nulls(jsonb_build_object(
        'changed', v_changed,
        'status', coalesce(new.status, old.status),
        'isolation', coalesce(new.isolation, old.isolation),
        'audit', coalesce(new.audit, old.audit),
        'encrypted', coalesce(new.encrypted, old.encrypted)
      ));
  end case;
  insert into haive_private.audit_queue (tenant_id, action, object, rows, row_count)
  values (v_tenant, lower(tg_op), tg_table_name, v_rows, 1);
  return null;
end;
$$;

alter function haive_private.audit_row() owner to haive_writer;

comment on function haive_private.audit_row() is
'Puts one row on record, of an update with the names of the columns that it changed.';

-- At the commit: gives what waits its place in the log of its tenant. The head of the chain is locked
-- from here to the end of the commit and no longer, and after it nothing else is.
create or replace function haive_private.chain_audit()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_head record;
begin
  -- No longer needed, and before the lock of the head.
  delete from haive_private.audit_queue as q where q.ctid = new.ctid;
  loop
    update haive_private.audit_heads as h
    set
      seq = h.seq + 1,
      hash = sha256(h.hash || convert_to(
        haive_private.audit_entry(row(
          new.tenant_id, h.seq + 1, new.at, new.actor, new.login, new.role, new.action,
          new.object, new.rows, new.row_count, new.address, new.application, new.request_id, null
        )::haive.audit_log),
        'UTF8'
      ))
    where h.tenant_id = new.tenant_id
    returning h.seq, h.hash into v_head;
    exit when found;
    insert into haive_private.audit_heads (tenant_id) values (new.tenant_id)
    on conflict do nothing;
  end loop;
  insert into haive.audit_log (
    tenant_id, seq, at, actor, login, role, action, object, rows, row_count, address,
    application, request_id, hash
  )
  values (
    new.tenant_id, v_head.seq, new.at, new.actor, new.login, new.role, new.action, new.object,
    new.rows, new.row_count, new.address, new.application, new.request_id, v_head.hash
  );
  return null;
end;
$$;

alter function haive_private.chain_audit() owner to haive_writer;

comment on function haive_private.chain_audit() is
'Moves a row from the queue to the end of its tenant''s log, chained to the row before it.';

-- Grants close the log to all but its owner; this, to the owner's mistakes too. Who disables the
-- trigger on purpose leaves a chain that does not hold.
create or replace function haive_private.refuse_audit_changes()
returns trigger
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  raise exception using
    errcode = 'PT403',
    message = 'the audit log is only added to',
    hint = 'What was put on record stays.';
end;
$$;

comment on function haive_private.refuse_audit_changes() is
'Refuses every update, deletion and truncation of the audit log.';

-- A trigger with a transition table has one event and no columns, hence one for each.
create constraint trigger chain_audit after insert on haive_private.audit_queue
deferrable initially deferred for each row execute function haive_private.chain_audit();

create trigger refuse_audit_changes before update or delete or truncate on haive.audit_log
for each statement execute function haive_private.refuse_audit_changes();

create trigger audit_changes after insert or update or delete on haive.tenants
for each row execute function haive_private.audit_row();

create trigger audit_insert after insert on haive.members
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive.members
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.members
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.conversations
referencing new table as changed for each statement execute function haive_private.audit_rows();
-- Not the counters and times that messages move.
create trigger audit_update
after update of tenant_id, id, agent_id, user_id, title, tags, context, participants, settings,
created_at, updated_at, sealed, sealed_with on haive.conversations
for each row execute function haive_private.audit_row();
create trigger audit_delete after delete on haive.conversations
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.messages
referencing new table as changed for each statement execute function haive_private.audit_messages();
create trigger audit_update after update on haive.messages
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.messages
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.threads
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive.threads
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.threads
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.branches
referencing new table as changed for each statement execute function haive_private.audit_rows();
-- Not the head that a checkpoint moves: the checkpoint is on record.
create trigger audit_update
after update of tenant_id, branch_id, thread_key, name, root_branch_id, root_seq, metadata, sealed,
key_id, created_at on haive.branches
for each row execute function haive_private.audit_row();
create trigger audit_delete after delete on haive.branches
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.checkpoints
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive.checkpoints
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.checkpoints
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.checkpoint_writes
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive.checkpoint_writes
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.checkpoint_writes
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.checkpoint_schemas
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive.checkpoint_schemas
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.checkpoint_schemas
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.invitations
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive.invitations
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.invitations
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.erasures
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive.erasures
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.erasures
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive_private.tenant_keys
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive_private.tenant_keys
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive_private.tenant_keys
referencing old table as changed for each statement execute function haive_private.audit_rows();

insert into haive_private.migrations (version, name) values
  ('20261122121500', 'tenant_triggers')
on conflict do nothing;
