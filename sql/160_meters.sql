-- What tenants that are metered use. The day's counts are in the same row as the sums: a write changes
-- one row, and what a day came to is put down when the next one begins.
create table haive_private.meters (
  tenant_id text storage plain collate "C" not null,
  slot smallint not null,
  day date not null,
  conversations bigint not null default 0,
  bytes bigint not null default 0,
  month_tokens bigint not null default 0,
  day_conversations bigint not null default 0,
  day_messages bigint not null default 0,
  day_input_tokens bigint not null default 0,
  day_output_tokens bigint not null default 0,
  day_cost numeric storage plain not null default 0,
  constraint meters_pkey primary key (tenant_id, slot),
  constraint meters_tenant_fkey foreign key (tenant_id)
  references haive.tenants (tenant_id) on delete cascade
) with (fillfactor = 50); -- every write rewrites its row: leave room to do it in place

comment on table haive_private.meters is
'What each metered tenant uses, in 16 parts: writers whose part is another one do not wait for each '
'other. The 17th has what was found when the rows were counted. The use is the sum.';
comment on column haive_private.meters.day is
'The last day, in the tenant''s time zone, that this part was written on.';
comment on column haive_private.meters.month_tokens is
'Tokens of the month of that day: what is deleted has been used all the same.';
