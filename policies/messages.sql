alter table haive.messages enable row level security;

create policy "members read the messages of conversations they read" on haive.messages
for select to authenticated
using (
  exists (
    select from haive.conversations as c
    where c.tenant_id = messages.tenant_id and c.id = messages.conversation_id
  )
  and (hidden_at is null or haive_private.moderates(tenant_id, conversation_id))
);

create policy "services work in the tenant they entered" on haive.messages
for all to haive_client, haive_writer
using (tenant_id = (select current_setting('persistence.tenant', true)));
