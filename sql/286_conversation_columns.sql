-- Conversations by column, a row for each: what conversation_doc answers as JSON.
create or replace function haive_private.conversation_columns(
  p_rows haive.conversations[], p_next_page text
)
returns setof haive_private.stored_columns
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return query
  select
    c.id, c.ordinality, c.tenant_id, c.agent_id::text, c.user_id::text, c.title::text,
    c.tags::text[], c.context::jsonb, c.participants::text[], c.settings::jsonb, c.message_count,
    c.input_tokens, c.output_tokens, c.cost::text, c.created_at::timestamptz, c.updated_at,
    c.last_message_at, p_next_page, null::bigint[], null::bytea, null::text[], null::text[],
    null::timestamptz[], null::bigint[], null::jsonb[], null::bigint[], null::jsonb[],
    null::bigint[], null::int[], null::int[], null::bigint[], null::text[], null::text[],
    c.sealed_with is not null
  from unnest(p_rows) with ordinality as c;
end;
$$;

comment on function haive_private.conversation_columns(haive.conversations[], text) is
'Conversations as the SDK reads them on a direct connection.';
