-- Unlogged: a transaction that changes nothing else has nothing to wait for when it commits, so a
-- counted read costs no fsync. After a crash the buckets are full.
create unlogged table haive_private.request_buckets (
  tenant_id text storage plain collate "C" not null,
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
