create table haive_private.memory_collections (
  name text storage plain collate "C" not null,
  table_name text storage plain not null,
  model text storage plain,
  dimensions haive_private.positive,
  storage text storage plain not null,
  metric text storage plain not null,
  language text storage plain not null,
  index_type text storage plain not null,
  m haive_private.positive not null,
  ef_construction haive_private.positive not null,
  created_at timestamptz not null default now(),
  constraint memory_collections_pkey primary key (name),
  constraint memory_collections_name_is_a_slug check (name ~ '^[a-z0-9][a-z0-9-]{0,60}$'),
  constraint memory_collections_model_is_bounded check (length(model) between 1 and 200),
  constraint memory_collections_have_both check (num_nulls(model, dimensions) <> 1),
  constraint memory_collections_dimensions_are_known check (dimensions between 1 and 16000),
  constraint memory_collections_storage_is_known check (storage in ('vector', 'halfvec')),
  constraint memory_collections_metric_is_known check (
    metric in ('cosine', 'l2', 'inner_product')
  ),
  constraint memory_collections_index_is_known check (
    index_type in ('hnsw', 'ivfflat', 'flat', 'binary')
  ),
  constraint memory_collections_index_is_bounded check (
    m between 2 and 100 and ef_construction between 4 and 1000 and ef_construction >= 2 * m
  )
);

comment on table haive_private.memory_collections is
'What all memories of a collection have in common. Tenants share it; each row of its table is of one.';
comment on column haive_private.memory_collections.table_name is
'The table in schema vecs: the name, behind that of the installation unless that is the usual one.';
comment on column haive_private.memory_collections.model is
'What makes its vectors; null: it has none, and is searched by words.';
comment on column haive_private.memory_collections.storage is
'The type of its vectors: halfvec (16 bits a number) where an index takes no wider ones otherwise.';
comment on column haive_private.memory_collections.language is
'The text search configuration that its words are stemmed by.';
