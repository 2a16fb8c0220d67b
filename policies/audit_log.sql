alter table haive.audit_log enable row level security;

create policy "services read the log of the tenant they entered" on haive.audit_log
for select to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

-- Whichever tenant a row is of that was written, its log is told.
create policy "functions add to every log" on haive.audit_log
for insert to haive_writer
with check (true);
