-- Where every row fits into a page, here and below, columns are `storage plain`: the table gets no other
-- one for what is long, which with its index takes longer to make than the table, once a schema.
create table haive_private.migrations (
  version text storage plain collate "C" not null,
  name text storage plain not null,
  applied_at timestamptz not null default now(),
  constraint migrations_pkey primary key (version)
);

comment on table haive_private.migrations is
'Which migrations this installation has, whoever applied them.';
