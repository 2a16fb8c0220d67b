alter table haive_private.migrations enable row level security;

create policy "everybody who may call reads the version" on haive_private.migrations
for select to authenticated, service_role, haive_client, haive_writer
using (true);
