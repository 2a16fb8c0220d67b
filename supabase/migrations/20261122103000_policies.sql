-- Policies alone and quickly: creating one can lock tables of the platform until the commit.
set local lock_timeout = '2s';

create policy "members read what they take part in, administrators all" on haive.conversations
for select to authenticated
using (
  (
    tenant_id in (select haive_private.my_tenants())
    and (
      user_id = (select haive.current_actor())
      or participants @> array[(select haive.current_actor())]
    )
  )
  or tenant_id in (select haive_private.my_admin_tenants())
);

create policy "services work in the tenant they entered" on haive.conversations
for all to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "services work in the tenant they entered" on haive.events
for all to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "members read themselves, administrators all of their tenant" on haive.members
for select to authenticated
using (
  user_id = (select haive.current_actor())
  or tenant_id in (select haive_private.my_admin_tenants())
);

create policy "services read members of the tenant they entered" on haive.members
for select to haive_client
using (tenant_id = (select current_setting('persistence.tenant', true)));

-- Membership is what says which tenant a user may enter, so it is read before one is entered.
create policy "functions read all members" on haive.members
for select to haive_writer
using (true);

create policy "functions add members to the tenant they entered" on haive.members
for insert to haive_writer
with check (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "functions change members of the tenant they entered" on haive.members
for update to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "functions remove members of the tenant they entered" on haive.members
for delete to haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "members read the messages of conversations they read" on haive.messages
for select to authenticated
using (
  exists (
    select from haive.conversations as c
    where c.tenant_id = messages.tenant_id and c.id = messages.conversation_id
  )
);

create policy "services work in the tenant they entered" on haive.messages
for all to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

create policy "everybody who may call reads the version" on haive_private.migrations
for select to authenticated, service_role, haive_client, haive_writer
using (true);

create policy "members read their tenants" on haive.tenants
for select to authenticated
using (tenant_id in (select haive_private.my_tenants()));

create policy "services work in the tenant they entered" on haive.tenants
for select to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));

insert into haive_private.migrations (version, name) values
  ('20261122103000', 'policies')
on conflict do nothing;
