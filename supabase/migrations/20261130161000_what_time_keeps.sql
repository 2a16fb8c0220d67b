-- What somebody goes on with is kept, and nothing until a date to come: items from when they were last put,
-- what memories were made into, and writes of a thread that is pruned meanwhile. Conversations whose last
-- message is of a later hour than now are set to now. A floor of events names the log that it is of.
set local lock_timeout = '10s';

-- Dates to come that were taken before keep a conversation till then. They are few, found by their
-- index; a row of what is written now is in the hour that it is, and nobody waits for it.
with ahead as (
  select c.tenant_id, c.id from haive.conversations as c
  where c.active_hour > now()
  order by c.tenant_id, c.id
  for no key update
)
update haive.conversations as c
set last_message_at = now()
from ahead as a
where c.tenant_id = a.tenant_id and c.id = a.id;

grant usage, create on schema haive_private to haive_writer;

alter table haive_private.event_floors
add column log text collate "C",
alter column log set storage plain;

comment on column haive_private.event_floors.log is
'The log that xid is a number of, as cursors name it: one that came with a dump is of another.';

-- Numbers of transactions mean something in one cluster only, and there on one timeline: a replica that is
-- promoted, or a recovery to a point in time, gives some of them out again. The first timeline is not named.
create or replace function haive_private.event_log()
returns text
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return (
    select
      left(
        md5(
          concat(
            c.system_identifier,
            nullif(left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), '00000001')
          )
        ),
        8
      )
    from pg_control_system() as c
  );
end;
$$;

alter function haive_private.event_log() owner to haive_writer;

comment on function haive_private.event_log() is
'Names the cluster and its timeline, of which cursors and floors of events are.';

-- A cut of the outbox: the transactions whose events can be seen now, as a snapshot.
--
-- It ends with the newest event that is seen, and not with the newest transaction of the server. A
-- transaction that comes to nothing leaves no trace on the disk, so a crash can give its number out
-- again, and a reader who had counted it as seen would skip the one that bears it then. What an
-- event that was seen bears is on the disk, with all numbers below it. And the cut of a tenant that
-- rests does not change.
--
-- A floor of another log came with a dump, and says nothing of the transactions here.
create or replace function haive_private.cut_events(p_tenant text, p_seen pg_snapshot)
returns pg_snapshot
language plpgsql
stable
security definer
set search_path = ''
set enable_seqscan = off
as $$
declare
  -- Of the caller's snapshot, as what is read below: the function is stable.
  v_now pg_snapshot := pg_current_snapshot();
  -- A snapshot has its own transaction for done; what it writes later would be skipped.
  v_own xid8 := pg_current_xact_id_if_assigned();
  v_end numeric;
  v_running xid8[];
begin
  v_end := greatest(
    (
      select e.xid::text::numeric + 1 from haive.events as e
      where
        e.tenant_id = p_tenant and pg_visible_in_snapshot(e.xid, v_now)
        and e.xid is distinct from v_own
      order by e.tenant_id desc, e.xid desc, e.id desc
      limit 1
    ),
    (
      select f.xid::text::numeric + 1 from haive_private.event_floors as f
      where f.tenant_id = p_tenant and f.log = haive_private.event_log()
    ),
    pg_snapshot_xmax(p_seen)::text::numeric,
    3
  );
  v_running := array(
    select r.xid
    from (
      select s.xid from pg_snapshot_xip(v_now) as s (xid)
      union
      select v_own where v_own is not null
    ) as r
    where r.xid::text::numeric < v_end
    order by r.xid
  );
  return (
    coalesce(v_running[1]::text, v_end::text) || ':' || v_end || ':' || array_to_string(v_running, ',')
  )::pg_snapshot;
end;
$$;

alter function haive_private.cut_events(text, pg_snapshot) owner to haive_writer;

-- Reading the outbox in the order of commits.
--
-- A cursor is a cut: the set of transactions whose events have been read, as a snapshot of Postgres
-- (its oldest and newest number, and those between that still ran). What a cut of now has and the
-- cursor's has not is what is new. Nothing is skipped: a transaction that commits late is in no cut
-- until it is seen in one, and is then new in that one. Nothing comes twice: it is in all later ones.
-- Nobody waits: a transaction that writes for an hour holds back its own events and no others, and
-- costs readers one more number in their cursor.
--
-- The order. Within what is new, by id. Of one conversation that is the order of its changes:
-- whoever changes it holds its row until the end, and takes the event's id while holding it. So the
-- later change has the greater id, and was committed by somebody who began to hold the row after the
-- earlier change was visible: a cut that has the later one has the earlier one too. By number of
-- transaction it would not be: those are given before the wait for the row. The same holds for a
-- branch of a thread, whose row a save holds.
--
-- Pages. What is long is read in pages by id, and the cut it ends with stays in the cursor meanwhile:
-- from/to/id. A page is thus a beginning, by id, of a set that is fixed.
--
-- Definer, for users have no right on the table.
create or replace function haive_private.read_events(
  p_tenant text, p_channel text, p_after text, p_page_size int, p_watch text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, false);
  v_kind text := split_part(p_channel, ':', 1);
  v_log text;
  v_parts text[] := string_to_array(p_after, '/');
  v_streams uuid[];
  v_seen pg_snapshot;
  v_upto pg_snapshot;
  v_last bigint := 0;
  v_fresh boolean := false;
  v_more boolean := false;
  v_floor xid8;
  v_next text;
  v_count int := 0;
  v_events json := '[]';
begin
  if (p_page_size between 1 and 5000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 5000',
      hint = 'Read on with after, the next of the page.';
  elsif
    p_channel is null
    or not (
      p_channel in ('tenant', 'conversations', 'agent_states')
      or p_channel ~ '^(conversation|session):[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
      or p_channel ~ '^thread:.{1,200}$'
    )
  then
    raise exception using
      errcode = 'PT422',
      message = 'there is no such channel',
      hint = 'Channels are tenant, conversations, agent_states, conversation:ID, session:ID and thread:ID.';
  elsif p_after <> '0' and p_after !~ '^[0-9a-f]{8}/(0|[0-9]+:[0-9]+:[0-9,]*)(/[0-9]+:[0-9]+:[0-9,]*/[0-9]{1,18})?$' then
    raise exception using
      errcode = 'PT422',
      message = 'after is no cursor',
      hint = 'It is the next of a page or the cursor of an event; 0 is the oldest that is kept.';
  elsif pg_is_in_recovery() then
    raise exception using
      errcode = 'PT422',
      message = 'events are read on the primary',
      hint = 'A replica does not know which transactions still run.';
  end if;
  v_log := haive_private.event_log();
  if not haive_private.may_watch(v_caller.tenant, v_caller.actor, p_channel, false) then
    raise exception using
      errcode = case when v_kind = 'tenant' then 'PT403' else 'PT404' end,
      message = format('no channel %s', left(p_channel, 250)),
      hint = 'What it is of was deleted, or is not the caller''s to see.';
  end if;

  if v_kind in ('conversation', 'session') then
    v_streams := array[substr(p_channel, length(v_kind) + 2)::uuid];
    -- Who begins is told of a wrong id; who reads on may hear that it was deleted.
    if p_after is null and not exists (
      select from haive.conversations as c
      where c.tenant_id = v_caller.tenant and c.id = v_streams[1]
    ) then
      raise exception using
        errcode = 'PT404',
        message = format('no conversation %s', v_streams[1]),
        hint = 'It was deleted, belongs to another tenant, or is not the caller''s to see.';
    end if;
  elsif v_kind = 'thread' then
    v_streams := array(
      select t.thread_key from haive.threads as t
      where
        t.thread_id = substr(p_channel, 8) and t.tenant_id = v_caller.tenant
        and (v_caller.actor is null or t.user_id = v_caller.actor)
    );
  end if;
  if p_watch is not null then
    -- What was written before the watch is known sends no hint: look once more.
    v_more := haive_private.keep_watch(v_caller.tenant, p_channel, p_watch);
  end if;

  if p_after is null then
    v_seen := haive_private.cut_events(v_caller.tenant, null);
    v_next := v_log || '/' || v_seen;
  else
    if p_after <> '0' then
      v_seen := nullif(v_parts[2], '0')::pg_snapshot;
      v_upto := v_parts[3]::pg_snapshot;
      v_last := coalesce(v_parts[4]::bigint, 0);
      select f.xid into v_floor from haive_private.event_floors as f
      where f.tenant_id = v_caller.tenant and f.log = v_log;
      if
        v_parts[1] <> v_log
        or pg_snapshot_xmax(coalesce(v_upto, v_seen)) > pg_snapshot_xmax(pg_current_snapshot())
        or v_floor >= pg_snapshot_xmin(v_seen)
      then
        raise exception using
          errcode = 'PT416',
          message = 'the cursor is older than the events that are kept, or of another database',
          hint = 'Read the present state anew, and go on from null.';
      end if;
    end if;
    loop
      v_fresh := v_upto is null;
      if v_fresh then
        v_upto := haive_private.cut_events(v_caller.tenant, v_seen);
      end if;
      select
        count(*), max(r.id),
        coalesce(
          json_agg(
            json_build_object(
              'id', r.id, 'kind', r.kind, 'conversation_id', r.conversation_id,
              'first_seq', r.first_seq, 'last_seq', r.last_seq, 'thread', t.thread_id,
              'namespace', t.namespace, 'checkpoint_id', r.checkpoint_id,
              'created_at', r.created_at
            )
            order by r.id
          ),
          '[]'
        )
      into v_count, v_last, v_events
      from haive_private.event_rows(
        v_caller.tenant, v_streams, v_seen, v_upto, v_last,
        case when v_kind in ('conversations', 'agent_states') then v_kind end,
        case when v_streams is null then v_caller.actor end,
        p_page_size
      ) as r
      left join haive.threads as t on t.tenant_id = r.tenant_id and t.thread_key = r.thread_key;
      exit when v_fresh or v_count > 0;
      -- The end of what was new when the page before was read.
      v_seen := v_upto;
      v_upto := null;
      v_last := 0;
    end loop;
    v_next := case
      when v_count = p_page_size
        then concat_ws('/', v_log, coalesce(v_seen::text, '0'), v_upto, v_last)
      else v_log || '/' || v_upto
    end;
    v_more := v_more or v_count = p_page_size or not v_fresh;
    if v_caller.audit_reads and v_count > 0 then
      perform haive_private.audit_read(
        'read_events', jsonb_build_object(p_channel, v_count), v_count
      );
    end if;
  end if;
  return json_build_object(
    'events', v_events,
    'window', case
      when v_upto is not null then concat_ws('/', v_log, coalesce(v_seen::text, '0'), v_upto)
    end,
    'next', v_next,
    'more', v_more,
    'topic', 'haive:' || v_caller.tenant || ':' || p_channel
  );
end;
$$;

alter function haive_private.read_events(text, text, text, int, text) owner to haive_writer;

-- Of all collections, a batch: of a user who is erased, with what was made of the conversations that they
-- still have, whoever's it is called; or last said or changed longer ago than a tenant keeps. What is left
-- of their words in rows of writers is gathered in the end, and so removed.
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
  -- Items that nobody has put since have the time of their last writing here alone.
  v_written constant text := $q$
    coalesce(
      t.metadata ->> 'renewed_at',
      case
        when t.metadata ?& array['namespace', 'key', 'path', 'value', 'parts']
          then t.metadata ->> 'timestamp'
      end,
      t.metadata ->> 'created_at'
    ) collate "C"
  $q$;
  v_doomed text;
  v_ids text[];
  v_count bigint := 0;
begin
  for v in select c.* from haive_private.memory_collections as c order by c.name loop
    v_doomed := case
      when p_user_id is null then format(
        $q$
          %2$s < $3
          -- What is made of others, however far above them, would go with them.
          and not exists (
            with recursive above as (
              select o.id, o.metadata ->> 'renewed_at' as renewed_at from vecs.%1$I as o
              where
                o.tenant_id = $1
                and o.metadata @> jsonb_build_object('sources', jsonb_build_array(t.id))
              union
              select o.id, o.metadata ->> 'renewed_at' from above as a
              join vecs.%1$I as o
                on o.metadata @> jsonb_build_object('sources', jsonb_build_array(a.id))
              where o.tenant_id = $1
            )
            select from above as a where a.renewed_at collate "C" >= $3
          )
        $q$, v.table_name, v_written
      )
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
    end;
    execute format(
      $q$
        select array(
          select t.id from vecs.%1$I as t
          where t.tenant_id = $1 and %2$s
          order by t.id
          limit $4
        )
      $q$, v.table_name, v_doomed
    ) into v_ids using p_tenant, p_user_id, p_before, p_batch - v_count;
    -- Looked at again under their locks and those of what is made of them: somebody may have said one.
    execute format(
      $q$
        with recursive these as (
          select u.id collate "C" from unnest($2) as u (id)
          union
          select o.id from these as a
          join vecs.%1$I as o on o.metadata @> jsonb_build_object('sources', jsonb_build_array(a.id))
          where o.tenant_id = $1
        )
        select from vecs.%1$I as t
        where t.tenant_id = $1 and t.id in (select a.id from these as a)
        order by t.id
        for update
      $q$, v.table_name
    ) using p_tenant, v_ids;
    execute format(
      $q$
        with gone as (
          delete from vecs.%1$I as t
          where t.tenant_id = $1 and t.id = any($4) and %2$s
          returning t.id
        )
        select coalesce(array_agg(g.id), '{}') from gone as g
      $q$, v.table_name, v_doomed
    ) into v_ids using p_tenant, p_user_id, p_before, v_ids;
    v_count := v_count + cardinality(v_ids);
    if cardinality(v_ids) > 0 then
      v_count := v_count + haive_private.unquote_memories(p_tenant, v.table_name, v_ids);
      perform pg_advisory_xact_lock(
        hashtextextended('haive/memory words/' || p_tenant || '/' || v.name, 0)
      );
      perform haive_private.gather_memory_words(p_tenant, v.name, null);
    elsif p_user_id is null then
      -- What somebody dates ahead, by more than clocks differ, counts from now, or it would be kept till
      -- then. Where it may not be written to (a limit, an erased user, sealed by now) it waits for that.
      begin
        execute format(
          $q$
            update vecs.%1$I as t set metadata = t.metadata || jsonb_build_object('renewed_at', $2)
            where t.tenant_id = $1 and %2$s > $3
          $q$, v.table_name, v_written
        ) using
          p_tenant, haive_private.time_text(clock_timestamp()),
          haive_private.time_text(clock_timestamp() + interval '1 hour');
      exception
        when sqlstate 'PGRST' or sqlstate 'PT410' or sqlstate 'PT422' or sqlstate 'PT429' then
          null;
      end;
    end if;
    exit when v_count >= p_batch;
  end loop;
  return v_count;
end;
$$;

alter function haive_private.drop_memories(text, text, text, int) owner to haive_writer;

-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.put_memory_items(
  p_tenant text, p_collection text, p_items jsonb
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, true);
  v_ids text[];
  v_bucket int;
  v_there jsonb;
  v_now timestamptz;
  v_memories jsonb;
begin
  if jsonb_typeof(p_items) is distinct from 'array' or jsonb_array_length(p_items) > 1000 then
    raise exception using
      errcode = 'PT422',
      message = 'items is no list of at most 1,000',
      hint = 'Each is {id, namespace, key, value, exact, texts, ttl, user_id}.';
  end if;
  perform from jsonb_array_elements(p_items) as m (item)
  where
    (
      jsonb_typeof(m.item -> 'id') = 'string' and length(m.item ->> 'id') between 1 and 200
      and coalesce(jsonb_typeof(m.item -> 'value'), 'null') = 'null'
      or jsonb_typeof(m.item -> 'id') = 'string' and m.item ->> 'id' ~ '^[0-9a-f-]{36}$'
      and jsonb_typeof(m.item -> 'namespace') = 'array' and jsonb_typeof(m.item -> 'key') = 'string'
      and not jsonb_path_exists(m.item, 'strict $.namespace[*] ? (@.type() != "string")')
      and jsonb_typeof(m.item -> 'value') = 'object'
      and coalesce(jsonb_typeof(m.item -> 'exact'), 'null') in ('null', 'string')
      and coalesce(jsonb_typeof(m.item -> 'user_id'), 'null') in ('null', 'string')
      and jsonb_typeof(coalesce(m.item -> 'texts', '[]')) = 'array'
      and not jsonb_path_exists(m.item, 'lax $.texts[*] ? (!(@.text.type() == "string"))')
      and case jsonb_typeof(coalesce(m.item -> 'ttl', 'null'))
        when 'null' then true when 'number' then (m.item ->> 'ttl')::numeric between 0 and 1e9
      end
    ) is not true;
  if found then
    raise exception using
      errcode = 'PT422',
      message = 'an item is not {id, namespace, key, value, exact, texts, ttl, user_id}',
      hint = 'id is a UUID, namespace a list of texts, value an object, texts a list of {text, vector}, '
        'ttl 0 to 1e9 minutes. One without a value is removed.';
  end if;
  -- An index holds no longer ones.
  perform from jsonb_array_elements(p_items) as m (item)
  where octet_length(haive_private.namespace_path(m.item -> 'namespace')) > 2000;
  if found then
    raise exception using
      errcode = 'PT422',
      message = 'a namespace is too long',
      hint = 'Its labels are at most 2,000 bytes together, and one more for each.';
  end if;

  -- Of those who write an item at once, one after the other, from before it is there. By 64 locks and
  -- in their order, so that nobody waits in a circle and many items need no more.
  select array_agg(distinct m.item ->> 'id') into v_ids from jsonb_array_elements(p_items) as m (item);
  for v_bucket in
    select distinct hashtext(u.id) & 63 as n from unnest(v_ids) as u (id) order by 1
  loop
    perform pg_advisory_xact_lock(
      hashtextextended('haive/memory items/' || v.tenant || '/' || v_bucket, 0)
    );
  end loop;
  -- The first memory of an item before its others: so does who removes what has expired.
  execute format(
    $q$
      select coalesce(jsonb_object_agg(o.id, jsonb_build_object(
        'parts', o.parts, 'created_at', o.created_at
      )), '{}')
      from (
        select
          t.id, t.metadata -> 'parts' as parts,
          case when t.expires_at is null or t.expires_at > $2 then t.metadata ->> 'created_at' end
            as created_at
        from %s as t
        where %s and t.id = any($1)
        order by t.id
        for update
      ) as o
    $q$, v.relation, v.own
  ) into v_there using v_ids, haive_private.time_text(clock_timestamp());

  v_now := clock_timestamp();
  select
    jsonb_agg(jsonb_build_object(
      'id', haive_private.item_part(m.item ->> 'id', p.part),
      'vector', m.item -> 'texts' -> p.part -> 'vector',
      'metadata',
      jsonb_build_object(
        'kind', 'note', 'namespace', m.item -> 'namespace', 'key', m.item -> 'key',
        'path', haive_private.namespace_path(m.item -> 'namespace'), 'value', m.item -> 'value',
        'parts', m.parts, 'timestamp', m.at, 'renewed_at', m.at,
        'created_at', coalesce(v_there -> (m.item ->> 'id') ->> 'created_at', m.at)
      )
      || case
        when m.item -> 'texts' -> p.part is null then '{}'
        else jsonb_build_object('text', m.item -> 'texts' -> p.part -> 'text')
      end
      || case
        when m.item ->> 'exact' is null then '{}' else jsonb_build_object('exact', m.item -> 'exact')
      end
      || case
        when m.item ->> 'user_id' is null then '{}'
        else jsonb_build_object('user_id', m.item -> 'user_id')
      end
      || case
        when m.item ->> 'ttl' is null then '{}'
        else jsonb_build_object(
          'ttl', m.item -> 'ttl',
          'expires_at', haive_private.time_text(
            v_now + make_interval(secs => 60 * (m.item ->> 'ttl')::double precision)
          )
        )
      end
      || case
        when p.part = 0 then '{}'
        else jsonb_build_object('item', m.item -> 'id', 'sources', jsonb_build_array(m.item -> 'id'))
      end
    ))
  into v_memories
  from (
    select distinct on (e.item ->> 'id')
      e.item, greatest(1, jsonb_array_length(coalesce(e.item -> 'texts', '[]'))) as parts,
      haive_private.time_text(v_now + e.place * interval '1 microsecond') as at
    from jsonb_array_elements(p_items) with ordinality as e (item, place)
    order by e.item ->> 'id', e.place desc
  ) as m
  cross join lateral generate_series(0, m.parts - 1) as p (part)
  where jsonb_typeof(m.item -> 'value') = 'object';
  if v_memories is not null then
    perform haive_private.write_memories(v, v_memories, false);
  end if;

  -- What they were before, and are not any more.
  execute format(
    $q$
      delete from %s as t
      where %s and t.id = any(array(
        select haive_private.item_part(o.id, p.part)
        from jsonb_each($1) as o (id, item)
        cross join lateral generate_series(0, coalesce((o.item ->> 'parts')::int, 1) - 1) as p (part)
      )) and t.id <> all($2)
    $q$, v.relation, v.own || case when v.actor is null then '' else ' and t.user_id is not null' end
  ) using
    v_there, array(select w.memory ->> 'id' from jsonb_array_elements(v_memories) as w (memory));
  return cardinality(v_ids);
end;
$$;

alter function haive_private.put_memory_items(text, text, jsonb) owner to haive_writer;

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

-- Copies nothing: a branch is a row that says where it begins.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.create_branch(
  p_tenant text,
  p_from_checkpoint uuid,
  p_name text,
  p_thread_id text,
  p_namespace text,
  p_branch_id uuid,
  p_metadata jsonb,
  p_sealed bytea,
  p_key_id text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_roots haive.checkpoints[];
  v_root haive.checkpoints;
  v_branch haive.branches;
begin
  v_roots := array(
    select c
    from haive.checkpoints as c
    join haive.threads as t on t.tenant_id = c.tenant_id and t.thread_key = c.thread_key
    where
      c.id = p_from_checkpoint and c.tenant_id = v_caller.tenant
      and (p_thread_id is null or (t.thread_id = p_thread_id and t.namespace = p_namespace))
      and (v_caller.actor is null or t.user_id = v_caller.actor)
  );
  if cardinality(v_roots) = 0 then
    raise exception using
      errcode = 'PT404',
      message = format('no checkpoint %s', p_from_checkpoint),
      hint = 'It was pruned, belongs to another tenant, or is not the caller''s to see.';
  elsif cardinality(v_roots) > 1 then
    raise exception using
      errcode = 'PT422',
      message = 'several threads have a checkpoint of this id, for one is a copy',
      hint = 'Pass thread_id too.';
  end if;
  v_root := v_roots[1];
  -- Whoever prunes holds the branches of the thread: then the root may be gone. And the thread, before
  -- them, where it may go as well.
  perform from haive.threads as t
  where t.tenant_id = v_caller.tenant and t.thread_key = v_root.thread_key
  for key share;
  perform from haive.branches as b
  where b.tenant_id = v_caller.tenant and b.branch_id = v_root.branch_id
  for key share;
  select * into v_root from haive.checkpoints as c
  where c.tenant_id = v_caller.tenant and c.branch_id = v_root.branch_id and c.seq = v_root.seq;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no checkpoint %s', p_from_checkpoint),
      hint = 'It was pruned just now.';
  end if;
  insert into haive.branches (
    tenant_id, branch_id, thread_key, name, root_branch_id, root_seq, head_id,
    metadata, sealed, key_id
  )
  values (
    v_caller.tenant, p_branch_id, v_root.thread_key, p_name, v_root.branch_id, v_root.seq,
    v_root.id, p_metadata, p_sealed, p_key_id
  )
  on conflict do nothing
  returning * into v_branch;
  if found then
    insert into haive.events (tenant_id, kind, thread_key, checkpoint_id)
    values (v_caller.tenant, 'branch.created', v_root.thread_key, v_root.id);
  else
    -- A retry finds its own.
    select * into v_branch from haive.branches as b
    where
      b.tenant_id = v_caller.tenant and b.branch_id = p_branch_id
      and b.thread_key = v_root.thread_key and b.name = p_name;
    if not found then
      raise exception using
        errcode = 'PT409',
        message = format('the thread has a branch %s already', left(p_name, 200)),
        hint = 'Choose another name.';
    end if;
  end if;
  -- As tags of a sealed checkpoint are not taken in the clear: nobody with the key would read them.
  -- Last, for of a sealed tenant a trigger has said more.
  if v_root.key_id is not null and p_metadata is not null then
    raise exception using
      errcode = 'PT409',
      message = 'the checkpoint is sealed, and the metadata of the branch is not',
      hint = 'Pass CheckpointConfig(encryption_key=…), or no metadata.';
  end if;
  return (
    select json_build_object(
      'branch_id', v_branch.branch_id, 'name', v_branch.name, 'thread_id', t.thread_id,
      'namespace', t.namespace, 'created_at', v_branch.created_at
    )
    from haive.threads as t
    where t.tenant_id = v_caller.tenant and t.thread_key = v_branch.thread_key
  );
end;
$$;

alter function haive_private.create_branch(
  text, uuid, text, text, text, uuid, jsonb, bytea, text
) owner to haive_writer;

-- Prunes checkpoints and seals them anew. What is removed may be what others are deltas against, so
-- the client, which alone can read them, sends those again as they shall be, and all of it happens
-- in one transaction or, if the thread was changed meanwhile, none of it does. Where nothing is
-- removed, rows that were changed meanwhile are left as they are, and not counted.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.rewrite_checkpoints(
  p_tenant text,
  p_thread_id text,
  p_namespace text,
  p_remove uuid[],
  p_replace jsonb,
  p_writes jsonb,
  p_branches jsonb,
  p_schemas jsonb
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_thread uuid;
  v_left uuid;
  v_replaced bigint;
  v_removed bigint;
begin
  select t.thread_key into v_thread
  from haive.threads as t
  where
    t.thread_id = p_thread_id and t.namespace = p_namespace and t.tenant_id = v_caller.tenant
    and (v_caller.actor is null or t.user_id = v_caller.actor);
  if found and p_namespace <> '' and cardinality(p_remove) > 0 then
    -- It may go as well: who writes to it waits, and who deletes it takes it before its branches.
    perform from haive.threads as t
    where t.thread_key = v_thread and t.tenant_id = v_caller.tenant
    for update;
  end if;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = 'no such thread',
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to change.';
  end if;
  -- Nothing is saved to the thread until this is done.
  perform from haive.branches as b
  where b.thread_key = v_thread and b.tenant_id = v_caller.tenant
  order by b.branch_id
  for update;
  -- A head that shall go too is named, with the one that takes its place or none.
  update haive.branches as b
  set head_id = d.head_id
  from jsonb_to_recordset(p_branches) as d (branch_id uuid, was_head_id uuid, head_id uuid)
  where
    b.tenant_id = v_caller.tenant and b.branch_id = d.branch_id and b.thread_key = v_thread
    and b.head_id = d.was_head_id;
  if exists (
    select from haive.branches as b
    where b.thread_key = v_thread and b.tenant_id = v_caller.tenant and b.head_id = any(p_remove)
  ) then
    raise exception using
      errcode = 'PT409',
      message = 'the head of a branch cannot be removed',
      hint = 'Plan anew: the thread was changed meanwhile.';
  end if;

  update haive.checkpoints as c
  set
    parent_id = d.parent_id, codec = d.codec, size = d.size, key_id = d.key_id,
    base_id = case when d.codec = 3 then d.base_id end,
    depth = case when d.codec >= 2 then d.depth else 0 end,
    payload = decode(d.payload, 'base64'),
    sealed = coalesce(decode(d.sealed, 'base64'), c.sealed),
    metadata = case when d.sealed is null then c.metadata end,
    tags = case when d.sealed is null then c.tags end,
    search = coalesce(d.search, c.search)
  from jsonb_to_recordset(p_replace) as d (
    id uuid, parent_id uuid, was_parent_id uuid, was_key_id text, codec int2, base_id uuid, size int, depth int2,
    key_id text, payload text, sealed text, was_sealed text, search jsonb
  )
  where
    c.id = d.id and c.thread_key = v_thread and c.tenant_id = v_caller.tenant
    and c.parent_id is not distinct from d.was_parent_id
    and c.key_id is not distinct from d.was_key_id
    -- Whoever removed what it was stored against has stored it anew.
    and (
      d.codec <> 3
      or exists (
        select from haive.checkpoints as o
        where o.id = d.base_id and o.thread_key = v_thread and o.tenant_id = v_caller.tenant
      )
    )
    -- Tags of a sealed checkpoint lie in what is replaced: they may have changed meanwhile.
    and (d.sealed is null or c.sealed is not distinct from decode(d.was_sealed, 'base64'));
  get diagnostics v_replaced = row_count;

  update haive.checkpoint_writes as w
  set codec = d.codec, size = d.size, key_id = d.key_id, payload = decode(d.payload, 'base64')
  from jsonb_to_recordset(p_writes) as d (
    checkpoint_id uuid, task_id uuid, idx int, was_key_id text, codec int2, size int, key_id text,
    payload text
  )
  where
    w.tenant_id = v_caller.tenant and w.thread_key = v_thread
    and w.checkpoint_id = d.checkpoint_id and w.task_id = d.task_id and w.idx = d.idx
    and w.key_id is not distinct from d.was_key_id;

  update haive.branches as b
  set sealed = decode(d.sealed, 'base64'), key_id = d.key_id, metadata = null
  from jsonb_to_recordset(p_branches) as d (
    branch_id uuid, was_key_id text, sealed text, key_id text
  )
  where
    b.tenant_id = v_caller.tenant and b.branch_id = d.branch_id and b.thread_key = v_thread
    and b.key_id is not distinct from d.was_key_id and d.sealed is not null;

  update haive.checkpoint_schemas as s
  set payload = decode(d.payload, 'base64'), key_id = d.key_id
  from jsonb_to_recordset(p_schemas) as d (hash text, was_key_id text, payload text, key_id text)
  where
    -- Schemas are shared by all of the tenant: a member must not replace them.
    v_caller.actor is null
    and s.tenant_id = v_caller.tenant and s.hash = decode(d.hash, 'hex')
    and s.key_id is not distinct from d.was_key_id;

  delete from haive.checkpoint_writes as w
  where
    w.tenant_id = v_caller.tenant and w.thread_key = v_thread and w.checkpoint_id = any(p_remove);
  delete from haive.checkpoints as c
  where c.id = any(p_remove) and c.thread_key = v_thread and c.tenant_id = v_caller.tenant;
  get diagnostics v_removed = row_count;
  -- Where nothing goes, each row is for itself: one that was changed meanwhile stays as it is.
  if
    (
      cardinality(p_remove) > 0
      and v_replaced <> coalesce(jsonb_array_length(p_replace), 0)
    )
    or exists (
      select from haive.branches as b
      join haive.checkpoints as c on c.tenant_id = b.tenant_id and c.branch_id = b.branch_id
      where
        b.thread_key = v_thread and b.tenant_id = v_caller.tenant
        and (c.parent_id = any(p_remove) or c.base_id = any(p_remove))
    )
    -- Somebody else may have removed what was to become a parent.
    or exists (
      select from jsonb_to_recordset(p_replace) as d (id uuid)
      join haive.checkpoints as c
        on c.id = d.id and c.thread_key = v_thread and c.tenant_id = v_caller.tenant
      where
        c.parent_id is not null
        and not exists (
          select from haive.checkpoints as p
          where
            p.id = c.parent_id and p.thread_key = v_thread and p.tenant_id = v_caller.tenant
        )
    )
  then
    raise exception using
      errcode = 'PT409',
      message = 'the thread was changed meanwhile',
      hint = 'Plan anew.';
  end if;
  -- A branch that has lost all of its own goes, unless another one begins in it.
  delete from haive.branches as b
  using jsonb_to_recordset(p_branches) as d (branch_id uuid, was_head_id uuid)
  where
    b.tenant_id = v_caller.tenant and b.branch_id = d.branch_id and b.thread_key = v_thread
    and d.was_head_id is not null and b.name <> 'main'
    and not exists (
      select from haive.checkpoints as c
      where c.tenant_id = b.tenant_id and c.branch_id = b.branch_id
    )
    and not exists (
      select from haive.branches as o
      where
        o.thread_key = v_thread and o.tenant_id = b.tenant_id and o.root_branch_id = b.branch_id
    );
  if v_removed > 0 then
    -- Each call of a subgraph has a namespace of its own, which goes with the last that is in it.
    delete from haive.threads as t
    where
      t.thread_key = v_thread and t.tenant_id = v_caller.tenant and t.namespace <> ''
      and not exists (
        select from haive.branches as b
        join haive.checkpoints as c on c.tenant_id = b.tenant_id and c.branch_id = b.branch_id
        where b.tenant_id = t.tenant_id and b.thread_key = t.thread_key
      )
      and not exists (
        select from haive.checkpoint_writes as w
        where w.tenant_id = t.tenant_id and w.thread_key = t.thread_key
      );
    if found then
      -- Told of a part that is left: readers find no events of what is gone.
      select t.thread_key into v_left
      from haive.threads as t
      where t.thread_id = p_thread_id and t.tenant_id = v_caller.tenant
      order by t.namespace
      limit 1;
      insert into haive.events (tenant_id, kind, thread_key)
      values (
        v_caller.tenant,
        case when v_left is null then 'thread.deleted' else 'checkpoints.pruned' end,
        coalesce(v_left, v_thread)
      );
    else
      insert into haive.events (tenant_id, kind, thread_key)
      values (v_caller.tenant, 'checkpoints.pruned', v_thread);
    end if;
  end if;
  return json_build_object('removed', v_removed, 'replaced', v_replaced);
end;
$$;

alter function haive_private.rewrite_checkpoints(
  text, text, text, uuid[], jsonb, jsonb, jsonb, jsonb
) owner to haive_writer;

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
  v_memories bigint;
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
    -- Looked at again under the locks of their branches, which every save takes; as everywhere, those
    -- of the threads come before.
    perform from haive.threads as t
    where t.tenant_id = v_caller.tenant and t.thread_key = any(v_keys)
    order by t.thread_key
    for update;
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
  if not v_more and v_before is not null then
    v_memories := haive_private.drop_memories(
      v_caller.tenant, null,
      to_char(v_before at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), p_batch
    );
    v_more := v_memories > 0;
    v_counts := jsonb_build_object('memories', v_memories);
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
    -- Events that came with a dump have numbers of another cluster, some of which are not reached here.
    select
      count(*), max(g.xid) filter (where g.xid < pg_snapshot_xmax(pg_current_snapshot()))
    into v_events, v_floor
    from gone as g;
    if v_floor is not null then
      insert into haive_private.event_floors as f (tenant_id, xid, log)
      values (v_caller.tenant, v_floor, haive_private.event_log())
      on conflict (tenant_id) do update
      set
        xid = case
          when f.log = excluded.log then greatest(f.xid, excluded.xid)
          else excluded.xid -- the other came with a dump
        end,
        log = excluded.log;
    end if;
    delete from haive.invitations as i
    where
      i.tenant_id = v_caller.tenant
      and least(i.expires_at, i.accepted_at, i.revoked_at) < v_before;
    get diagnostics v_invitations = row_count;
    v_counts := v_counts
      || jsonb_build_object('events', v_events, 'invitations', v_invitations);
  end if;
  return json_build_object(
    'before', v_before,
    'done', not v_more and v_events < p_batch,
    'counts', haive_private.sum_counts(v_counts, '{}')
  );
end;
$$;

alter function haive_private.apply_retention(text, int) owner to haive_writer;

-- Definer, as get_session is.
create or replace function haive_private.list_sessions(
  p_tenant text,
  p_user_id text,
  p_participant text,
  p_agent_id text,
  p_statuses text[],
  p_parent_id uuid,
  p_page_size int,
  p_page_after text,
  p_acting text,
  p_threads boolean
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, false);
  v_actor text := haive_private.act_for(v_caller.trusted, v_caller.actor, p_acting);
  v_owner text := coalesce(p_user_id, p_acting, haive.current_actor());
  v_pairs haive_private.session_pair[];
begin
  if (p_page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on with page_after, the next_page of a page.';
  elsif not pg_input_is_valid(p_page_after, 'uuid') then
    raise exception using
      errcode = 'PT422',
      message = 'page_after is no cursor',
      hint = 'Pass next_page of the page before.';
  elsif p_threads and p_page_after is not null then
    raise exception using
      errcode = 'PT422',
      message = 'page_after is not taken with threads',
      hint = 'They are not in the order of their ids: ask for as many as there may be.';
  end if;
  -- By id, which is the order in which they began; for threading, those of one owner by when somebody
  -- wrote to them last: branches are somebody's excursions, and a room that nobody owns is of those who
  -- take part. Put together from fixed fragments, so that the planner sees only what is asked: the
  -- sessions of an owner are found by the owner.
  -- Somebody may have any number of open ones: a hundred are looked at, by the hours of their last
  -- messages, which have an index. One that was opened again since then is the latest among these.
  execute format(
    $q$
    select array(
      select row(f.s, f.c)::haive_private.session_pair
      from (
        select s, c
        from haive.sessions as s
        join haive.conversations as c on c.tenant_id = s.tenant_id and c.id = s.id
        where s.tenant_id = $1 and c.tenant_id = $1 %s
        order by %s
        limit %s
      ) as f
      order by %s (f.s).id desc
      limit $2
    )
    $q$,
    concat(
      case when p_user_id is not null then 'and c.user_id = $3 ' end,
      case when p_participant is not null then 'and $4 = any(c.participants) ' end,
      case when p_agent_id is not null then 'and c.agent_id = $5 ' end,
      case when p_parent_id is not null then 'and s.parent_id = $6 ' end,
      case
        when p_statuses is null then ''
        when p_threads then 'and ''open'' = any($7) '
        else 'and haive_private.session_status_now(s) = any($7) '
      end,
      case when p_page_after is not null then 'and s.id < $8 ' end,
      case when v_actor is not null then 'and (c.user_id = $9 or $9 = any(c.participants)) ' end,
      -- As session_status_now has it; the status as it is stored has an index.
      case
        when p_threads
          then
            'and s.parent_id is null and s.status = ''open'' '
            'and (s.ttl is null or s.active_at + s.ttl * interval ''1 second'' > now()) '
      end,
      case
        when p_threads and v_owner is null then 'and c.user_id is null and c.participants = ''{}'' '
        when p_threads then 'and c.user_id = $10 '
      end
    ),
    -- The owner as well, or of nobody's the index is not seen to be in this order.
    case when p_threads then 'c.user_id desc, c.active_hour desc, s.active_at desc' else 's.id desc' end,
    case when p_threads then 'greatest($2, 100)' else '$2' end,
    case when p_threads then '(f.s).active_at desc,' end
  )
  into v_pairs
  using
    v_caller.tenant, p_page_size, p_user_id, p_participant, p_agent_id, p_parent_id, p_statuses,
    p_page_after::uuid, v_actor, v_owner;
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'list_sessions',
      (select jsonb_object_agg((p.session).id, null) from unnest(v_pairs) as p),
      cardinality(v_pairs)
    );
  end if;
  return json_build_object(
    'sessions', (
      select coalesce(
        json_agg(haive_private.session_doc(p.session, p.conversation, v_actor) order by p.place),
        '[]'
      )
      from unnest(v_pairs) with ordinality as p (session, conversation, place)
    ),
    'next_page', case
      when p_threads is not true and cardinality(v_pairs) = p_page_size
        then ((v_pairs[p_page_size]).session).id
    end
  );
end;
$$;

alter function haive_private.list_sessions(
  text, text, text, text, text[], uuid, int, text, text, boolean
) owner to haive_writer;

comment on function haive.list_sessions(
  text, text, text, text[], uuid, int, text, text, boolean, text
) is
'Sessions, the latest first: of an owner, a participant, an agent, in some statuses, branches of one; '
'threads: those that a message may go on in now, by when somebody wrote to them last, without pages; with '
'no owner named, of the user who calls, or of nobody where a service does: {sessions, next_page}.';

revoke all on function haive_private.event_log()
from public, anon, authenticated, service_role, haive_client;

-- One that no transaction here has reached came with a dump, and stays of no log.
update haive_private.event_floors as f
set log = haive_private.event_log()
where f.xid < pg_snapshot_xmax(pg_current_snapshot());

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261130161000', 'what_time_keeps')
on conflict do nothing;
