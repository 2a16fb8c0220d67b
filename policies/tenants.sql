alter table haive.tenants enable row level security;

create policy "members read their tenants" on haive.tenants
for select to authenticated
using (tenant_id in (select haive_private.my_tenants()));

create policy "services read the tenant they entered" on haive.tenants
for select to haive_client
using (tenant_id = (select current_setting('persistence.tenant', true)));

-- Whether a tenant is open is read before it is entered.
create policy "functions read all tenants" on haive.tenants
for select to haive_writer
using (true);

create policy "functions make the tenant they entered" on haive.tenants
for insert to haive_writer
with check (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "functions change the tenant they entered" on haive.tenants
for update to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "functions remove the tenant they entered" on haive.tenants
for delete to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));
