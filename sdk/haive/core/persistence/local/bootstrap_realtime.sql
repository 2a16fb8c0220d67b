-- Run after bootstrap_platform.sql, as the superuser: schema realtime as on hosted. The server in
-- realtime/ reads realtime.messages from the write-ahead log and asks its policies who may what.

-- Owner of the table, with postgres as a member: so it may make policies, which on hosted an
-- extension lets it do.
create role supabase_realtime_admin nologin noinherit;
grant supabase_realtime_admin to postgres;

create schema realtime;
grant all on schema realtime to supabase_realtime_admin;
grant usage on schema realtime to anon, authenticated, service_role;
grant usage on schema realtime to postgres with grant option;

-- Partitions by day: realtime/partitions.sql makes them ahead of time.
create table realtime.messages (
  topic text not null,
  extension text not null,
  payload jsonb,
  event text,
  private boolean default false,
  updated_at timestamp not null default now(),
  inserted_at timestamp not null default now(),
  id uuid not null default gen_random_uuid(),
  binary_payload bytea,
  constraint messages_pkey primary key (id, inserted_at),
  constraint messages_payload_exclusive check (payload is null or binary_payload is null)
) partition by range (inserted_at);
comment on table realtime.messages is
  'Broadcasts from the database. Its policies say who may join and send to private channels.';
alter table realtime.messages owner to supabase_realtime_admin;
alter table realtime.messages enable row level security;
grant select, insert, update on realtime.messages to anon, authenticated, service_role;
grant select, insert on realtime.messages to postgres with grant option;

-- What a joining channel with `replay` asks for.
create index messages_inserted_at_topic_index on realtime.messages (inserted_at desc, topic)
  where extension = 'broadcast' and private;

create function realtime.topic() returns text
language sql stable
set search_path = ''
as $$
  select nullif(current_setting('realtime.topic', true), '')
$$;
comment on function realtime.topic() is
  'The channel that is joined or sent to: for policies on realtime.messages.';

create function realtime.send(
  payload jsonb, event text, topic text, private boolean default true
) returns void
language plpgsql
set search_path = ''
as $$
declare
  message_id constant uuid := gen_random_uuid();
begin
  perform set_config('realtime.topic', topic, true);
  insert into realtime.messages (id, topic, extension, event, private, payload)
  values (
    message_id, topic, 'broadcast', event, private,
    -- Fails for what is no object.
    case when payload ? 'id' then payload else jsonb_set(payload, '{id}', to_jsonb(message_id)) end
  );
exception when others then
  raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
end
$$;
comment on function realtime.send(jsonb, text, text, boolean) is
  'Broadcasts to the clients of a channel when the transaction commits. Errors become warnings.';

create function realtime.broadcast_changes(
  topic_name text,
  event_name text,
  operation text,
  table_name text,
  table_schema text,
  new record,
  old record,
  level text default 'ROW'
) returns void
language plpgsql
set search_path = ''
as $$
begin
  if level = 'STATEMENT' then
    raise exception 'function can only be triggered for each row, not for each statement';
  end if;
  perform realtime.send(
    jsonb_build_object(
      'schema', table_schema,
      'table', table_name,
      'operation', operation,
      'record', new,
      'old_record', old
    ),
    event_name,
    topic_name
  );
end
$$;
comment on function realtime.broadcast_changes(text, text, text, text, text, record, record, text)
  is 'Broadcasts a changed row to a private channel, from a trigger for each row.';

alter function realtime.topic() owner to supabase_realtime_admin;

create publication supabase_realtime_messages_publication for table realtime.messages;

-- A migration adds the tables whose changes clients may listen to.
create publication supabase_realtime;
alter publication supabase_realtime owner to postgres;
