create table haive_private.memory_sizes (
  tenant_id text collate "C" not null,
  collection text collate "C" not null,
  part bigint not null,
  memories bigint not null,
  text_words bigint not null,
  all_words bigint not null,
  recalls jsonb,
  constraint memory_sizes_pkey primary key (tenant_id, collection, part)
);

comment on table haive_private.memory_sizes is
'How many memories a tenant has in a collection, and how long they are: the sum of parts, as in '
'memory_words.';
comment on column haive_private.memory_sizes.recalls is
'Which share of the nearest an index finds when it looks at so many candidates, measured on the '
'tenant''s own memories: {"64": 0.96}; in part 0, and null until it was measured.';
