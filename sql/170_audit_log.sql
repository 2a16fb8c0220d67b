-- Who did what to which rows, and never what was in them.
create table haive.audit_log (
  tenant_id text collate "C" not null,
  seq bigint not null,
  at timestamptz not null,
  actor text,
  login text not null,
  role text not null,
  action text collate "C" not null,
  object text collate "C" not null,
  rows jsonb not null,
  row_count bigint not null,
  address text,
  application text,
  request_id text,
  hash bytea not null,
  -- No foreign key: the log of a tenant outlives it.
  constraint audit_log_pkey primary key (tenant_id, seq)
);

comment on table haive.audit_log is
'Append-only: a row for each statement that wrote, and for each read of a tenant whose reads are on '
'record. Each is chained to the one before it by its hash.';
comment on column haive.audit_log.seq is '1, 2, 3 … without gaps, in the order of commits.';
comment on column haive.audit_log.at is 'When the statement ran, which may be before seq was given.';
comment on column haive.audit_log.actor is 'The user ("sub" of the token); null: a key or a connection.';
comment on column haive.audit_log.login is 'Who the session belongs to: "authenticator" for the REST API.';
comment on column haive.audit_log.role is 'The role that it acted as.';
comment on column haive.audit_log.action is 'insert, update, delete or read.';
comment on column haive.audit_log.object is 'The table, or for a read the function.';
comment on column haive.audit_log.rows is
'By the id of a row what there is to say of it: of messages {conversation: [first seq, last seq]}. '
'At most 1,000, and how many more there are as "more".';
comment on column haive.audit_log.address is
'What the proxies say (x-forwarded-for), or the address of the connection.';
comment on column haive.audit_log.hash is
'SHA-256 of the hash before it and of the row as haive_private.audit_entry writes it.';
