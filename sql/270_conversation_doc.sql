-- A conversation as JSON. Money is text: JSON numbers become floats on the way.
-- plpgsql, whose single expression costs less than an SQL function that cannot be inlined.
-- The casts take the domains off, as in message_docs.
create or replace function haive_private.conversation_doc(
  p_row haive.conversations, p_messages json default null
)
returns json
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return json_build_object(
    'id', p_row.id,
    'tenant_id', p_row.tenant_id,
    'agent_id', p_row.agent_id::text,
    'user_id', p_row.user_id::text,
    'metadata', case
      when p_row.sealed is null then json_build_object(
        'title', p_row.title::text,
        'tags', p_row.tags::text[],
        'context', p_row.context::jsonb,
        'participants', p_row.participants::text[],
        'settings', p_row.settings::jsonb
      )
      else json_build_object(
        'tags', p_row.tags::text[],
        'participants', p_row.participants::text[],
        'sealed', json_build_object(
          'sealed', replace(encode(p_row.sealed, 'base64'), e'\n', ''),
          'sealed_with', p_row.sealed_with::text
        )
      )
    end,
    'message_count', p_row.message_count,
    'input_tokens', p_row.input_tokens,
    'output_tokens', p_row.output_tokens,
    'cost', p_row.cost::text,
    'created_at', p_row.created_at::timestamptz,
    'updated_at', p_row.updated_at,
    'last_message_at', p_row.last_message_at,
    'messages', p_messages
  );
end;
$$;

comment on function haive_private.conversation_doc(haive.conversations, json) is
'A conversation as the functions of the API return it.';
