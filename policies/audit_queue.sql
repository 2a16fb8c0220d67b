alter table haive_private.audit_queue enable row level security;

create policy "functions put every tenant's changes on record" on haive_private.audit_queue
for all to haive_writer
using (true);
