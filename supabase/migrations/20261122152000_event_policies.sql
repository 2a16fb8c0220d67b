alter table haive_private.event_floors enable row level security;

create policy "functions work in the tenant they entered" on haive_private.event_floors
for all to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

alter table haive_private.watches enable row level security;

create policy "functions work in the tenant they entered" on haive_private.watches
for all to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

insert into haive_private.migrations (version, name) values
  ('20261122152000', 'event_policies')
on conflict do nothing;
