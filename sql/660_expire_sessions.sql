-- Nobody waits for it: a session reads as expired, and takes no writes, from its moment on. The job makes
-- that lasting, and says so to who watches.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.expire_sessions(p_tenant text, p_batch int)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_as_administrator(p_tenant, true);
  v_ids uuid[];
begin
  if (p_batch between 1 and 100000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'batch is not between 1 and 100000',
      hint = 'It is how many rows go in one transaction.';
  end if;
  v_ids := array(
    select s.id from haive.sessions as s
    where
      s.tenant_id = v_caller.tenant and s.status = 'open'
      and s.active_at + s.ttl * interval '1 second' <= now()
    order by s.id
    limit p_batch
    for update skip locked -- who is writing to one keeps it open
  );
  update haive.sessions as s
  set status = 'expired', closed_at = now()
  where s.tenant_id = v_caller.tenant and s.id = any(v_ids);
  insert into haive.events (tenant_id, kind, conversation_id)
  select v_caller.tenant, 'session.updated', u.id from unnest(v_ids) as u (id);
  return cardinality(v_ids);
end;
$$;

alter function haive_private.expire_sessions(text, int) owner to haive_writer;

comment on function haive_private.expire_sessions(text, int) is
'What haive.expire_sessions does, for a caller without rights on the tables.';

create or replace function haive.expire_sessions(batch int default 10000, tenant text default null)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.expire_sessions(expire_sessions.tenant, expire_sessions.batch)
$$;

comment on function haive.expire_sessions(int, text) is
'Closes the sessions of the tenant that have expired, for its administrators, and returns how many; '
'call again until there are none.';
