alter table haive.session_merges enable row level security;

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
