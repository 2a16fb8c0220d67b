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
