-- As in stored_bytes. The vector by its width and not by its column: that one may be compressed.
create or replace function haive_private.memory_bytes(
  p_metadata jsonb, p_vector_bytes int, p_tokens bytea
)
returns bigint
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return 100 + octet_length(p_metadata::text) + p_vector_bytes + coalesce(octet_length(p_tokens), 0);
end;
$$;

comment on function haive_private.memory_bytes(jsonb, int, bytea) is
'Bytes that a memory counts for.';
