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
