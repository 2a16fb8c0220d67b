-- A trigger with a transition table has one event and no columns, hence one for each.
create constraint trigger chain_audit after insert on haive_private.audit_queue
deferrable initially deferred for each row execute function haive_private.chain_audit();

create trigger refuse_audit_changes before update or delete or truncate on haive.audit_log
for each statement execute function haive_private.refuse_audit_changes();

create trigger audit_changes after insert or update or delete on haive.tenants
for each row execute function haive_private.audit_row();

create trigger audit_insert after insert on haive.members
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive.members
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.members
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.conversations
referencing new table as changed for each statement execute function haive_private.audit_rows();
-- Not the counters and times that messages move.
create trigger audit_update
after update of tenant_id, id, agent_id, user_id, title, tags, context, participants, settings,
created_at, updated_at, sealed, sealed_with on haive.conversations
for each row execute function haive_private.audit_row();
create trigger audit_delete after delete on haive.conversations
referencing old table as changed for each statement execute function haive_private.audit_rows();

-- When it is asked: see meter_added.
create trigger audit_insert after insert on haive.messages
referencing new table as changed
for each statement when ((current_setting('persistence.watch', true) like '%---') is not true)
execute function haive_private.audit_messages();
create trigger audit_update after update on haive.messages
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.messages
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.sessions
referencing new table as changed for each statement execute function haive_private.audit_rows();
-- Not when it was active last, which messages move.
create trigger audit_update
after update of tenant_id, id, parent_id, parent_segment, branch_index, segment, status, live, ttl,
max_messages, predecessor_id, successor_id, closed_at, writers, moderators on haive.sessions
for each row execute function haive_private.audit_row();
create trigger audit_delete after delete on haive.sessions
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.session_segments
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive.session_segments
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.session_segments
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.session_merges
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive.session_merges
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.session_merges
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.threads
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive.threads
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.threads
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.branches
referencing new table as changed for each statement execute function haive_private.audit_rows();
-- Not the head that a checkpoint moves: the checkpoint is on record.
create trigger audit_update
after update of tenant_id, branch_id, thread_key, name, root_branch_id, root_seq, metadata, sealed,
key_id, created_at on haive.branches
for each row execute function haive_private.audit_row();
create trigger audit_delete after delete on haive.branches
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.checkpoints
referencing new table as changed
for each statement when ((current_setting('persistence.watch', true) like '%---') is not true)
execute function haive_private.audit_rows();
create trigger audit_update after update on haive.checkpoints
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.checkpoints
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.checkpoint_writes
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive.checkpoint_writes
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.checkpoint_writes
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.checkpoint_schemas
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive.checkpoint_schemas
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.checkpoint_schemas
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.invitations
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive.invitations
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.invitations
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive.erasures
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive.erasures
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive.erasures
referencing old table as changed for each statement execute function haive_private.audit_rows();

create trigger audit_insert after insert on haive_private.tenant_keys
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_update after update on haive_private.tenant_keys
referencing new table as changed for each statement execute function haive_private.audit_rows();
create trigger audit_delete after delete on haive_private.tenant_keys
referencing old table as changed for each statement execute function haive_private.audit_rows();
