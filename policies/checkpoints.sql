alter table haive.checkpoints enable row level security;

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
