alter table haive.checkpoint_writes enable row level security;

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
