-- Items of memory, as 990_memory_grants.
revoke all on function
haive.index_memory_items(text, text),
haive.put_memory_items(text, jsonb, text),
haive.get_memory_items(text, text[], boolean[], text),
haive.search_memory_items(text, jsonb, text),
haive.list_memory_namespaces(text, jsonb, text),
haive.expire_memory_items(text, int, text)
from public, anon, authenticated, service_role, haive_client;
revoke all on function
haive_private.write_memories(record, jsonb, boolean),
haive_private.rank_memories(record, jsonb),
haive_private.namespace_path(jsonb),
haive_private.behind_path(text),
haive_private.time_text(timestamptz),
haive_private.index_memory_items(text, text),
haive_private.put_memory_items(text, text, jsonb),
haive_private.item_part(text, int),
haive_private.get_memory_items(text, text, text[], boolean[]),
haive_private.memory_item_doc(text),
haive_private.refresh_memory_items(record, text[]),
haive_private.search_memory_items(text, text, jsonb),
haive_private.memory_item_filter(jsonb, jsonb),
haive_private.rank_memory_items(record, jsonb, int, int, double precision),
haive_private.list_memory_namespaces(text, text, jsonb),
haive_private.first_labels(jsonb, int),
haive_private.matches_namespace(jsonb, jsonb),
haive_private.expire_memory_items(text, text, int)
from public, anon, authenticated, service_role, haive_client;

revoke create on schema haive_private from haive_writer;

grant execute on function
haive.put_memory_items(text, jsonb, text),
haive.get_memory_items(text, text[], boolean[], text),
haive.search_memory_items(text, jsonb, text),
haive.list_memory_namespaces(text, jsonb, text),
haive.expire_memory_items(text, int, text),
haive_private.put_memory_items(text, text, jsonb),
haive_private.get_memory_items(text, text, text[], boolean[]),
haive_private.search_memory_items(text, text, jsonb),
haive_private.list_memory_namespaces(text, text, jsonb),
haive_private.expire_memory_items(text, text, int)
to authenticated, service_role, haive_client;
-- Indexes are of the whole installation.
grant execute on function
haive.index_memory_items(text, text),
haive_private.index_memory_items(text, text)
to service_role, haive_client;

-- What the definer functions do, they do as haive_writer.
grant execute on function
haive_private.namespace_path(jsonb),
haive_private.behind_path(text),
haive_private.time_text(timestamptz),
haive_private.item_part(text, int),
haive_private.memory_item_doc(text),
haive_private.memory_item_filter(jsonb, jsonb),
haive_private.first_labels(jsonb, int),
haive_private.matches_namespace(jsonb, jsonb)
to haive_writer;
