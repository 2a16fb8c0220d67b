create table haive_private.migrations (
  version text collate "C" not null,
  name text not null,
  applied_at timestamptz not null default now(),
  constraint migrations_pkey primary key (version)
);

comment on table haive_private.migrations is
'Which migrations this installation has, whoever applied them.';
