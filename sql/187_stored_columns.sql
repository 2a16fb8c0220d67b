create type haive_private.stored_columns as (
  conversation_id uuid,
  -- Of a row that is a conversation; of others null.
  place bigint,
  tenant_id text,
  agent_id text,
  user_id text,
  title text,
  tags text[],
  context jsonb,
  participants text[],
  settings jsonb,
  message_count bigint,
  input_tokens bigint,
  output_tokens bigint,
  cost text,
  created_at timestamptz,
  updated_at timestamptz,
  last_message_at timestamptz,
  next_page text,
  -- Of a row that is messages of a conversation: what each message has, and what few have with the
  -- seqs of those.
  seqs bigint[],
  ids bytea,
  roles text[],
  contents text[],
  times timestamptz[],
  parted bigint[],
  parts jsonb[],
  described bigint[],
  metadata jsonb[],
  metered bigint[],
  inputs int[],
  outputs int[],
  priced bigint[],
  models text[],
  costs text[],
  -- Of both: it is content that the client sealed, which does not go this way.
  is_sealed boolean
);

comment on type haive_private.stored_columns is
'A row is a conversation, or messages of one: by column, where JSON costs more than to find them.';
