create table haive.messages (
  tenant_id text collate "C" not null,
  conversation_id uuid not null,
  seq bigint not null,
  id uuid not null,
  role haive_private.message_role not null,
  content haive_private.message_text not null,
  parts haive_private.message_parts,
  metadata haive_private.json_object not null default '{}',
  input_tokens haive_private.token_count,
  output_tokens haive_private.token_count,
  model haive_private.name,
  cost haive_private.money,
  created_at haive_private.moment not null default now(),
  constraint messages_pkey primary key (tenant_id, conversation_id, seq),
  -- id first: see the note on indexes at haive.conversations.
  constraint messages_id_key unique (id, tenant_id),
  constraint messages_conversation_fkey foreign key (tenant_id, conversation_id)
  references haive.conversations (tenant_id, id) on delete cascade,
  constraint messages_usage_is_whole check (num_nulls(input_tokens, output_tokens) <> 1)
);

comment on table haive.messages is 'What was said, in the order that the database gave it.';
comment on column haive.messages.seq is
'1, 2, 3 … without gaps in a conversation, given under the lock of its row.';
comment on column haive.messages.id is
'UUIDv7 from the client: the same id with the same content is the same message.';
comment on column haive.messages.content is 'The text; of a message in parts, their text joined.';
comment on column haive.messages.parts is
'The list of parts (text, image, tool call, tool result), or null where the text is all.';
