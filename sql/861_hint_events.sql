-- Hints are sent where somebody watches: a notification of every commit would have all commits of
-- the database wait for each other, which Postgres does to keep notifications in order.
create or replace function haive_private.hint_events()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_hint record;
begin
  -- The rows of a tenant that moves are no news.
  if current_setting('persistence.watch', true) = '--' then
    return null;
  end if;
  if not exists (
    select from haive_private.watches as w
    where
      w.tenant_id = current_setting('persistence.tenant', true)
      and w.expires_at > clock_timestamp()
  ) then
    return null;
  end if;
  for v_hint in
    select w.way, 'haive:' || w.tenant_id || ':' || w.channel as topic, max(a.id) as id
    from added as a
    left join haive.threads as t on t.tenant_id = a.tenant_id and t.thread_key = a.thread_key
    cross join lateral (
      values
      ('tenant'),
      (case when a.conversation_id is not null then 'conversations' end),
      ('conversation:' || a.conversation_id),
      ('session:' || a.conversation_id),
      (case when a.thread_key is not null then 'agent_states' end),
      ('thread:' || t.thread_id)
    ) as c (channel)
    join haive_private.watches as w on w.tenant_id = a.tenant_id and w.channel = c.channel
    where w.expires_at > clock_timestamp()
    group by w.tenant_id, w.channel, w.way
  loop
    if v_hint.way = 'notify' then
      perform pg_notify('haive', v_hint.topic);
    else
      perform haive_private.send_hint(v_hint.topic, v_hint.id);
    end if;
  end loop;
  return null;
end;
$$;

alter function haive_private.hint_events() owner to haive_writer;

comment on function haive_private.hint_events() is
'Wakes those who watch a channel that something happened in: by NOTIFY on the channel named as this '
'schema, whose payload is the topic, or on the topic of Supabase Realtime.';

-- A table without a page has no row: where nobody ever watched, nothing is asked.
create trigger hint_events after insert on haive.events
referencing new table as added
for each statement when (pg_relation_size('haive_private.watches', 'main') > 0)
execute function haive_private.hint_events();
