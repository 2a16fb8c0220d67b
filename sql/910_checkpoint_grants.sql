-- Checkpoints: as in 900_grants, nobody has anything that is not written here.
revoke all on table
haive.threads,
haive.branches,
haive.checkpoints,
haive.checkpoint_writes,
haive.checkpoint_schemas
from public, anon, authenticated, service_role, haive_client, haive_writer;
revoke all on function
haive.save_checkpoint(
  text, uuid, bytea, int, text, text, text, uuid, smallint, uuid, int, jsonb, text[], jsonb, bytea,
  text, bytea, bytea, boolean, text, boolean, text
),
haive.find_checkpoints(
  text, text, text, uuid, text[], boolean, timestamptz, timestamptz, jsonb, jsonb, uuid, bigint,
  int, boolean, boolean, boolean, text, text
),
haive.put_checkpoint_writes(text, uuid, uuid, jsonb, text, text, text, text),
haive.list_checkpoint_writes(text, text, uuid, uuid, int, int, text),
haive.create_branch(uuid, text, text, text, uuid, jsonb, bytea, text, text),
haive.list_branches(text, text, text),
haive.list_threads(text, text, int, text, text),
haive.annotate_checkpoint(
  uuid, text, text, text[], text[], boolean, bytea, bytea, jsonb, text
),
haive.rewrite_checkpoints(text, text, uuid[], jsonb, jsonb, jsonb, jsonb, text),
haive.delete_thread(text, text),
haive.copy_thread(text, text, text, jsonb, jsonb, jsonb, text),
haive.get_checkpoint_schema(bytea, text)
from public, anon, authenticated, service_role, haive_client;
revoke all on function
haive_private.save_checkpoint(
  text, text, text, text, text, uuid, uuid, bytea, smallint, uuid, int, int, jsonb, text[], jsonb,
  bytea, text, bytea, bytea, boolean, text, boolean
),
haive_private.checkpoint_frames(text, uuid[], bigint[]),
haive_private.checkpoint_write_docs(text, uuid[], bigint[]),
haive_private.put_checkpoint_writes(text, text, text, uuid, uuid, text, jsonb, text),
haive_private.create_branch(text, uuid, text, text, text, uuid, jsonb, bytea, text),
haive_private.annotate_checkpoint(
  text, uuid, text, text, text[], text[], boolean, bytea, bytea, jsonb
),
haive_private.rewrite_checkpoints(text, text, text, uuid[], jsonb, jsonb, jsonb, jsonb),
haive_private.delete_thread(text, text),
haive_private.copy_thread(text, text, text, text, jsonb, jsonb, jsonb),
haive_private.open_thread(text, text, text, text, text),
haive_private.open_branch(
  text, text, text, text, text, text, text, uuid, uuid, smallint, bytea
)
from public, anon, authenticated, service_role, haive_client;

revoke create on schema haive_private from haive_writer;

grant select on
haive.threads, haive.branches, haive.checkpoints, haive.checkpoint_writes, haive.checkpoint_schemas
to authenticated, service_role, haive_client;
grant execute on function
haive.save_checkpoint(
  text, uuid, bytea, int, text, text, text, uuid, smallint, uuid, int, jsonb, text[], jsonb, bytea,
  text, bytea, bytea, boolean, text, boolean, text
),
haive.find_checkpoints(
  text, text, text, uuid, text[], boolean, timestamptz, timestamptz, jsonb, jsonb, uuid, bigint,
  int, boolean, boolean, boolean, text, text
),
haive.put_checkpoint_writes(text, uuid, uuid, jsonb, text, text, text, text),
haive.list_checkpoint_writes(text, text, uuid, uuid, int, int, text),
haive.create_branch(uuid, text, text, text, uuid, jsonb, bytea, text, text),
haive.list_branches(text, text, text),
haive.list_threads(text, text, int, text, text),
haive.annotate_checkpoint(
  uuid, text, text, text[], text[], boolean, bytea, bytea, jsonb, text
),
haive.rewrite_checkpoints(text, text, uuid[], jsonb, jsonb, jsonb, jsonb, text),
haive.delete_thread(text, text),
haive.copy_thread(text, text, text, jsonb, jsonb, jsonb, text),
haive.get_checkpoint_schema(bytea, text),
haive_private.save_checkpoint(
  text, text, text, text, text, uuid, uuid, bytea, smallint, uuid, int, int, jsonb, text[], jsonb,
  bytea, text, bytea, bytea, boolean, text, boolean
),
haive_private.checkpoint_frames(text, uuid[], bigint[]),
haive_private.checkpoint_write_docs(text, uuid[], bigint[]),
haive_private.put_checkpoint_writes(text, text, text, uuid, uuid, text, jsonb, text),
haive_private.create_branch(text, uuid, text, text, text, uuid, jsonb, bytea, text),
haive_private.annotate_checkpoint(
  text, uuid, text, text, text[], text[], boolean, bytea, bytea, jsonb
),
haive_private.rewrite_checkpoints(text, text, text, uuid[], jsonb, jsonb, jsonb, jsonb),
haive_private.delete_thread(text, text),
haive_private.copy_thread(text, text, text, text, jsonb, jsonb, jsonb)
to authenticated, service_role, haive_client;

-- What the definer functions do, they do as haive_writer.
grant select, insert, update, delete on
haive.threads, haive.branches, haive.checkpoints, haive.checkpoint_writes
to haive_writer;
grant select, insert, update on haive.checkpoint_schemas to haive_writer;
