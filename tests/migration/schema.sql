-- What the migrations make. `make dump` renews it: its diff is what is reviewed.

-- ACL SCHEMA haive
GRANT USAGE ON SCHEMA haive TO authenticated;
GRANT USAGE ON SCHEMA haive TO haive_client;
GRANT USAGE ON SCHEMA haive TO haive_writer;
GRANT USAGE ON SCHEMA haive TO service_role;

-- SCHEMA haive
CREATE SCHEMA haive;


ALTER SCHEMA haive OWNER TO postgres;

-- ACL SCHEMA haive_private
GRANT USAGE ON SCHEMA haive_private TO authenticated;
GRANT USAGE ON SCHEMA haive_private TO haive_client;
GRANT USAGE ON SCHEMA haive_private TO haive_writer;
GRANT USAGE ON SCHEMA haive_private TO service_role;

-- COMMENT SCHEMA haive_private
COMMENT ON SCHEMA haive_private IS 'Helpers of schema haive. Never expose it through PostgREST.';

-- SCHEMA haive_private
CREATE SCHEMA haive_private;


ALTER SCHEMA haive_private OWNER TO postgres;

-- FUNCTION add_messages(jsonb, text)
CREATE FUNCTION haive.add_messages(messages jsonb, tenant text DEFAULT NULL::text) RETURNS json
    LANGUAGE plpgsql
    SET search_path TO ''
    AS $$
declare
  v_rows record;
  v_failed int;
  v_result record;
begin
  select
    array_agg(m.conversation_id order by m.place) as conversation_ids,
    array_agg(coalesce(m.id, gen_random_uuid()) order by m.place) as ids,
    array_agg(m.role order by m.place) as roles,
    array_agg(m.content order by m.place) as contents,
    array_agg(m.parts order by m.place) as parts,
    array_agg(m.metadata order by m.place) as metadata,
    array_agg(m.input_tokens order by m.place) as input_tokens,
    array_agg(m.output_tokens order by m.place) as output_tokens,
    array_agg(m.model order by m.place) as models,
    array_agg(m.cost order by m.place) as costs,
    array_agg(m.created_at order by m.place) as created_at,
    bool_or(m.total_tokens <> m.input_tokens + m.output_tokens) as has_wrong_total
  into v_rows
  from (
    select u.place, d.*
    from jsonb_array_elements(add_messages.messages) with ordinality as u (doc, place)
    cross join lateral jsonb_to_record(u.doc) as d (
      conversation_id uuid, id uuid, role text, content text, parts jsonb, metadata jsonb,
      input_tokens int, output_tokens int, total_tokens int, model text, cost numeric,
      created_at timestamptz
    )
  ) as m;
  if v_rows.conversation_ids is null then
    return '[]';
  end if;
  if v_rows.has_wrong_total then
    raise exception using
      errcode = 'PT422',
      message = 'total_tokens is not the sum of input_tokens and output_tokens',
      hint = 'Leave total_tokens out: it is computed.';
  end if;

  v_result := haive_private.append_messages(
    add_messages.tenant, v_rows.conversation_ids, v_rows.ids, v_rows.roles, v_rows.contents,
    v_rows.parts, v_rows.metadata, v_rows.input_tokens, v_rows.output_tokens, v_rows.models,
    v_rows.costs, v_rows.created_at
  );
  select min(f.place) into v_failed
  from unnest(v_result.failures) with ordinality as f (code, place)
  where f.code is not null;
  if v_failed is not null then
    raise exception using
      errcode = v_result.failures[v_failed],
      message = case v_result.failures[v_failed]
        when 'PT409' then format('another message has the id %s', v_rows.ids[v_failed])
        else format('no conversation %s', v_rows.conversation_ids[v_failed])
      end,
      hint = case v_result.failures[v_failed]
        when 'PT409' then 'Repeat a call only with the same content.'
        else 'It was deleted, belongs to another tenant, or is not the caller''s to write to.'
      end;
  end if;
  return (
    select json_agg(
      json_build_object('id', u.id, 'seq', u.seq, 'created_at', u.created_at) order by u.place
    )
    from unnest(v_rows.ids, v_result.seqs, v_result.times) with ordinality
      as u (id, seq, created_at, place)
  );
end;
$$;


ALTER FUNCTION haive.add_messages(messages jsonb, tenant text) OWNER TO postgres;

-- ACL FUNCTION add_messages(messages jsonb, tenant text)
GRANT ALL ON FUNCTION haive.add_messages(messages jsonb, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.add_messages(messages jsonb, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.add_messages(messages jsonb, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.add_messages(messages jsonb, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION add_messages(messages jsonb, tenant text)
COMMENT ON FUNCTION haive.add_messages(messages jsonb, tenant text) IS 'Adds messages, all or none: a list of {conversation_id, id, role, content, parts, metadata, input_tokens, output_tokens, model, cost, created_at}. Returns id, seq and created_at of each. The same id with the same content is the same message.';

-- ACL TABLE conversations
GRANT SELECT ON TABLE haive.conversations TO authenticated;
GRANT SELECT ON TABLE haive.conversations TO haive_client;
GRANT SELECT ON TABLE haive.conversations TO service_role;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE haive.conversations TO haive_writer;

-- COMMENT TABLE conversations
COMMENT ON TABLE haive.conversations IS 'One row a conversation, with counters kept by the functions that write its messages.';

-- ROW SECURITY conversations
ALTER TABLE haive.conversations ENABLE ROW LEVEL SECURITY;

-- TABLE conversations
CREATE TABLE haive.conversations (
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    id uuid NOT NULL,
    agent_id haive_private.name NOT NULL,
    user_id haive_private.name,
    title haive_private.title,
    tags haive_private.labels DEFAULT '{}'::text[] NOT NULL,
    context haive_private."json_object" DEFAULT '{}'::jsonb NOT NULL,
    participants haive_private.labels DEFAULT '{}'::text[] NOT NULL,
    settings haive_private."json_object" DEFAULT '{}'::jsonb NOT NULL,
    message_count bigint DEFAULT 0 NOT NULL,
    input_tokens bigint DEFAULT 0 NOT NULL,
    output_tokens bigint DEFAULT 0 NOT NULL,
    cost numeric DEFAULT 0 NOT NULL,
    created_at haive_private.moment DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    last_message_at timestamp with time zone DEFAULT now() NOT NULL,
    active_hour timestamp with time zone GENERATED ALWAYS AS (date_bin('01:00:00'::interval, last_message_at, '2000-01-01 00:00:00+00'::timestamp with time zone)) STORED NOT NULL
)
WITH (fillfactor='70');


ALTER TABLE haive.conversations OWNER TO postgres;

-- CONSTRAINT conversations conversations_pkey
ALTER TABLE ONLY haive.conversations
    ADD CONSTRAINT conversations_pkey PRIMARY KEY (tenant_id, id);

-- FK CONSTRAINT conversations conversations_tenant_fkey
ALTER TABLE ONLY haive.conversations
    ADD CONSTRAINT conversations_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES haive.tenants(tenant_id) ON DELETE CASCADE;

-- POLICY conversations members read what they take part in, administrators all
CREATE POLICY "members read what they take part in, administrators all" ON haive.conversations FOR SELECT TO authenticated USING ((((tenant_id IN ( SELECT haive_private.my_tenants() AS my_tenants)) AND (((user_id)::text = ( SELECT haive.current_actor() AS current_actor)) OR ((participants)::text[] @> ARRAY[( SELECT haive.current_actor() AS current_actor)]))) OR (tenant_id IN ( SELECT haive_private.my_admin_tenants() AS my_admin_tenants))));

-- POLICY conversations services work in the tenant they entered
CREATE POLICY "services work in the tenant they entered" ON haive.conversations TO haive_client, haive_writer USING ((tenant_id = ( SELECT current_setting('persistence.tenant'::text, true) AS current_setting)));

-- COMMENT COLUMN conversations.active_hour
COMMENT ON COLUMN haive.conversations.active_hour IS 'The hour of last_message_at. Indexed in its place, so that a message changes no indexed column and its update stays in place (40,000 against 33,000 messages a second).';

-- COMMENT COLUMN conversations.last_message_at
COMMENT ON COLUMN haive.conversations.last_message_at IS 'When the last message was written; while there is none, when the conversation began.';

-- COMMENT COLUMN conversations.message_count
COMMENT ON COLUMN haive.conversations.message_count IS 'How many messages there are, and the seq of the last one: seq has no gaps.';

-- INDEX conversations_active_idx
CREATE INDEX conversations_active_idx ON haive.conversations USING btree (active_hour);

-- INDEX conversations_agent_idx
CREATE INDEX conversations_agent_idx ON haive.conversations USING btree (agent_id, tenant_id, active_hour);

-- INDEX conversations_created_idx
CREATE INDEX conversations_created_idx ON haive.conversations USING btree (created_at);

-- INDEX conversations_participants_idx
CREATE INDEX conversations_participants_idx ON haive.conversations USING gin (participants);

-- INDEX conversations_tags_idx
CREATE INDEX conversations_tags_idx ON haive.conversations USING gin (tags);

-- INDEX conversations_user_idx
CREATE INDEX conversations_user_idx ON haive.conversations USING btree (user_id, tenant_id, active_hour);

-- ACL FUNCTION create_conversations(conversations jsonb, tenant text)
GRANT ALL ON FUNCTION haive.create_conversations(conversations jsonb, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.create_conversations(conversations jsonb, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.create_conversations(conversations jsonb, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.create_conversations(conversations jsonb, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION create_conversations(conversations jsonb, tenant text)
COMMENT ON FUNCTION haive.create_conversations(conversations jsonb, tenant text) IS 'Begins conversations: a list of {id, agent_id, user_id, title, tags, context, participants, settings, created_at}. Returns them. The same id with the same agent and user is the same one.';

-- FUNCTION create_conversations(jsonb, text)
CREATE FUNCTION haive.create_conversations(conversations jsonb, tenant text DEFAULT NULL::text) RETURNS json
    LANGUAGE sql
    SET search_path TO ''
    AS $$
  select haive_private.create_conversations(
    create_conversations.tenant, create_conversations.conversations
  )
$$;


ALTER FUNCTION haive.create_conversations(conversations jsonb, tenant text) OWNER TO postgres;

-- ACL FUNCTION current_actor()
GRANT ALL ON FUNCTION haive.current_actor() TO authenticated;
GRANT ALL ON FUNCTION haive.current_actor() TO haive_client;
GRANT ALL ON FUNCTION haive.current_actor() TO haive_writer;
GRANT ALL ON FUNCTION haive.current_actor() TO service_role;
REVOKE ALL ON FUNCTION haive.current_actor() FROM PUBLIC;

-- COMMENT FUNCTION current_actor()
COMMENT ON FUNCTION haive.current_actor() IS 'The user that calls ("sub" of the token), or null for a trusted key or connection.';

-- FUNCTION current_actor()
CREATE FUNCTION haive.current_actor() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO ''
    AS $$
  select nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
$$;


ALTER FUNCTION haive.current_actor() OWNER TO postgres;

-- ACL FUNCTION delete_conversation(conversation_id uuid, tenant text)
GRANT ALL ON FUNCTION haive.delete_conversation(conversation_id uuid, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.delete_conversation(conversation_id uuid, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.delete_conversation(conversation_id uuid, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.delete_conversation(conversation_id uuid, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION delete_conversation(conversation_id uuid, tenant text)
COMMENT ON FUNCTION haive.delete_conversation(conversation_id uuid, tenant text) IS 'Deletes a conversation with its messages and returns how many those were.';

-- FUNCTION delete_conversation(uuid, text)
CREATE FUNCTION haive.delete_conversation(conversation_id uuid, tenant text DEFAULT NULL::text) RETURNS bigint
    LANGUAGE sql
    SET search_path TO ''
    AS $$
  select haive_private.delete_conversation(
    delete_conversation.tenant, delete_conversation.conversation_id
  )
$$;


ALTER FUNCTION haive.delete_conversation(conversation_id uuid, tenant text) OWNER TO postgres;

-- ACL FUNCTION error_catalogue()
GRANT ALL ON FUNCTION haive.error_catalogue() TO authenticated;
GRANT ALL ON FUNCTION haive.error_catalogue() TO haive_client;
GRANT ALL ON FUNCTION haive.error_catalogue() TO service_role;
REVOKE ALL ON FUNCTION haive.error_catalogue() FROM PUBLIC;

-- COMMENT FUNCTION error_catalogue()
COMMENT ON FUNCTION haive.error_catalogue() IS 'The errors that the functions of this schema raise themselves.';

-- FUNCTION error_catalogue()
CREATE FUNCTION haive.error_catalogue() RETURNS TABLE(sqlstate text, http_status integer, error text, retryable boolean, meaning text)
    LANGUAGE sql IMMUTABLE
    SET search_path TO ''
    AS $$
  values
    ('PT401', 401, 'AccessDeniedError', false, 'the token names no user'),
    ('PT403', 403, 'AccessDeniedError', false, 'the caller may not do this in this tenant'),
    ('PT404', 404, 'NotFoundError', false, 'no such row, or none that the caller may see'),
    ('PT409', 409, 'ConflictError', false, 'the id is taken by other content'),
    ('PT413', 413, 'ContentTooLargeError', false, 'content, parts or metadata are over their limit'),
    ('PT422', 422, 'InvalidInputError', false, 'an argument does not mean anything')
$$;


ALTER FUNCTION haive.error_catalogue() OWNER TO postgres;

-- ACL TABLE events
GRANT INSERT ON TABLE haive.events TO haive_writer;
GRANT SELECT ON TABLE haive.events TO haive_client;
GRANT SELECT ON TABLE haive.events TO service_role;

-- COMMENT TABLE events
COMMENT ON TABLE haive.events IS 'The outbox: one row a statement and conversation, written in the same transaction as the change.';

-- ROW SECURITY events
ALTER TABLE haive.events ENABLE ROW LEVEL SECURITY;

-- TABLE events
CREATE TABLE haive.events (
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    id bigint NOT NULL,
    kind haive_private.event_kind NOT NULL,
    conversation_id uuid,
    first_seq bigint,
    last_seq bigint,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE haive.events OWNER TO postgres;

-- CONSTRAINT events events_pkey
ALTER TABLE ONLY haive.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (tenant_id, xid, id);

-- POLICY events services work in the tenant they entered
CREATE POLICY "services work in the tenant they entered" ON haive.events TO haive_client, haive_writer USING ((tenant_id = ( SELECT current_setting('persistence.tenant'::text, true) AS current_setting)));

-- COMMENT COLUMN events.xid
COMMENT ON COLUMN haive.events.xid IS 'The transaction that wrote it. Readers stop before the oldest transaction that still runs, so a row that commits late is not skipped. Of one conversation, id is the order: a transaction has its number before it waits for the row.';

-- SEQUENCE events_id_seq
ALTER TABLE haive.events ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME haive.events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

-- ACL FUNCTION get_conversation(conversation_id uuid, message_limit integer, tenant text)
GRANT ALL ON FUNCTION haive.get_conversation(conversation_id uuid, message_limit integer, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.get_conversation(conversation_id uuid, message_limit integer, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.get_conversation(conversation_id uuid, message_limit integer, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.get_conversation(conversation_id uuid, message_limit integer, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION get_conversation(conversation_id uuid, message_limit integer, tenant text)
COMMENT ON FUNCTION haive.get_conversation(conversation_id uuid, message_limit integer, tenant text) IS 'One conversation, with its last message_limit messages if asked.';

-- FUNCTION get_conversation(uuid, integer, text)
CREATE FUNCTION haive.get_conversation(conversation_id uuid, message_limit integer DEFAULT 0, tenant text DEFAULT NULL::text) RETURNS json
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
declare
  v_caller record := haive_private.enter_tenant(get_conversation.tenant, false);
  v_row haive.conversations;
begin
  if (get_conversation.message_limit between 0 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'message_limit is not between 0 and 1000',
      hint = 'Read on with get_messages.';
  end if;
  select * into v_row
  from haive.conversations as c
  where c.tenant_id = v_caller.tenant and c.id = get_conversation.conversation_id;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no conversation %s', get_conversation.conversation_id),
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to see.';
  end if;
  return haive_private.conversation_doc(
    v_row,
    case
      when get_conversation.message_limit > 0 then (
        haive_private.message_docs(
          v_row.tenant_id, array[v_row.id],
          array[v_row.message_count - get_conversation.message_limit + 1],
          array[v_row.message_count]
        )
      )[1]
    end
  );
end;
$$;


ALTER FUNCTION haive.get_conversation(conversation_id uuid, message_limit integer, tenant text) OWNER TO postgres;

-- ACL FUNCTION get_messages(conversation_id uuid, after bigint, before bigint, page_size integer, last boolean, tenant text)
GRANT ALL ON FUNCTION haive.get_messages(conversation_id uuid, after bigint, before bigint, page_size integer, last boolean, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.get_messages(conversation_id uuid, after bigint, before bigint, page_size integer, last boolean, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.get_messages(conversation_id uuid, after bigint, before bigint, page_size integer, last boolean, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.get_messages(conversation_id uuid, after bigint, before bigint, page_size integer, last boolean, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION get_messages(conversation_id uuid, after bigint, before bigint, page_size integer, last boolean, tenant text)
COMMENT ON FUNCTION haive.get_messages(conversation_id uuid, after bigint, before bigint, page_size integer, last boolean, tenant text) IS 'A page of messages in order: those after a seq, or the last ones before a seq.';

-- FUNCTION get_messages(uuid, bigint, bigint, integer, boolean, text)
CREATE FUNCTION haive.get_messages(conversation_id uuid, after bigint DEFAULT 0, before bigint DEFAULT NULL::bigint, page_size integer DEFAULT 100, last boolean DEFAULT false, tenant text DEFAULT NULL::text) RETURNS json
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
declare
  v_caller record := haive_private.enter_tenant(get_messages.tenant, false);
  v_count bigint;
  v_from bigint;
  v_to bigint;
begin
  if (get_messages.page_size between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 10000',
      hint = 'Read on with after, the seq of the last message of a page.';
  end if;
  select c.message_count into v_count
  from haive.conversations as c
  where c.tenant_id = v_caller.tenant and c.id = get_messages.conversation_id;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no conversation %s', get_messages.conversation_id),
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to see.';
  end if;
  v_from := greatest(get_messages.after, 0) + 1;
  v_to := least(get_messages.before - 1, v_count);
  if get_messages.last then
    v_from := greatest(v_from, v_to - get_messages.page_size + 1);
  else
    v_to := least(v_to, v_from + get_messages.page_size - 1);
  end if;
  return (
    haive_private.message_docs(
      v_caller.tenant, array[get_messages.conversation_id], array[v_from], array[v_to]
    )
  )[1];
end;
$$;


ALTER FUNCTION haive.get_messages(conversation_id uuid, after bigint, before bigint, page_size integer, last boolean, tenant text) OWNER TO postgres;

-- ACL TABLE members
GRANT SELECT ON TABLE haive.members TO authenticated;
GRANT SELECT ON TABLE haive.members TO haive_client;
GRANT SELECT ON TABLE haive.members TO service_role;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE haive.members TO haive_writer;

-- COMMENT TABLE members
COMMENT ON TABLE haive.members IS 'Which user (the "sub" of a token) belongs to which tenant, and as what.';

-- ROW SECURITY members
ALTER TABLE haive.members ENABLE ROW LEVEL SECURITY;

-- TABLE members
CREATE TABLE haive.members (
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    user_id haive_private.name NOT NULL,
    role text DEFAULT 'member'::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT members_role_is_known CHECK ((role = ANY (ARRAY['owner'::text, 'admin'::text, 'member'::text, 'reader'::text])))
);


ALTER TABLE haive.members OWNER TO postgres;

-- POLICY members functions add members to the tenant they entered
CREATE POLICY "functions add members to the tenant they entered" ON haive.members FOR INSERT TO haive_writer WITH CHECK ((tenant_id = ( SELECT current_setting('persistence.tenant'::text, true) AS current_setting)));

-- POLICY members functions change members of the tenant they entered
CREATE POLICY "functions change members of the tenant they entered" ON haive.members FOR UPDATE TO haive_writer USING ((tenant_id = ( SELECT current_setting('persistence.tenant'::text, true) AS current_setting)));

-- POLICY members functions read all members
CREATE POLICY "functions read all members" ON haive.members FOR SELECT TO haive_writer USING (true);

-- POLICY members functions remove members of the tenant they entered
CREATE POLICY "functions remove members of the tenant they entered" ON haive.members FOR DELETE TO haive_writer USING ((tenant_id = ( SELECT current_setting('persistence.tenant'::text, true) AS current_setting)));

-- POLICY members members read themselves, administrators all of their tenant
CREATE POLICY "members read themselves, administrators all of their tenant" ON haive.members FOR SELECT TO authenticated USING ((((user_id)::text = ( SELECT haive.current_actor() AS current_actor)) OR (tenant_id IN ( SELECT haive_private.my_admin_tenants() AS my_admin_tenants))));

-- CONSTRAINT members members_pkey
ALTER TABLE ONLY haive.members
    ADD CONSTRAINT members_pkey PRIMARY KEY (tenant_id, user_id);

-- FK CONSTRAINT members members_tenant_fkey
ALTER TABLE ONLY haive.members
    ADD CONSTRAINT members_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES haive.tenants(tenant_id) ON DELETE CASCADE;

-- POLICY members services read members of the tenant they entered
CREATE POLICY "services read members of the tenant they entered" ON haive.members FOR SELECT TO haive_client USING ((tenant_id = ( SELECT current_setting('persistence.tenant'::text, true) AS current_setting)));

-- COMMENT COLUMN members.role
COMMENT ON COLUMN haive.members.role IS 'owner and admin see all of the tenant; member writes and reader reads where they take part.';

-- INDEX members_user_idx
CREATE INDEX members_user_idx ON haive.members USING btree (user_id);

-- ACL TABLE messages
GRANT SELECT ON TABLE haive.messages TO authenticated;
GRANT SELECT ON TABLE haive.messages TO haive_client;
GRANT SELECT ON TABLE haive.messages TO service_role;
GRANT SELECT,INSERT ON TABLE haive.messages TO haive_writer;

-- COMMENT TABLE messages
COMMENT ON TABLE haive.messages IS 'What was said, in the order that the database gave it.';

-- ROW SECURITY messages
ALTER TABLE haive.messages ENABLE ROW LEVEL SECURITY;

-- TABLE messages
CREATE TABLE haive.messages (
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    conversation_id uuid NOT NULL,
    seq bigint NOT NULL,
    id uuid NOT NULL,
    role haive_private.message_role NOT NULL,
    content haive_private.message_text NOT NULL,
    parts haive_private.message_parts,
    metadata haive_private."json_object" DEFAULT '{}'::jsonb NOT NULL,
    input_tokens haive_private.token_count,
    output_tokens haive_private.token_count,
    model haive_private.name,
    cost haive_private.money,
    created_at haive_private.moment DEFAULT now() NOT NULL,
    CONSTRAINT messages_usage_is_whole CHECK ((num_nulls(input_tokens, output_tokens) <> 1))
);


ALTER TABLE haive.messages OWNER TO postgres;

-- POLICY messages members read the messages of conversations they read
CREATE POLICY "members read the messages of conversations they read" ON haive.messages FOR SELECT TO authenticated USING ((EXISTS ( SELECT
   FROM haive.conversations c
  WHERE ((c.tenant_id = messages.tenant_id) AND (c.id = messages.conversation_id)))));

-- FK CONSTRAINT messages messages_conversation_fkey
ALTER TABLE ONLY haive.messages
    ADD CONSTRAINT messages_conversation_fkey FOREIGN KEY (tenant_id, conversation_id) REFERENCES haive.conversations(tenant_id, id) ON DELETE CASCADE;

-- CONSTRAINT messages messages_id_key
ALTER TABLE ONLY haive.messages
    ADD CONSTRAINT messages_id_key UNIQUE (id, tenant_id);

-- CONSTRAINT messages messages_pkey
ALTER TABLE ONLY haive.messages
    ADD CONSTRAINT messages_pkey PRIMARY KEY (tenant_id, conversation_id, seq);

-- POLICY messages services work in the tenant they entered
CREATE POLICY "services work in the tenant they entered" ON haive.messages TO haive_client, haive_writer USING ((tenant_id = ( SELECT current_setting('persistence.tenant'::text, true) AS current_setting)));

-- COMMENT COLUMN messages.content
COMMENT ON COLUMN haive.messages.content IS 'The text; of a message in parts, their text joined.';

-- COMMENT COLUMN messages.id
COMMENT ON COLUMN haive.messages.id IS 'UUIDv7 from the client: the same id with the same content is the same message.';

-- COMMENT COLUMN messages.parts
COMMENT ON COLUMN haive.messages.parts IS 'The list of parts (text, image, tool call, tool result), or null where the text is all.';

-- COMMENT COLUMN messages.seq
COMMENT ON COLUMN haive.messages.seq IS '1, 2, 3 … without gaps in a conversation, given under the lock of its row.';

-- ACL FUNCTION query_conversations(filters jsonb, order_by text, ascending boolean, page_size integer, page_after text, message_limit integer, tenant text)
GRANT ALL ON FUNCTION haive.query_conversations(filters jsonb, order_by text, ascending boolean, page_size integer, page_after text, message_limit integer, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.query_conversations(filters jsonb, order_by text, ascending boolean, page_size integer, page_after text, message_limit integer, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.query_conversations(filters jsonb, order_by text, ascending boolean, page_size integer, page_after text, message_limit integer, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.query_conversations(filters jsonb, order_by text, ascending boolean, page_size integer, page_after text, message_limit integer, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION query_conversations(filters jsonb, order_by text, ascending boolean, page_size integer, page_after text, message_limit integer, tenant text)
COMMENT ON FUNCTION haive.query_conversations(filters jsonb, order_by text, ascending boolean, page_size integer, page_after text, message_limit integer, tenant text) IS 'A page of conversations by filters and order, with the last message_limit messages of each if asked: {conversations, next_page}. Text filters read every candidate: narrow them by user or time.';

-- FUNCTION query_conversations(jsonb, text, boolean, integer, text, integer, text)
CREATE FUNCTION haive.query_conversations(filters jsonb DEFAULT '{}'::jsonb, order_by text DEFAULT 'last_message_at'::text, ascending boolean DEFAULT false, page_size integer DEFAULT 10, page_after text DEFAULT NULL::text, message_limit integer DEFAULT 0, tenant text DEFAULT NULL::text) RETURNS json
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $_$
declare
  v_caller record := haive_private.enter_tenant(query_conversations.tenant, false);
  v_filter record;
  v_kind text;
  v_fragment text;
  v_type text;
  v_keys text;
  v_cursor_keys text;
  v_cursor text[];
  v_where text := 'c.tenant_id = $1';
  v_tags text[];
  v_any_tags text[];
  v_participants text[];
  v_rows haive.conversations[];
  v_size int;
  v_docs json;
begin
  for v_filter in
    select f.key, f.value
    from jsonb_each(coalesce(query_conversations.filters, '{}')) as f
    where jsonb_typeof(f.value) <> 'null'
    order by f.key
  loop
    v_kind := case
      when v_filter.key in ('tags', 'any_tags', 'participants') then 'array'
      when v_filter.key in ('min_messages', 'max_messages') then 'number'
      when v_filter.key = 'context' then 'object'
      else 'string'
    end;
    v_fragment := case v_filter.key
      when 'user_id' then 'c.user_id = $2 ->> ''user_id'''
      when 'agent_id' then 'c.agent_id = $2 ->> ''agent_id'''
      when 'tags' then 'c.tags @> $5'
      when 'any_tags' then 'c.tags && $6'
      when 'participants'
        then 'c.participants @> $7'
      when 'context' then 'c.context @> ($2 -> ''context'')'
      when 'title' then 'strpos(lower(c.title), lower($2 ->> ''title'')) > 0'
      when 'text' then $f$(
        strpos(lower(c.title), lower($2 ->> 'text')) > 0
        or exists (
          select from haive.messages as m
          where m.tenant_id = c.tenant_id and m.conversation_id = c.id
            and strpos(lower(m.content), lower($2 ->> 'text')) > 0
        )
      )$f$
      when 'min_messages' then 'c.message_count >= ($2 ->> ''min_messages'')::bigint'
      when 'max_messages' then 'c.message_count <= ($2 ->> ''max_messages'')::bigint'
      when 'created_after' then 'c.created_at >= ($2 ->> ''created_after'')::timestamptz'
      when 'created_before' then 'c.created_at < ($2 ->> ''created_before'')::timestamptz'
      when 'updated_after' then 'c.updated_at >= ($2 ->> ''updated_after'')::timestamptz'
      when 'updated_before' then 'c.updated_at < ($2 ->> ''updated_before'')::timestamptz'
      when 'active_after' then $f$
        c.last_message_at >= ($2 ->> 'active_after')::timestamptz
        and c.active_hour >= date_bin(
          '1 hour', ($2 ->> 'active_after')::timestamptz, '2000-01-01 00:00:00+00'
        )
      $f$
      when 'active_before' then 'c.last_message_at < ($2 ->> ''active_before'')::timestamptz'
    end;
    if v_fragment is null then
      raise exception using
        errcode = 'PT422',
        message = format('unknown filter: %s', left(v_filter.key, 200)),
        hint = 'Filters are user_id, agent_id, tags, any_tags, participants, context, title, text, '
          'min_messages, max_messages, and created_, updated_ and active_ with after and before.';
    elsif jsonb_typeof(v_filter.value) <> v_kind then
      raise exception using
        errcode = 'PT422',
        message = format('filter %s is no %s', v_filter.key, v_kind),
        hint = 'Lists of text for tags, any_tags and participants; ISO 8601 for times.';
    elsif v_filter.key like '%\_after' or v_filter.key like '%\_before' then
      -- A time is a string that is one: the cast says so where it is not.
      perform (v_filter.value #>> '{}')::timestamptz;
    elsif v_kind = 'array' then
      case v_filter.key
        when 'tags' then
          v_tags := array(select jsonb_array_elements_text(v_filter.value));
        when 'any_tags' then
          v_any_tags := array(select jsonb_array_elements_text(v_filter.value));
        else
          v_participants := array(select jsonb_array_elements_text(v_filter.value));
      end case;
    end if;
    v_where := v_where || ' and ' || v_fragment;
  end loop;

  if (
    query_conversations.page_size between 1 and 1000
    and query_conversations.message_limit between 0 and 1000
  ) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000, or message_limit not between 0 and 1000',
      hint = 'Read on with page_after, and with get_messages.';
  end if;

  v_type := case query_conversations.order_by
    when 'message_count' then 'bigint'
    when 'last_message_at' then 'timestamptz'
    when 'created_at' then 'timestamptz'
    when 'updated_at' then 'timestamptz'
  end;
  if v_type is null then
    raise exception using
      errcode = 'PT422',
      message = format('unknown order_by: %s', left(query_conversations.order_by, 200)),
      hint = 'Orders are created_at, last_message_at, message_count, updated_at.';
  end if;
  v_keys := 'c.' || query_conversations.order_by;
  v_cursor_keys := '($3[1])::' || v_type;
  if query_conversations.order_by = 'last_message_at' then
    -- The indexed hour first: the same order, and only the hours of the page are sorted.
    v_keys := 'c.active_hour, ' || v_keys;
    v_cursor_keys := 'date_bin(''1 hour'', ($3[1])::timestamptz, ''2000-01-01 00:00:00+00''), '
      || v_cursor_keys;
  end if;
  v_keys := v_keys || ', c.id';
  if query_conversations.page_after is not null then
    v_cursor := string_to_array(query_conversations.page_after, '/');
    if cardinality(v_cursor) <> 2 then
      raise exception using
        errcode = 'PT422',
        message = 'page_after is no cursor',
        hint = 'Pass next_page of the page before, with the same order.';
    end if;
    v_where := v_where || format(
      ' and (%s) %s (%s, ($3[2])::uuid)',
      v_keys, case when query_conversations.ascending then '>' else '<' end, v_cursor_keys
    );
  end if;
  if query_conversations.ascending is not true then
    v_keys := replace(v_keys, ',', ' desc,') || ' desc';
  end if;

  execute format(
    'select array(select c from haive.conversations as c where %s order by %s limit $4 + 1)',
    v_where, v_keys
  )
  into v_rows
  using
    v_caller.tenant, query_conversations.filters, v_cursor, query_conversations.page_size,
    -- Known to the planner: of an array made in the statement it expects few rows, and reads all
    -- that have a tag (1.5 against 0.2 ms at 50,000 conversations).
    v_tags, v_any_tags, v_participants;

  v_size := least(cardinality(v_rows), query_conversations.page_size);
  if query_conversations.message_limit > 0 then
    select json_agg(haive_private.conversation_doc(v_rows[p.place], p.messages) order by p.place)
    into v_docs
    from unnest(
      haive_private.message_docs(
        v_caller.tenant,
        array(select (v_rows[i]).id from generate_series(1, v_size) as i),
        array(
          select (v_rows[i]).message_count - query_conversations.message_limit + 1
          from generate_series(1, v_size) as i
        ),
        array(select (v_rows[i]).message_count from generate_series(1, v_size) as i)
      )
    ) with ordinality as p (messages, place);
  else
    select json_agg(haive_private.conversation_doc(v_rows[i]) order by i) into v_docs
    from generate_series(1, v_size) as i;
  end if;
  return json_build_object(
    'conversations', coalesce(v_docs, '[]'),
    'next_page', case
      when cardinality(v_rows) > v_size
        -- As JSON a time is ISO 8601, whatever the session's DateStyle.
        then (to_json(v_rows[v_size]) ->> query_conversations.order_by) || '/' || (v_rows[v_size]).id
    end
  );
end;
$_$;


ALTER FUNCTION haive.query_conversations(filters jsonb, order_by text, ascending boolean, page_size integer, page_after text, message_limit integer, tenant text) OWNER TO postgres;

-- ACL FUNCTION schema_version()
GRANT ALL ON FUNCTION haive.schema_version() TO authenticated;
GRANT ALL ON FUNCTION haive.schema_version() TO haive_client;
GRANT ALL ON FUNCTION haive.schema_version() TO service_role;
REVOKE ALL ON FUNCTION haive.schema_version() FROM PUBLIC;

-- COMMENT FUNCTION schema_version()
COMMENT ON FUNCTION haive.schema_version() IS 'The newest migration that this installation has.';

-- FUNCTION schema_version()
CREATE FUNCTION haive.schema_version() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO ''
    AS $$
  select max(m.version) from haive_private.migrations as m
$$;


ALTER FUNCTION haive.schema_version() OWNER TO postgres;

-- FUNCTION set_member(text, text, text)
CREATE FUNCTION haive.set_member(user_id text, role text, tenant text DEFAULT NULL::text) RETURNS void
    LANGUAGE sql
    SET search_path TO ''
    AS $$
  select haive_private.set_member(set_member.tenant, set_member.user_id, set_member.role)
$$;


ALTER FUNCTION haive.set_member(user_id text, role text, tenant text) OWNER TO postgres;

-- ACL FUNCTION set_member(user_id text, role text, tenant text)
GRANT ALL ON FUNCTION haive.set_member(user_id text, role text, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.set_member(user_id text, role text, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.set_member(user_id text, role text, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.set_member(user_id text, role text, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION set_member(user_id text, role text, tenant text)
COMMENT ON FUNCTION haive.set_member(user_id text, role text, tenant text) IS 'Makes a user owner, admin, member or reader of a tenant; a null role removes them.';

-- ACL TABLE tenants
GRANT SELECT ON TABLE haive.tenants TO authenticated;
GRANT SELECT ON TABLE haive.tenants TO haive_client;
GRANT SELECT ON TABLE haive.tenants TO haive_writer;
GRANT SELECT ON TABLE haive.tenants TO service_role;

-- COMMENT TABLE tenants
COMMENT ON TABLE haive.tenants IS 'Whose data it is. The tenant "default" always exists.';

-- ROW SECURITY tenants
ALTER TABLE haive.tenants ENABLE ROW LEVEL SECURITY;

-- TABLE tenants
CREATE TABLE haive.tenants (
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL,
    settings jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT tenants_id_is_a_slug CHECK ((tenant_id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'::text)),
    CONSTRAINT tenants_name_is_bounded CHECK (((length(name) >= 1) AND (length(name) <= 200))),
    CONSTRAINT tenants_settings_are_an_object CHECK ((jsonb_typeof(settings) = 'object'::text))
);


ALTER TABLE haive.tenants OWNER TO postgres;

-- POLICY tenants members read their tenants
CREATE POLICY "members read their tenants" ON haive.tenants FOR SELECT TO authenticated USING ((tenant_id IN ( SELECT haive_private.my_tenants() AS my_tenants)));

-- POLICY tenants services work in the tenant they entered
CREATE POLICY "services work in the tenant they entered" ON haive.tenants FOR SELECT TO haive_client, haive_writer USING ((tenant_id = ( SELECT current_setting('persistence.tenant'::text, true) AS current_setting)));

-- CONSTRAINT tenants tenants_pkey
ALTER TABLE ONLY haive.tenants
    ADD CONSTRAINT tenants_pkey PRIMARY KEY (tenant_id);

-- COMMENT COLUMN tenants.tenant_id
COMMENT ON COLUMN haive.tenants.tenant_id IS 'A slug; collated "C" because it heads every key.';

-- ACL FUNCTION update_conversation(conversation_id uuid, changes jsonb, tenant text)
GRANT ALL ON FUNCTION haive.update_conversation(conversation_id uuid, changes jsonb, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.update_conversation(conversation_id uuid, changes jsonb, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.update_conversation(conversation_id uuid, changes jsonb, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.update_conversation(conversation_id uuid, changes jsonb, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION update_conversation(conversation_id uuid, changes jsonb, tenant text)
COMMENT ON FUNCTION haive.update_conversation(conversation_id uuid, changes jsonb, tenant text) IS 'Replaces the given fields among agent_id, title, tags, context, participants and settings.';

-- FUNCTION update_conversation(uuid, jsonb, text)
CREATE FUNCTION haive.update_conversation(conversation_id uuid, changes jsonb, tenant text DEFAULT NULL::text) RETURNS json
    LANGUAGE sql
    SET search_path TO ''
    AS $$
  select haive_private.update_conversation(
    update_conversation.tenant, update_conversation.conversation_id, update_conversation.changes
  )
$$;


ALTER FUNCTION haive.update_conversation(conversation_id uuid, changes jsonb, tenant text) OWNER TO postgres;

-- COMMENT DOMAIN "json_object"
COMMENT ON DOMAIN haive_private."json_object" IS 'A JSON object of at most 1 MiB and less than 100 levels.';

-- ACL FUNCTION append_message(p_tenant text, p_conversation_id uuid, p_id uuid, p_role text, p_content text, p_parts jsonb, p_metadata jsonb, p_input_tokens integer, p_output_tokens integer, p_model text, p_cost numeric, p_created_at timestamp with time zone, OUT seq bigint, OUT created_at timestamp with time zone, OUT failure text)
GRANT ALL ON FUNCTION haive_private.append_message(p_tenant text, p_conversation_id uuid, p_id uuid, p_role text, p_content text, p_parts jsonb, p_metadata jsonb, p_input_tokens integer, p_output_tokens integer, p_model text, p_cost numeric, p_created_at timestamp with time zone, OUT seq bigint, OUT created_at timestamp with time zone, OUT failure text) TO authenticated;
GRANT ALL ON FUNCTION haive_private.append_message(p_tenant text, p_conversation_id uuid, p_id uuid, p_role text, p_content text, p_parts jsonb, p_metadata jsonb, p_input_tokens integer, p_output_tokens integer, p_model text, p_cost numeric, p_created_at timestamp with time zone, OUT seq bigint, OUT created_at timestamp with time zone, OUT failure text) TO haive_client;
GRANT ALL ON FUNCTION haive_private.append_message(p_tenant text, p_conversation_id uuid, p_id uuid, p_role text, p_content text, p_parts jsonb, p_metadata jsonb, p_input_tokens integer, p_output_tokens integer, p_model text, p_cost numeric, p_created_at timestamp with time zone, OUT seq bigint, OUT created_at timestamp with time zone, OUT failure text) TO service_role;
REVOKE ALL ON FUNCTION haive_private.append_message(p_tenant text, p_conversation_id uuid, p_id uuid, p_role text, p_content text, p_parts jsonb, p_metadata jsonb, p_input_tokens integer, p_output_tokens integer, p_model text, p_cost numeric, p_created_at timestamp with time zone, OUT seq bigint, OUT created_at timestamp with time zone, OUT failure text) FROM PUBLIC;

-- COMMENT FUNCTION append_message(p_tenant text, p_conversation_id uuid, p_id uuid, p_role text, p_content text, p_parts jsonb, p_metadata jsonb, p_input_tokens integer, p_output_tokens integer, p_model text, p_cost numeric, p_created_at timestamp with time zone, OUT seq bigint, OUT created_at timestamp with time zone, OUT failure text)
COMMENT ON FUNCTION haive_private.append_message(p_tenant text, p_conversation_id uuid, p_id uuid, p_role text, p_content text, p_parts jsonb, p_metadata jsonb, p_input_tokens integer, p_output_tokens integer, p_model text, p_cost numeric, p_created_at timestamp with time zone, OUT seq bigint, OUT created_at timestamp with time zone, OUT failure text) IS 'What append_messages does, for one message.';

-- FUNCTION append_message(text, uuid, uuid, text, text, jsonb, jsonb, integer, integer, text, numeric, timestamp with time zone)
CREATE FUNCTION haive_private.append_message(p_tenant text, p_conversation_id uuid, p_id uuid, p_role text, p_content text, p_parts jsonb DEFAULT NULL::jsonb, p_metadata jsonb DEFAULT NULL::jsonb, p_input_tokens integer DEFAULT NULL::integer, p_output_tokens integer DEFAULT NULL::integer, p_model text DEFAULT NULL::text, p_cost numeric DEFAULT NULL::numeric, p_created_at timestamp with time zone DEFAULT NULL::timestamp with time zone, OUT seq bigint, OUT created_at timestamp with time zone, OUT failure text) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
#variable_conflict use_column
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_replay record;
begin
  created_at := coalesce(p_created_at, now());
  update haive.conversations as c
  set
    message_count = c.message_count + 1,
    input_tokens = c.input_tokens + coalesce(p_input_tokens, 0),
    output_tokens = c.output_tokens + coalesce(p_output_tokens, 0),
    cost = c.cost + coalesce(p_cost, 0),
    last_message_at = greatest(c.last_message_at, append_message.created_at)
  where
    c.tenant_id = v_caller.tenant and c.id = p_conversation_id
    and (
      v_caller.actor is null or c.user_id = v_caller.actor
      or v_caller.actor = any(c.participants)
    )
  returning c.message_count into append_message.seq;
  if not found then
    failure := 'PT404';
    return;
  end if;
  insert into haive.messages (
    tenant_id, conversation_id, seq, id, role, content, parts, metadata,
    input_tokens, output_tokens, model, cost, created_at
  )
  values (
    v_caller.tenant, p_conversation_id, append_message.seq, p_id, p_role, p_content, p_parts,
    coalesce(p_metadata, '{}'), p_input_tokens, p_output_tokens, p_model, p_cost,
    append_message.created_at
  );
  insert into haive.events (tenant_id, kind, conversation_id, first_seq, last_seq)
  values (
    v_caller.tenant, 'messages.added', p_conversation_id, append_message.seq, append_message.seq
  );
exception
  when unique_violation then
    v_replay := haive_private.replay_messages(
      v_caller.tenant, v_caller.actor, array[p_conversation_id], array[p_id], array[p_role],
      array[p_content], array[p_parts], array[p_metadata], array[p_input_tokens],
      array[p_output_tokens], array[p_model], array[p_cost], array[p_created_at]
    );
    seq := v_replay.seqs[1];
    created_at := v_replay.times[1];
    failure := v_replay.failures[1];
end;
$$;


ALTER FUNCTION haive_private.append_message(p_tenant text, p_conversation_id uuid, p_id uuid, p_role text, p_content text, p_parts jsonb, p_metadata jsonb, p_input_tokens integer, p_output_tokens integer, p_model text, p_cost numeric, p_created_at timestamp with time zone, OUT seq bigint, OUT created_at timestamp with time zone, OUT failure text) OWNER TO haive_writer;

-- ACL FUNCTION append_messages(p_tenant text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[], OUT failures text[])
GRANT ALL ON FUNCTION haive_private.append_messages(p_tenant text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[], OUT failures text[]) TO authenticated;
GRANT ALL ON FUNCTION haive_private.append_messages(p_tenant text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[], OUT failures text[]) TO haive_client;
GRANT ALL ON FUNCTION haive_private.append_messages(p_tenant text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[], OUT failures text[]) TO service_role;
REVOKE ALL ON FUNCTION haive_private.append_messages(p_tenant text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[], OUT failures text[]) FROM PUBLIC;

-- COMMENT FUNCTION append_messages(p_tenant text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[], OUT failures text[])
COMMENT ON FUNCTION haive_private.append_messages(p_tenant text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[], OUT failures text[]) IS 'Writes messages of any conversations; those that exist already are answered as they are.';

-- FUNCTION append_messages(text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], integer[], integer[], text[], numeric[], timestamp with time zone[])
CREATE FUNCTION haive_private.append_messages(p_tenant text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[] DEFAULT NULL::jsonb[], p_metadata jsonb[] DEFAULT NULL::jsonb[], p_input_tokens integer[] DEFAULT NULL::integer[], p_output_tokens integer[] DEFAULT NULL::integer[], p_models text[] DEFAULT NULL::text[], p_costs numeric[] DEFAULT NULL::numeric[], p_created_at timestamp with time zone[] DEFAULT NULL::timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[], OUT failures text[]) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
begin
  begin
    select w.seqs, w.times into seqs, times
    from haive_private.insert_messages(
      v_caller.tenant, v_caller.actor, p_conversation_ids, p_ids, p_roles, p_contents, p_parts,
      p_metadata, p_input_tokens, p_output_tokens, p_models, p_costs, p_created_at
    ) as w;
    if array_position(seqs, null) is not null then
      failures := array(
        select case when u.seq is null then 'PT404' end
        from unnest(seqs) with ordinality as u (seq, place)
        order by u.place
      );
    end if;
  exception
    when unique_violation then
      select w.seqs, w.times, w.failures into seqs, times, failures
      from haive_private.replay_messages(
        v_caller.tenant, v_caller.actor, p_conversation_ids, p_ids, p_roles, p_contents, p_parts,
        p_metadata, p_input_tokens, p_output_tokens, p_models, p_costs, p_created_at
      ) as w;
  end;
end;
$$;


ALTER FUNCTION haive_private.append_messages(p_tenant text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[], OUT failures text[]) OWNER TO haive_writer;

-- FUNCTION conversation_doc(haive.conversations, json)
CREATE FUNCTION haive_private.conversation_doc(p_row haive.conversations, p_messages json DEFAULT NULL::json) RETURNS json
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $$
begin
  return json_build_object(
    'id', p_row.id,
    'tenant_id', p_row.tenant_id,
    'agent_id', p_row.agent_id,
    'user_id', p_row.user_id,
    'metadata', json_build_object(
      'title', p_row.title,
      'tags', p_row.tags,
      'context', p_row.context,
      'participants', p_row.participants,
      'settings', p_row.settings
    ),
    'message_count', p_row.message_count,
    'input_tokens', p_row.input_tokens,
    'output_tokens', p_row.output_tokens,
    'cost', p_row.cost::text,
    'created_at', p_row.created_at,
    'updated_at', p_row.updated_at,
    'last_message_at', p_row.last_message_at,
    'messages', p_messages
  );
end;
$$;


ALTER FUNCTION haive_private.conversation_doc(p_row haive.conversations, p_messages json) OWNER TO postgres;

-- ACL FUNCTION conversation_doc(p_row haive.conversations, p_messages json)
GRANT ALL ON FUNCTION haive_private.conversation_doc(p_row haive.conversations, p_messages json) TO authenticated;
GRANT ALL ON FUNCTION haive_private.conversation_doc(p_row haive.conversations, p_messages json) TO haive_client;
GRANT ALL ON FUNCTION haive_private.conversation_doc(p_row haive.conversations, p_messages json) TO haive_writer;
GRANT ALL ON FUNCTION haive_private.conversation_doc(p_row haive.conversations, p_messages json) TO service_role;
REVOKE ALL ON FUNCTION haive_private.conversation_doc(p_row haive.conversations, p_messages json) FROM PUBLIC;

-- COMMENT FUNCTION conversation_doc(p_row haive.conversations, p_messages json)
COMMENT ON FUNCTION haive_private.conversation_doc(p_row haive.conversations, p_messages json) IS 'A conversation as the functions of the API return it.';

-- ACL FUNCTION create_conversations(p_tenant text, p_conversations jsonb)
GRANT ALL ON FUNCTION haive_private.create_conversations(p_tenant text, p_conversations jsonb) TO authenticated;
GRANT ALL ON FUNCTION haive_private.create_conversations(p_tenant text, p_conversations jsonb) TO haive_client;
GRANT ALL ON FUNCTION haive_private.create_conversations(p_tenant text, p_conversations jsonb) TO service_role;
REVOKE ALL ON FUNCTION haive_private.create_conversations(p_tenant text, p_conversations jsonb) FROM PUBLIC;

-- COMMENT FUNCTION create_conversations(p_tenant text, p_conversations jsonb)
COMMENT ON FUNCTION haive_private.create_conversations(p_tenant text, p_conversations jsonb) IS 'What haive.create_conversations does, for a caller without rights on the table.';

-- FUNCTION create_conversations(text, jsonb)
CREATE FUNCTION haive_private.create_conversations(p_tenant text, p_conversations jsonb) RETURNS json
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_user text := haive.current_actor();
  v_given jsonb;
  v_taken uuid;
  v_docs json;
begin
  -- Ids come from the client, for a safe retry; who sends none gets one here.
  select jsonb_agg(jsonb_build_object('id', gen_random_uuid()) || u.doc order by u.place)
  into v_given
  from jsonb_array_elements(p_conversations) with ordinality as u (doc, place);

  if exists (
    select from jsonb_to_recordset(v_given) as g (user_id text)
    where g.user_id <> v_caller.actor
  ) then
    raise exception using
      errcode = 'PT403',
      message = 'a member begins conversations of their own',
      hint = 'Leave out user_id; name others as participants.';
  end if;

  with fresh as (
    insert into haive.conversations (
      tenant_id, id, agent_id, user_id, title, tags, context, participants, settings,
      created_at, updated_at, last_message_at
    )
    select
      v_caller.tenant, g.id, g.agent_id, coalesce(g.user_id, v_user),
      g.title, coalesce(g.tags, '{}'), coalesce(g.context, '{}'), coalesce(g.participants, '{}'),
      coalesce(g.settings, '{}'), t.at, t.at, t.at
    from jsonb_to_recordset(v_given) as g (
      id uuid, agent_id text, user_id text, title text, tags text[], context jsonb,
      participants text[], settings jsonb, created_at timestamptz
    )
    cross join lateral (select coalesce(g.created_at, now()) as at) as t
    on conflict (tenant_id, id) do nothing
    returning id
  )
  insert into haive.events (tenant_id, kind, conversation_id)
  select v_caller.tenant, 'conversation.created', f.id from fresh as f;

  -- A retry finds its own row, and of two with one id in a call each its equal; anything else that
  -- sits at the id is a conflict, and so is what the caller may not see, whatever they know of it.
  select g.id into v_taken
  from jsonb_to_recordset(v_given) as g (
    id uuid, agent_id text, user_id text, created_at timestamptz
  )
  join haive.conversations as c on c.tenant_id = v_caller.tenant and c.id = g.id
  where
    (c.agent_id, c.user_id) is distinct from (g.agent_id, coalesce(g.user_id, v_user))
    or c.created_at <> g.created_at
    or (
      v_caller.actor is null or c.user_id = v_caller.actor
      or v_caller.actor = any(c.participants)
    ) is not true
  limit 1;
  if found then
    raise exception using
      errcode = 'PT409',
      message = format('another conversation has the id %s', v_taken),
      hint = 'Let the SDK choose ids, or repeat a call only with the same content.';
  end if;

  select json_agg(haive_private.conversation_doc(c) order by g.place) into v_docs
  from jsonb_array_elements(v_given) with ordinality as g (doc, place)
  join haive.conversations as c on c.tenant_id = v_caller.tenant and c.id = (g.doc ->> 'id')::uuid;
  return coalesce(v_docs, '[]');
end;
$$;


ALTER FUNCTION haive_private.create_conversations(p_tenant text, p_conversations jsonb) OWNER TO haive_writer;

-- ACL FUNCTION delete_conversation(p_tenant text, p_conversation_id uuid)
GRANT ALL ON FUNCTION haive_private.delete_conversation(p_tenant text, p_conversation_id uuid) TO authenticated;
GRANT ALL ON FUNCTION haive_private.delete_conversation(p_tenant text, p_conversation_id uuid) TO haive_client;
GRANT ALL ON FUNCTION haive_private.delete_conversation(p_tenant text, p_conversation_id uuid) TO service_role;
REVOKE ALL ON FUNCTION haive_private.delete_conversation(p_tenant text, p_conversation_id uuid) FROM PUBLIC;

-- COMMENT FUNCTION delete_conversation(p_tenant text, p_conversation_id uuid)
COMMENT ON FUNCTION haive_private.delete_conversation(p_tenant text, p_conversation_id uuid) IS 'What haive.delete_conversation does, for a caller without rights on the table.';

-- FUNCTION delete_conversation(text, uuid)
CREATE FUNCTION haive_private.delete_conversation(p_tenant text, p_conversation_id uuid) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_messages bigint;
begin
  delete from haive.conversations as c
  where
    c.tenant_id = v_caller.tenant and c.id = p_conversation_id
    and (v_caller.actor is null or c.user_id = v_caller.actor)
  returning c.message_count into v_messages;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no conversation %s', p_conversation_id),
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to delete.';
  end if;
  insert into haive.events (tenant_id, kind, conversation_id)
  values (v_caller.tenant, 'conversation.deleted', p_conversation_id);
  return v_messages;
end;
$$;


ALTER FUNCTION haive_private.delete_conversation(p_tenant text, p_conversation_id uuid) OWNER TO haive_writer;

-- ACL FUNCTION enter_tenant(p_tenant text, p_write boolean, OUT tenant text, OUT actor text, OUT trusted boolean)
GRANT ALL ON FUNCTION haive_private.enter_tenant(p_tenant text, p_write boolean, OUT tenant text, OUT actor text, OUT trusted boolean) TO authenticated;
GRANT ALL ON FUNCTION haive_private.enter_tenant(p_tenant text, p_write boolean, OUT tenant text, OUT actor text, OUT trusted boolean) TO haive_client;
GRANT ALL ON FUNCTION haive_private.enter_tenant(p_tenant text, p_write boolean, OUT tenant text, OUT actor text, OUT trusted boolean) TO service_role;
REVOKE ALL ON FUNCTION haive_private.enter_tenant(p_tenant text, p_write boolean, OUT tenant text, OUT actor text, OUT trusted boolean) FROM PUBLIC;

-- COMMENT FUNCTION enter_tenant(p_tenant text, p_write boolean, OUT tenant text, OUT actor text, OUT trusted boolean)
COMMENT ON FUNCTION haive_private.enter_tenant(p_tenant text, p_write boolean, OUT tenant text, OUT actor text, OUT trusted boolean) IS 'Resolves and checks the tenant of an operation: argument, header, session setting, the caller''s only membership; "default" for trusted callers.';

-- FUNCTION enter_tenant(text, boolean)
CREATE FUNCTION haive_private.enter_tenant(p_tenant text, p_write boolean, OUT tenant text, OUT actor text, OUT trusted boolean) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_role text;
  v_count bigint;
begin
  tenant := coalesce(
    p_tenant, nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-haive-tenant'
  );
  -- Trusted are the members of haive_client, which no API user can become. The setting "role"
  -- keeps what PostgREST or SET ROLE chose, in a definer function too; no API call can set it.
  trusted := pg_has_role(
    coalesce(nullif(current_setting('role', true), 'none'), session_user::text),
    'haive_client', 'member'
  );
  if trusted then
    tenant := coalesce(tenant, nullif(current_setting('persistence.tenant', true), ''), 'default');
  else
    actor := haive.current_actor();
    if actor is null then
      raise exception using
        errcode = 'PT401',
        message = 'the token names no user',
        hint = 'Sign in and send the user''s token, or call with a secret key.';
    end if;
    select count(*), min(m.tenant_id), min(m.role) into v_count, tenant, v_role
    from haive.members as m
    where m.user_id = actor and m.tenant_id = coalesce(enter_tenant.tenant, m.tenant_id);
    if v_count = 0 then
      raise exception using
        errcode = 'PT403',
        message = 'the caller is no member of the tenant',
        hint = 'An administrator of the tenant adds members with set_member.';
    elsif v_count > 1 then
      raise exception using
        errcode = 'PT422',
        message = 'the caller belongs to several tenants and names none',
        hint = 'Pass the argument tenant, or the header x-haive-tenant.';
    end if;
    if p_write and v_role = 'reader' then
      raise exception using
        errcode = 'PT403',
        message = 'a reader of the tenant may not write',
        hint = 'An administrator of the tenant changes roles with set_member.';
    end if;
    if v_role in ('owner', 'admin') then
      actor := null;
    end if;
  end if;
  if p_write and current_setting('lock_timeout') = '0' then
    -- A row that somebody holds must not hold up a statement that others share for ever.
    perform set_config('lock_timeout', '10s', true);
  end if;
  perform set_config('persistence.tenant', tenant, true);
end;
$$;


ALTER FUNCTION haive_private.enter_tenant(p_tenant text, p_write boolean, OUT tenant text, OUT actor text, OUT trusted boolean) OWNER TO haive_writer;

-- COMMENT DOMAIN event_kind
COMMENT ON DOMAIN haive_private.event_kind IS 'What happened.';

-- DOMAIN event_kind
CREATE DOMAIN haive_private.event_kind AS text COLLATE pg_catalog."C"
	CONSTRAINT event_kind_is_known CHECK ((VALUE = ANY (ARRAY['conversation.created'::text, 'conversation.updated'::text, 'conversation.deleted'::text, 'messages.added'::text])));


ALTER DOMAIN haive_private.event_kind OWNER TO postgres;

-- ACL FUNCTION insert_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[])
REVOKE ALL ON FUNCTION haive_private.insert_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[]) FROM PUBLIC;

-- COMMENT FUNCTION insert_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[])
COMMENT ON FUNCTION haive_private.insert_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[]) IS 'Writes new messages; an id that exists already is a unique violation.';

-- FUNCTION insert_messages(text, text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], integer[], integer[], text[], numeric[], timestamp with time zone[])
CREATE FUNCTION haive_private.insert_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[]) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_places record;
begin
  v_places := haive_private.reserve_messages(
    p_tenant, p_actor, p_conversation_ids, p_input_tokens, p_output_tokens, p_costs, p_created_at
  );
  with placed as materialized (
    select
      u.*,
      v_places.last_seqs[width_bucket(u.conversation_id, v_places.conversation_ids)]
      - v_places.counts[width_bucket(u.conversation_id, v_places.conversation_ids)]
      + row_number() over (partition by u.conversation_id order by u.place) as seq
    from unnest(
      p_conversation_ids, p_ids, p_roles, p_contents, p_parts, p_metadata,
      p_input_tokens, p_output_tokens, p_models, p_costs, p_created_at
    ) with ordinality as u (
      conversation_id, id, role, content, parts, metadata,
      input_tokens, output_tokens, model, cost, created_at, place
    )
  ),
  written as (
    insert into haive.messages (
      tenant_id, conversation_id, seq, id, role, content, parts, metadata,
      input_tokens, output_tokens, model, cost, created_at
    )
    select
      p_tenant, p.conversation_id, p.seq, p.id, p.role, p.content, p.parts,
      coalesce(p.metadata, '{}'), p.input_tokens, p.output_tokens, p.model, p.cost,
      coalesce(p.created_at, now())
    from placed as p
    where p.seq is not null
  )
  select array_agg(p.seq order by p.place), array_agg(coalesce(p.created_at, now()) order by p.place)
  into seqs, times
  from placed as p;
end;
$$;


ALTER FUNCTION haive_private.insert_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[]) OWNER TO haive_writer;

-- DOMAIN json_object
CREATE DOMAIN haive_private."json_object" AS jsonb
	CONSTRAINT json_object_is_bounded CHECK (((jsonb_typeof(VALUE) = 'object'::text) AND (pg_column_size(VALUE) <= 1048576)))
	CONSTRAINT json_object_is_readable CHECK (((NOT jsonb_path_exists(VALUE, 'strict $.**{100}'::jsonpath)) AND (NOT jsonb_path_exists(VALUE, 'strict $.**?(@.type() == "number" && (@ > 10000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000 || @ < -10000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000))'::jsonpath))));


ALTER DOMAIN haive_private."json_object" OWNER TO postgres;

-- COMMENT DOMAIN labels
COMMENT ON DOMAIN haive_private.labels IS 'At most 1,000 texts, together 200,000 bytes.';

-- DOMAIN labels
CREATE DOMAIN haive_private.labels AS text[]
	CONSTRAINT labels_are_bounded CHECK (((cardinality(VALUE) <= 1000) AND (array_position(VALUE, NULL::text) IS NULL) AND (octet_length(array_to_string(VALUE, ''::text)) <= 200000)));


ALTER DOMAIN haive_private.labels OWNER TO postgres;

-- ACL FUNCTION message_docs(p_tenant text, p_conversation_ids uuid[], p_from bigint[], p_to bigint[])
GRANT ALL ON FUNCTION haive_private.message_docs(p_tenant text, p_conversation_ids uuid[], p_from bigint[], p_to bigint[]) TO authenticated;
GRANT ALL ON FUNCTION haive_private.message_docs(p_tenant text, p_conversation_ids uuid[], p_from bigint[], p_to bigint[]) TO haive_client;
GRANT ALL ON FUNCTION haive_private.message_docs(p_tenant text, p_conversation_ids uuid[], p_from bigint[], p_to bigint[]) TO service_role;
REVOKE ALL ON FUNCTION haive_private.message_docs(p_tenant text, p_conversation_ids uuid[], p_from bigint[], p_to bigint[]) FROM PUBLIC;

-- COMMENT FUNCTION message_docs(p_tenant text, p_conversation_ids uuid[], p_from bigint[], p_to bigint[])
COMMENT ON FUNCTION haive_private.message_docs(p_tenant text, p_conversation_ids uuid[], p_from bigint[], p_to bigint[]) IS 'Ranges of messages as the functions of the API return them.';

-- FUNCTION message_docs(text, uuid[], bigint[], bigint[])
CREATE FUNCTION haive_private.message_docs(p_tenant text, p_conversation_ids uuid[], p_from bigint[], p_to bigint[]) RETURNS json[]
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return array(
    select (
      select coalesce(json_agg(d), '[]')
      from (
        select
          m.id, m.conversation_id, m.seq, m.role::text,
          case when m.parts is null then to_json(m.content::text) else m.parts::json end as content,
          m.metadata::jsonb,
          case
            when m.input_tokens is not null then json_build_object(
              'input_tokens', m.input_tokens,
              'output_tokens', m.output_tokens,
              'total_tokens', m.input_tokens + m.output_tokens,
              'model', m.model,
              'cost', m.cost::text
            )
          end as token_usage,
          m.created_at
        from haive.messages as m
        where
          m.tenant_id = p_tenant and m.conversation_id = w.conversation_id
          and m.seq between w.first_seq and w.last_seq
        order by m.seq
      ) as d
    )
    from unnest(p_conversation_ids, p_from, p_to) with ordinality
      as w (conversation_id, first_seq, last_seq, place)
    order by w.place
  );
end;
$$;


ALTER FUNCTION haive_private.message_docs(p_tenant text, p_conversation_ids uuid[], p_from bigint[], p_to bigint[]) OWNER TO postgres;

-- COMMENT DOMAIN message_parts
COMMENT ON DOMAIN haive_private.message_parts IS 'A list of parts (text, image, tool_call, tool_result), at most 32 MiB.';

-- DOMAIN message_parts
CREATE DOMAIN haive_private.message_parts AS jsonb
	CONSTRAINT message_parts_are_bounded CHECK (((jsonb_typeof(VALUE) = 'array'::text) AND (pg_column_size(VALUE) <= 33554432)))
	CONSTRAINT message_parts_are_known CHECK (((NOT jsonb_path_exists(VALUE, 'strict $[*]?(@.type() != "object")'::jsonpath, '{}'::jsonb, true)) AND (NOT jsonb_path_exists(VALUE, '$[*]?(!(@."type".type() == "string" && (((@."type" == "text" && @."text".type() == "string" || (((@."type" == "image" && (@."url".type() == "string" || @."data".type() == "string")) && ((!(exists (@."url")) || @."url".type() == "string") || @."url".type() == "null")) && ((!(exists (@."data")) || @."data".type() == "string") || @."data".type() == "null")) && ((!(exists (@."media_type")) || @."media_type".type() == "string") || @."media_type".type() == "null")) || ((@."type" == "tool_call" && @."id".type() == "string") && @."name".type() == "string") && (!(exists (@."arguments")) || @."arguments".type() == "object")) || (@."type" == "tool_result" && @."tool_call_id".type() == "string") && (!(exists (@."is_error")) || @."is_error".type() == "boolean"))))'::jsonpath))))
	CONSTRAINT message_parts_are_readable CHECK (((NOT jsonb_path_exists(VALUE, 'strict $.**{100}'::jsonpath)) AND (NOT jsonb_path_exists(VALUE, 'strict $.**?(@.type() == "number" && (@ > 10000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000 || @ < -10000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000))'::jsonpath))));


ALTER DOMAIN haive_private.message_parts OWNER TO postgres;

-- COMMENT DOMAIN message_role
COMMENT ON DOMAIN haive_private.message_role IS 'system, user, assistant or tool.';

-- DOMAIN message_role
CREATE DOMAIN haive_private.message_role AS text COLLATE pg_catalog."C"
	CONSTRAINT message_role_is_known CHECK ((VALUE = ANY (ARRAY['system'::text, 'user'::text, 'assistant'::text, 'tool'::text])));


ALTER DOMAIN haive_private.message_role OWNER TO postgres;

-- COMMENT DOMAIN message_text
COMMENT ON DOMAIN haive_private.message_text IS 'At most 8 MiB of text.';

-- DOMAIN message_text
CREATE DOMAIN haive_private.message_text AS text
	CONSTRAINT message_text_is_bounded CHECK ((octet_length(VALUE) <= 8388608));


ALTER DOMAIN haive_private.message_text OWNER TO postgres;

-- ACL TABLE migrations
GRANT SELECT ON TABLE haive_private.migrations TO authenticated;
GRANT SELECT ON TABLE haive_private.migrations TO haive_client;
GRANT SELECT ON TABLE haive_private.migrations TO service_role;

-- COMMENT TABLE migrations
COMMENT ON TABLE haive_private.migrations IS 'Which migrations this installation has, whoever applied them.';

-- ROW SECURITY migrations
ALTER TABLE haive_private.migrations ENABLE ROW LEVEL SECURITY;

-- TABLE migrations
CREATE TABLE haive_private.migrations (
    version text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE haive_private.migrations OWNER TO postgres;

-- POLICY migrations everybody who may call reads the version
CREATE POLICY "everybody who may call reads the version" ON haive_private.migrations FOR SELECT TO authenticated, service_role, haive_client, haive_writer USING (true);

-- CONSTRAINT migrations migrations_pkey
ALTER TABLE ONLY haive_private.migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (version);

-- COMMENT DOMAIN moment
COMMENT ON DOMAIN haive_private.moment IS 'A time that every client can hold: no infinity, no year beyond 9999.';

-- DOMAIN moment
CREATE DOMAIN haive_private.moment AS timestamp with time zone
	CONSTRAINT moment_is_of_this_calendar CHECK (((VALUE >= '0001-01-02 00:00:00+00'::timestamp with time zone) AND (VALUE <= '9999-12-31 00:00:00+00'::timestamp with time zone)));


ALTER DOMAIN haive_private.moment OWNER TO postgres;

-- COMMENT DOMAIN money
COMMENT ON DOMAIN haive_private.money IS 'In the currency of the price list, with up to 12 places: never a float.';

-- DOMAIN money
CREATE DOMAIN haive_private.money AS numeric
	CONSTRAINT money_is_exact CHECK (((VALUE >= (0)::numeric) AND (VALUE < '1000000000000'::numeric) AND (scale(VALUE) <= 12)));


ALTER DOMAIN haive_private.money OWNER TO postgres;

-- ACL FUNCTION my_admin_tenants()
GRANT ALL ON FUNCTION haive_private.my_admin_tenants() TO authenticated;
GRANT ALL ON FUNCTION haive_private.my_admin_tenants() TO haive_client;
GRANT ALL ON FUNCTION haive_private.my_admin_tenants() TO service_role;
REVOKE ALL ON FUNCTION haive_private.my_admin_tenants() FROM PUBLIC;

-- COMMENT FUNCTION my_admin_tenants()
COMMENT ON FUNCTION haive_private.my_admin_tenants() IS 'The tenants that the caller owns or administers.';

-- FUNCTION my_admin_tenants()
CREATE FUNCTION haive_private.my_admin_tenants() RETURNS SETOF text
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
  select m.tenant_id from haive.members as m
  where m.user_id = (select haive.current_actor()) and m.role in ('owner', 'admin')
$$;


ALTER FUNCTION haive_private.my_admin_tenants() OWNER TO haive_writer;

-- ACL FUNCTION my_tenants()
GRANT ALL ON FUNCTION haive_private.my_tenants() TO authenticated;
GRANT ALL ON FUNCTION haive_private.my_tenants() TO haive_client;
GRANT ALL ON FUNCTION haive_private.my_tenants() TO service_role;
REVOKE ALL ON FUNCTION haive_private.my_tenants() FROM PUBLIC;

-- COMMENT FUNCTION my_tenants()
COMMENT ON FUNCTION haive_private.my_tenants() IS 'The tenants that the caller is a member of.';

-- FUNCTION my_tenants()
CREATE FUNCTION haive_private.my_tenants() RETURNS SETOF text
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO ''
    AS $$
  select m.tenant_id from haive.members as m where m.user_id = (select haive.current_actor())
$$;


ALTER FUNCTION haive_private.my_tenants() OWNER TO haive_writer;

-- COMMENT DOMAIN name
COMMENT ON DOMAIN haive_private.name IS 'The id of a user, agent or model: 1 to 200 characters.';

-- DOMAIN name
CREATE DOMAIN haive_private.name AS text
	CONSTRAINT name_is_bounded CHECK (((length(VALUE) >= 1) AND (length(VALUE) <= 200)));


ALTER DOMAIN haive_private.name OWNER TO postgres;

-- ACL FUNCTION replay_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[], OUT failures text[])
REVOKE ALL ON FUNCTION haive_private.replay_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[], OUT failures text[]) FROM PUBLIC;

-- COMMENT FUNCTION replay_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[], OUT failures text[])
COMMENT ON FUNCTION haive_private.replay_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[], OUT failures text[]) IS 'Writes those messages that are not there yet and answers for all.';

-- FUNCTION replay_messages(text, text, uuid[], uuid[], text[], text[], jsonb[], jsonb[], integer[], integer[], text[], numeric[], timestamp with time zone[])
CREATE FUNCTION haive_private.replay_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[], OUT failures text[]) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_missing bigint[];
begin
  perform from haive.conversations as c
  where c.tenant_id = p_tenant and c.id = any(p_conversation_ids)
  order by c.id
  for no key update;

  v_missing := array(
    select min(u.place) from unnest(p_ids) with ordinality as u (id, place)
    where not exists (select from haive.messages as m where m.id = u.id and m.tenant_id = p_tenant)
    group by u.id
    order by min(u.place)
  );
  perform haive_private.insert_messages(
    p_tenant,
    p_actor,
    array(select p_conversation_ids[i] from unnest(v_missing) as i),
    array(select p_ids[i] from unnest(v_missing) as i),
    array(select p_roles[i] from unnest(v_missing) as i),
    array(select p_contents[i] from unnest(v_missing) as i),
    array(select p_parts[i] from unnest(v_missing) as i),
    array(select p_metadata[i] from unnest(v_missing) as i),
    array(select p_input_tokens[i] from unnest(v_missing) as i),
    array(select p_output_tokens[i] from unnest(v_missing) as i),
    array(select p_models[i] from unnest(v_missing) as i),
    array(select p_costs[i] from unnest(v_missing) as i),
    array(select p_created_at[i] from unnest(v_missing) as i)
  )
  where cardinality(v_missing) > 0;

  select
    array_agg(case when s.failure is null then s.seq end order by s.place),
    array_agg(s.created_at order by s.place),
    array_agg(s.failure order by s.place)
  into seqs, times, failures
  from (
    select
      u.place, m.seq, m.created_at,
      case
        when c.id is null then 'PT404'
        when m.id is null or (
          m.conversation_id, m.role, m.content, m.parts, m.metadata,
          m.input_tokens, m.output_tokens, m.model, m.cost, m.created_at
        ) is distinct from (
          u.conversation_id, u.role, u.content, u.parts, coalesce(u.metadata, '{}'),
          u.input_tokens, u.output_tokens, u.model, u.cost, coalesce(u.created_at, m.created_at)
        ) then 'PT409'
      end as failure
    from unnest(
      p_conversation_ids, p_ids, p_roles, p_contents, p_parts, p_metadata,
      p_input_tokens, p_output_tokens, p_models, p_costs, p_created_at
    ) with ordinality as u (
      conversation_id, id, role, content, parts, metadata,
      input_tokens, output_tokens, model, cost, created_at, place
    )
    left join haive.conversations as c
      on c.tenant_id = p_tenant and c.id = u.conversation_id
      and (p_actor is null or c.user_id = p_actor or p_actor = any(c.participants))
    left join haive.messages as m on m.id = u.id and m.tenant_id = p_tenant
  ) as s;
end;
$$;


ALTER FUNCTION haive_private.replay_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_ids uuid[], p_roles text[], p_contents text[], p_parts jsonb[], p_metadata jsonb[], p_input_tokens integer[], p_output_tokens integer[], p_models text[], p_costs numeric[], p_created_at timestamp with time zone[], OUT seqs bigint[], OUT times timestamp with time zone[], OUT failures text[]) OWNER TO haive_writer;

-- ACL FUNCTION reserve_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_input_tokens integer[], p_output_tokens integer[], p_costs numeric[], p_created_at timestamp with time zone[], OUT conversation_ids uuid[], OUT last_seqs bigint[], OUT counts bigint[])
REVOKE ALL ON FUNCTION haive_private.reserve_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_input_tokens integer[], p_output_tokens integer[], p_costs numeric[], p_created_at timestamp with time zone[], OUT conversation_ids uuid[], OUT last_seqs bigint[], OUT counts bigint[]) FROM PUBLIC;

-- COMMENT FUNCTION reserve_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_input_tokens integer[], p_output_tokens integer[], p_costs numeric[], p_created_at timestamp with time zone[], OUT conversation_ids uuid[], OUT last_seqs bigint[], OUT counts bigint[])
COMMENT ON FUNCTION haive_private.reserve_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_input_tokens integer[], p_output_tokens integer[], p_costs numeric[], p_created_at timestamp with time zone[], OUT conversation_ids uuid[], OUT last_seqs bigint[], OUT counts bigint[]) IS 'Gives places (seq) to messages that are about to be written in the same transaction.';

-- FUNCTION reserve_messages(text, text, uuid[], integer[], integer[], numeric[], timestamp with time zone[])
CREATE FUNCTION haive_private.reserve_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_input_tokens integer[], p_output_tokens integer[], p_costs numeric[], p_created_at timestamp with time zone[], OUT conversation_ids uuid[], OUT last_seqs bigint[], OUT counts bigint[]) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $_$
declare
  v_inputs bigint[];
  v_outputs bigint[];
  v_costs numeric[];
  v_latest timestamptz[];
begin
  select
    array_agg(g.conversation_id), array_agg(g.n), array_agg(g.input_tokens),
    array_agg(g.output_tokens), array_agg(g.cost), array_agg(g.latest)
  into conversation_ids, counts, v_inputs, v_outputs, v_costs, v_latest
  from (
    select
      u.conversation_id,
      count(*) as n,
      coalesce(sum(u.input_tokens), 0) as input_tokens,
      coalesce(sum(u.output_tokens), 0) as output_tokens,
      coalesce(sum(u.cost), 0) as cost,
      max(coalesce(u.created_at, now())) as latest
    from unnest(p_conversation_ids, p_input_tokens, p_output_tokens, p_costs, p_created_at)
      as u (conversation_id, input_tokens, output_tokens, cost, created_at)
    group by u.conversation_id
    order by u.conversation_id
  ) as g;

  if cardinality(conversation_ids) = 1 then
    update haive.conversations as c
    set
      message_count = c.message_count + counts[1],
      input_tokens = c.input_tokens + v_inputs[1],
      output_tokens = c.output_tokens + v_outputs[1],
      cost = c.cost + v_costs[1],
      last_message_at = greatest(c.last_message_at, v_latest[1])
    where
      c.tenant_id = p_tenant and c.id = conversation_ids[1]
      and (p_actor is null or c.user_id = p_actor or p_actor = any(c.participants))
    returning array[c.message_count] into last_seqs;
    if not found then
      last_seqs := array[null::bigint];
    end if;
  else
    -- Planned anew each time, for a plan made while the table was empty reads all of it for ever.
    -- Its index scan finds the rows in the order of their ids, so two writers never wait for each
    -- other in a circle; width_bucket is the binary search for a row's place in the sorted array.
    execute $q$
      with grown as (
        update haive.conversations as c
        set
          message_count = c.message_count + $4[width_bucket(c.id, $3)],
          input_tokens = c.input_tokens + $5[width_bucket(c.id, $3)],
          output_tokens = c.output_tokens + $6[width_bucket(c.id, $3)],
          cost = c.cost + $7[width_bucket(c.id, $3)],
          last_message_at = greatest(c.last_message_at, $8[width_bucket(c.id, $3)])
        where
          c.tenant_id = $1 and c.id = any($3)
          and ($2 is null or c.user_id = $2 or $2 = any(c.participants))
        returning c.id, c.message_count
      )
      select array_agg(g.message_count order by u.id)
      from unnest($3) as u (id)
      left join grown as g on g.id = u.id
    $q$
    into last_seqs
    using p_tenant, p_actor, conversation_ids, counts, v_inputs, v_outputs, v_costs, v_latest;
  end if;

  insert into haive.events (tenant_id, kind, conversation_id, first_seq, last_seq)
  select p_tenant, 'messages.added', u.id, u.last_seq - u.n + 1, u.last_seq
  from unnest(conversation_ids, last_seqs, counts) as u (id, last_seq, n)
  where u.last_seq is not null;
end;
$_$;


ALTER FUNCTION haive_private.reserve_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_input_tokens integer[], p_output_tokens integer[], p_costs numeric[], p_created_at timestamp with time zone[], OUT conversation_ids uuid[], OUT last_seqs bigint[], OUT counts bigint[]) OWNER TO haive_writer;

-- ACL FUNCTION set_member(p_tenant text, p_user_id text, p_role text)
GRANT ALL ON FUNCTION haive_private.set_member(p_tenant text, p_user_id text, p_role text) TO authenticated;
GRANT ALL ON FUNCTION haive_private.set_member(p_tenant text, p_user_id text, p_role text) TO haive_client;
GRANT ALL ON FUNCTION haive_private.set_member(p_tenant text, p_user_id text, p_role text) TO service_role;
REVOKE ALL ON FUNCTION haive_private.set_member(p_tenant text, p_user_id text, p_role text) FROM PUBLIC;

-- COMMENT FUNCTION set_member(p_tenant text, p_user_id text, p_role text)
COMMENT ON FUNCTION haive_private.set_member(p_tenant text, p_user_id text, p_role text) IS 'What haive.set_member does, for a caller without rights on the table.';

-- FUNCTION set_member(text, text, text)
CREATE FUNCTION haive_private.set_member(p_tenant text, p_user_id text, p_role text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_admin boolean := v_caller.trusted;
begin
  if not v_admin then
    -- An owner sets every role; an admin neither makes, changes nor removes owners and admins.
    select
      m.role = 'owner'
      or (
        m.role = 'admin' and coalesce(p_role, 'member') in ('member', 'reader')
        and not exists (
          select from haive.members as o
          where o.tenant_id = v_caller.tenant and o.user_id = p_user_id
            and o.role in ('owner', 'admin')
        )
      )
    into v_admin
    from haive.members as m
    where m.tenant_id = v_caller.tenant and m.user_id = haive.current_actor();
  end if;
  if v_admin is not true then
    raise exception using
      errcode = 'PT403',
      message = 'only an administrator changes the members of a tenant',
      hint = 'Owners set every role; admins set member and reader.';
  end if;
  if p_role is null then
    delete from haive.members as m where m.tenant_id = v_caller.tenant and m.user_id = p_user_id;
  else
    insert into haive.members (tenant_id, user_id, role)
    values (v_caller.tenant, p_user_id, p_role)
    on conflict (tenant_id, user_id) do update set role = excluded.role;
  end if;
end;
$$;


ALTER FUNCTION haive_private.set_member(p_tenant text, p_user_id text, p_role text) OWNER TO haive_writer;

-- COMMENT DOMAIN title
COMMENT ON DOMAIN haive_private.title IS 'At most 1,000 characters.';

-- DOMAIN title
CREATE DOMAIN haive_private.title AS text
	CONSTRAINT title_is_bounded CHECK ((length(VALUE) <= 1000));


ALTER DOMAIN haive_private.title OWNER TO postgres;

-- COMMENT DOMAIN token_count
COMMENT ON DOMAIN haive_private.token_count IS 'Tokens, zero or more.';

-- DOMAIN token_count
CREATE DOMAIN haive_private.token_count AS integer
	CONSTRAINT token_count_is_positive CHECK ((VALUE >= 0));


ALTER DOMAIN haive_private.token_count OWNER TO postgres;

-- ACL FUNCTION update_conversation(p_tenant text, p_conversation_id uuid, p_changes jsonb)
GRANT ALL ON FUNCTION haive_private.update_conversation(p_tenant text, p_conversation_id uuid, p_changes jsonb) TO authenticated;
GRANT ALL ON FUNCTION haive_private.update_conversation(p_tenant text, p_conversation_id uuid, p_changes jsonb) TO haive_client;
GRANT ALL ON FUNCTION haive_private.update_conversation(p_tenant text, p_conversation_id uuid, p_changes jsonb) TO service_role;
REVOKE ALL ON FUNCTION haive_private.update_conversation(p_tenant text, p_conversation_id uuid, p_changes jsonb) FROM PUBLIC;

-- COMMENT FUNCTION update_conversation(p_tenant text, p_conversation_id uuid, p_changes jsonb)
COMMENT ON FUNCTION haive_private.update_conversation(p_tenant text, p_conversation_id uuid, p_changes jsonb) IS 'What haive.update_conversation does, for a caller without rights on the table.';

-- FUNCTION update_conversation(text, uuid, jsonb)
CREATE FUNCTION haive_private.update_conversation(p_tenant text, p_conversation_id uuid, p_changes jsonb) RETURNS json
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_unknown text;
  v_row haive.conversations;
begin
  select string_agg(k, ', ' order by k) into v_unknown
  from jsonb_object_keys(p_changes) as k
  where k not in ('agent_id', 'title', 'tags', 'context', 'participants', 'settings');
  if v_unknown is not null then
    raise exception using
      errcode = 'PT422',
      message = format('cannot change: %s', left(v_unknown, 200)),
      hint = 'What changes is agent_id, title, tags, context, participants, settings.';
  end if;
  update haive.conversations as c
  set
    agent_id = case when p_changes ? 'agent_id' then g.agent_id else c.agent_id end,
    title = case when p_changes ? 'title' then g.title else c.title end,
    tags = coalesce(g.tags, c.tags),
    context = coalesce(g.context, c.context),
    participants = coalesce(g.participants, c.participants),
    settings = coalesce(g.settings, c.settings),
    updated_at = now()
  from jsonb_to_record(p_changes) as g (
    agent_id text, title text, tags text[], context jsonb, participants text[], settings jsonb
  )
  where
    c.tenant_id = v_caller.tenant and c.id = p_conversation_id
    and (
      v_caller.actor is null or c.user_id = v_caller.actor
      or v_caller.actor = any(c.participants)
    )
  returning c.* into v_row;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no conversation %s', p_conversation_id),
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to write to.';
  end if;
  insert into haive.events (tenant_id, kind, conversation_id)
  values (v_caller.tenant, 'conversation.updated', p_conversation_id);
  return haive_private.conversation_doc(v_row);
end;
$$;


ALTER FUNCTION haive_private.update_conversation(p_tenant text, p_conversation_id uuid, p_changes jsonb) OWNER TO haive_writer;
