create table haive_private.meter_days (
  tenant_id text storage plain collate "C" not null,
  day date not null,
  slot smallint not null,
  conversations bigint not null,
  messages bigint not null,
  input_tokens bigint not null,
  output_tokens bigint not null,
  cost numeric storage plain not null,
  constraint meter_days_pkey primary key (tenant_id, day, slot),
  constraint meter_days_tenant_fkey foreign key (tenant_id)
  references haive.tenants (tenant_id) on delete cascade
);

comment on table haive_private.meter_days is
'What was added on days that are over, in the tenant''s time zone, whether it was removed later or not.';
