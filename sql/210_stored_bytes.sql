-- What rows weigh against the limit of storage: text, JSON and payloads as they are before the server
-- compresses them, and for each row about what its other columns take. Here alone: who counts, triggers
-- or the functions that write, and the job that recounts all ask these. None of them unpacks a payload.
create or replace function haive_private.message_bytes(
  p_content text, p_parts jsonb, p_metadata jsonb
)
returns bigint
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return 100 + octet_length(p_content) + coalesce(octet_length(p_parts::text), 0)
    -- Most have none: 2 of the 3 µs that a row takes.
    + case when p_metadata = '{}' then 2 else octet_length(p_metadata::text) end;
end;
$$;

comment on function haive_private.message_bytes(text, jsonb, jsonb) is
'Bytes that a message counts for.';

create or replace function haive_private.conversation_bytes(
  p_title text, p_tags text[], p_context jsonb, p_participants text[], p_settings jsonb
)
returns bigint
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return 200 + coalesce(octet_length(p_title), 0)
    + octet_length(array_to_string(p_tags, ','))
    + octet_length(array_to_string(p_participants, ','))
    + octet_length(p_context::text) + octet_length(p_settings::text);
end;
$$;

comment on function haive_private.conversation_bytes(text, text[], jsonb, text[], jsonb) is
'Bytes that a conversation counts for, without its messages.';

create or replace function haive_private.checkpoint_bytes(
  p_payload bytea,
  p_sealed bytea default null,
  p_metadata jsonb default null,
  p_tags text[] default null,
  p_search jsonb default null
)
returns bigint
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return 100 + coalesce(octet_length(p_payload), 0) + coalesce(octet_length(p_sealed), 0)
    + coalesce(octet_length(p_metadata::text), 0)
    + coalesce(octet_length(array_to_string(p_tags, ',')), 0)
    + coalesce(octet_length(p_search::text), 0);
end;
$$;

comment on function haive_private.checkpoint_bytes(bytea, bytea, jsonb, text[], jsonb) is
'Bytes that a checkpoint, a pending write, a schema or what is noted of a branch counts for.';

create or replace function haive_private.merge_bytes(
  p_ranges int,
  p_dropped jsonb default null,
  p_conflicts jsonb default null,
  p_summary_of jsonb default null
)
returns bigint
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return 100 + 32 * p_ranges + coalesce(octet_length(p_dropped::text), 0)
    + coalesce(octet_length(p_conflicts::text), 0)
    + coalesce(octet_length(p_summary_of::text), 0);
end;
$$;

comment on function haive_private.merge_bytes(int, jsonb, jsonb, jsonb) is
'Bytes that the record of a merge, or a segment of a session with its ranges, counts for.';
