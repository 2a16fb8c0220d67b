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

-- When it is asked: see meter_added of messages.
create trigger meter_added after insert on haive.checkpoints
referencing new table as changed
for each statement when ((current_setting('persistence.watch', true) like '%---') is not true)
execute function haive_private.meter_checkpoints('1');

create trigger meter_changed after update on haive.checkpoints
referencing old table as removed new table as added
for each statement execute function haive_private.meter_checkpoints();

create trigger meter_removed after delete on haive.checkpoints
referencing old table as changed
for each statement execute function haive_private.meter_checkpoints('-1');
