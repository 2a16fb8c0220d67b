-- Policies alone and quickly: creating one can lock tables of the platform until the commit.
set local lock_timeout = '2s';

drop policy "services work in the tenant they entered" on haive.tenants;

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

create policy "functions move the head of every log" on haive_private.audit_heads
for all to haive_writer
using (true);

create policy "services read the log of the tenant they entered" on haive.audit_log
for select to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

-- Whichever tenant a row is of that was written, its log is told.
create policy "functions add to every log" on haive.audit_log
for insert to haive_writer
with check (true);

create policy "functions put every tenant's changes on record" on haive_private.audit_queue
for all to haive_writer
using (true);

create policy "functions work in the tenant they entered" on haive.erasures
for all to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)))
with check (tenant_id = (select current_setting('persistence.tenant', true)));

-- Who accepts is in no tenant yet: the token says in which it is.
create policy "functions read all invitations" on haive.invitations
for select to haive_writer
using (true);

create policy "functions invite to the tenant they entered" on haive.invitations
for insert to haive_writer
with check (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "functions change invitations to the tenant they entered" on haive.invitations
for update to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "functions remove invitations to the tenant they entered" on haive.invitations
for delete to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "functions work in the tenant they entered" on haive_private.meter_days
for all to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "functions work in the tenant they entered" on haive_private.meters
for all to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "functions work in the tenant they entered" on haive_private.request_buckets
for all to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "functions work in the tenant they entered" on haive_private.tenant_keys
for all to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

insert into haive_private.migrations (version, name) values
  ('20261122122000', 'tenant_policies')
on conflict do nothing;
