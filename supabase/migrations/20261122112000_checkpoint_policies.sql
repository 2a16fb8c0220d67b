-- Policies alone and quickly: creating one can lock tables of the platform until the commit.
set local lock_timeout = '2s';

create policy "members read the branches of threads they read" on haive.branches
for select to authenticated
using (
  exists (
    select from haive.threads as t
    where t.tenant_id = branches.tenant_id and t.thread_key = branches.thread_key
  )
);

create policy "services work in the tenant they entered" on haive.branches
for all to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "members read the schemas of their tenant" on haive.checkpoint_schemas
for select to authenticated
using (tenant_id in (select haive_private.my_tenants()));

create policy "services work in the tenant they entered" on haive.checkpoint_schemas
for all to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "members read the writes of threads they read" on haive.checkpoint_writes
for select to authenticated
using (
  exists (
    select from haive.threads as t
    where t.tenant_id = checkpoint_writes.tenant_id and t.thread_key = checkpoint_writes.thread_key
  )
);

create policy "services work in the tenant they entered" on haive.checkpoint_writes
for all to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "members read the checkpoints of threads they read" on haive.checkpoints
for select to authenticated
using (
  exists (
    select from haive.threads as t
    where t.tenant_id = checkpoints.tenant_id and t.thread_key = checkpoints.thread_key
  )
);

create policy "services work in the tenant they entered" on haive.checkpoints
for all to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "members read their own, administrators all" on haive.threads
for select to authenticated
using (
  (tenant_id in (select haive_private.my_tenants()) and user_id = (select haive.current_actor()))
  or tenant_id in (select haive_private.my_admin_tenants())
);

create policy "services work in the tenant they entered" on haive.threads
for all to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

insert into haive_private.migrations (version, name) values
  ('20261122112000', 'checkpoint_policies')
on conflict do nothing;
