alter table haive.session_segments enable row level security;

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
