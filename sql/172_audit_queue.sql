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
