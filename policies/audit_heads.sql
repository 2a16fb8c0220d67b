alter table haive_private.audit_heads enable row level security;

create policy "functions move the head of every log" on haive_private.audit_heads
for all to haive_writer
using (true);
