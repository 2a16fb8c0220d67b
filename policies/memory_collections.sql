alter table haive_private.memory_collections enable row level security;

create policy "functions know every collection" on haive_private.memory_collections
for all to haive_writer
using (true);
