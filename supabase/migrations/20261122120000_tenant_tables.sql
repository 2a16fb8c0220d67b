create domain haive_private.tenant_status as text collate "C"
constraint tenant_status_is_known check (value in ('active', 'suspended', 'moving', 'deleted'));
comment on domain haive_private.tenant_status is
'active; suspended: closed to all; moving: read only, for a while; deleted: closed until purged.';

create domain haive_private.tenant_isolation as text collate "C"
constraint tenant_isolation_is_known check (value in ('row', 'schema', 'database'));
comment on domain haive_private.tenant_isolation is
'What is a tenant''s own: its rows, a schema, or a database.';

create domain haive_private.audit_mode as text collate "C"
constraint audit_mode_is_known check (value in ('off', 'writes', 'all'));
comment on domain haive_private.audit_mode is 'What is put on record: nothing, writes, or reads too.';

create domain haive_private.tenant_limit as bigint
constraint tenant_limit_is_positive check (value >= 0);
comment on domain haive_private.tenant_limit is 'A limit of a tenant; null: none.';

create domain haive_private.sealed_content as bytea
constraint sealed_content_is_bounded check (octet_length(value) <= 34604032);
comment on domain haive_private.sealed_content is
'Content that the client sealed, at most 33 MiB and 1 KiB: the parts, the metadata and the seal.';

create domain haive_private.key_status as text collate "C"
constraint key_status_is_known check (value in ('next', 'active', 'retired', 'destroyed'));
comment on domain haive_private.key_status is
'next: to be known before it is used; active: seals; retired: opens; destroyed: is no more.';

-- Events of one more kind.
-- squawk-ignore ban-drop-constraint
alter domain haive_private.event_kind drop constraint event_kind_is_known;
-- squawk-ignore ban-alter-domain-with-add-constraint
alter domain haive_private.event_kind add constraint event_kind_is_known check (
  value in (
    'conversation.created', 'conversation.updated', 'conversation.deleted', 'messages.added',
    'checkpoint.saved', 'checkpoint.changed', 'checkpoints.pruned', 'branch.created',
    'thread.copied', 'thread.deleted', 'quota.warning'
  )
);

alter table haive.tenants
add column status haive_private.tenant_status not null default 'active',
add column isolation haive_private.tenant_isolation not null default 'row',
add column location haive_private.name,
add column audit haive_private.audit_mode not null default 'off',
add column encrypted boolean not null default false,
add column metered boolean not null default false,
add column max_conversations haive_private.tenant_limit,
add column max_storage_bytes haive_private.tenant_limit,
add column max_requests_per_minute haive_private.tenant_limit,
add column max_tokens_per_month haive_private.tenant_limit,
add column updated_at timestamptz not null default now(),
add column deleted_at timestamptz,
add column warned text not null default '';

comment on column haive.tenants.settings is
'timezone, data_retention_days, compliance_mode, and what an application keeps of its own.';
comment on column haive.tenants.location is
'Where the rows are of a tenant that is isolated: the name of its schema or of its connection.';
comment on column haive.tenants.encrypted is
'Whether content is sealed by the client: then the functions take none in the clear.';
comment on column haive.tenants.metered is 'Whether use is counted; a tenant with a limit is.';
comment on column haive.tenants.warned is
'Of which limits 80 % are in use, as an event has told: conversations, storage, tokens-2026-11.';

alter table haive.conversations
add column sealed haive_private.sealed_content,
add column sealed_with haive_private.key_id,
add constraint conversations_are_sealed_whole check (
  num_nulls(sealed, sealed_with) <> 1
  and (sealed is null or (title is null and context = '{}' and settings = '{}'))
) not valid;
alter table haive.messages
add column sealed haive_private.sealed_content,
add column sealed_with haive_private.key_id,
add constraint messages_are_sealed_whole check (
  num_nulls(sealed, sealed_with) <> 1
  and (sealed is null or (content = '' and parts is null and metadata = '{}'))
) not valid;

comment on column haive.conversations.sealed is
'Title, context and settings, sealed by the client: their own columns are empty then.';
comment on column haive.conversations.sealed_with is 'The key that it was sealed with.';
comment on column haive.messages.sealed is
'Content, parts and metadata, sealed by the client: their own columns are empty then.';
comment on column haive.messages.sealed_with is 'The key that it was sealed with.';

-- Compressed already.
alter table haive.conversations alter column sealed set storage external;
alter table haive.messages alter column sealed set storage external;

-- What tenants that are metered use. The day's counts are in the same row as the sums: a write changes
-- one row, and what a day came to is put down when the next one begins.
create table haive_private.meters (
  tenant_id text collate "C" not null,
  slot smallint not null,
  day date not null,
  conversations bigint not null default 0,
  bytes bigint not null default 0,
  month_tokens bigint not null default 0,
  day_conversations bigint not null default 0,
  day_messages bigint not null default 0,
  day_input_tokens bigint not null default 0,
  day_output_tokens bigint not null default 0,
  day_cost numeric not null default 0,
  constraint meters_pkey primary key (tenant_id, slot),
  constraint meters_tenant_fkey foreign key (tenant_id)
  references haive.tenants (tenant_id) on delete cascade
) with (fillfactor = 50); -- every write rewrites its row: leave room to do it in place

comment on table haive_private.meters is
'What each metered tenant uses, in 16 parts: writers whose part is another one do not wait for each '
'other. The use is the sum.';
comment on column haive_private.meters.day is
'The last day, in the tenant''s time zone, that this part was written on.';
comment on column haive_private.meters.month_tokens is
'Tokens of the month of that day: what is deleted has been used all the same.';

create table haive_private.meter_days (
  tenant_id text collate "C" not null,
  day date not null,
  slot smallint not null,
  conversations bigint not null,
  messages bigint not null,
  input_tokens bigint not null,
  output_tokens bigint not null,
  cost numeric not null,
  constraint meter_days_pkey primary key (tenant_id, day, slot),
  constraint meter_days_tenant_fkey foreign key (tenant_id)
  references haive.tenants (tenant_id) on delete cascade
);

comment on table haive_private.meter_days is
'What was added on days that are over, in the tenant''s time zone, whether it was removed later or not.';

-- Unlogged: a transaction that changes nothing else has nothing to wait for when it commits, so a
-- counted read costs no fsync. After a crash the buckets are full.
create unlogged table haive_private.request_buckets (
  tenant_id text collate "C" not null,
  slot smallint not null,
  full_at timestamptz not null,
  constraint request_buckets_pkey primary key (tenant_id, slot),
  constraint request_buckets_tenant_fkey foreign key (tenant_id)
  references haive.tenants (tenant_id) on delete cascade
) with (fillfactor = 10); -- a row is rewritten by every request, and lies in memory anyway

comment on table haive_private.request_buckets is
'The token buckets of tenants with a limit of requests a minute. A bucket is held until its request has '
'ended, so a tenant with a high limit has several.';
comment on column haive_private.request_buckets.full_at is
'When it will be full again: a minute ahead means that it is empty.';

create table haive_private.tenant_keys (
  tenant_id text collate "C" not null,
  key_id haive_private.key_id not null,
  wrapped bytea,
  kek_id haive_private.name not null,
  status haive_private.key_status not null,
  created_at timestamptz not null default now(),
  constraint tenant_keys_pkey primary key (tenant_id, key_id),
  constraint tenant_keys_tenant_fkey foreign key (tenant_id)
  references haive.tenants (tenant_id) on delete cascade,
  constraint tenant_keys_are_wrapped check (
    (wrapped is null) = (status = 'destroyed') and octet_length(wrapped) <= 65536
  )
);

comment on table haive_private.tenant_keys is
'The data keys of tenants, each wrapped by a key that this database does not have.';
comment on column haive_private.tenant_keys.wrapped is
'What only the key-encryption key opens; null once the key was destroyed.';
comment on column haive_private.tenant_keys.kek_id is 'The key-encryption key that wrapped it.';

-- Serves: at most one key seals, and at most one is next.
create unique index tenant_keys_turn_idx on haive_private.tenant_keys (tenant_id, status)
where status in ('next', 'active');

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

create table haive_private.audit_heads (
  tenant_id text collate "C" not null,
  seq bigint not null default 0,
  hash bytea not null default '',
  constraint audit_heads_pkey primary key (tenant_id)
) with (fillfactor = 50); -- every row of the log rewrites it: leave room to do it in place

comment on table haive_private.audit_heads is
'Where the log of a tenant ends. Its lock, taken at the commit, is what puts the rows in order.';

-- What a transaction has to put on record waits here for its commit, and is gone after it. If it
-- were chained at once, the transaction would hold its tenant's head while it waits for other
-- rows, and two such could wait for each other.
-- Unlogged: no row of it outlives its transaction.
create unlogged table haive_private.audit_queue (
  tenant_id text collate "C" not null,
  action text collate "C" not null,
  object text collate "C" not null,
  rows jsonb not null,
  row_count bigint not null,
  at timestamptz not null default clock_timestamp(),
  actor text
  default left(nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub', 200),
  login text not null default session_user,
  role text not null
  default coalesce(nullif(current_setting('role', true), 'none'), session_user::text),
  address text default left(
    coalesce(
      nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-forwarded-for',
      host(inet_client_addr())
    ),
    200
  ),
  application text default left(
    coalesce(
      nullif(current_setting('request.headers', true), '')::jsonb ->> 'user-agent',
      nullif(current_setting('application_name', true), '')
    ),
    200
  ),
  request_id text default left(
    coalesce(
      nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-request-id',
      nullif(current_setting('persistence.request_id', true), '')
    ),
    200
  )
-- It is empty between transactions, so what was in it is soon most of it.
) with (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

comment on table haive_private.audit_queue is
'What a transaction puts on record when it commits; empty for all others.';
comment on column haive_private.audit_queue.at is
'This and what follows is of the call: the defaults say where it is found.';

create table haive.invitations (
  tenant_id text collate "C" not null,
  id uuid not null default gen_random_uuid(),
  label haive_private.name,
  role text not null,
  token_hash bytea not null,
  created_by haive_private.name,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  accepted_at timestamptz,
  accepted_by haive_private.name,
  revoked_at timestamptz,
  constraint invitations_pkey primary key (tenant_id, id),
  constraint invitations_token_key unique (token_hash),
  constraint invitations_tenant_fkey foreign key (tenant_id)
  references haive.tenants (tenant_id) on delete cascade,
  constraint invitations_role_is_known check (role in ('owner', 'admin', 'member', 'reader')),
  constraint invitations_end_once check (num_nonnulls(accepted_at, revoked_at) <= 1)
);

comment on table haive.invitations is
'Who may become a member of a tenant: whoever has the token, once. Read and written by functions only.';
comment on column haive.invitations.label is 'Whom it is for, in the words of who invites: an address, a name.';
comment on column haive.invitations.token_hash is
'SHA-256 of the token, which is shown once and stored nowhere.';
comment on column haive.invitations.created_by is 'The user who invites; null: the platform.';

create table haive.erasures (
  tenant_id text collate "C" not null,
  subject_hash bytea not null,
  salt bytea not null,
  erased_at timestamptz not null default now(),
  finished_at timestamptz,
  counts jsonb not null default '{}',
  constraint erasures_pkey primary key (tenant_id, subject_hash),
  constraint erasures_tenant_fkey foreign key (tenant_id)
  references haive.tenants (tenant_id) on delete cascade
);

comment on table haive.erasures is
'Users that were erased: nothing is stored about them any more. Read and written by functions only.';
comment on column haive.erasures.subject_hash is
'SHA-256 of the salt and the user''s id: whom it means is told only by who knows the id already.';
comment on column haive.erasures.salt is 'Random, and one for all of a tenant.';
comment on column haive.erasures.finished_at is 'When the last row was gone; null: it goes on.';
comment on column haive.erasures.counts is 'How many rows of which table were deleted.';

-- Closed until the policies open them.
alter table haive_private.audit_heads enable row level security;
alter table haive.audit_log enable row level security;
alter table haive_private.audit_queue enable row level security;
alter table haive.erasures enable row level security;
alter table haive.invitations enable row level security;
alter table haive_private.meter_days enable row level security;
alter table haive_private.meters enable row level security;
alter table haive_private.request_buckets enable row level security;
alter table haive_private.tenant_keys enable row level security;

insert into haive_private.migrations (version, name) values
  ('20261122120000', 'tenant_tables')
on conflict do nothing;
