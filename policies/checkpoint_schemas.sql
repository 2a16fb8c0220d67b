alter table haive.checkpoint_schemas enable row level security;

create policy "members read the schemas of their tenant" on haive.checkpoint_schemas
for select to authenticated
using (tenant_id in (select haive_private.my_tenants()));

create policy "services work in the tenant they entered" on haive.checkpoint_schemas
for all to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));
