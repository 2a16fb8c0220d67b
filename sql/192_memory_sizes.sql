create table haive_private.memory_sizes (
  tenant_id text collate "C" not null,
  collection text collate "C" not null,
  part bigint not null,
  memories bigint not null,
  text_words bigint not null,
  all_words bigint not null,
  constraint memory_sizes_pkey primary key (tenant_id, collection, part)
);

comment on table haive_private.memory_sizes is
'How many memories a tenant has in a collection, and how long they are: the sum of parts, as in '
'memory_words.';
