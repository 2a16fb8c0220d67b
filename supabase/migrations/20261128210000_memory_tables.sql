-- Where memories are: schema vecs, as Supabase's client of that name lays its collections out. Its
-- tables are made by haive_writer, at run time. In one block, since all installations of a database
-- share schema and extension.
do $$
declare
  v_schema text;
begin
  if not exists (select from pg_catalog.pg_extension where extname = 'vector') then
    begin
      create schema if not exists extensions;
      create extension if not exists vector with schema extensions;
    exception
      when insufficient_privilege or undefined_file or feature_not_supported then
        null; -- all else works without it, and open_memory_collection says what is missing
    end;
  end if;
  if not exists (select from pg_catalog.pg_namespace where nspname = 'vecs') then
    create schema vecs;
    comment on schema vecs is
    'Memories, a table a collection. For services: it is not exposed through PostgREST.';
  end if;
  if not pg_catalog.has_schema_privilege('haive_writer', 'vecs', 'create') then
    grant usage, create on schema vecs to haive_writer;
    grant usage on schema vecs to haive_client, authenticated, service_role;
  end if;
  select n.nspname into v_schema
  from pg_catalog.pg_extension as e
  join pg_catalog.pg_namespace as n on n.oid = e.extnamespace
  where e.extname = 'vector';
  if v_schema is not null and not pg_catalog.has_schema_privilege('haive_writer', v_schema, 'usage') then
    execute pg_catalog.format(
      'grant usage on schema %I to haive_writer, haive_client, authenticated, service_role', v_schema
    );
  end if;
end;
$$;

create table haive_private.memory_collections (
  name text collate "C" not null,
  table_name text not null,
  model text,
  dimensions haive_private.positive,
  storage text not null,
  metric text not null,
  language text not null,
  index_type text not null,
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

create table haive_private.memory_words (
  tenant_id text collate "C" not null,
  collection text collate "C" not null,
  lexeme text collate "C" not null,
  part bigint not null,
  in_text bigint not null,
  in_all bigint not null,
  constraint memory_words_pkey primary key (tenant_id, collection, lexeme, part)
);

comment on table haive_private.memory_words is
'In how many memories of a tenant a word is: the sum of its parts. Part 0 is the word''s own row; the '
'others are what writers added who did not wait for it, by their transaction.';
comment on column haive_private.memory_words.in_text is 'In so many texts.';
comment on column haive_private.memory_words.in_all is 'In so many texts, or the texts before them.';

-- Serves: whoever may change part 0, and adds the other parts to it.
create index memory_words_parts_idx on haive_private.memory_words (tenant_id, collection)
where part <> 0;

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

alter table haive_private.memory_collections enable row level security;
alter table haive_private.memory_words enable row level security;
alter table haive_private.memory_sizes enable row level security;

insert into haive_private.migrations (version, name) values
  ('20261128210000', 'memory_tables')
on conflict do nothing;
