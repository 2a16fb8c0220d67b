-- The bounds of columns. Domains and not CHECKs of the tables: a session compiles a domain's check
-- once, a table's checks at every statement, unchanged columns included (0.36 against 0.49 ms for
-- one message).
create domain haive_private.name as text
constraint name_is_bounded check (length(value) between 1 and 200);
comment on domain haive_private.name is 'The id of a user, agent or model: 1 to 200 characters.';

create domain haive_private.title as text
constraint title_is_bounded check (length(value) <= 1000);
comment on domain haive_private.title is 'At most 1,000 characters.';

create domain haive_private.labels as text []
constraint labels_are_bounded check (
  cardinality(value) <= 1000
  and array_position(value, null) is null
  and octet_length(array_to_string(value, '')) <= 200000
);
comment on domain haive_private.labels is 'At most 1,000 texts, together 200,000 bytes.';

create domain haive_private.json_object as jsonb
constraint json_object_is_bounded check (
  jsonb_typeof(value) = 'object' and pg_column_size(value) <= 1048576
)
-- What one member writes all must be able to read: parsers end at some depth and size of number.
constraint json_object_is_readable check (
  not jsonb_path_exists(value, 'strict $.**{100}')
  and not jsonb_path_exists(
    value, 'strict $.** ? (@.type() == "number" && (@ > 1e400 || @ < -1e400))'
  )
);
comment on domain haive_private.json_object is 'A JSON object of at most 1 MiB and less than 100 levels.';

create domain haive_private.message_role as text collate "C"
constraint message_role_is_known check (value in ('system', 'user', 'assistant', 'tool'));
comment on domain haive_private.message_role is 'system, user, assistant or tool.';

create domain haive_private.message_text as text
constraint message_text_is_bounded check (octet_length(value) <= 8388608);
comment on domain haive_private.message_text is 'At most 8 MiB of text.';

create domain haive_private.message_parts as jsonb
constraint message_parts_are_bounded check (
  jsonb_typeof(value) = 'array' and pg_column_size(value) <= 33554432
)
constraint message_parts_are_readable check (
  not jsonb_path_exists(value, 'strict $.**{100}')
  and not jsonb_path_exists(
    value, 'strict $.** ? (@.type() == "number" && (@ > 1e400 || @ < -1e400))'
  )
)
-- The four kinds of parts, with what makes them one and in the types that a client expects.
constraint message_parts_are_known check (
  not jsonb_path_exists(value, 'strict $[*] ? (@.type() != "object")', '{}', true)
  and not jsonb_path_exists(value, $p$
    $[*] ? (!(
      @.type.type() == "string" && (
        (@.type == "text" && @.text.type() == "string")
        || (
          @.type == "image" && (@.url.type() == "string" || @.data.type() == "string")
          && (!exists(@.url) || @.url.type() == "string" || @.url.type() == "null")
          && (!exists(@.data) || @.data.type() == "string" || @.data.type() == "null")
          && (
            !exists(@.media_type) || @.media_type.type() == "string"
            || @.media_type.type() == "null"
          )
        )
        || (
          @.type == "tool_call" && @.id.type() == "string" && @.name.type() == "string"
          && (!exists(@.arguments) || @.arguments.type() == "object")
        )
        || (
          @.type == "tool_result" && @.tool_call_id.type() == "string"
          && (!exists(@.is_error) || @.is_error.type() == "boolean")
        )
      )
    ))
  $p$)
);
comment on domain haive_private.message_parts is
'A list of parts (text, image, tool_call, tool_result), at most 32 MiB.';

create domain haive_private.moment as timestamptz
constraint moment_is_of_this_calendar check (
  value between '0001-01-02 00:00:00+00' and '9999-12-31 00:00:00+00'
);
comment on domain haive_private.moment is
'A time that every client can hold: no infinity, no year beyond 9999.';

create domain haive_private.token_count as int
constraint token_count_is_positive check (value >= 0);
comment on domain haive_private.token_count is 'Tokens, zero or more.';

create domain haive_private.money as numeric
constraint money_is_exact check (value >= 0 and value < 1e12 and scale(value) <= 12);
comment on domain haive_private.money is
'In the currency of the price list, with up to 12 places: never a float.';

create domain haive_private.event_kind as text collate "C"
constraint event_kind_is_known check (
  value in (
    'conversation.created', 'conversation.updated', 'conversation.deleted', 'messages.added',
    'checkpoint.saved', 'checkpoint.changed', 'checkpoints.pruned', 'branch.created',
    'thread.copied', 'thread.deleted', 'quota.warning', 'session.created', 'session.updated',
    'session.merged', 'session.unmerged', 'participant.changed', 'message.hidden', 'message.shown'
  )
);
comment on domain haive_private.event_kind is 'What happened.';
