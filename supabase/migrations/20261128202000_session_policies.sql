-- Policies alone and quickly: creating one can lock tables of the platform until the commit.
set local lock_timeout = '2s';

create policy "members read the merges of sessions they read" on haive.session_merges
for select to authenticated
using (
  exists (
    select from haive.conversations as c
    where c.tenant_id = session_merges.tenant_id and c.id = session_merges.session_id
  )
);

create policy "services work in the tenant they entered" on haive.session_merges
for all to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "members read the segments of sessions they read" on haive.session_segments
for select to authenticated
using (
  exists (
    select from haive.conversations as c
    where c.tenant_id = session_segments.tenant_id and c.id = session_segments.session_id
  )
);

create policy "services work in the tenant they entered" on haive.session_segments
for all to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "members read the sessions of conversations they read" on haive.sessions
for select to authenticated
using (
  exists (
    select from haive.conversations as c
    where c.tenant_id = sessions.tenant_id and c.id = sessions.id
  )
);

create policy "services work in the tenant they entered" on haive.sessions
for all to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

alter policy "members read the messages of conversations they read" on haive.messages
using (
  exists (
    select from haive.conversations as c
    where c.tenant_id = messages.tenant_id and c.id = messages.conversation_id
  )
  and (hidden_at is null or haive_private.moderates(tenant_id, conversation_id))
);

-- Topics of tenants in schemas of their own are answered for, too.
do $$
begin
  if
    to_regclass('realtime.messages') is null
    or not exists (
      select from pg_catalog.pg_policies
      where
        schemaname = 'realtime' and tablename = 'messages'
        and policyname = 'haive: who may watch a channel joins its topic'
    )
  then
    return;
  end if;
  alter policy "haive: who may watch a channel joins its topic" on realtime.messages
  using (haive_private.may_join((select realtime.topic()), extension, false));
  alter policy "haive: who may write to a channel sends on its topic" on realtime.messages
  with check (haive_private.may_join((select realtime.topic()), extension, true));
end;
$$;

insert into haive_private.migrations (version, name) values
  ('20261128202000', 'session_policies')
on conflict do nothing;
