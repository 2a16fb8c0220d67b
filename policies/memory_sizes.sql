alter table haive_private.memory_sizes enable row level security;

create policy "functions work in the tenant they entered" on haive_private.memory_sizes
for all to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));
