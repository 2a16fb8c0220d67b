-- Memories: as in 900_grants, nobody has anything that is not written here. The tables of collections
-- get their grants when they are made.
revoke all on table
haive_private.memory_collections, haive_private.memory_words, haive_private.memory_sizes
from public, anon, authenticated, service_role, haive_client, haive_writer;
revoke all on function
haive.open_memory_collection(jsonb, text),
haive.put_memories(text, jsonb, text, boolean),
haive.get_memories(text, text[], boolean, text),
haive.find_memories(text, jsonb, int, text, boolean, text),
haive.count_memories(text, jsonb, text),
haive.delete_memories(text, text[], text),
haive.memory_tokens(text, text[], text),
haive.search_memories(text, jsonb, text),
haive.memory_stats(text, text),
haive.plan_memory_indexes(text, bigint, text),
haive.measure_memory_recall(text, int, text)
from public, anon, authenticated, service_role, haive_client;
revoke all on function
haive_private.memory_bytes(jsonb, int, bytea),
haive_private.add_memory_words(text, text, text[], int[], int[], bigint, bigint, bigint),
haive_private.gather_memory_words(text, text, int),
haive_private.count_memories(),
haive_private.refuse_memories(text, text[]),
haive_private.count_loaded_memories(text, text),
haive_private.drop_tenant_memories(),
haive_private.drop_stale_tokens(),
haive_private.enter_collection(text, text, boolean),
haive_private.refuse_sealed_memories(),
haive_private.vector_schema(),
haive_private.memory_condition(jsonb, int, boolean),
haive_private.nested(text[], jsonb),
haive_private.open_memory_collection(text, jsonb),
haive_private.memory_collection_doc(haive_private.memory_collections),
haive_private.memory_index(haive_private.memory_collections, text, boolean),
haive_private.memory_index_name(haive_private.memory_collections, text),
haive_private.put_memories(text, text, jsonb, boolean),
haive_private.get_memories(text, text, text[], boolean),
haive_private.memory_doc(boolean),
haive_private.find_memories(text, text, jsonb, int, text, boolean),
haive_private.number_of_memories(text, text, jsonb),
haive_private.delete_memories(text, text, text[]),
haive_private.memory_tokens(text, text, text[]),
haive_private.nearest_memories(
  haive_private.memory_collections, text, boolean, text, text, int, double precision,
  boolean, int
),
haive_private.few_memories(int),
haive_private.fewest_to_walk(bigint),
haive_private.memory_distance(haive_private.memory_collections),
haive_private.compare_memories(
  haive_private.memory_collections, text, text, int, boolean, bigint
),
haive_private.walk_memories(
  haive_private.memory_collections, text, text, text, int, int, int, boolean
),
haive_private.weigh_words(text, text, haive_private.memory_collections, tsvector),
haive_private.search_memories(text, text, jsonb),
haive_private.memory_stats(text, text),
haive_private.plan_memory_indexes(text, text, bigint),
haive_private.measure_memory_recall(text, text, int),
haive_private.drop_memories(text, text, text, int),
haive_private.unquote_memories(text, text, text[]),
haive_private.memories_of_user(text, text, int, text),
haive_private.stored_memory_bytes(text)
from public, anon, authenticated, service_role, haive_client;

revoke create on schema haive_private from haive_writer;

grant execute on function
haive.put_memories(text, jsonb, text, boolean),
haive.get_memories(text, text[], boolean, text),
haive.find_memories(text, jsonb, int, text, boolean, text),
haive.count_memories(text, jsonb, text),
haive.delete_memories(text, text[], text),
haive.memory_tokens(text, text[], text),
haive.search_memories(text, jsonb, text),
haive.memory_stats(text, text),
haive_private.put_memories(text, text, jsonb, boolean),
haive_private.get_memories(text, text, text[], boolean),
haive_private.find_memories(text, text, jsonb, int, text, boolean),
haive_private.number_of_memories(text, text, jsonb),
haive_private.delete_memories(text, text, text[]),
haive_private.memory_tokens(text, text, text[]),
haive_private.search_memories(text, text, jsonb),
haive_private.memory_stats(text, text)
to authenticated, service_role, haive_client;
-- Collections are of the whole installation.
grant execute on function
haive.open_memory_collection(jsonb, text),
haive.plan_memory_indexes(text, bigint, text),
haive.measure_memory_recall(text, int, text),
haive_private.open_memory_collection(text, jsonb),
haive_private.plan_memory_indexes(text, text, bigint),
haive_private.measure_memory_recall(text, text, int)
to service_role, haive_client;

-- What the definer functions do, they do as haive_writer.
grant select, insert, delete on haive_private.memory_collections to haive_writer;
grant select, insert, update, delete on
haive_private.memory_words, haive_private.memory_sizes
to haive_writer;
grant execute on function
haive_private.memory_bytes(jsonb, int, bytea),
haive_private.refuse_sealed_memories(),
haive_private.vector_schema(),
haive_private.memory_condition(jsonb, int, boolean),
haive_private.nested(text[], jsonb),
haive_private.memory_collection_doc(haive_private.memory_collections),
haive_private.memory_index(haive_private.memory_collections, text, boolean),
haive_private.memory_index_name(haive_private.memory_collections, text),
haive_private.memory_doc(boolean),
haive_private.few_memories(int),
haive_private.fewest_to_walk(bigint),
haive_private.memory_distance(haive_private.memory_collections),
haive_private.drop_stale_tokens()
to haive_writer;
