alter table haive.invitations enable row level security;

-- Who accepts is in no tenant yet: the token says in which it is.
create policy "functions read all invitations" on haive.invitations
for select to haive_writer
using (true);

create policy "functions invite to the tenant they entered" on haive.invitations
for insert to haive_writer
with check (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "functions change invitations to the tenant they entered" on haive.invitations
for update to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "functions remove invitations to the tenant they entered" on haive.invitations
for delete to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));
