alter table haive.branches enable row level security;

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
