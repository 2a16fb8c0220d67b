-- Tenants: as in 900_grants, nobody has anything that is not written here.
revoke all on function
haive.row_security(),
haive.create_tenant(text, text, jsonb, jsonb),
haive.get_tenant(text),
haive.list_tenants(int, text, text),
haive.update_tenant(text, jsonb),
haive.purge_tenant(text)
from public, anon, authenticated, service_role, haive_client;
revoke all on function
haive_private.enter_tenant(text, boolean),
haive_private.administer_tenant(text),
haive_private.tenant_doc(haive.tenants),
haive_private.check_tenant_settings(jsonb),
haive_private.create_tenant(text, text, jsonb, jsonb),
haive_private.get_tenant(text),
haive_private.list_tenants(int, text, text),
haive_private.update_tenant(text, jsonb),
haive_private.purge_tenant(text)
from public, anon, authenticated, service_role, haive_client;

revoke create on schema haive_private from haive_writer;

grant execute on function haive_private.enter_tenant(text, boolean)
to authenticated, service_role, haive_client, haive_writer;
grant execute on function haive.row_security() to authenticated, service_role, haive_client;
-- For those who run the platform: no user administers tenants.
grant execute on function
haive.create_tenant(text, text, jsonb, jsonb),
haive.get_tenant(text),
haive.list_tenants(int, text, text),
haive.update_tenant(text, jsonb),
haive.purge_tenant(text),
haive_private.create_tenant(text, text, jsonb, jsonb),
haive_private.get_tenant(text),
haive_private.list_tenants(int, text, text),
haive_private.update_tenant(text, jsonb),
haive_private.purge_tenant(text)
to service_role, haive_client;

-- What the definer functions do, they do as haive_writer.
grant insert, update, delete on haive.tenants to haive_writer;
grant select, delete on haive.events to haive_writer;
grant execute on function
haive_private.tenant_doc(haive.tenants),
haive_private.check_tenant_settings(jsonb)
to haive_writer;
