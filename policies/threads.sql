alter table haive.threads enable row level security;

create policy "members read their own, administrators all" on haive.threads
for select to authenticated
using (
  (tenant_id in (select haive_private.my_tenants()) and user_id = (select haive.current_actor()))
  or tenant_id in (select haive_private.my_admin_tenants())
);

create policy "services work in the tenant they entered" on haive.threads
for all to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));
