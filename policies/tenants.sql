alter table haive.tenants enable row level security;

create policy "members read their tenants" on haive.tenants
for select to authenticated
using (tenant_id in (select haive_private.my_tenants()));

create policy "services work in the tenant they entered" on haive.tenants
for select to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));
