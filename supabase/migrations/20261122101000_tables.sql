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
    'thread.copied', 'thread.deleted'
  )
);
comment on domain haive_private.event_kind is 'What happened.';

create table haive.tenants (
  tenant_id text collate "C" not null,
  name text not null,
  settings jsonb not null default '{}',
  created_at timestamptz not null default now(),
  constraint tenants_pkey primary key (tenant_id),
  constraint tenants_id_is_a_slug check (tenant_id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  constraint tenants_name_is_bounded check (length(name) between 1 and 200),
  constraint tenants_settings_are_an_object check (jsonb_typeof(settings) = 'object')
);

comment on table haive.tenants is 'Whose data it is. The tenant "default" always exists.';
comment on column haive.tenants.tenant_id is 'A slug; collated "C" because it heads every key.';

insert into haive.tenants (tenant_id, name) values ('default', 'Default')
on conflict do nothing;

create table haive.members (
  tenant_id text collate "C" not null,
  user_id haive_private.name not null,
  role text not null default 'member',
  created_at timestamptz not null default now(),
  constraint members_pkey primary key (tenant_id, user_id),
  constraint members_tenant_fkey foreign key (tenant_id)
  references haive.tenants (tenant_id) on delete cascade,
  constraint members_role_is_known check (role in ('owner', 'admin', 'member', 'reader'))
);

comment on table haive.members is 'Which user (the "sub" of a token) belongs to which tenant, and as what.';
comment on column haive.members.role is
'owner and admin see all of the tenant; member writes and reader reads where they take part.';

-- Serves: the tenants of the caller, asked by every policy.
create index members_user_idx on haive.members (user_id);

create table haive.conversations (
  tenant_id text collate "C" not null,
  id uuid not null,
  agent_id haive_private.name not null,
  user_id haive_private.name,
  title haive_private.title,
  tags haive_private.labels not null default '{}',
  context haive_private.json_object not null default '{}',
  participants haive_private.labels not null default '{}',
  settings haive_private.json_object not null default '{}',
  message_count bigint not null default 0,
  input_tokens bigint not null default 0,
  output_tokens bigint not null default 0,
  cost numeric not null default 0,
  created_at haive_private.moment not null default now(),
  updated_at timestamptz not null default now(),
  last_message_at timestamptz not null default now(),
  active_hour timestamptz not null
  generated always as (date_bin('1 hour', last_message_at, '2000-01-01 00:00:00+00')) stored,
  constraint conversations_pkey primary key (tenant_id, id),
  constraint conversations_tenant_fkey foreign key (tenant_id)
  references haive.tenants (tenant_id) on delete cascade
) with (fillfactor = 70); -- every message rewrites its row: leave room to do it in place

comment on table haive.conversations is
'One row a conversation, with counters kept by the functions that write its messages.';
comment on column haive.conversations.message_count is
'How many messages there are, and the seq of the last one: seq has no gaps.';
comment on column haive.conversations.last_message_at is
'When the last message was written; while there is none, when the conversation began.';
comment on column haive.conversations.active_hour is
'The hour of last_message_at. Indexed in its place, so that a message changes no indexed column '
'and its update stays in place (40,000 against 33,000 messages a second).';

-- No index below begins with tenant_id: as long as the table is small or new, the planner takes
-- such an index for as cheap as the key and reads the whole tenant to find one row
-- (8,000 against 40,000 messages a second).

-- Serves: the latest conversations of a user.
create index conversations_user_idx on haive.conversations (user_id, tenant_id, active_hour);
-- Serves: the latest conversations of all users.
create index conversations_active_idx on haive.conversations (active_hour);
-- Serves: a user's, agent's or tenant's conversations by age.
create index conversations_created_idx on haive.conversations (created_at);
-- Serves: the conversations of an agent.
create index conversations_agent_idx on haive.conversations (agent_id, tenant_id, active_hour);
-- Filters by lists use an index only for callers that row level security does not bind: for the
-- others they run after the policy, since their operators are not leakproof.
-- Serves: filters by tags with a service key.
create index conversations_tags_idx on haive.conversations using gin (tags);
-- Serves: the policy by which a participant may read, and filters by them with a service key.
create index conversations_participants_idx on haive.conversations using gin (participants);

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

create table haive.events (
  tenant_id text collate "C" not null,
  xid xid8 not null default pg_current_xact_id(),
  id bigint not null generated always as identity,
  kind haive_private.event_kind not null,
  conversation_id uuid,
  first_seq bigint,
  last_seq bigint,
  created_at timestamptz not null default now(),
  thread_key uuid,
  checkpoint_id uuid,
  constraint events_pkey primary key (tenant_id, xid, id)
);

comment on table haive.events is
'The outbox: one row a statement and conversation, written in the same transaction as the change.';
comment on column haive.events.xid is
'The transaction that wrote it. Readers stop before the oldest transaction that still runs, so a '
'row that commits late is not skipped. Of one conversation, id is the order: a transaction has its '
'number before it waits for the row.';

-- Closed until the policies open them.
alter table haive.conversations enable row level security;
alter table haive.events enable row level security;
alter table haive.members enable row level security;
alter table haive.messages enable row level security;
alter table haive.tenants enable row level security;

insert into haive_private.migrations (version, name) values
  ('20261122101000', 'tables')
on conflict do nothing;
