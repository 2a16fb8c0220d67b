create table haive.checkpoint_writes (
  tenant_id text collate "C" not null,
  thread_key uuid not null,
  checkpoint_id uuid not null,
  task_id uuid not null,
  idx haive_private.write_place not null,
  channel haive_private.name not null,
  task_path haive_private.namespace not null default '',
  size haive_private.state_size not null,
  codec haive_private.codec not null,
  key_id haive_private.key_id,
  payload haive_private.payload not null,
  constraint checkpoint_writes_pkey primary key (tenant_id, thread_key, checkpoint_id, task_id, idx),
  constraint checkpoint_writes_thread_fkey foreign key (tenant_id, thread_key)
  references haive.threads (tenant_id, thread_key) on delete cascade
);
alter table haive.checkpoint_writes alter column payload set storage external;

comment on table haive.checkpoint_writes is
'What the tasks after a checkpoint have written already: after a crash they need not run again.';
comment on column haive.checkpoint_writes.checkpoint_id is
'No foreign key: a task may be done before the checkpoint that it follows is saved.';
comment on column haive.checkpoint_writes.idx is
'Its place among the writes of the task; below zero for errors, interrupts and the like.';
