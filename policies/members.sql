alter table haive.members enable row level security;

create policy "members read themselves, administrators all of their tenant" on haive.members
for select to authenticated
using (
  user_id = (select haive.current_actor())
  or tenant_id in (select haive_private.my_admin_tenants())
);

create policy "services read members of the tenant they entered" on haive.members
for select to haive_client
using (tenant_id = (select current_setting('persistence.tenant', true)));

-- Membership is what says which tenant a user may enter, so it is read before one is entered.
create policy "functions read all members" on haive.members
for select to haive_writer
using (true);

create policy "functions add members to the tenant they entered" on haive.members
for insert to haive_writer
with check (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "functions change members of the tenant they entered" on haive.members
for update to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "functions remove members of the tenant they entered" on haive.members
for delete to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));
