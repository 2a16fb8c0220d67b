create or replace function haive_private.session_status_now(p_row haive.sessions)
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  -- Expired at once, whenever the job comes by.
  return case
    when p_row.status = 'open' and p_row.active_at + p_row.ttl * interval '1 second' <= now()
      then 'expired'
    else p_row.status::text
  end;
end;
$$;

comment on function haive_private.session_status_now(haive.sessions) is
'The status of a session at this moment, by the clock of the database.';

create or replace function haive_private.refuse_closed_session(p_row haive.sessions)
returns void
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_status text := haive_private.session_status_now(p_row);
begin
  if v_status <> 'open' then
    raise exception using
      errcode = 'PT412',
      message = format('the session %s is %s', p_row.id, v_status),
      detail = json_build_object('status', v_status, 'successor_id', p_row.successor_id),
      hint = case v_status
        when 'continued' then format('It goes on in the session %s.', p_row.successor_id)
        else 'Open it again with resume.'
      end;
  end if;
end;
$$;

comment on function haive_private.refuse_closed_session(haive.sessions) is
'Refuses a session that takes no writes.';
