-- Policies alone and quickly: creating one can lock tables of the platform until the commit.
set local lock_timeout = '2s';

create policy "functions know every collection" on haive_private.memory_collections
for all to haive_writer
using (true);

create policy "functions work in the tenant they entered" on haive_private.memory_words
for all to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "functions work in the tenant they entered" on haive_private.memory_sizes
for all to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

insert into haive_private.migrations (version, name) values
  ('20261128212000', 'memory_policies')
on conflict do nothing;
