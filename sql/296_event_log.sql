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
