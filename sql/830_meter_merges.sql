-- As in meter_messages, for what merges put on record and the segments that they and their undoing make.
-- Neither changes its size afterwards.
create or replace function haive_private.meter_merges()
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
  if tg_table_name = 'session_segments' then
    for v in
      select
        c.tenant_id,
        tg_argv[0]::int
        * sum(haive_private.merge_bytes(cardinality(c.conversation_ids)))::bigint as bytes
      from changed as c
      group by c.tenant_id
    loop
      perform haive_private.meter(v.tenant_id, 0, v.bytes);
    end loop;
    return null;
  end if;
  for v in
    select
      c.tenant_id,
      tg_argv[0]::int
      * sum(haive_private.merge_bytes(0, c.dropped, c.conflicts, c.summary_of))::bigint as bytes
    from changed as c
    group by c.tenant_id
  loop
    perform haive_private.meter(v.tenant_id, 0, v.bytes);
  end loop;
  return null;
end;
$$;

alter function haive_private.meter_merges() owner to haive_writer;

comment on function haive_private.meter_merges() is
'Counts records of merges, and segments of sessions, that a statement wrote or removed.';

create trigger meter_added after insert on haive.session_segments
referencing new table as changed
for each statement execute function haive_private.meter_merges('1');

create trigger meter_removed after delete on haive.session_segments
referencing old table as changed
for each statement execute function haive_private.meter_merges('-1');

create trigger meter_added after insert on haive.session_merges
referencing new table as changed
for each statement execute function haive_private.meter_merges('1');

create trigger meter_removed after delete on haive.session_merges
referencing old table as changed
for each statement execute function haive_private.meter_merges('-1');
