-- Definer, for nobody writes tables directly.
create or replace function haive_private.keep_watch(p_tenant text, p_channel text, p_way text)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  if p_way not in ('notify', 'realtime') then
    raise exception using
      errcode = 'PT422',
      message = 'watch is neither notify nor realtime',
      hint = 'notify wakes who listens on a direct connection, realtime who has joined the topic.';
  end if;
  if exists (
    select from haive_private.watches as w
    where
      w.tenant_id = p_tenant and w.channel = p_channel and w.way = p_way
      and w.expires_at > now() + interval '75 seconds'
  ) then
    return false;
  end if;
  delete from haive_private.watches as w
  where
    (w.tenant_id, w.channel, w.way) in (
      select o.tenant_id, o.channel, o.way from haive_private.watches as o
      where o.tenant_id = p_tenant and o.expires_at < now() - interval '5 minutes'
      limit 100
      for update skip locked
    );
  insert into haive_private.watches as w (tenant_id, channel, way, expires_at)
  values (p_tenant, p_channel, p_way, now() + interval '150 seconds')
  on conflict (tenant_id, channel, way) do update set expires_at = excluded.expires_at;
  return true;
end;
$$;

alter function haive_private.keep_watch(text, text, text) owner to haive_writer;

comment on function haive_private.keep_watch(text, text, text) is
'Asks for hints of a channel for the next 150 seconds; whether that had to be written.';
