alter table haive.sessions enable row level security;

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
