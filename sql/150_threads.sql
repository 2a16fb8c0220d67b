create table haive.threads (
  tenant_id text storage plain collate "C" not null,
  thread_key uuid not null default gen_random_uuid(),
  thread_id haive_private.name storage plain not null,
  namespace haive_private.namespace storage plain not null default '',
  user_id haive_private.name storage plain,
  created_at timestamptz not null default now(),
  constraint threads_pkey primary key (tenant_id, thread_key),
  constraint threads_name_key unique (thread_id, namespace, tenant_id),
  constraint threads_tenant_fkey foreign key (tenant_id)
  references haive.tenants (tenant_id) on delete cascade
);

comment on table haive.threads is
'What checkpoints belong to: a workflow by its name, and each subgraph of it by its namespace.';
comment on column haive.threads.thread_key is
'Stands for thread and namespace in the tables below, at 16 bytes a row.';
comment on column haive.threads.user_id is 'Whose it is: that user may see it; null: no user''s.';

-- Serves: the policy by which users read their own threads.
create index threads_user_idx on haive.threads (user_id) where user_id is not null;
