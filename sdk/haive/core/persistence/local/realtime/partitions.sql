-- Partitions of realtime.messages for the next days, today, and yesterday, which it still is
-- somewhere: realtime.send takes the date of its session's time zone. Those past retention are
-- dropped.
do $$
declare
  ahead constant integer := 3;
  kept constant integer := 3;
  day date;
  partition text;
begin
  if to_regclass('realtime.messages') is null then
    return;  -- a cluster from before there was Realtime
  end if;
  perform pg_advisory_xact_lock(hashtext('realtime.messages'));
  for day in select generate_series(current_date - 1, current_date + ahead, interval '1 day') loop
    partition := to_char(day, '"messages_"YYYY_MM_DD');
    if to_regclass('realtime.' || partition) is null then
      execute format(
        'create table realtime.%I partition of realtime.messages for values from (%L) to (%L)',
        partition, day, day + 1
      );
    end if;
  end loop;
  for partition in
    select c.relname
    from pg_catalog.pg_inherits as i
    join pg_catalog.pg_class as c on c.oid = i.inhrelid
    where i.inhparent = 'realtime.messages'::regclass
      and c.relname < to_char(current_date - kept, '"messages_"YYYY_MM_DD')
  loop
    execute format('drop table realtime.%I', partition);
  end loop;
end
$$;
