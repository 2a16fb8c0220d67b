alter table haive.events enable row level security;

create policy "services work in the tenant they entered" on haive.events
for all to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));
