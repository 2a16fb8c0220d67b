create type haive_private.near_memories as (
  ids text[],
  distances double precision[],
  documents jsonb[],
  passed bigint
);

comment on type haive_private.near_memories is
'Memories near a vector, as columns, nearest first. documents, their metadata, is null unless it was '
'wanted; passed says how many of those that an index was read for pass.';
