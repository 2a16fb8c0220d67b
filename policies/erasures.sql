alter table haive.erasures enable row level security;

create policy "functions work in the tenant they entered" on haive.erasures
for all to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)))
with check (tenant_id = (select current_setting('persistence.tenant', true)));
