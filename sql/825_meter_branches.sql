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
