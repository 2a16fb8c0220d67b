-- Members, invitations and data subjects: as in 900_grants, nobody has anything that is not written
-- here. Invitations and erasures are read by functions only.
revoke all on table haive.invitations, haive.erasures
from public, anon, authenticated, service_role, haive_client, haive_writer;
revoke all on function
haive.list_members(int, text, text),
haive.create_invitation(text, text, timestamptz, text),
haive.list_invitations(int, uuid, text),
haive.revoke_invitation(uuid, text),
haive.accept_invitation(text, text),
haive.apply_retention(int, text),
haive.erase_user(text, int, text),
haive.export_user(text, text, int, text, text)
from public, anon, authenticated, service_role, haive_client;
revoke all on function
haive_private.refuse_erased(text, text[]),
haive_private.refuse_erased_owner(),
haive_private.refuse_erased_author(),
haive_private.refuse_erased_participants(),
haive_private.check_tenant_switches(),
haive_private.enter_as_administrator(text, boolean),
haive_private.keep_an_owner(text, text),
haive_private.invitation_doc(haive.invitations, text),
haive_private.create_invitation(text, text, text, timestamptz),
haive_private.list_invitations(text, int, uuid),
haive_private.revoke_invitation(text, uuid),
haive_private.accept_invitation(text, text),
haive_private.drop_conversations(text, uuid[]),
haive_private.drop_threads(text, uuid[]),
haive_private.sum_counts(jsonb, jsonb),
haive_private.apply_retention(text, int),
haive_private.erase_user(text, text, int),
haive_private.export_user(text, text, text, int, text)
from public, anon, authenticated, service_role, haive_client;

revoke create on schema haive_private from haive_writer;

grant execute on function
haive.list_members(int, text, text),
haive.create_invitation(text, text, timestamptz, text),
haive.list_invitations(int, uuid, text),
haive.revoke_invitation(uuid, text),
haive.accept_invitation(text, text),
haive.apply_retention(int, text),
haive.erase_user(text, int, text),
haive.export_user(text, text, int, text, text),
haive_private.create_invitation(text, text, text, timestamptz),
haive_private.list_invitations(text, int, uuid),
haive_private.revoke_invitation(text, uuid),
haive_private.accept_invitation(text, text),
haive_private.apply_retention(text, int),
haive_private.erase_user(text, text, int),
haive_private.export_user(text, text, text, int, text)
to authenticated, service_role, haive_client;

-- What the definer functions do, they do as haive_writer.
grant select, insert, update, delete on haive.invitations to haive_writer;
grant select, insert, update on haive.erasures to haive_writer;
grant delete on haive.messages to haive_writer;
grant execute on function
haive_private.refuse_erased(text, text[]),
haive_private.enter_as_administrator(text, boolean),
haive_private.keep_an_owner(text, text),
haive_private.invitation_doc(haive.invitations, text),
haive_private.drop_conversations(text, uuid[]),
haive_private.drop_threads(text, uuid[]),
haive_private.sum_counts(jsonb, jsonb)
to haive_writer;
