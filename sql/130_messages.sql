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
  sealed haive_private.sealed_content,
  sealed_with haive_private.key_id,
  author haive_private.name default nullif(current_setting('persistence.author', true), ''),
  hidden_at timestamptz,
  constraint messages_pkey primary key (tenant_id, conversation_id, seq),
  -- id first: see the note on indexes at haive.conversations.
  constraint messages_id_key unique (id, tenant_id),
  constraint messages_conversation_fkey foreign key (tenant_id, conversation_id)
  references haive.conversations (tenant_id, id) on delete cascade,
  constraint messages_usage_is_whole check (num_nulls(input_tokens, output_tokens) <> 1),
  constraint messages_are_sealed_whole check (
    num_nulls(sealed, sealed_with) <> 1
    and (sealed is null or (content = '' and parts is null and metadata = '{}'))
  )
);

comment on table haive.messages is 'What was said, in the order that the database gave it.';
comment on column haive.messages.seq is
'1, 2, 3 … without gaps in a conversation, given under the lock of its row.';
comment on column haive.messages.id is
'UUIDv7 from the client: the same id with the same content is the same message.';
comment on column haive.messages.content is 'The text; of a message in parts, their text joined.';
comment on column haive.messages.parts is
'The list of parts (text, image, tool call, tool result), or null where the text is all.';
comment on column haive.messages.sealed is
'Content, parts and metadata, sealed by the client: their own columns are empty then.';
comment on column haive.messages.sealed_with is 'The key that it was sealed with.';
comment on column haive.messages.author is
'The user who wrote it, where that is known for certain: who called with their token, or for whom a '
'service wrote to a session.';
comment on column haive.messages.hidden_at is
'When a moderator hid it: since then only moderators and services see it.';

-- Compressed already.
alter table haive.messages alter column sealed set storage external;

-- Serves: what an erased user wrote in conversations of others.
create index messages_author_idx on haive.messages (author, tenant_id) where author is not null;
-- Serves: the places that a page of a session leaves out.
create index messages_hidden_idx on haive.messages (conversation_id, seq)
where hidden_at is not null;
