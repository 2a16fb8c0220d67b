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

comment on function haive_private.cut_events(text, pg_snapshot) is
'What can be seen now of a tenant''s outbox, as the snapshot up to which a reader has read then.';
