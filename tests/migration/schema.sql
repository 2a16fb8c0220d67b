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

-- ACL FUNCTION annotate_checkpoint(checkpoint_id uuid, thread_id text, namespace text, add_tags text[], remove_tags text[], failed boolean, sealed bytea, was_sealed bytea, search jsonb, tenant text)
GRANT ALL ON FUNCTION haive.annotate_checkpoint(checkpoint_id uuid, thread_id text, namespace text, add_tags text[], remove_tags text[], failed boolean, sealed bytea, was_sealed bytea, search jsonb, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.annotate_checkpoint(checkpoint_id uuid, thread_id text, namespace text, add_tags text[], remove_tags text[], failed boolean, sealed bytea, was_sealed bytea, search jsonb, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.annotate_checkpoint(checkpoint_id uuid, thread_id text, namespace text, add_tags text[], remove_tags text[], failed boolean, sealed bytea, was_sealed bytea, search jsonb, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.annotate_checkpoint(checkpoint_id uuid, thread_id text, namespace text, add_tags text[], remove_tags text[], failed boolean, sealed bytea, was_sealed bytea, search jsonb, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION annotate_checkpoint(checkpoint_id uuid, thread_id text, namespace text, add_tags text[], remove_tags text[], failed boolean, sealed bytea, was_sealed bytea, search jsonb, tenant text)
COMMENT ON FUNCTION haive.annotate_checkpoint(checkpoint_id uuid, thread_id text, namespace text, add_tags text[], remove_tags text[], failed boolean, sealed bytea, was_sealed bytea, search jsonb, tenant text) IS 'Adds and removes tags, and marks a checkpoint as failed or not. False: its sealed part was changed by somebody else meanwhile.';

-- FUNCTION annotate_checkpoint(uuid, text, text, text[], text[], boolean, bytea, bytea, jsonb, text)
CREATE FUNCTION haive.annotate_checkpoint(checkpoint_id uuid, thread_id text DEFAULT NULL::text, namespace text DEFAULT ''::text, add_tags text[] DEFAULT NULL::text[], remove_tags text[] DEFAULT NULL::text[], failed boolean DEFAULT NULL::boolean, sealed bytea DEFAULT NULL::bytea, was_sealed bytea DEFAULT NULL::bytea, search jsonb DEFAULT NULL::jsonb, tenant text DEFAULT NULL::text) RETURNS boolean
    LANGUAGE sql
    SET search_path TO ''
    AS $$
  select haive_private.annotate_checkpoint(
    annotate_checkpoint.tenant, annotate_checkpoint.checkpoint_id, annotate_checkpoint.thread_id,
    annotate_checkpoint.namespace, annotate_checkpoint.add_tags, annotate_checkpoint.remove_tags,
    annotate_checkpoint.failed, annotate_checkpoint.sealed, annotate_checkpoint.was_sealed,
    annotate_checkpoint.search
  )
$$;


ALTER FUNCTION haive.annotate_checkpoint(checkpoint_id uuid, thread_id text, namespace text, add_tags text[], remove_tags text[], failed boolean, sealed bytea, was_sealed bytea, search jsonb, tenant text) OWNER TO postgres;

-- ACL TABLE branches
GRANT SELECT ON TABLE haive.branches TO authenticated;
GRANT SELECT ON TABLE haive.branches TO haive_client;
GRANT SELECT ON TABLE haive.branches TO service_role;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE haive.branches TO haive_writer;

-- COMMENT TABLE branches
COMMENT ON TABLE haive.branches IS 'Lines of checkpoints. Each has one head, which a save replaces only if it is the parent it names.';

-- ROW SECURITY branches
ALTER TABLE haive.branches ENABLE ROW LEVEL SECURITY;

-- TABLE branches
CREATE TABLE haive.branches (
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    branch_id uuid NOT NULL,
    thread_key uuid NOT NULL,
    name haive_private.name NOT NULL,
    root_branch_id uuid,
    root_seq bigint,
    head_id uuid,
    metadata haive_private."json_object",
    sealed haive_private.payload,
    key_id haive_private.key_id,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
)
WITH (fillfactor='70');


ALTER TABLE haive.branches OWNER TO postgres;

-- CONSTRAINT branches branches_name_key
ALTER TABLE ONLY haive.branches
    ADD CONSTRAINT branches_name_key UNIQUE (thread_key, name, tenant_id);

-- CONSTRAINT branches branches_pkey
ALTER TABLE ONLY haive.branches
    ADD CONSTRAINT branches_pkey PRIMARY KEY (tenant_id, branch_id);

-- FK CONSTRAINT branches branches_thread_fkey
ALTER TABLE ONLY haive.branches
    ADD CONSTRAINT branches_thread_fkey FOREIGN KEY (tenant_id, thread_key) REFERENCES haive.threads(tenant_id, thread_key) ON DELETE CASCADE;

-- POLICY branches members read the branches of threads they read
CREATE POLICY "members read the branches of threads they read" ON haive.branches FOR SELECT TO authenticated USING ((EXISTS ( SELECT
   FROM haive.threads t
  WHERE ((t.tenant_id = branches.tenant_id) AND (t.thread_key = branches.thread_key)))));

-- POLICY branches services work in the tenant they entered
CREATE POLICY "services work in the tenant they entered" ON haive.branches TO haive_client, haive_writer USING ((tenant_id = ( SELECT current_setting('persistence.tenant'::text, true) AS current_setting)));

-- COMMENT COLUMN branches.head_id
COMMENT ON COLUMN haive.branches.head_id IS 'Its last checkpoint; before the first, the one it begins at.';

-- COMMENT COLUMN branches.root_seq
COMMENT ON COLUMN haive.branches.root_seq IS 'Where it left root_branch_id: of that branch, what is later is not in its history. Nothing is copied.';

-- ACL TABLE checkpoint_schemas
GRANT SELECT ON TABLE haive.checkpoint_schemas TO authenticated;
GRANT SELECT ON TABLE haive.checkpoint_schemas TO haive_client;
GRANT SELECT ON TABLE haive.checkpoint_schemas TO service_role;
GRANT SELECT,INSERT,UPDATE ON TABLE haive.checkpoint_schemas TO haive_writer;

-- COMMENT TABLE checkpoint_schemas
COMMENT ON TABLE haive.checkpoint_schemas IS 'The JSON Schemas of saved models, once each: what a restored state is validated against.';

-- ROW SECURITY checkpoint_schemas
ALTER TABLE haive.checkpoint_schemas ENABLE ROW LEVEL SECURITY;

-- TABLE checkpoint_schemas
CREATE TABLE haive.checkpoint_schemas (
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    hash bytea NOT NULL,
    payload haive_private.payload NOT NULL,
    key_id haive_private.key_id,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE haive.checkpoint_schemas OWNER TO postgres;

-- CONSTRAINT checkpoint_schemas checkpoint_schemas_pkey
ALTER TABLE ONLY haive.checkpoint_schemas
    ADD CONSTRAINT checkpoint_schemas_pkey PRIMARY KEY (tenant_id, hash);

-- FK CONSTRAINT checkpoint_schemas checkpoint_schemas_tenant_fkey
ALTER TABLE ONLY haive.checkpoint_schemas
    ADD CONSTRAINT checkpoint_schemas_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES haive.tenants(tenant_id) ON DELETE CASCADE;

-- POLICY checkpoint_schemas members read the schemas of their tenant
CREATE POLICY "members read the schemas of their tenant" ON haive.checkpoint_schemas FOR SELECT TO authenticated USING ((tenant_id IN ( SELECT haive_private.my_tenants() AS my_tenants)));

-- POLICY checkpoint_schemas services work in the tenant they entered
CREATE POLICY "services work in the tenant they entered" ON haive.checkpoint_schemas TO haive_client, haive_writer USING ((tenant_id = ( SELECT current_setting('persistence.tenant'::text, true) AS current_setting)));

-- ACL TABLE checkpoint_writes
GRANT SELECT ON TABLE haive.checkpoint_writes TO authenticated;
GRANT SELECT ON TABLE haive.checkpoint_writes TO haive_client;
GRANT SELECT ON TABLE haive.checkpoint_writes TO service_role;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE haive.checkpoint_writes TO haive_writer;

-- COMMENT TABLE checkpoint_writes
COMMENT ON TABLE haive.checkpoint_writes IS 'What the tasks after a checkpoint have written already: after a crash they need not run again.';

-- ROW SECURITY checkpoint_writes
ALTER TABLE haive.checkpoint_writes ENABLE ROW LEVEL SECURITY;

-- TABLE checkpoint_writes
CREATE TABLE haive.checkpoint_writes (
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    thread_key uuid NOT NULL,
    checkpoint_id uuid NOT NULL,
    task_id uuid NOT NULL,
    idx haive_private.write_place NOT NULL,
    channel haive_private.name NOT NULL,
    task_path haive_private.namespace DEFAULT ''::text NOT NULL,
    size haive_private.state_size NOT NULL,
    codec haive_private.codec NOT NULL,
    key_id haive_private.key_id,
    payload haive_private.payload NOT NULL
);
ALTER TABLE ONLY haive.checkpoint_writes ALTER COLUMN payload SET STORAGE EXTERNAL;


ALTER TABLE haive.checkpoint_writes OWNER TO postgres;

-- CONSTRAINT checkpoint_writes checkpoint_writes_pkey
ALTER TABLE ONLY haive.checkpoint_writes
    ADD CONSTRAINT checkpoint_writes_pkey PRIMARY KEY (tenant_id, thread_key, checkpoint_id, task_id, idx);

-- FK CONSTRAINT checkpoint_writes checkpoint_writes_thread_fkey
ALTER TABLE ONLY haive.checkpoint_writes
    ADD CONSTRAINT checkpoint_writes_thread_fkey FOREIGN KEY (tenant_id, thread_key) REFERENCES haive.threads(tenant_id, thread_key) ON DELETE CASCADE;

-- POLICY checkpoint_writes members read the writes of threads they read
CREATE POLICY "members read the writes of threads they read" ON haive.checkpoint_writes FOR SELECT TO authenticated USING ((EXISTS ( SELECT
   FROM haive.threads t
  WHERE ((t.tenant_id = checkpoint_writes.tenant_id) AND (t.thread_key = checkpoint_writes.thread_key)))));

-- POLICY checkpoint_writes services work in the tenant they entered
CREATE POLICY "services work in the tenant they entered" ON haive.checkpoint_writes TO haive_client, haive_writer USING ((tenant_id = ( SELECT current_setting('persistence.tenant'::text, true) AS current_setting)));

-- COMMENT COLUMN checkpoint_writes.checkpoint_id
COMMENT ON COLUMN haive.checkpoint_writes.checkpoint_id IS 'No foreign key: a task may be done before the checkpoint that it follows is saved.';

-- COMMENT COLUMN checkpoint_writes.idx
COMMENT ON COLUMN haive.checkpoint_writes.idx IS 'Its place among the writes of the task; below zero for errors, interrupts and the like.';

-- ACL TABLE checkpoints
GRANT SELECT ON TABLE haive.checkpoints TO authenticated;
GRANT SELECT ON TABLE haive.checkpoints TO haive_client;
GRANT SELECT ON TABLE haive.checkpoints TO service_role;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE haive.checkpoints TO haive_writer;

-- COMMENT TABLE checkpoints
COMMENT ON TABLE haive.checkpoints IS 'States of workflows, most of them as a delta against their parent.';

-- ROW SECURITY checkpoints
ALTER TABLE haive.checkpoints ENABLE ROW LEVEL SECURITY;

-- TABLE checkpoints
CREATE TABLE haive.checkpoints (
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    branch_id uuid NOT NULL,
    seq bigint NOT NULL,
    thread_key uuid NOT NULL,
    id uuid NOT NULL,
    parent_id uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    size haive_private.state_size NOT NULL,
    codec haive_private.codec NOT NULL,
    depth haive_private.chain_depth NOT NULL,
    failed boolean DEFAULT false NOT NULL,
    key_id haive_private.key_id,
    schema_hash bytea,
    tags haive_private.labels,
    metadata haive_private."json_object",
    search jsonb,
    sealed haive_private.payload,
    payload haive_private.payload NOT NULL
);
ALTER TABLE ONLY haive.checkpoints ALTER COLUMN sealed SET STORAGE EXTERNAL;
ALTER TABLE ONLY haive.checkpoints ALTER COLUMN payload SET STORAGE EXTERNAL;


ALTER TABLE haive.checkpoints OWNER TO postgres;

-- FK CONSTRAINT checkpoints checkpoints_branch_fkey
ALTER TABLE ONLY haive.checkpoints
    ADD CONSTRAINT checkpoints_branch_fkey FOREIGN KEY (tenant_id, branch_id) REFERENCES haive.branches(tenant_id, branch_id) ON DELETE CASCADE;

-- CONSTRAINT checkpoints checkpoints_id_key
ALTER TABLE ONLY haive.checkpoints
    ADD CONSTRAINT checkpoints_id_key UNIQUE (id, thread_key, tenant_id);

-- CONSTRAINT checkpoints checkpoints_pkey
ALTER TABLE ONLY haive.checkpoints
    ADD CONSTRAINT checkpoints_pkey PRIMARY KEY (tenant_id, branch_id, seq);

-- POLICY checkpoints members read the checkpoints of threads they read
CREATE POLICY "members read the checkpoints of threads they read" ON haive.checkpoints FOR SELECT TO authenticated USING ((EXISTS ( SELECT
   FROM haive.threads t
  WHERE ((t.tenant_id = checkpoints.tenant_id) AND (t.thread_key = checkpoints.thread_key)))));

-- POLICY checkpoints services work in the tenant they entered
CREATE POLICY "services work in the tenant they entered" ON haive.checkpoints TO haive_client, haive_writer USING ((tenant_id = ( SELECT current_setting('persistence.tenant'::text, true) AS current_setting)));

-- COMMENT COLUMN checkpoints.depth
COMMENT ON COLUMN haive.checkpoints.depth IS 'How many deltas lay between it and a whole state when it was saved; after pruning, at most so many.';

-- COMMENT COLUMN checkpoints.sealed
COMMENT ON COLUMN haive.checkpoints.sealed IS 'Metadata and tags of a sealed checkpoint, whose columns of these names are null.';

-- COMMENT COLUMN checkpoints.search
COMMENT ON COLUMN haive.checkpoints.search IS 'What states are found by: an object of scalars; of a sealed one, a list of keyed hashes of them.';

-- COMMENT COLUMN checkpoints.seq
COMMENT ON COLUMN haive.checkpoints.seq IS 'Rises along every branch, for it is given under the lock of the branch: the order of history.';

-- COMMENT COLUMN checkpoints.size
COMMENT ON COLUMN haive.checkpoints.size IS 'Bytes of the state before it was packed.';

-- INDEX checkpoints_search_idx
CREATE INDEX checkpoints_search_idx ON haive.checkpoints USING gin (search jsonb_path_ops);

-- SEQUENCE checkpoints_seq_seq
ALTER TABLE haive.checkpoints ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME haive.checkpoints_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

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

-- FUNCTION copy_thread(text, text, text, jsonb, jsonb, jsonb, text)
CREATE FUNCTION haive.copy_thread(thread_id text, new_thread_id text, namespace text DEFAULT ''::text, checkpoints jsonb DEFAULT '[]'::jsonb, writes jsonb DEFAULT '[]'::jsonb, branches jsonb DEFAULT '[]'::jsonb, tenant text DEFAULT NULL::text) RETURNS bigint
    LANGUAGE sql
    SET search_path TO ''
    AS $$
  select haive_private.copy_thread(
    copy_thread.tenant, copy_thread.thread_id, copy_thread.namespace, copy_thread.new_thread_id,
    copy_thread.checkpoints, copy_thread.writes, copy_thread.branches
  )
$$;


ALTER FUNCTION haive.copy_thread(thread_id text, new_thread_id text, namespace text, checkpoints jsonb, writes jsonb, branches jsonb, tenant text) OWNER TO postgres;

-- ACL FUNCTION copy_thread(thread_id text, new_thread_id text, namespace text, checkpoints jsonb, writes jsonb, branches jsonb, tenant text)
GRANT ALL ON FUNCTION haive.copy_thread(thread_id text, new_thread_id text, namespace text, checkpoints jsonb, writes jsonb, branches jsonb, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.copy_thread(thread_id text, new_thread_id text, namespace text, checkpoints jsonb, writes jsonb, branches jsonb, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.copy_thread(thread_id text, new_thread_id text, namespace text, checkpoints jsonb, writes jsonb, branches jsonb, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.copy_thread(thread_id text, new_thread_id text, namespace text, checkpoints jsonb, writes jsonb, branches jsonb, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION copy_thread(thread_id text, new_thread_id text, namespace text, checkpoints jsonb, writes jsonb, branches jsonb, tenant text)
COMMENT ON FUNCTION haive.copy_thread(thread_id text, new_thread_id text, namespace text, checkpoints jsonb, writes jsonb, branches jsonb, tenant text) IS 'Copies one namespace of a thread to a new thread and returns how many checkpoints it has.';

-- ACL FUNCTION create_branch(from_checkpoint uuid, name text, thread_id text, namespace text, branch_id uuid, metadata jsonb, sealed bytea, key_id text, tenant text)
GRANT ALL ON FUNCTION haive.create_branch(from_checkpoint uuid, name text, thread_id text, namespace text, branch_id uuid, metadata jsonb, sealed bytea, key_id text, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.create_branch(from_checkpoint uuid, name text, thread_id text, namespace text, branch_id uuid, metadata jsonb, sealed bytea, key_id text, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.create_branch(from_checkpoint uuid, name text, thread_id text, namespace text, branch_id uuid, metadata jsonb, sealed bytea, key_id text, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.create_branch(from_checkpoint uuid, name text, thread_id text, namespace text, branch_id uuid, metadata jsonb, sealed bytea, key_id text, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION create_branch(from_checkpoint uuid, name text, thread_id text, namespace text, branch_id uuid, metadata jsonb, sealed bytea, key_id text, tenant text)
COMMENT ON FUNCTION haive.create_branch(from_checkpoint uuid, name text, thread_id text, namespace text, branch_id uuid, metadata jsonb, sealed bytea, key_id text, tenant text) IS 'Begins a branch at a checkpoint and returns branch_id, name, thread_id, namespace and created_at.';

-- FUNCTION create_branch(uuid, text, text, text, uuid, jsonb, bytea, text, text)
CREATE FUNCTION haive.create_branch(from_checkpoint uuid, name text, thread_id text DEFAULT NULL::text, namespace text DEFAULT ''::text, branch_id uuid DEFAULT gen_random_uuid(), metadata jsonb DEFAULT NULL::jsonb, sealed bytea DEFAULT NULL::bytea, key_id text DEFAULT NULL::text, tenant text DEFAULT NULL::text) RETURNS json
    LANGUAGE sql
    SET search_path TO ''
    AS $$
  select haive_private.create_branch(
    create_branch.tenant, create_branch.from_checkpoint, create_branch.name,
    create_branch.thread_id, create_branch.namespace, create_branch.branch_id,
    create_branch.metadata, create_branch.sealed, create_branch.key_id
  )
$$;


ALTER FUNCTION haive.create_branch(from_checkpoint uuid, name text, thread_id text, namespace text, branch_id uuid, metadata jsonb, sealed bytea, key_id text, tenant text) OWNER TO postgres;

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

-- ACL FUNCTION current_tenant(tenant text)
GRANT ALL ON FUNCTION haive.current_tenant(tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.current_tenant(tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.current_tenant(tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.current_tenant(tenant text) FROM PUBLIC;

-- COMMENT FUNCTION current_tenant(tenant text)
COMMENT ON FUNCTION haive.current_tenant(tenant text) IS 'The tenant that a call with this argument works in, as {tenant}: keys are made for one.';

-- FUNCTION current_tenant(text)
CREATE FUNCTION haive.current_tenant(tenant text DEFAULT NULL::text) RETURNS json
    LANGUAGE sql
    SET search_path TO ''
    AS $$
  select json_build_object('tenant', e.tenant) from haive_private.enter_tenant(current_tenant.tenant, false) as e
$$;


ALTER FUNCTION haive.current_tenant(tenant text) OWNER TO postgres;

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

-- FUNCTION delete_thread(text, text)
CREATE FUNCTION haive.delete_thread(thread_id text, tenant text DEFAULT NULL::text) RETURNS bigint
    LANGUAGE sql
    SET search_path TO ''
    AS $$
  select haive_private.delete_thread(delete_thread.tenant, delete_thread.thread_id)
$$;


ALTER FUNCTION haive.delete_thread(thread_id text, tenant text) OWNER TO postgres;

-- ACL FUNCTION delete_thread(thread_id text, tenant text)
GRANT ALL ON FUNCTION haive.delete_thread(thread_id text, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.delete_thread(thread_id text, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.delete_thread(thread_id text, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.delete_thread(thread_id text, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION delete_thread(thread_id text, tenant text)
COMMENT ON FUNCTION haive.delete_thread(thread_id text, tenant text) IS 'Deletes a thread with all its namespaces, branches and checkpoints; returns how many checkpoints.';

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
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    thread_key uuid,
    checkpoint_id uuid
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

-- FUNCTION find_checkpoints(text, text, text, uuid, text[], boolean, timestamp with time zone, timestamp with time zone, jsonb, jsonb, uuid, bigint, integer, boolean, boolean, boolean, text)
CREATE FUNCTION haive.find_checkpoints(thread_id text DEFAULT NULL::text, namespace text DEFAULT ''::text, branch text DEFAULT NULL::text, checkpoint_id uuid DEFAULT NULL::uuid, tags text[] DEFAULT NULL::text[], failed boolean DEFAULT NULL::boolean, created_after timestamp with time zone DEFAULT NULL::timestamp with time zone, created_before timestamp with time zone DEFAULT NULL::timestamp with time zone, metadata jsonb DEFAULT NULL::jsonb, search jsonb DEFAULT NULL::jsonb, before_id uuid DEFAULT NULL::uuid, before_seq bigint DEFAULT NULL::bigint, page_size integer DEFAULT 100, details boolean DEFAULT true, states boolean DEFAULT false, writes boolean DEFAULT false, tenant text DEFAULT NULL::text) RETURNS json
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  v_caller record := haive_private.enter_tenant(find_checkpoints.tenant, false);
  v_before bigint := coalesce(find_checkpoints.before_seq, 9223372036854775807);
  v_threads uuid[];
  v_branches uuid[];
  v_from bigint[];
  v_upto bigint[];
  v_seqs bigint[];
  v_places uuid[];
  v_by_id boolean := false;
  v_everywhere boolean := find_checkpoints.search is not null and coalesce(
    find_checkpoints.thread_id, find_checkpoints.branch, find_checkpoints.checkpoint_id::text,
    find_checkpoints.before_id::text
  ) is null;
  v_checkpoints json;
  v_next bigint;
begin
  if (find_checkpoints.page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on with before_seq.';
  end if;

  if find_checkpoints.thread_id is not null and find_checkpoints.namespace is not null then
    v_threads := array(
      select t.thread_key from haive.threads as t
      where
        t.thread_id = find_checkpoints.thread_id and t.namespace = find_checkpoints.namespace
        and t.tenant_id = v_caller.tenant
        and (v_caller.actor is null or t.user_id = v_caller.actor)
    );
  elsif
    (find_checkpoints.checkpoint_id is null or find_checkpoints.thread_id is not null)
    and not v_everywhere
  then
    v_threads := array(
      select t.thread_key from haive.threads as t
      where
        t.tenant_id = v_caller.tenant
        and (find_checkpoints.thread_id is null or t.thread_id = find_checkpoints.thread_id)
        and (find_checkpoints.namespace is null or t.namespace = find_checkpoints.namespace)
        and (v_caller.actor is null or t.user_id = v_caller.actor)
    );
  end if;

  if find_checkpoints.before_id is not null then
    select least(v_before, max(c.seq)), max(c.seq) is null into v_before, v_by_id
    from haive.checkpoints as c
    where
      c.id = find_checkpoints.before_id and c.thread_key = any(v_threads)
      and c.tenant_id = v_caller.tenant;
  end if;

  -- Where to look: parts of branches.
  if find_checkpoints.checkpoint_id is not null then
    select array_agg(c.branch_id), array_agg(c.seq), array_agg(c.seq)
    into v_branches, v_from, v_upto
    from haive.checkpoints as c
    where
      c.id = find_checkpoints.checkpoint_id and c.tenant_id = v_caller.tenant
      and (v_threads is null or c.thread_key = any(v_threads))
      and (
        v_caller.actor is null
        or exists (
          select from haive.threads as t
          where
            t.tenant_id = c.tenant_id and t.thread_key = c.thread_key
            and t.user_id = v_caller.actor
        )
      );
  elsif v_everywhere then
    -- In all threads: by what the state holds, for which there is an index (service keys use it).
    select array_agg(f.branch_id), array_agg(f.seq), array_agg(f.seq)
    into v_branches, v_from, v_upto
    from (
      select c.branch_id, c.seq
      from jsonb_array_elements(find_checkpoints.search) as p (pattern)
      cross join lateral (
        select c.branch_id, c.seq
        from haive.checkpoints as c
        where
          c.tenant_id = v_caller.tenant and c.search @> p.pattern and c.seq < v_before
          and (find_checkpoints.failed is null or c.failed = find_checkpoints.failed)
          and (find_checkpoints.tags is null or c.tags @> find_checkpoints.tags)
          and (find_checkpoints.created_after is null or c.created_at >= find_checkpoints.created_after)
          and (find_checkpoints.created_before is null or c.created_at < find_checkpoints.created_before)
          and (find_checkpoints.metadata is null or c.metadata @> find_checkpoints.metadata)
          and exists (
            select from haive.threads as t
            where
              t.tenant_id = c.tenant_id and t.thread_key = c.thread_key
              and (find_checkpoints.namespace is null or t.namespace = find_checkpoints.namespace)
              and (v_caller.actor is null or t.user_id = v_caller.actor)
          )
        offset 0
      ) as c
      group by c.branch_id, c.seq
      order by c.seq desc
      limit find_checkpoints.page_size + 1
    ) as f;
  elsif find_checkpoints.branch is null then
    select array_agg(b.branch_id) into v_branches
    from unnest(v_threads) as k (thread_key)
    cross join lateral (
      select b.branch_id from haive.branches as b
      where b.thread_key = k.thread_key and b.tenant_id = v_caller.tenant
      offset 0
    ) as b;
  else
    -- A branch, and what lies before the place where it left another one.
    with recursive lines as (
      select b.branch_id, b.root_branch_id, b.root_seq, null::bigint as upto
      from haive.branches as b
      where
        b.thread_key = any(v_threads) and b.tenant_id = v_caller.tenant
        and find_checkpoints.branch in (b.name, b.branch_id::text)
      union all
      select b.branch_id, b.root_branch_id, b.root_seq, l.root_seq
      from lines as l
      join haive.branches as b on b.branch_id = l.root_branch_id and b.tenant_id = v_caller.tenant
    )
    select array_agg(l.branch_id), array_agg(l.upto) into v_branches, v_upto from lines as l;
  end if;

  -- LIMIT and OFFSET keep what is looked up apart from what it is looked up for: a join is planned,
  -- where tables are empty yet, to read all rows of the tenant.
  with lines as materialized (
    select l.branch_id, l.from_seq, l.upto, b.name, t.thread_id, t.namespace
    from unnest(v_branches, v_from, v_upto) as l (branch_id, from_seq, upto)
    cross join lateral (
      select b.name, b.thread_key from haive.branches as b
      where b.branch_id = l.branch_id and b.tenant_id = v_caller.tenant
      limit 1
    ) as b
    cross join lateral (
      select t.thread_id, t.namespace from haive.threads as t
      where t.thread_key = b.thread_key and t.tenant_id = v_caller.tenant
      limit 1
    ) as t
  ),
  page as materialized (
    select
      c.*, row_number() over () as place,
      sum(octet_length(c.payload)) over (order by c.seq desc) - octet_length(c.payload) as bytes_before
    from (
      select l.name, l.thread_id, l.namespace, c.*
      from lines as l
      cross join lateral (
        select c.*
        from haive.checkpoints as c
        where
          c.tenant_id = v_caller.tenant and c.branch_id = l.branch_id
          and c.seq < v_before and c.seq >= coalesce(l.from_seq, 0)
          and c.seq <= coalesce(l.upto, 9223372036854775807)
          -- Of another namespace: its ids are of the same clock, so they tell what was before.
          and (not v_by_id or c.id < find_checkpoints.before_id)
          and (find_checkpoints.failed is null or c.failed = find_checkpoints.failed)
          and (find_checkpoints.tags is null or c.tags @> find_checkpoints.tags)
          and (find_checkpoints.created_after is null or c.created_at >= find_checkpoints.created_after)
          and (find_checkpoints.created_before is null or c.created_at < find_checkpoints.created_before)
          and (find_checkpoints.metadata is null or c.metadata @> find_checkpoints.metadata)
          and (
            find_checkpoints.search is null
            or c.search @> any(array(select jsonb_array_elements(find_checkpoints.search)))
          )
        order by c.seq desc
        limit find_checkpoints.page_size + 1
      ) as c
      order by c.seq desc
      limit find_checkpoints.page_size + 1
    ) as c
  )
  select
    -- Of a row, as its types are looked up once: 200 checkpoints are built in 0.75 ms, by
    -- json_build_object in 1.07.
    json_agg(
      (
        select d
        from (
          values (
            c.id, c.thread_id, c.namespace, c.thread_key, c.name, c.seq, c.parent_id,
            c.created_at, c.size, octet_length(c.payload), c.depth, c.failed, c.key_id,
            encode(c.schema_hash, 'hex'),
            case when find_checkpoints.details then c.tags::text[] end,
            case when find_checkpoints.details then c.metadata::jsonb end,
            case
              when find_checkpoints.details and find_checkpoints.states and c.key_id is null
                then c.search
            end,
            case when find_checkpoints.details then encode(c.sealed, 'base64') end
          )
        ) as d (
          id, thread_id, namespace, thread_key, branch, seq, parent_id, created_at, size, bytes,
          depth, failed, key_id, schema_hash, tags, metadata, search, sealed
        )
      )
      order by c.place
    ),
    array_agg(c.branch_id), array_agg(c.seq),
    case when (select count(*) from page as p) > count(*) then min(c.seq) end
  into v_checkpoints, v_places, v_seqs, v_next
  from page as c
  where
    c.place <= find_checkpoints.page_size
    -- An answer of json is at most 1 GB: states come until there are 32 MiB of them.
    and (
      c.bytes_before < 33554432 or not find_checkpoints.states
      or find_checkpoints.checkpoint_id is not null
    );

  return json_build_object(
    'checkpoints', coalesce(v_checkpoints, '[]'),
    'now', now(),
    'next_seq', v_next,
    'frames', case
      when find_checkpoints.states
        then haive_private.checkpoint_frames(v_caller.tenant, v_places, v_seqs)
    end,
    'writes', case
      when find_checkpoints.writes
        then haive_private.checkpoint_write_docs(v_caller.tenant, v_places, v_seqs)
    end
  );
end;
$$;


ALTER FUNCTION haive.find_checkpoints(thread_id text, namespace text, branch text, checkpoint_id uuid, tags text[], failed boolean, created_after timestamp with time zone, created_before timestamp with time zone, metadata jsonb, search jsonb, before_id uuid, before_seq bigint, page_size integer, details boolean, states boolean, writes boolean, tenant text) OWNER TO postgres;

-- ACL FUNCTION find_checkpoints(thread_id text, namespace text, branch text, checkpoint_id uuid, tags text[], failed boolean, created_after timestamp with time zone, created_before timestamp with time zone, metadata jsonb, search jsonb, before_id uuid, before_seq bigint, page_size integer, details boolean, states boolean, writes boolean, tenant text)
GRANT ALL ON FUNCTION haive.find_checkpoints(thread_id text, namespace text, branch text, checkpoint_id uuid, tags text[], failed boolean, created_after timestamp with time zone, created_before timestamp with time zone, metadata jsonb, search jsonb, before_id uuid, before_seq bigint, page_size integer, details boolean, states boolean, writes boolean, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.find_checkpoints(thread_id text, namespace text, branch text, checkpoint_id uuid, tags text[], failed boolean, created_after timestamp with time zone, created_before timestamp with time zone, metadata jsonb, search jsonb, before_id uuid, before_seq bigint, page_size integer, details boolean, states boolean, writes boolean, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.find_checkpoints(thread_id text, namespace text, branch text, checkpoint_id uuid, tags text[], failed boolean, created_after timestamp with time zone, created_before timestamp with time zone, metadata jsonb, search jsonb, before_id uuid, before_seq bigint, page_size integer, details boolean, states boolean, writes boolean, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.find_checkpoints(thread_id text, namespace text, branch text, checkpoint_id uuid, tags text[], failed boolean, created_after timestamp with time zone, created_before timestamp with time zone, metadata jsonb, search jsonb, before_id uuid, before_seq bigint, page_size integer, details boolean, states boolean, writes boolean, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION find_checkpoints(thread_id text, namespace text, branch text, checkpoint_id uuid, tags text[], failed boolean, created_after timestamp with time zone, created_before timestamp with time zone, metadata jsonb, search jsonb, before_id uuid, before_seq bigint, page_size integer, details boolean, states boolean, writes boolean, tenant text)
COMMENT ON FUNCTION haive.find_checkpoints(thread_id text, namespace text, branch text, checkpoint_id uuid, tags text[], failed boolean, created_after timestamp with time zone, created_before timestamp with time zone, metadata jsonb, search jsonb, before_id uuid, before_seq bigint, page_size integer, details boolean, states boolean, writes boolean, tenant text) IS 'Checkpoints of a thread, of one of its branches with what lies before it, or by id, newest first: {checkpoints, now, next_seq, frames, writes}. search is a list of patterns of which one must match; with states, a page ends after 32 MiB of them: next_seq tells that there is more. What a checkpoint is found by comes with states.';

-- FUNCTION get_checkpoint_schema(bytea, text)
CREATE FUNCTION haive.get_checkpoint_schema(hash bytea, tenant text DEFAULT NULL::text) RETURNS json
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
declare
  v_caller record := haive_private.enter_tenant(get_checkpoint_schema.tenant, false);
begin
  return (
    select json_build_object('payload', encode(s.payload, 'base64'), 'key_id', s.key_id)
    from haive.checkpoint_schemas as s
    where s.tenant_id = v_caller.tenant and s.hash = get_checkpoint_schema.hash
  );
end;
$$;


ALTER FUNCTION haive.get_checkpoint_schema(hash bytea, tenant text) OWNER TO postgres;

-- ACL FUNCTION get_checkpoint_schema(hash bytea, tenant text)
GRANT ALL ON FUNCTION haive.get_checkpoint_schema(hash bytea, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.get_checkpoint_schema(hash bytea, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.get_checkpoint_schema(hash bytea, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.get_checkpoint_schema(hash bytea, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION get_checkpoint_schema(hash bytea, tenant text)
COMMENT ON FUNCTION haive.get_checkpoint_schema(hash bytea, tenant text) IS 'The JSON Schema that a checkpoint''s schema_hash stands for, as the SDK packed it.';

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

-- FUNCTION list_branches(text, text, text)
CREATE FUNCTION haive.list_branches(thread_id text, namespace text DEFAULT ''::text, tenant text DEFAULT NULL::text) RETURNS json
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
declare
  v_caller record := haive_private.enter_tenant(list_branches.tenant, false);
begin
  return (
    select coalesce(
      json_agg(
        json_build_object(
          'branch_id', b.branch_id, 'name', b.name, 'head_id', b.head_id,
          'root_id', (
            select c.id from haive.checkpoints as c
            where
              c.tenant_id = b.tenant_id and c.branch_id = b.root_branch_id and c.seq <= b.root_seq
            order by c.seq desc
            limit 1
          ),
          'metadata', b.metadata::jsonb, 'sealed', encode(b.sealed, 'base64'), 'key_id', b.key_id,
          'created_at', b.created_at, 'updated_at', b.updated_at
        )
        order by b.created_at, b.branch_id
      ),
      '[]'
    )
    from haive.threads as t
    join haive.branches as b on b.tenant_id = t.tenant_id and b.thread_key = t.thread_key
    where
      t.thread_id = list_branches.thread_id and t.namespace = list_branches.namespace
      and t.tenant_id = v_caller.tenant
      and (v_caller.actor is null or t.user_id = v_caller.actor)
  );
end;
$$;


ALTER FUNCTION haive.list_branches(thread_id text, namespace text, tenant text) OWNER TO postgres;

-- ACL FUNCTION list_branches(thread_id text, namespace text, tenant text)
GRANT ALL ON FUNCTION haive.list_branches(thread_id text, namespace text, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.list_branches(thread_id text, namespace text, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.list_branches(thread_id text, namespace text, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.list_branches(thread_id text, namespace text, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION list_branches(thread_id text, namespace text, tenant text)
COMMENT ON FUNCTION haive.list_branches(thread_id text, namespace text, tenant text) IS 'The branches of a thread, oldest first, with their heads and where they begin.';

-- FUNCTION list_checkpoint_writes(text, text, uuid, uuid, integer, integer, text)
CREATE FUNCTION haive.list_checkpoint_writes(thread_id text, namespace text DEFAULT ''::text, after_checkpoint_id uuid DEFAULT NULL::uuid, after_task_id uuid DEFAULT NULL::uuid, after_idx integer DEFAULT NULL::integer, page_size integer DEFAULT 1000, tenant text DEFAULT NULL::text) RETURNS json
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  v_caller record := haive_private.enter_tenant(list_checkpoint_writes.tenant, false);
begin
  if (list_checkpoint_writes.page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on after the last one.';
  end if;
  return (
    select coalesce(
      json_agg(
        json_build_object(
          'thread_key', w.thread_key, 'checkpoint_id', w.checkpoint_id, 'task_id', w.task_id,
          'idx', w.idx, 'channel', w.channel::text, 'task_path', w.task_path::text,
          'codec', w.codec::int2, 'size', w.size, 'key_id', w.key_id::text,
          'payload', replace(encode(w.payload, 'base64'), e'\n', '')
        )
        order by w.checkpoint_id, w.task_id, w.idx
      ),
      '[]'
    )
    from (
      select
        p.*,
        sum(octet_length(p.payload)) over (order by p.checkpoint_id, p.task_id, p.idx)
        - octet_length(p.payload) as bytes_before
      from haive.threads as t
      cross join lateral (
        select w.*
        from haive.checkpoint_writes as w
        where
          w.tenant_id = t.tenant_id and w.thread_key = t.thread_key
          and (w.checkpoint_id, w.task_id, w.idx::int) > (
            coalesce(
              list_checkpoint_writes.after_checkpoint_id, '00000000-0000-0000-0000-000000000000'
            ),
            coalesce(
              list_checkpoint_writes.after_task_id, '00000000-0000-0000-0000-000000000000'
            ),
            coalesce(list_checkpoint_writes.after_idx, -2147483648)
          )
        order by w.checkpoint_id, w.task_id, w.idx
        limit list_checkpoint_writes.page_size
      ) as p
      where
        t.tenant_id = v_caller.tenant and t.thread_id = list_checkpoint_writes.thread_id
        and t.namespace = list_checkpoint_writes.namespace
        and (v_caller.actor is null or t.user_id = v_caller.actor)
    ) as w
    where w.bytes_before < 33554432 -- as in find_checkpoints
  );
end;
$$;


ALTER FUNCTION haive.list_checkpoint_writes(thread_id text, namespace text, after_checkpoint_id uuid, after_task_id uuid, after_idx integer, page_size integer, tenant text) OWNER TO postgres;

-- ACL FUNCTION list_checkpoint_writes(thread_id text, namespace text, after_checkpoint_id uuid, after_task_id uuid, after_idx integer, page_size integer, tenant text)
GRANT ALL ON FUNCTION haive.list_checkpoint_writes(thread_id text, namespace text, after_checkpoint_id uuid, after_task_id uuid, after_idx integer, page_size integer, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.list_checkpoint_writes(thread_id text, namespace text, after_checkpoint_id uuid, after_task_id uuid, after_idx integer, page_size integer, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.list_checkpoint_writes(thread_id text, namespace text, after_checkpoint_id uuid, after_task_id uuid, after_idx integer, page_size integer, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.list_checkpoint_writes(thread_id text, namespace text, after_checkpoint_id uuid, after_task_id uuid, after_idx integer, page_size integer, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION list_checkpoint_writes(thread_id text, namespace text, after_checkpoint_id uuid, after_task_id uuid, after_idx integer, page_size integer, tenant text)
COMMENT ON FUNCTION haive.list_checkpoint_writes(thread_id text, namespace text, after_checkpoint_id uuid, after_task_id uuid, after_idx integer, page_size integer, tenant text) IS 'The pending writes of a thread by checkpoint, task and place, also where the checkpoint is not saved yet: at most page_size, ending after 32 MiB; empty when there are no more.';

-- FUNCTION list_threads(text, text, integer, text, text)
CREATE FUNCTION haive.list_threads(user_id text DEFAULT NULL::text, thread_id text DEFAULT NULL::text, page_size integer DEFAULT 100, page_after text DEFAULT NULL::text, tenant text DEFAULT NULL::text) RETURNS json
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
declare
  v_caller record := haive_private.enter_tenant(list_threads.tenant, false);
begin
  if (list_threads.page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on with page_after, the last thread_id.';
  end if;
  return (
    select coalesce(
      json_agg(
        json_build_object(
          'thread_id', p.thread_id, 'user_id', p.user_id, 'namespaces', p.namespaces,
          'branches', s.branches, 'checkpoints', s.checkpoints, 'bytes', s.bytes,
          'created_at', p.created_at, 'updated_at', s.updated_at
        )
        order by p.thread_id
      ),
      '[]'
    )
    from (
      select
        t.thread_id::text as thread_id, min(t.user_id::text) as user_id,
        array_agg(t.namespace::text order by t.namespace) as namespaces,
        array_agg(t.thread_key) as keys, min(t.created_at) as created_at
      from haive.threads as t
      where
        t.tenant_id = v_caller.tenant
        and (list_threads.page_after is null or t.thread_id > list_threads.page_after)
        and (list_threads.thread_id is null or t.thread_id = list_threads.thread_id)
        and (list_threads.user_id is null or t.user_id = list_threads.user_id)
        and (v_caller.actor is null or t.user_id = v_caller.actor)
      group by t.thread_id
      order by t.thread_id
      limit list_threads.page_size
    ) as p
    cross join lateral (
      select
        count(distinct b.branch_id) as branches, count(c.id) as checkpoints,
        coalesce(sum(octet_length(c.payload)), 0) as bytes, max(b.updated_at) as updated_at
      from haive.branches as b
      left join haive.checkpoints as c
        on c.tenant_id = b.tenant_id and c.branch_id = b.branch_id
      where b.tenant_id = v_caller.tenant and b.thread_key = any(p.keys)
    ) as s
  );
end;
$$;


ALTER FUNCTION haive.list_threads(user_id text, thread_id text, page_size integer, page_after text, tenant text) OWNER TO postgres;

-- ACL FUNCTION list_threads(user_id text, thread_id text, page_size integer, page_after text, tenant text)
GRANT ALL ON FUNCTION haive.list_threads(user_id text, thread_id text, page_size integer, page_after text, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.list_threads(user_id text, thread_id text, page_size integer, page_after text, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.list_threads(user_id text, thread_id text, page_size integer, page_after text, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.list_threads(user_id text, thread_id text, page_size integer, page_after text, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION list_threads(user_id text, thread_id text, page_size integer, page_after text, tenant text)
COMMENT ON FUNCTION haive.list_threads(user_id text, thread_id text, page_size integer, page_after text, tenant text) IS 'The threads of the tenant by their names, with how many checkpoints they have and of what size.';

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

-- FUNCTION put_checkpoint_writes(text, uuid, uuid, jsonb, text, text, text, text)
CREATE FUNCTION haive.put_checkpoint_writes(thread_id text, checkpoint_id uuid, task_id uuid, writes jsonb, namespace text DEFAULT ''::text, task_path text DEFAULT ''::text, user_id text DEFAULT NULL::text, tenant text DEFAULT NULL::text) RETURNS bigint
    LANGUAGE sql
    SET search_path TO ''
    AS $$
  select haive_private.put_checkpoint_writes(
    put_checkpoint_writes.tenant, put_checkpoint_writes.thread_id, put_checkpoint_writes.namespace,
    put_checkpoint_writes.checkpoint_id, put_checkpoint_writes.task_id,
    put_checkpoint_writes.task_path, put_checkpoint_writes.writes, put_checkpoint_writes.user_id
  )
$$;


ALTER FUNCTION haive.put_checkpoint_writes(thread_id text, checkpoint_id uuid, task_id uuid, writes jsonb, namespace text, task_path text, user_id text, tenant text) OWNER TO postgres;

-- ACL FUNCTION put_checkpoint_writes(thread_id text, checkpoint_id uuid, task_id uuid, writes jsonb, namespace text, task_path text, user_id text, tenant text)
GRANT ALL ON FUNCTION haive.put_checkpoint_writes(thread_id text, checkpoint_id uuid, task_id uuid, writes jsonb, namespace text, task_path text, user_id text, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.put_checkpoint_writes(thread_id text, checkpoint_id uuid, task_id uuid, writes jsonb, namespace text, task_path text, user_id text, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.put_checkpoint_writes(thread_id text, checkpoint_id uuid, task_id uuid, writes jsonb, namespace text, task_path text, user_id text, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.put_checkpoint_writes(thread_id text, checkpoint_id uuid, task_id uuid, writes jsonb, namespace text, task_path text, user_id text, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION put_checkpoint_writes(thread_id text, checkpoint_id uuid, task_id uuid, writes jsonb, namespace text, task_path text, user_id text, tenant text)
COMMENT ON FUNCTION haive.put_checkpoint_writes(thread_id text, checkpoint_id uuid, task_id uuid, writes jsonb, namespace text, task_path text, user_id text, tenant text) IS 'Keeps what a task wrote after a checkpoint: a list of {idx, channel, size, codec, key_id, payload} with the payload in base64. Returns how many were new or replaced.';

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

-- FUNCTION rewrite_checkpoints(text, text, uuid[], jsonb, jsonb, jsonb, jsonb, text)
CREATE FUNCTION haive.rewrite_checkpoints(thread_id text, namespace text DEFAULT ''::text, remove uuid[] DEFAULT '{}'::uuid[], replace jsonb DEFAULT '[]'::jsonb, writes jsonb DEFAULT '[]'::jsonb, branches jsonb DEFAULT '[]'::jsonb, schemas jsonb DEFAULT '[]'::jsonb, tenant text DEFAULT NULL::text) RETURNS json
    LANGUAGE sql
    SET search_path TO ''
    AS $$
  select haive_private.rewrite_checkpoints(
    rewrite_checkpoints.tenant, rewrite_checkpoints.thread_id, rewrite_checkpoints.namespace,
    rewrite_checkpoints.remove, rewrite_checkpoints.replace, rewrite_checkpoints.writes,
    rewrite_checkpoints.branches, rewrite_checkpoints.schemas
  )
$$;


ALTER FUNCTION haive.rewrite_checkpoints(thread_id text, namespace text, remove uuid[], replace jsonb, writes jsonb, branches jsonb, schemas jsonb, tenant text) OWNER TO postgres;

-- ACL FUNCTION rewrite_checkpoints(thread_id text, namespace text, remove uuid[], replace jsonb, writes jsonb, branches jsonb, schemas jsonb, tenant text)
GRANT ALL ON FUNCTION haive.rewrite_checkpoints(thread_id text, namespace text, remove uuid[], replace jsonb, writes jsonb, branches jsonb, schemas jsonb, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.rewrite_checkpoints(thread_id text, namespace text, remove uuid[], replace jsonb, writes jsonb, branches jsonb, schemas jsonb, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.rewrite_checkpoints(thread_id text, namespace text, remove uuid[], replace jsonb, writes jsonb, branches jsonb, schemas jsonb, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.rewrite_checkpoints(thread_id text, namespace text, remove uuid[], replace jsonb, writes jsonb, branches jsonb, schemas jsonb, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION rewrite_checkpoints(thread_id text, namespace text, remove uuid[], replace jsonb, writes jsonb, branches jsonb, schemas jsonb, tenant text)
COMMENT ON FUNCTION haive.rewrite_checkpoints(thread_id text, namespace text, remove uuid[], replace jsonb, writes jsonb, branches jsonb, schemas jsonb, tenant text) IS 'Removes checkpoints of a thread and replaces how others, with their writes, branches and schemas, are stored, all at once. What they say does not change. The head of a branch is removed only where branches names it: {branch_id, was_head_id, head_id}.';

-- FUNCTION save_checkpoint(text, uuid, bytea, integer, text, text, text, uuid, smallint, integer, jsonb, text[], jsonb, bytea, text, bytea, bytea, boolean, text, boolean, text)
CREATE FUNCTION haive.save_checkpoint(thread_id text, id uuid, payload bytea, size integer, namespace text DEFAULT ''::text, branch text DEFAULT 'main'::text, fork text DEFAULT NULL::text, parent_id uuid DEFAULT NULL::uuid, codec smallint DEFAULT 0, depth integer DEFAULT 0, metadata jsonb DEFAULT NULL::jsonb, tags text[] DEFAULT NULL::text[], search jsonb DEFAULT NULL::jsonb, sealed bytea DEFAULT NULL::bytea, key_id text DEFAULT NULL::text, schema_hash bytea DEFAULT NULL::bytea, schema bytea DEFAULT NULL::bytea, failed boolean DEFAULT false, user_id text DEFAULT NULL::text, count_failed boolean DEFAULT NULL::boolean, tenant text DEFAULT NULL::text) RETURNS json
    LANGUAGE sql
    SET search_path TO ''
    AS $$
  select haive_private.save_checkpoint(
    save_checkpoint.tenant, save_checkpoint.thread_id, save_checkpoint.namespace,
    save_checkpoint.branch, save_checkpoint.fork, save_checkpoint.id, save_checkpoint.parent_id,
    save_checkpoint.payload, save_checkpoint.codec, save_checkpoint.depth, save_checkpoint.size,
    save_checkpoint.metadata, save_checkpoint.tags, save_checkpoint.search, save_checkpoint.sealed, save_checkpoint.key_id,
    save_checkpoint.schema_hash, save_checkpoint.schema, save_checkpoint.failed,
    save_checkpoint.user_id, save_checkpoint.count_failed
  )
$$;


ALTER FUNCTION haive.save_checkpoint(thread_id text, id uuid, payload bytea, size integer, namespace text, branch text, fork text, parent_id uuid, codec smallint, depth integer, metadata jsonb, tags text[], search jsonb, sealed bytea, key_id text, schema_hash bytea, schema bytea, failed boolean, user_id text, count_failed boolean, tenant text) OWNER TO postgres;

-- ACL FUNCTION save_checkpoint(thread_id text, id uuid, payload bytea, size integer, namespace text, branch text, fork text, parent_id uuid, codec smallint, depth integer, metadata jsonb, tags text[], search jsonb, sealed bytea, key_id text, schema_hash bytea, schema bytea, failed boolean, user_id text, count_failed boolean, tenant text)
GRANT ALL ON FUNCTION haive.save_checkpoint(thread_id text, id uuid, payload bytea, size integer, namespace text, branch text, fork text, parent_id uuid, codec smallint, depth integer, metadata jsonb, tags text[], search jsonb, sealed bytea, key_id text, schema_hash bytea, schema bytea, failed boolean, user_id text, count_failed boolean, tenant text) TO authenticated;
GRANT ALL ON FUNCTION haive.save_checkpoint(thread_id text, id uuid, payload bytea, size integer, namespace text, branch text, fork text, parent_id uuid, codec smallint, depth integer, metadata jsonb, tags text[], search jsonb, sealed bytea, key_id text, schema_hash bytea, schema bytea, failed boolean, user_id text, count_failed boolean, tenant text) TO haive_client;
GRANT ALL ON FUNCTION haive.save_checkpoint(thread_id text, id uuid, payload bytea, size integer, namespace text, branch text, fork text, parent_id uuid, codec smallint, depth integer, metadata jsonb, tags text[], search jsonb, sealed bytea, key_id text, schema_hash bytea, schema bytea, failed boolean, user_id text, count_failed boolean, tenant text) TO service_role;
REVOKE ALL ON FUNCTION haive.save_checkpoint(thread_id text, id uuid, payload bytea, size integer, namespace text, branch text, fork text, parent_id uuid, codec smallint, depth integer, metadata jsonb, tags text[], search jsonb, sealed bytea, key_id text, schema_hash bytea, schema bytea, failed boolean, user_id text, count_failed boolean, tenant text) FROM PUBLIC;

-- COMMENT FUNCTION save_checkpoint(thread_id text, id uuid, payload bytea, size integer, namespace text, branch text, fork text, parent_id uuid, codec smallint, depth integer, metadata jsonb, tags text[], search jsonb, sealed bytea, key_id text, schema_hash bytea, schema bytea, failed boolean, user_id text, count_failed boolean, tenant text)
COMMENT ON FUNCTION haive.save_checkpoint(thread_id text, id uuid, payload bytea, size integer, namespace text, branch text, fork text, parent_id uuid, codec smallint, depth integer, metadata jsonb, tags text[], search jsonb, sealed bytea, key_id text, schema_hash bytea, schema bytea, failed boolean, user_id text, count_failed boolean, tenant text) IS 'Saves a checkpoint after parent_id, which must be the head of the branch: else the answer is {conflict, head_id} and nothing is saved, or it begins the branch named by fork. Returns branch, branch_id, seq, created_at and, with count_failed, how many checkpoints the thread has, failed ones among them or not. The same id with the same content is the same checkpoint.';

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

-- ACL TABLE threads
GRANT SELECT ON TABLE haive.threads TO authenticated;
GRANT SELECT ON TABLE haive.threads TO haive_client;
GRANT SELECT ON TABLE haive.threads TO service_role;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE haive.threads TO haive_writer;

-- COMMENT TABLE threads
COMMENT ON TABLE haive.threads IS 'What checkpoints belong to: a workflow by its name, and each subgraph of it by its namespace.';

-- ROW SECURITY threads
ALTER TABLE haive.threads ENABLE ROW LEVEL SECURITY;

-- TABLE threads
CREATE TABLE haive.threads (
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    thread_key uuid DEFAULT gen_random_uuid() NOT NULL,
    thread_id haive_private.name NOT NULL,
    namespace haive_private.namespace DEFAULT ''::text NOT NULL,
    user_id haive_private.name,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE haive.threads OWNER TO postgres;

-- POLICY threads members read their own, administrators all
CREATE POLICY "members read their own, administrators all" ON haive.threads FOR SELECT TO authenticated USING ((((tenant_id IN ( SELECT haive_private.my_tenants() AS my_tenants)) AND ((user_id)::text = ( SELECT haive.current_actor() AS current_actor))) OR (tenant_id IN ( SELECT haive_private.my_admin_tenants() AS my_admin_tenants))));

-- POLICY threads services work in the tenant they entered
CREATE POLICY "services work in the tenant they entered" ON haive.threads TO haive_client, haive_writer USING ((tenant_id = ( SELECT current_setting('persistence.tenant'::text, true) AS current_setting)));

-- CONSTRAINT threads threads_name_key
ALTER TABLE ONLY haive.threads
    ADD CONSTRAINT threads_name_key UNIQUE (thread_id, namespace, tenant_id);

-- CONSTRAINT threads threads_pkey
ALTER TABLE ONLY haive.threads
    ADD CONSTRAINT threads_pkey PRIMARY KEY (tenant_id, thread_key);

-- FK CONSTRAINT threads threads_tenant_fkey
ALTER TABLE ONLY haive.threads
    ADD CONSTRAINT threads_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES haive.tenants(tenant_id) ON DELETE CASCADE;

-- COMMENT COLUMN threads.thread_key
COMMENT ON COLUMN haive.threads.thread_key IS 'Stands for thread and namespace in the tables below, at 16 bytes a row.';

-- COMMENT COLUMN threads.user_id
COMMENT ON COLUMN haive.threads.user_id IS 'Whose it is: that user may see it; null: no user''s.';

-- INDEX threads_user_idx
CREATE INDEX threads_user_idx ON haive.threads USING btree (user_id) WHERE (user_id IS NOT NULL);

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

-- ACL FUNCTION annotate_checkpoint(p_tenant text, p_checkpoint_id uuid, p_thread_id text, p_namespace text, p_add text[], p_remove text[], p_failed boolean, p_sealed bytea, p_was_sealed bytea, p_search jsonb)
GRANT ALL ON FUNCTION haive_private.annotate_checkpoint(p_tenant text, p_checkpoint_id uuid, p_thread_id text, p_namespace text, p_add text[], p_remove text[], p_failed boolean, p_sealed bytea, p_was_sealed bytea, p_search jsonb) TO authenticated;
GRANT ALL ON FUNCTION haive_private.annotate_checkpoint(p_tenant text, p_checkpoint_id uuid, p_thread_id text, p_namespace text, p_add text[], p_remove text[], p_failed boolean, p_sealed bytea, p_was_sealed bytea, p_search jsonb) TO haive_client;
GRANT ALL ON FUNCTION haive_private.annotate_checkpoint(p_tenant text, p_checkpoint_id uuid, p_thread_id text, p_namespace text, p_add text[], p_remove text[], p_failed boolean, p_sealed bytea, p_was_sealed bytea, p_search jsonb) TO service_role;
REVOKE ALL ON FUNCTION haive_private.annotate_checkpoint(p_tenant text, p_checkpoint_id uuid, p_thread_id text, p_namespace text, p_add text[], p_remove text[], p_failed boolean, p_sealed bytea, p_was_sealed bytea, p_search jsonb) FROM PUBLIC;

-- COMMENT FUNCTION annotate_checkpoint(p_tenant text, p_checkpoint_id uuid, p_thread_id text, p_namespace text, p_add text[], p_remove text[], p_failed boolean, p_sealed bytea, p_was_sealed bytea, p_search jsonb)
COMMENT ON FUNCTION haive_private.annotate_checkpoint(p_tenant text, p_checkpoint_id uuid, p_thread_id text, p_namespace text, p_add text[], p_remove text[], p_failed boolean, p_sealed bytea, p_was_sealed bytea, p_search jsonb) IS 'What haive.annotate_checkpoint does, for a caller without rights on the tables.';

-- FUNCTION annotate_checkpoint(text, uuid, text, text, text[], text[], boolean, bytea, bytea, jsonb)
CREATE FUNCTION haive_private.annotate_checkpoint(p_tenant text, p_checkpoint_id uuid, p_thread_id text, p_namespace text, p_add text[], p_remove text[], p_failed boolean, p_sealed bytea, p_was_sealed bytea, p_search jsonb) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_keys record;
  v_row haive.checkpoints;
begin
  select array_agg(c.thread_key) as threads, count(*) as n into v_keys
  from haive.checkpoints as c
  join haive.threads as t on t.tenant_id = c.tenant_id and t.thread_key = c.thread_key
  where
    c.id = p_checkpoint_id and c.tenant_id = v_caller.tenant
    and (p_thread_id is null or (t.thread_id = p_thread_id and t.namespace = p_namespace))
    and (v_caller.actor is null or t.user_id = v_caller.actor);
  if v_keys.n = 0 then
    raise exception using
      errcode = 'PT404',
      message = format('no checkpoint %s', p_checkpoint_id),
      hint = 'It was pruned, belongs to another tenant, or is not the caller''s to see.';
  elsif v_keys.n > 1 then
    raise exception using
      errcode = 'PT422',
      message = 'several threads have a checkpoint of this id, for one is a copy',
      hint = 'Pass thread_id too.';
  end if;
  update haive.checkpoints as c
  set
    tags = case
      when c.key_id is null then (
        select array_agg(u.tag order by u.place)
        from (
          select a.tag, min(a.place) as place
          from unnest(c.tags || p_add) with ordinality as a (tag, place)
          where a.tag <> all(coalesce(p_remove, '{}'))
          group by a.tag
        ) as u
      )
    end,
    failed = coalesce(p_failed, c.failed),
    sealed = coalesce(p_sealed, c.sealed),
    search = coalesce(p_search, c.search)
  where
    c.id = p_checkpoint_id and c.thread_key = v_keys.threads[1] and c.tenant_id = v_caller.tenant
    and (p_sealed is null or c.sealed = p_was_sealed)
    and (c.key_id is null or (p_add is null and p_remove is null))
  returning * into v_row;
  if not found then
    return false;
  end if;
  insert into haive.events (tenant_id, kind, thread_key, checkpoint_id)
  values (v_caller.tenant, 'checkpoint.changed', v_row.thread_key, v_row.id);
  return true;
end;
$$;


ALTER FUNCTION haive_private.annotate_checkpoint(p_tenant text, p_checkpoint_id uuid, p_thread_id text, p_namespace text, p_add text[], p_remove text[], p_failed boolean, p_sealed bytea, p_was_sealed bytea, p_search jsonb) OWNER TO haive_writer;

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

-- COMMENT DOMAIN chain_depth
COMMENT ON DOMAIN haive_private.chain_depth IS 'How many deltas lie between a state and a whole one, at most.';

-- DOMAIN chain_depth
CREATE DOMAIN haive_private.chain_depth AS smallint
	CONSTRAINT chain_depth_is_positive CHECK ((VALUE >= 0));


ALTER DOMAIN haive_private.chain_depth OWNER TO postgres;

-- ACL FUNCTION checkpoint_frames(p_tenant text, p_branch_ids uuid[], p_seqs bigint[])
GRANT ALL ON FUNCTION haive_private.checkpoint_frames(p_tenant text, p_branch_ids uuid[], p_seqs bigint[]) TO authenticated;
GRANT ALL ON FUNCTION haive_private.checkpoint_frames(p_tenant text, p_branch_ids uuid[], p_seqs bigint[]) TO haive_client;
GRANT ALL ON FUNCTION haive_private.checkpoint_frames(p_tenant text, p_branch_ids uuid[], p_seqs bigint[]) TO service_role;
REVOKE ALL ON FUNCTION haive_private.checkpoint_frames(p_tenant text, p_branch_ids uuid[], p_seqs bigint[]) FROM PUBLIC;

-- COMMENT FUNCTION checkpoint_frames(p_tenant text, p_branch_ids uuid[], p_seqs bigint[])
COMMENT ON FUNCTION haive_private.checkpoint_frames(p_tenant text, p_branch_ids uuid[], p_seqs bigint[]) IS 'What the SDK needs to decode some checkpoints.';

-- FUNCTION checkpoint_frames(text, uuid[], bigint[])
CREATE FUNCTION haive_private.checkpoint_frames(p_tenant text, p_branch_ids uuid[], p_seqs bigint[]) RETURNS json
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
begin
  return (
    with recursive chain as (
      select c.thread_key, c.id, c.parent_id, c.codec, c.branch_id, c.seq
      from unnest(p_branch_ids, p_seqs) as p (branch_id, seq)
      cross join lateral (
        select c.* from haive.checkpoints as c
        where c.tenant_id = p_tenant and c.branch_id = p.branch_id and c.seq = p.seq
        limit 1 -- or an empty table is planned to be read whole for each row
      ) as c
      union -- and not all: deltas of a page share their ancestors
      select c.thread_key, c.id, c.parent_id, c.codec, c.branch_id, c.seq
      from chain as k
      cross join lateral (
        select c.* from haive.checkpoints as c
        where c.id = k.parent_id and c.thread_key = k.thread_key and c.tenant_id = p_tenant
        limit 1
      ) as c
      where k.codec = 2
    )
    select coalesce(
      json_agg(
        json_build_object(
          'thread_key', c.thread_key, 'id', c.id, 'parent_id', c.parent_id, 'codec', c.codec::int2,
          'size', c.size, 'key_id', c.key_id::text,
          'payload', replace(encode(c.payload, 'base64'), e'\n', '')
        )
        order by c.seq
      ),
      '[]'
    )
    from chain as k
    cross join lateral (
      select c.* from haive.checkpoints as c
      where c.tenant_id = p_tenant and c.branch_id = k.branch_id and c.seq = k.seq
      limit 1
    ) as c
  );
end;
$$;


ALTER FUNCTION haive_private.checkpoint_frames(p_tenant text, p_branch_ids uuid[], p_seqs bigint[]) OWNER TO postgres;

-- ACL FUNCTION checkpoint_write_docs(p_tenant text, p_branch_ids uuid[], p_seqs bigint[])
GRANT ALL ON FUNCTION haive_private.checkpoint_write_docs(p_tenant text, p_branch_ids uuid[], p_seqs bigint[]) TO authenticated;
GRANT ALL ON FUNCTION haive_private.checkpoint_write_docs(p_tenant text, p_branch_ids uuid[], p_seqs bigint[]) TO haive_client;
GRANT ALL ON FUNCTION haive_private.checkpoint_write_docs(p_tenant text, p_branch_ids uuid[], p_seqs bigint[]) TO service_role;
REVOKE ALL ON FUNCTION haive_private.checkpoint_write_docs(p_tenant text, p_branch_ids uuid[], p_seqs bigint[]) FROM PUBLIC;

-- COMMENT FUNCTION checkpoint_write_docs(p_tenant text, p_branch_ids uuid[], p_seqs bigint[])
COMMENT ON FUNCTION haive_private.checkpoint_write_docs(p_tenant text, p_branch_ids uuid[], p_seqs bigint[]) IS 'The pending writes of some checkpoints, by task path, task and place.';

-- FUNCTION checkpoint_write_docs(text, uuid[], bigint[])
CREATE FUNCTION haive_private.checkpoint_write_docs(p_tenant text, p_branch_ids uuid[], p_seqs bigint[]) RETURNS json
    LANGUAGE plpgsql STABLE
    SET search_path TO ''
    AS $$
begin
  return (
    select coalesce(
      json_agg(
        json_build_object(
          'thread_key', w.thread_key, 'checkpoint_id', w.checkpoint_id, 'task_id', w.task_id,
          'idx', w.idx, 'channel', w.channel::text, 'task_path', w.task_path::text,
          'codec', w.codec::int2, 'size', w.size, 'key_id', w.key_id::text,
          'payload', replace(encode(w.payload, 'base64'), e'\n', '')
        )
        order by w.task_path, w.task_id, w.idx
      ),
      '[]'
    )
    from unnest(p_branch_ids, p_seqs) as p (branch_id, seq)
    join haive.checkpoints as c
      on c.tenant_id = p_tenant and c.branch_id = p.branch_id and c.seq = p.seq
    join haive.checkpoint_writes as w
      on w.tenant_id = p_tenant and w.thread_key = c.thread_key and w.checkpoint_id = c.id
  );
end;
$$;


ALTER FUNCTION haive_private.checkpoint_write_docs(p_tenant text, p_branch_ids uuid[], p_seqs bigint[]) OWNER TO postgres;

-- COMMENT DOMAIN codec
COMMENT ON DOMAIN haive_private.codec IS 'How a payload is packed: 0 as it is, 1 by zstd, 2 by zstd against the state of the parent.';

-- DOMAIN codec
CREATE DOMAIN haive_private.codec AS smallint
	CONSTRAINT codec_is_known CHECK (((VALUE >= 0) AND (VALUE <= 2)));


ALTER DOMAIN haive_private.codec OWNER TO postgres;

-- FUNCTION conversation_doc(haive.conversations, json)
CREATE FUNCTION haive_private.conversation_doc(p_row haive.conversations, p_messages json DEFAULT NULL::json) RETURNS json
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO ''
    AS $$
begin
  return json_build_object(
    'id', p_row.id,
    'tenant_id', p_row.tenant_id,
    'agent_id', p_row.agent_id::text,
    'user_id', p_row.user_id::text,
    'metadata', json_build_object(
      'title', p_row.title::text,
      'tags', p_row.tags::text[],
      'context', p_row.context::jsonb,
      'participants', p_row.participants::text[],
      'settings', p_row.settings::jsonb
    ),
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


ALTER FUNCTION haive_private.conversation_doc(p_row haive.conversations, p_messages json) OWNER TO postgres;

-- ACL FUNCTION conversation_doc(p_row haive.conversations, p_messages json)
GRANT ALL ON FUNCTION haive_private.conversation_doc(p_row haive.conversations, p_messages json) TO authenticated;
GRANT ALL ON FUNCTION haive_private.conversation_doc(p_row haive.conversations, p_messages json) TO haive_client;
GRANT ALL ON FUNCTION haive_private.conversation_doc(p_row haive.conversations, p_messages json) TO haive_writer;
GRANT ALL ON FUNCTION haive_private.conversation_doc(p_row haive.conversations, p_messages json) TO service_role;
REVOKE ALL ON FUNCTION haive_private.conversation_doc(p_row haive.conversations, p_messages json) FROM PUBLIC;

-- COMMENT FUNCTION conversation_doc(p_row haive.conversations, p_messages json)
COMMENT ON FUNCTION haive_private.conversation_doc(p_row haive.conversations, p_messages json) IS 'A conversation as the functions of the API return it.';

-- ACL FUNCTION copy_thread(p_tenant text, p_thread_id text, p_namespace text, p_new_thread_id text, p_checkpoints jsonb, p_writes jsonb, p_branches jsonb)
GRANT ALL ON FUNCTION haive_private.copy_thread(p_tenant text, p_thread_id text, p_namespace text, p_new_thread_id text, p_checkpoints jsonb, p_writes jsonb, p_branches jsonb) TO authenticated;
GRANT ALL ON FUNCTION haive_private.copy_thread(p_tenant text, p_thread_id text, p_namespace text, p_new_thread_id text, p_checkpoints jsonb, p_writes jsonb, p_branches jsonb) TO haive_client;
GRANT ALL ON FUNCTION haive_private.copy_thread(p_tenant text, p_thread_id text, p_namespace text, p_new_thread_id text, p_checkpoints jsonb, p_writes jsonb, p_branches jsonb) TO service_role;
REVOKE ALL ON FUNCTION haive_private.copy_thread(p_tenant text, p_thread_id text, p_namespace text, p_new_thread_id text, p_checkpoints jsonb, p_writes jsonb, p_branches jsonb) FROM PUBLIC;

-- COMMENT FUNCTION copy_thread(p_tenant text, p_thread_id text, p_namespace text, p_new_thread_id text, p_checkpoints jsonb, p_writes jsonb, p_branches jsonb)
COMMENT ON FUNCTION haive_private.copy_thread(p_tenant text, p_thread_id text, p_namespace text, p_new_thread_id text, p_checkpoints jsonb, p_writes jsonb, p_branches jsonb) IS 'What haive.copy_thread does, for a caller without rights on the tables.';

-- FUNCTION copy_thread(text, text, text, text, jsonb, jsonb, jsonb)
CREATE FUNCTION haive_private.copy_thread(p_tenant text, p_thread_id text, p_namespace text, p_new_thread_id text, p_checkpoints jsonb, p_writes jsonb, p_branches jsonb) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_from haive.threads;
  v_to uuid := gen_random_uuid();
  v_old uuid[];
  v_new uuid[];
  v_count bigint;
begin
  select * into v_from from haive.threads as t
  where
    t.thread_id = p_thread_id and t.namespace = p_namespace and t.tenant_id = v_caller.tenant
    and (v_caller.actor is null or t.user_id = v_caller.actor);
  if not found then
    raise exception using
      errcode = 'PT404',
      message = 'no such thread',
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to see.';
  end if;
  insert into haive.threads (tenant_id, thread_key, thread_id, namespace, user_id)
  values (v_caller.tenant, v_to, p_new_thread_id, p_namespace, v_from.user_id)
  on conflict do nothing;
  if not found or exists (
    select from haive.threads as t
    where
      t.thread_id = p_new_thread_id and t.tenant_id = v_caller.tenant
      and t.user_id is distinct from v_from.user_id
  ) then
    raise exception using
      errcode = 'PT409',
      message = 'there is a thread of the new name already',
      hint = 'Choose another name, or delete that thread first.';
  end if;

  select array_agg(b.branch_id), array_agg(coalesce(d.new_branch_id, gen_random_uuid()))
  into v_old, v_new
  from haive.branches as b
  left join jsonb_to_recordset(p_branches) as d (branch_id uuid, new_branch_id uuid)
    on d.branch_id = b.branch_id
  where b.thread_key = v_from.thread_key and b.tenant_id = v_caller.tenant;

  insert into haive.branches (
    tenant_id, branch_id, thread_key, name, root_branch_id, head_id, metadata, sealed,
    key_id, created_at
  )
  select
    b.tenant_id, v_new[array_position(v_old, b.branch_id)], v_to, b.name,
    v_new[array_position(v_old, b.root_branch_id)], b.head_id, b.metadata,
    coalesce(decode(d.sealed, 'base64'), b.sealed), coalesce(d.key_id, b.key_id), b.created_at
  from haive.branches as b
  left join jsonb_to_recordset(p_branches) as d (branch_id uuid, sealed text, key_id text)
    on d.branch_id = b.branch_id
  where b.thread_key = v_from.thread_key and b.tenant_id = v_caller.tenant;

  insert into haive.checkpoints (
    tenant_id, branch_id, thread_key, id, parent_id, created_at, size, codec, depth, failed,
    key_id, schema_hash, tags, metadata, search, sealed, payload
  )
  select
    c.tenant_id, v_new[array_position(v_old, c.branch_id)], v_to, c.id, c.parent_id, c.created_at,
    c.size, c.codec, c.depth, c.failed, coalesce(d.key_id, c.key_id), c.schema_hash, c.tags,
    c.metadata, coalesce(d.search, c.search), coalesce(decode(d.sealed, 'base64'), c.sealed),
    coalesce(decode(d.payload, 'base64'), c.payload)
  from haive.checkpoints as c
  left join jsonb_to_recordset(p_checkpoints) as d (
    id uuid, key_id text, search jsonb, sealed text, payload text
  ) on d.id = c.id
  where
    c.tenant_id = v_caller.tenant and c.branch_id = any(v_old)
    -- Not what was saved since the client read the thread: nobody could open it.
    and (c.key_id is null or d.id is not null)
  order by c.seq;
  get diagnostics v_count = row_count;
  if
    exists (
      select from jsonb_to_recordset(p_checkpoints) as d (id uuid, parent_id uuid, was_key_id text)
      where not exists (
        select from haive.checkpoints as c
        where
          c.id = d.id and c.thread_key = v_from.thread_key and c.tenant_id = v_caller.tenant
          and c.key_id = d.was_key_id and c.parent_id is not distinct from d.parent_id
      )
    )
    or exists (
      select from haive.checkpoints as c
      where
        c.tenant_id = v_caller.tenant and c.branch_id = any(v_new) and c.parent_id is not null
        and not exists (
          select from haive.checkpoints as p
          where
            p.id = c.parent_id and p.thread_key = v_to and p.tenant_id = v_caller.tenant
        )
    )
    or exists (
      select from haive.branches as b
      where
        b.tenant_id = v_caller.tenant and b.branch_id = any(v_old) and b.sealed is not null
        and not exists (
          select from jsonb_to_recordset(p_branches) as d (branch_id uuid)
          where d.branch_id = b.branch_id
        )
    )
  then
    raise exception using
      errcode = 'PT409',
      message = 'the thread was changed meanwhile',
      hint = 'Seal for the copy what is there now.';
  end if;

  -- Where the branches begin, in the numbers of the copy. Zero, and not null, where what lay before
  -- is pruned: of the branch that it left, nothing is in its history.
  update haive.branches as b
  set root_seq = coalesce((
    select n.seq
    from haive.branches as o
    join haive.checkpoints as c
      on c.tenant_id = o.tenant_id and c.branch_id = o.root_branch_id and c.seq <= o.root_seq
    join haive.checkpoints as n
      on n.id = c.id and n.thread_key = v_to and n.tenant_id = c.tenant_id
    where
      o.tenant_id = b.tenant_id and o.branch_id = v_old[array_position(v_new, b.branch_id)]
    order by c.seq desc
    limit 1
  ), 0)
  where b.thread_key = v_to and b.tenant_id = v_caller.tenant and b.root_branch_id is not null;

  update haive.branches as b
  set head_id = n.head_id
  from (
    select b.branch_id, h.id as head_id
    from haive.branches as b
    left join lateral (
      select c.id from haive.checkpoints as c
      where
        c.tenant_id = b.tenant_id
        and (
          c.branch_id = b.branch_id
          or (c.branch_id = b.root_branch_id and c.seq <= b.root_seq)
        )
      order by c.seq desc
      limit 1
    ) as h on true
    where b.thread_key = v_to and b.tenant_id = v_caller.tenant
  ) as n
  where b.tenant_id = v_caller.tenant and b.branch_id = n.branch_id;

  insert into haive.checkpoint_writes (
    tenant_id, thread_key, checkpoint_id, task_id, idx, channel, task_path, size, codec, key_id,
    payload
  )
  select
    w.tenant_id, v_to, w.checkpoint_id, w.task_id, w.idx, w.channel, w.task_path, w.size, w.codec,
    coalesce(d.key_id, w.key_id), coalesce(decode(d.payload, 'base64'), w.payload)
  from haive.checkpoint_writes as w
  left join jsonb_to_recordset(p_writes) as d (
    checkpoint_id uuid, task_id uuid, idx int, key_id text, payload text
  ) on d.checkpoint_id = w.checkpoint_id and d.task_id = w.task_id and d.idx = w.idx
  where
    w.tenant_id = v_caller.tenant and w.thread_key = v_from.thread_key
    and (w.key_id is null or d.idx is not null);

  insert into haive.events (tenant_id, kind, thread_key)
  values (v_caller.tenant, 'thread.copied', v_to);
  return v_count;
end;
$$;


ALTER FUNCTION haive_private.copy_thread(p_tenant text, p_thread_id text, p_namespace text, p_new_thread_id text, p_checkpoints jsonb, p_writes jsonb, p_branches jsonb) OWNER TO haive_writer;

-- ACL FUNCTION create_branch(p_tenant text, p_from_checkpoint uuid, p_name text, p_thread_id text, p_namespace text, p_branch_id uuid, p_metadata jsonb, p_sealed bytea, p_key_id text)
GRANT ALL ON FUNCTION haive_private.create_branch(p_tenant text, p_from_checkpoint uuid, p_name text, p_thread_id text, p_namespace text, p_branch_id uuid, p_metadata jsonb, p_sealed bytea, p_key_id text) TO authenticated;
GRANT ALL ON FUNCTION haive_private.create_branch(p_tenant text, p_from_checkpoint uuid, p_name text, p_thread_id text, p_namespace text, p_branch_id uuid, p_metadata jsonb, p_sealed bytea, p_key_id text) TO haive_client;
GRANT ALL ON FUNCTION haive_private.create_branch(p_tenant text, p_from_checkpoint uuid, p_name text, p_thread_id text, p_namespace text, p_branch_id uuid, p_metadata jsonb, p_sealed bytea, p_key_id text) TO service_role;
REVOKE ALL ON FUNCTION haive_private.create_branch(p_tenant text, p_from_checkpoint uuid, p_name text, p_thread_id text, p_namespace text, p_branch_id uuid, p_metadata jsonb, p_sealed bytea, p_key_id text) FROM PUBLIC;

-- COMMENT FUNCTION create_branch(p_tenant text, p_from_checkpoint uuid, p_name text, p_thread_id text, p_namespace text, p_branch_id uuid, p_metadata jsonb, p_sealed bytea, p_key_id text)
COMMENT ON FUNCTION haive_private.create_branch(p_tenant text, p_from_checkpoint uuid, p_name text, p_thread_id text, p_namespace text, p_branch_id uuid, p_metadata jsonb, p_sealed bytea, p_key_id text) IS 'What haive.create_branch does, for a caller without rights on the tables.';

-- FUNCTION create_branch(text, uuid, text, text, text, uuid, jsonb, bytea, text)
CREATE FUNCTION haive_private.create_branch(p_tenant text, p_from_checkpoint uuid, p_name text, p_thread_id text, p_namespace text, p_branch_id uuid, p_metadata jsonb, p_sealed bytea, p_key_id text) RETURNS json
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_roots haive.checkpoints[];
  v_root haive.checkpoints;
  v_branch haive.branches;
begin
  v_roots := array(
    select c
    from haive.checkpoints as c
    join haive.threads as t on t.tenant_id = c.tenant_id and t.thread_key = c.thread_key
    where
      c.id = p_from_checkpoint and c.tenant_id = v_caller.tenant
      and (p_thread_id is null or (t.thread_id = p_thread_id and t.namespace = p_namespace))
      and (v_caller.actor is null or t.user_id = v_caller.actor)
  );
  if cardinality(v_roots) = 0 then
    raise exception using
      errcode = 'PT404',
      message = format('no checkpoint %s', p_from_checkpoint),
      hint = 'It was pruned, belongs to another tenant, or is not the caller''s to see.';
  elsif cardinality(v_roots) > 1 then
    raise exception using
      errcode = 'PT422',
      message = 'several threads have a checkpoint of this id, for one is a copy',
      hint = 'Pass thread_id too.';
  end if;
  v_root := v_roots[1];
  -- Whoever prunes holds the branches of the thread: then the root may be gone.
  perform from haive.branches as b
  where b.tenant_id = v_caller.tenant and b.branch_id = v_root.branch_id
  for key share;
  select * into v_root from haive.checkpoints as c
  where c.tenant_id = v_caller.tenant and c.branch_id = v_root.branch_id and c.seq = v_root.seq;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no checkpoint %s', p_from_checkpoint),
      hint = 'It was pruned just now.';
  end if;
  insert into haive.branches (
    tenant_id, branch_id, thread_key, name, root_branch_id, root_seq, head_id,
    metadata, sealed, key_id
  )
  values (
    v_caller.tenant, p_branch_id, v_root.thread_key, p_name, v_root.branch_id, v_root.seq,
    v_root.id, p_metadata, p_sealed, p_key_id
  )
  on conflict do nothing
  returning * into v_branch;
  if found then
    insert into haive.events (tenant_id, kind, thread_key, checkpoint_id)
    values (v_caller.tenant, 'branch.created', v_root.thread_key, v_root.id);
  else
    -- A retry finds its own.
    select * into v_branch from haive.branches as b
    where
      b.tenant_id = v_caller.tenant and b.branch_id = p_branch_id
      and b.thread_key = v_root.thread_key and b.name = p_name;
    if not found then
      raise exception using
        errcode = 'PT409',
        message = format('the thread has a branch %s already', left(p_name, 200)),
        hint = 'Choose another name.';
    end if;
  end if;
  return (
    select json_build_object(
      'branch_id', v_branch.branch_id, 'name', v_branch.name, 'thread_id', t.thread_id,
      'namespace', t.namespace, 'created_at', v_branch.created_at
    )
    from haive.threads as t
    where t.tenant_id = v_caller.tenant and t.thread_key = v_branch.thread_key
  );
end;
$$;


ALTER FUNCTION haive_private.create_branch(p_tenant text, p_from_checkpoint uuid, p_name text, p_thread_id text, p_namespace text, p_branch_id uuid, p_metadata jsonb, p_sealed bytea, p_key_id text) OWNER TO haive_writer;

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

-- ACL FUNCTION delete_thread(p_tenant text, p_thread_id text)
GRANT ALL ON FUNCTION haive_private.delete_thread(p_tenant text, p_thread_id text) TO authenticated;
GRANT ALL ON FUNCTION haive_private.delete_thread(p_tenant text, p_thread_id text) TO haive_client;
GRANT ALL ON FUNCTION haive_private.delete_thread(p_tenant text, p_thread_id text) TO service_role;
REVOKE ALL ON FUNCTION haive_private.delete_thread(p_tenant text, p_thread_id text) FROM PUBLIC;

-- COMMENT FUNCTION delete_thread(p_tenant text, p_thread_id text)
COMMENT ON FUNCTION haive_private.delete_thread(p_tenant text, p_thread_id text) IS 'What haive.delete_thread does, for a caller without rights on the tables.';

-- FUNCTION delete_thread(text, text)
CREATE FUNCTION haive_private.delete_thread(p_tenant text, p_thread_id text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_keys uuid[];
  v_count bigint;
begin
  v_keys := array(
    select t.thread_key from haive.threads as t
    where
      t.thread_id = p_thread_id and t.tenant_id = v_caller.tenant
      and (v_caller.actor is null or t.user_id = v_caller.actor)
    for update
  );
  select count(*) into v_count
  from haive.branches as b
  join haive.checkpoints as c on c.tenant_id = b.tenant_id and c.branch_id = b.branch_id
  where b.tenant_id = v_caller.tenant and b.thread_key = any(v_keys);
  delete from haive.threads as t
  where t.tenant_id = v_caller.tenant and t.thread_key = any(v_keys);
  insert into haive.events (tenant_id, kind, thread_key)
  select v_caller.tenant, 'thread.deleted', u.thread_key from unnest(v_keys) as u (thread_key);
  return v_count;
end;
$$;


ALTER FUNCTION haive_private.delete_thread(p_tenant text, p_thread_id text) OWNER TO haive_writer;

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
	CONSTRAINT event_kind_is_known CHECK ((VALUE = ANY (ARRAY['conversation.created'::text, 'conversation.updated'::text, 'conversation.deleted'::text, 'messages.added'::text, 'checkpoint.saved'::text, 'checkpoint.changed'::text, 'checkpoints.pruned'::text, 'branch.created'::text, 'thread.copied'::text, 'thread.deleted'::text])));


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

-- COMMENT DOMAIN key_id
COMMENT ON DOMAIN haive_private.key_id IS 'Names the key that something was sealed with.';

-- DOMAIN key_id
CREATE DOMAIN haive_private.key_id AS text COLLATE pg_catalog."C"
	CONSTRAINT key_id_is_hexadecimal CHECK ((VALUE ~ '^[0-9a-f]{8}$'::text));


ALTER DOMAIN haive_private.key_id OWNER TO postgres;

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
              'input_tokens', m.input_tokens::int,
              'output_tokens', m.output_tokens::int,
              'total_tokens', m.input_tokens + m.output_tokens,
              'model', m.model::text,
              'cost', m.cost::text
            )
          end as token_usage,
          m.created_at::timestamptz
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

-- COMMENT DOMAIN namespace
COMMENT ON DOMAIN haive_private.namespace IS 'Which part of a thread: empty for its main graph, else the path of a subgraph; at most 1,000 bytes.';

-- DOMAIN namespace
CREATE DOMAIN haive_private.namespace AS text COLLATE pg_catalog."C"
	CONSTRAINT namespace_is_bounded CHECK ((octet_length(VALUE) <= 1000));


ALTER DOMAIN haive_private.namespace OWNER TO postgres;

-- ACL FUNCTION open_branch(p_tenant text, p_actor text, p_user_id text, p_thread_id text, p_namespace text, p_branch text, p_fork text, p_id uuid, p_parent_id uuid, p_codec smallint, p_payload bytea, OUT outcome text, OUT thread_key uuid, OUT branch_id uuid, OUT branch text, OUT head_id uuid)
REVOKE ALL ON FUNCTION haive_private.open_branch(p_tenant text, p_actor text, p_user_id text, p_thread_id text, p_namespace text, p_branch text, p_fork text, p_id uuid, p_parent_id uuid, p_codec smallint, p_payload bytea, OUT outcome text, OUT thread_key uuid, OUT branch_id uuid, OUT branch text, OUT head_id uuid) FROM PUBLIC;

-- COMMENT FUNCTION open_branch(p_tenant text, p_actor text, p_user_id text, p_thread_id text, p_namespace text, p_branch text, p_fork text, p_id uuid, p_parent_id uuid, p_codec smallint, p_payload bytea, OUT outcome text, OUT thread_key uuid, OUT branch_id uuid, OUT branch text, OUT head_id uuid)
COMMENT ON FUNCTION haive_private.open_branch(p_tenant text, p_actor text, p_user_id text, p_thread_id text, p_namespace text, p_branch text, p_fork text, p_id uuid, p_parent_id uuid, p_codec smallint, p_payload bytea, OUT outcome text, OUT thread_key uuid, OUT branch_id uuid, OUT branch text, OUT head_id uuid) IS 'Makes room for a checkpoint where the head of its branch is not simply its parent.';

-- FUNCTION open_branch(text, text, text, text, text, text, text, uuid, uuid, smallint, bytea)
CREATE FUNCTION haive_private.open_branch(p_tenant text, p_actor text, p_user_id text, p_thread_id text, p_namespace text, p_branch text, p_fork text, p_id uuid, p_parent_id uuid, p_codec smallint, p_payload bytea, OUT outcome text, OUT thread_key uuid, OUT branch_id uuid, OUT branch text, OUT head_id uuid) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
#variable_conflict use_column
declare
  v_branch haive.branches;
  v_row haive.checkpoints;
  v_parent haive.checkpoints;
begin
  thread_key := haive_private.open_thread(
    p_tenant, p_actor, p_user_id, p_thread_id, p_namespace
  );
  insert into haive.branches (tenant_id, branch_id, thread_key, name)
  values (p_tenant, gen_random_uuid(), open_branch.thread_key, 'main')
  on conflict do nothing;
  select * into v_branch from haive.branches as b
  where b.thread_key = open_branch.thread_key and b.name = p_branch and b.tenant_id = p_tenant
  for no key update;

  select * into v_row from haive.checkpoints as c
  where c.id = p_id and c.thread_key = open_branch.thread_key and c.tenant_id = p_tenant;
  if found then
    if (v_row.parent_id, v_row.codec, v_row.payload) is distinct from (p_parent_id, p_codec, p_payload) then
      raise exception using
        errcode = 'PT409',
        message = format('another checkpoint has the id %s', p_id),
        hint = 'Repeat a call only with the same content.';
    end if;
    outcome := 'same';
    branch_id := v_row.branch_id;
    select b.name into open_branch.branch from haive.branches as b
    where b.tenant_id = p_tenant and b.branch_id = v_row.branch_id;
    return;
  end if;
  if v_branch.branch_id is null then
    raise exception using
      errcode = 'PT404',
      message = format('the thread has no branch %s', left(p_branch, 200)),
      hint = 'create_branch makes one, from any checkpoint.';
  end if;
  if p_parent_id is not null then
    select * into v_parent from haive.checkpoints as c
    where c.id = p_parent_id and c.thread_key = open_branch.thread_key and c.tenant_id = p_tenant;
    if not found then
      raise exception using
        errcode = 'PT404',
        message = format('the thread has no checkpoint %s', p_parent_id),
        hint = 'A parent is of the same thread; it may have been pruned.';
    end if;
  end if;

  head_id := v_branch.head_id;
  if v_branch.head_id is not distinct from p_parent_id then
    outcome := 'ready';
    branch_id := v_branch.branch_id;
    branch := v_branch.name;
    update haive.branches as b
    set head_id = p_id, updated_at = now()
    where b.tenant_id = p_tenant and b.branch_id = v_branch.branch_id;
  elsif p_fork is null then
    outcome := 'conflict';
    branch_id := v_branch.branch_id;
    branch := v_branch.name;
  else
    outcome := 'ready';
    branch := p_fork;
    insert into haive.branches (
      tenant_id, branch_id, thread_key, name, root_branch_id, root_seq, head_id
    )
    values (
      p_tenant, gen_random_uuid(), open_branch.thread_key, p_fork, v_parent.branch_id,
      v_parent.seq, p_id
    )
    on conflict do nothing
    returning branch_id into open_branch.branch_id;
    if not found then
      raise exception using
        errcode = 'PT409',
        message = format('the thread has a branch %s already', left(p_fork, 200)),
        hint = 'Choose another name.';
    end if;
  end if;
end;
$$;


ALTER FUNCTION haive_private.open_branch(p_tenant text, p_actor text, p_user_id text, p_thread_id text, p_namespace text, p_branch text, p_fork text, p_id uuid, p_parent_id uuid, p_codec smallint, p_payload bytea, OUT outcome text, OUT thread_key uuid, OUT branch_id uuid, OUT branch text, OUT head_id uuid) OWNER TO haive_writer;

-- ACL FUNCTION open_thread(p_tenant text, p_actor text, p_user_id text, p_thread_id text, p_namespace text)
REVOKE ALL ON FUNCTION haive_private.open_thread(p_tenant text, p_actor text, p_user_id text, p_thread_id text, p_namespace text) FROM PUBLIC;

-- COMMENT FUNCTION open_thread(p_tenant text, p_actor text, p_user_id text, p_thread_id text, p_namespace text)
COMMENT ON FUNCTION haive_private.open_thread(p_tenant text, p_actor text, p_user_id text, p_thread_id text, p_namespace text) IS 'The key of a thread, which is made where it is not there yet, for the one whose it is.';

-- FUNCTION open_thread(text, text, text, text, text)
CREATE FUNCTION haive_private.open_thread(p_tenant text, p_actor text, p_user_id text, p_thread_id text, p_namespace text) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    SET enable_seqscan TO 'off'
    AS $$
declare
  v_key uuid;
  v_owner text;
begin
  select t.thread_key, t.user_id into v_key, v_owner
  from haive.threads as t
  where t.thread_id = p_thread_id and t.namespace = p_namespace and t.tenant_id = p_tenant;
  if not found then
    -- Parts that begin at the same time come one after the other, to find the same owner.
    perform pg_advisory_xact_lock(hashtextextended(p_tenant || '/' || p_thread_id, 0));
    select t.user_id into v_owner
    from haive.threads as t
    where t.thread_id = p_thread_id and t.tenant_id = p_tenant
    limit 1;
    if not found then
      v_owner := coalesce(p_actor, p_user_id);
    end if;
    insert into haive.threads (tenant_id, thread_id, namespace, user_id)
    values (p_tenant, p_thread_id, p_namespace, v_owner)
    on conflict do nothing;
    select t.thread_key, t.user_id into v_key, v_owner
    from haive.threads as t
    where t.thread_id = p_thread_id and t.namespace = p_namespace and t.tenant_id = p_tenant;
  end if;
  if
    (p_actor is not null and v_owner is distinct from p_actor)
    or (p_user_id is not null and v_owner is distinct from p_user_id)
  then
    raise exception using
      errcode = 'PT403',
      message = 'the thread is another user''s',
      hint = 'Choose thread ids that nobody else uses.';
  end if;
  return v_key;
end;
$$;


ALTER FUNCTION haive_private.open_thread(p_tenant text, p_actor text, p_user_id text, p_thread_id text, p_namespace text) OWNER TO haive_writer;

-- COMMENT DOMAIN payload
COMMENT ON DOMAIN haive_private.payload IS 'At most 64 MiB; what is in it only the SDK knows.';

-- DOMAIN payload
CREATE DOMAIN haive_private.payload AS bytea
	CONSTRAINT payload_is_bounded CHECK ((octet_length(VALUE) <= 67108864));


ALTER DOMAIN haive_private.payload OWNER TO postgres;

-- ACL FUNCTION put_checkpoint_writes(p_tenant text, p_thread_id text, p_namespace text, p_checkpoint_id uuid, p_task_id uuid, p_task_path text, p_writes jsonb, p_user_id text)
GRANT ALL ON FUNCTION haive_private.put_checkpoint_writes(p_tenant text, p_thread_id text, p_namespace text, p_checkpoint_id uuid, p_task_id uuid, p_task_path text, p_writes jsonb, p_user_id text) TO authenticated;
GRANT ALL ON FUNCTION haive_private.put_checkpoint_writes(p_tenant text, p_thread_id text, p_namespace text, p_checkpoint_id uuid, p_task_id uuid, p_task_path text, p_writes jsonb, p_user_id text) TO haive_client;
GRANT ALL ON FUNCTION haive_private.put_checkpoint_writes(p_tenant text, p_thread_id text, p_namespace text, p_checkpoint_id uuid, p_task_id uuid, p_task_path text, p_writes jsonb, p_user_id text) TO service_role;
REVOKE ALL ON FUNCTION haive_private.put_checkpoint_writes(p_tenant text, p_thread_id text, p_namespace text, p_checkpoint_id uuid, p_task_id uuid, p_task_path text, p_writes jsonb, p_user_id text) FROM PUBLIC;

-- COMMENT FUNCTION put_checkpoint_writes(p_tenant text, p_thread_id text, p_namespace text, p_checkpoint_id uuid, p_task_id uuid, p_task_path text, p_writes jsonb, p_user_id text)
COMMENT ON FUNCTION haive_private.put_checkpoint_writes(p_tenant text, p_thread_id text, p_namespace text, p_checkpoint_id uuid, p_task_id uuid, p_task_path text, p_writes jsonb, p_user_id text) IS 'What haive.put_checkpoint_writes does, for a caller without rights on the tables.';

-- FUNCTION put_checkpoint_writes(text, text, text, uuid, uuid, text, jsonb, text)
CREATE FUNCTION haive_private.put_checkpoint_writes(p_tenant text, p_thread_id text, p_namespace text, p_checkpoint_id uuid, p_task_id uuid, p_task_path text, p_writes jsonb, p_user_id text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    AS $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_thread uuid;
  v_count bigint;
begin
  -- The first task may be done before the first checkpoint is saved.
  v_thread := haive_private.open_thread(
    v_caller.tenant, v_caller.actor, p_user_id, p_thread_id, p_namespace
  );
  -- A task that runs again writes the same: what is there stays. Errors and interrupts, below zero,
  -- are replaced, for the last one is the one that counts.
  insert into haive.checkpoint_writes as w (
    tenant_id, thread_key, checkpoint_id, task_id, idx, channel, task_path, size, codec, key_id,
    payload
  )
  select
    v_caller.tenant, v_thread, p_checkpoint_id, p_task_id, d.idx, d.channel, p_task_path, d.size,
    d.codec, d.key_id, decode(d.payload, 'base64')
  from jsonb_to_recordset(p_writes) as d (
    idx int, channel text, size int, codec int2, key_id text, payload text
  )
  on conflict (tenant_id, thread_key, checkpoint_id, task_id, idx) do update
  set
    channel = excluded.channel, task_path = excluded.task_path, size = excluded.size,
    codec = excluded.codec, key_id = excluded.key_id, payload = excluded.payload
  where w.idx < 0;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;


ALTER FUNCTION haive_private.put_checkpoint_writes(p_tenant text, p_thread_id text, p_namespace text, p_checkpoint_id uuid, p_task_id uuid, p_task_path text, p_writes jsonb, p_user_id text) OWNER TO haive_writer;

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
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
declare
  v_ids uuid[]; -- as conversation_ids, a name that columns have
  v_inputs bigint[];
  v_outputs bigint[];
  v_costs numeric[];
  v_latest timestamptz[];
begin
  select
    array_agg(g.conversation_id), array_agg(g.n), array_agg(g.input_tokens),
    array_agg(g.output_tokens), array_agg(g.cost), array_agg(g.latest)
  into v_ids, counts, v_inputs, v_outputs, v_costs, v_latest
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

  if cardinality(v_ids) = 1 then
    update haive.conversations as c
    set
      message_count = c.message_count + counts[1],
      input_tokens = c.input_tokens + v_inputs[1],
      output_tokens = c.output_tokens + v_outputs[1],
      cost = c.cost + v_costs[1],
      last_message_at = greatest(c.last_message_at, v_latest[1])
    where
      c.tenant_id = p_tenant and c.id = v_ids[1]
      and (p_actor is null or c.user_id = p_actor or p_actor = any(c.participants))
    returning array[c.message_count] into last_seqs;
    if not found then
      last_seqs := array[null::bigint];
    end if;
  else
    -- The scan of the key finds the rows in the order of their ids, so two writers never wait for
    -- each other in a circle; width_bucket is the binary search for a row's place in the array.
    with grown as (
      update haive.conversations as c
      set
        message_count = c.message_count + counts[width_bucket(c.id, v_ids)],
        input_tokens = c.input_tokens + v_inputs[width_bucket(c.id, v_ids)],
        output_tokens = c.output_tokens + v_outputs[width_bucket(c.id, v_ids)],
        cost = c.cost + v_costs[width_bucket(c.id, v_ids)],
        last_message_at = greatest(c.last_message_at, v_latest[width_bucket(c.id, v_ids)])
      where
        c.tenant_id = p_tenant and c.id = any(v_ids)
        and (p_actor is null or c.user_id = p_actor or p_actor = any(c.participants))
      returning c.id, c.message_count
    )
    select array_agg(g.message_count order by u.id) into last_seqs
    from unnest(v_ids) as u (id)
    left join grown as g on g.id = u.id;
  end if;

  insert into haive.events (tenant_id, kind, conversation_id, first_seq, last_seq)
  select p_tenant, 'messages.added', u.id, u.last_seq - u.n + 1, u.last_seq
  from unnest(v_ids, last_seqs, counts) as u (id, last_seq, n)
  where u.last_seq is not null;
  conversation_ids := v_ids;
end;
$$;


ALTER FUNCTION haive_private.reserve_messages(p_tenant text, p_actor text, p_conversation_ids uuid[], p_input_tokens integer[], p_output_tokens integer[], p_costs numeric[], p_created_at timestamp with time zone[], OUT conversation_ids uuid[], OUT last_seqs bigint[], OUT counts bigint[]) OWNER TO haive_writer;

-- ACL FUNCTION rewrite_checkpoints(p_tenant text, p_thread_id text, p_namespace text, p_remove uuid[], p_replace jsonb, p_writes jsonb, p_branches jsonb, p_schemas jsonb)
GRANT ALL ON FUNCTION haive_private.rewrite_checkpoints(p_tenant text, p_thread_id text, p_namespace text, p_remove uuid[], p_replace jsonb, p_writes jsonb, p_branches jsonb, p_schemas jsonb) TO authenticated;
GRANT ALL ON FUNCTION haive_private.rewrite_checkpoints(p_tenant text, p_thread_id text, p_namespace text, p_remove uuid[], p_replace jsonb, p_writes jsonb, p_branches jsonb, p_schemas jsonb) TO haive_client;
GRANT ALL ON FUNCTION haive_private.rewrite_checkpoints(p_tenant text, p_thread_id text, p_namespace text, p_remove uuid[], p_replace jsonb, p_writes jsonb, p_branches jsonb, p_schemas jsonb) TO service_role;
REVOKE ALL ON FUNCTION haive_private.rewrite_checkpoints(p_tenant text, p_thread_id text, p_namespace text, p_remove uuid[], p_replace jsonb, p_writes jsonb, p_branches jsonb, p_schemas jsonb) FROM PUBLIC;

-- COMMENT FUNCTION rewrite_checkpoints(p_tenant text, p_thread_id text, p_namespace text, p_remove uuid[], p_replace jsonb, p_writes jsonb, p_branches jsonb, p_schemas jsonb)
COMMENT ON FUNCTION haive_private.rewrite_checkpoints(p_tenant text, p_thread_id text, p_namespace text, p_remove uuid[], p_replace jsonb, p_writes jsonb, p_branches jsonb, p_schemas jsonb) IS 'What haive.rewrite_checkpoints does, for a caller without rights on the tables.';

-- FUNCTION rewrite_checkpoints(text, text, text, uuid[], jsonb, jsonb, jsonb, jsonb)
CREATE FUNCTION haive_private.rewrite_checkpoints(p_tenant text, p_thread_id text, p_namespace text, p_remove uuid[], p_replace jsonb, p_writes jsonb, p_branches jsonb, p_schemas jsonb) RETURNS json
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_thread uuid;
  v_replaced bigint;
  v_removed bigint;
begin
  select t.thread_key into v_thread
  from haive.threads as t
  where
    t.thread_id = p_thread_id and t.namespace = p_namespace and t.tenant_id = v_caller.tenant
    and (v_caller.actor is null or t.user_id = v_caller.actor);
  if not found then
    raise exception using
      errcode = 'PT404',
      message = 'no such thread',
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to change.';
  end if;
  -- Nothing is saved to the thread until this is done.
  perform from haive.branches as b
  where b.thread_key = v_thread and b.tenant_id = v_caller.tenant
  order by b.branch_id
  for update;
  -- A head that shall go too is named, with the one that takes its place or none.
  update haive.branches as b
  set head_id = d.head_id
  from jsonb_to_recordset(p_branches) as d (branch_id uuid, was_head_id uuid, head_id uuid)
  where
    b.tenant_id = v_caller.tenant and b.branch_id = d.branch_id and b.thread_key = v_thread
    and b.head_id = d.was_head_id;
  if exists (
    select from haive.branches as b
    where b.thread_key = v_thread and b.tenant_id = v_caller.tenant and b.head_id = any(p_remove)
  ) then
    raise exception using
      errcode = 'PT409',
      message = 'the head of a branch cannot be removed',
      hint = 'Plan anew: the thread was changed meanwhile.';
  end if;

  update haive.checkpoints as c
  set
    parent_id = d.parent_id, codec = d.codec, size = d.size, key_id = d.key_id,
    depth = case when d.codec = 2 then d.depth else 0 end,
    payload = decode(d.payload, 'base64'),
    sealed = coalesce(decode(d.sealed, 'base64'), c.sealed),
    metadata = case when d.sealed is null then c.metadata end,
    tags = case when d.sealed is null then c.tags end,
    search = coalesce(d.search, c.search)
  from jsonb_to_recordset(p_replace) as d (
    id uuid, parent_id uuid, was_parent_id uuid, was_key_id text, codec int2, size int, depth int2,
    key_id text, payload text, sealed text, was_sealed text, search jsonb
  )
  where
    c.id = d.id and c.thread_key = v_thread and c.tenant_id = v_caller.tenant
    and c.parent_id is not distinct from d.was_parent_id
    and c.key_id is not distinct from d.was_key_id
    -- Tags of a sealed checkpoint lie in what is replaced: they may have changed meanwhile.
    and (d.sealed is null or c.sealed is not distinct from decode(d.was_sealed, 'base64'));
  get diagnostics v_replaced = row_count;

  update haive.checkpoint_writes as w
  set codec = d.codec, size = d.size, key_id = d.key_id, payload = decode(d.payload, 'base64')
  from jsonb_to_recordset(p_writes) as d (
    checkpoint_id uuid, task_id uuid, idx int, was_key_id text, codec int2, size int, key_id text,
    payload text
  )
  where
    w.tenant_id = v_caller.tenant and w.thread_key = v_thread
    and w.checkpoint_id = d.checkpoint_id and w.task_id = d.task_id and w.idx = d.idx
    and w.key_id is not distinct from d.was_key_id;

  update haive.branches as b
  set sealed = decode(d.sealed, 'base64'), key_id = d.key_id, metadata = null
  from jsonb_to_recordset(p_branches) as d (
    branch_id uuid, was_key_id text, sealed text, key_id text
  )
  where
    b.tenant_id = v_caller.tenant and b.branch_id = d.branch_id and b.thread_key = v_thread
    and b.key_id is not distinct from d.was_key_id and d.sealed is not null;

  update haive.checkpoint_schemas as s
  set payload = decode(d.payload, 'base64'), key_id = d.key_id
  from jsonb_to_recordset(p_schemas) as d (hash text, was_key_id text, payload text, key_id text)
  where
    -- Schemas are shared by all of the tenant: a member must not replace them.
    v_caller.actor is null
    and s.tenant_id = v_caller.tenant and s.hash = decode(d.hash, 'hex')
    and s.key_id is not distinct from d.was_key_id;

  delete from haive.checkpoint_writes as w
  where
    w.tenant_id = v_caller.tenant and w.thread_key = v_thread and w.checkpoint_id = any(p_remove);
  delete from haive.checkpoints as c
  where c.id = any(p_remove) and c.thread_key = v_thread and c.tenant_id = v_caller.tenant;
  get diagnostics v_removed = row_count;
  -- Where nothing goes, each row is for itself: one that was changed meanwhile stays as it is.
  if
    (
      cardinality(p_remove) > 0
      and v_replaced <> coalesce(jsonb_array_length(p_replace), 0)
    )
    or exists (
      select from haive.branches as b
      join haive.checkpoints as c on c.tenant_id = b.tenant_id and c.branch_id = b.branch_id
      where
        b.thread_key = v_thread and b.tenant_id = v_caller.tenant and c.parent_id = any(p_remove)
    )
    -- Somebody else may have removed what was to become a parent.
    or exists (
      select from jsonb_to_recordset(p_replace) as d (parent_id uuid)
      where
        d.parent_id is not null
        and not exists (
          select from haive.checkpoints as c
          where
            c.id = d.parent_id and c.thread_key = v_thread and c.tenant_id = v_caller.tenant
        )
    )
  then
    raise exception using
      errcode = 'PT409',
      message = 'the thread was changed meanwhile',
      hint = 'Plan anew.';
  end if;
  -- A branch that has lost all of its own goes, unless another one begins in it.
  delete from haive.branches as b
  using jsonb_to_recordset(p_branches) as d (branch_id uuid, was_head_id uuid)
  where
    b.tenant_id = v_caller.tenant and b.branch_id = d.branch_id and b.thread_key = v_thread
    and d.was_head_id is not null and b.name <> 'main'
    and not exists (
      select from haive.checkpoints as c
      where c.tenant_id = b.tenant_id and c.branch_id = b.branch_id
    )
    and not exists (
      select from haive.branches as o
      where
        o.thread_key = v_thread and o.tenant_id = b.tenant_id and o.root_branch_id = b.branch_id
    );
  if v_removed > 0 then
    insert into haive.events (tenant_id, kind, thread_key)
    values (v_caller.tenant, 'checkpoints.pruned', v_thread);
  end if;
  return json_build_object('removed', v_removed, 'replaced', v_replaced);
end;
$$;


ALTER FUNCTION haive_private.rewrite_checkpoints(p_tenant text, p_thread_id text, p_namespace text, p_remove uuid[], p_replace jsonb, p_writes jsonb, p_branches jsonb, p_schemas jsonb) OWNER TO haive_writer;

-- ACL FUNCTION save_checkpoint(p_tenant text, p_thread_id text, p_namespace text, p_branch text, p_fork text, p_id uuid, p_parent_id uuid, p_payload bytea, p_codec smallint, p_depth integer, p_size integer, p_metadata jsonb, p_tags text[], p_search jsonb, p_sealed bytea, p_key_id text, p_schema_hash bytea, p_schema bytea, p_failed boolean, p_user_id text, p_count_failed boolean)
GRANT ALL ON FUNCTION haive_private.save_checkpoint(p_tenant text, p_thread_id text, p_namespace text, p_branch text, p_fork text, p_id uuid, p_parent_id uuid, p_payload bytea, p_codec smallint, p_depth integer, p_size integer, p_metadata jsonb, p_tags text[], p_search jsonb, p_sealed bytea, p_key_id text, p_schema_hash bytea, p_schema bytea, p_failed boolean, p_user_id text, p_count_failed boolean) TO authenticated;
GRANT ALL ON FUNCTION haive_private.save_checkpoint(p_tenant text, p_thread_id text, p_namespace text, p_branch text, p_fork text, p_id uuid, p_parent_id uuid, p_payload bytea, p_codec smallint, p_depth integer, p_size integer, p_metadata jsonb, p_tags text[], p_search jsonb, p_sealed bytea, p_key_id text, p_schema_hash bytea, p_schema bytea, p_failed boolean, p_user_id text, p_count_failed boolean) TO haive_client;
GRANT ALL ON FUNCTION haive_private.save_checkpoint(p_tenant text, p_thread_id text, p_namespace text, p_branch text, p_fork text, p_id uuid, p_parent_id uuid, p_payload bytea, p_codec smallint, p_depth integer, p_size integer, p_metadata jsonb, p_tags text[], p_search jsonb, p_sealed bytea, p_key_id text, p_schema_hash bytea, p_schema bytea, p_failed boolean, p_user_id text, p_count_failed boolean) TO service_role;
REVOKE ALL ON FUNCTION haive_private.save_checkpoint(p_tenant text, p_thread_id text, p_namespace text, p_branch text, p_fork text, p_id uuid, p_parent_id uuid, p_payload bytea, p_codec smallint, p_depth integer, p_size integer, p_metadata jsonb, p_tags text[], p_search jsonb, p_sealed bytea, p_key_id text, p_schema_hash bytea, p_schema bytea, p_failed boolean, p_user_id text, p_count_failed boolean) FROM PUBLIC;

-- COMMENT FUNCTION save_checkpoint(p_tenant text, p_thread_id text, p_namespace text, p_branch text, p_fork text, p_id uuid, p_parent_id uuid, p_payload bytea, p_codec smallint, p_depth integer, p_size integer, p_metadata jsonb, p_tags text[], p_search jsonb, p_sealed bytea, p_key_id text, p_schema_hash bytea, p_schema bytea, p_failed boolean, p_user_id text, p_count_failed boolean)
COMMENT ON FUNCTION haive_private.save_checkpoint(p_tenant text, p_thread_id text, p_namespace text, p_branch text, p_fork text, p_id uuid, p_parent_id uuid, p_payload bytea, p_codec smallint, p_depth integer, p_size integer, p_metadata jsonb, p_tags text[], p_search jsonb, p_sealed bytea, p_key_id text, p_schema_hash bytea, p_schema bytea, p_failed boolean, p_user_id text, p_count_failed boolean) IS 'What haive.save_checkpoint does, for a caller without rights on the tables.';

-- FUNCTION save_checkpoint(text, text, text, text, text, uuid, uuid, bytea, smallint, integer, integer, jsonb, text[], jsonb, bytea, text, bytea, bytea, boolean, text, boolean)
CREATE FUNCTION haive_private.save_checkpoint(p_tenant text, p_thread_id text, p_namespace text, p_branch text, p_fork text, p_id uuid, p_parent_id uuid, p_payload bytea, p_codec smallint, p_depth integer, p_size integer, p_metadata jsonb, p_tags text[], p_search jsonb, p_sealed bytea, p_key_id text, p_schema_hash bytea, p_schema bytea, p_failed boolean, p_user_id text, p_count_failed boolean) RETURNS json
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO ''
    SET enable_seqscan TO 'off'
    AS $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_thread uuid;
  v_branch_id uuid;
  v_branch text;
  v_opened record;
  v_seq bigint;
  v_at timestamptz;
begin
  select t.thread_key into v_thread
  from haive.threads as t
  where
    t.thread_id = p_thread_id and t.namespace = p_namespace and t.tenant_id = v_caller.tenant
    and (v_caller.actor is null or t.user_id = v_caller.actor)
    and (p_user_id is null or t.user_id = p_user_id);
  update haive.branches as b
  set head_id = p_id, updated_at = now()
  where
    b.thread_key = v_thread and b.name = p_branch and b.tenant_id = v_caller.tenant
    and b.head_id is not distinct from p_parent_id
    and (p_parent_id is not null or p_codec <> 2)
  returning b.branch_id, b.name into v_branch_id, v_branch;
  if not found then
    if p_codec = 2 and p_parent_id is null then
      raise exception using
        errcode = 'PT422',
        message = 'a delta has a parent',
        hint = 'Send a state without a parent whole.';
    end if;
    v_opened := haive_private.open_branch(
      v_caller.tenant, v_caller.actor, p_user_id, p_thread_id, p_namespace, p_branch, p_fork,
      p_id, p_parent_id, p_codec, p_payload
    );
    if v_opened.outcome = 'conflict' then
      return json_build_object(
        'branch', v_opened.branch, 'conflict', true, 'head_id', v_opened.head_id
      );
    end if;
    v_thread := v_opened.thread_key;
    v_branch_id := v_opened.branch_id;
    v_branch := v_opened.branch;
    if v_opened.outcome = 'same' then
      select c.seq, c.created_at into v_seq, v_at from haive.checkpoints as c
      where c.id = p_id and c.thread_key = v_thread and c.tenant_id = v_caller.tenant;
    end if;
  end if;
  if v_seq is null then
    if p_schema is not null then
      insert into haive.checkpoint_schemas (tenant_id, hash, payload, key_id)
      values (v_caller.tenant, p_schema_hash, p_schema, p_key_id)
      on conflict do nothing;
    end if;
    insert into haive.checkpoints (
      tenant_id, branch_id, thread_key, id, parent_id, size, codec, depth, failed, key_id,
      schema_hash, tags, metadata, search, sealed, payload
    )
    values (
      v_caller.tenant, v_branch_id, v_thread, p_id, p_parent_id, p_size, p_codec,
      case when p_codec = 2 then least(greatest(p_depth, 1), 32767) else 0 end, p_failed,
      p_key_id, p_schema_hash, p_tags, p_metadata, p_search, p_sealed, p_payload
    )
    returning seq, created_at into v_seq, v_at;
    insert into haive.events (tenant_id, kind, thread_key, checkpoint_id)
    values (v_caller.tenant, 'checkpoint.saved', v_thread, p_id);
  end if;
  return json_build_object(
    'branch', v_branch, 'branch_id', v_branch_id, 'seq', v_seq,
    'created_at', v_at,
    'count', case
      when p_count_failed is not null then (
        -- OFFSET: a join is planned, where tables are empty yet, to read all branches there are.
        select sum(l.checkpoints)
        from haive.branches as b
        cross join lateral (
          select count(*) as checkpoints
          from haive.checkpoints as c
          where
            c.tenant_id = v_caller.tenant and c.branch_id = b.branch_id
            and (p_count_failed or not c.failed)
          offset 0
        ) as l
        where b.thread_key = v_thread and b.tenant_id = v_caller.tenant
      )
    end
  );
end;
$$;


ALTER FUNCTION haive_private.save_checkpoint(p_tenant text, p_thread_id text, p_namespace text, p_branch text, p_fork text, p_id uuid, p_parent_id uuid, p_payload bytea, p_codec smallint, p_depth integer, p_size integer, p_metadata jsonb, p_tags text[], p_search jsonb, p_sealed bytea, p_key_id text, p_schema_hash bytea, p_schema bytea, p_failed boolean, p_user_id text, p_count_failed boolean) OWNER TO haive_writer;

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

-- COMMENT DOMAIN state_size
COMMENT ON DOMAIN haive_private.state_size IS 'Bytes of a state before it is packed: at most 64 MiB.';

-- DOMAIN state_size
CREATE DOMAIN haive_private.state_size AS integer
	CONSTRAINT state_size_is_bounded CHECK (((VALUE >= 0) AND (VALUE <= 67108864)));


ALTER DOMAIN haive_private.state_size OWNER TO postgres;

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

-- COMMENT DOMAIN write_place
COMMENT ON DOMAIN haive_private.write_place IS 'A place among the writes of a task; below zero for errors, interrupts and the like.';

-- DOMAIN write_place
CREATE DOMAIN haive_private.write_place AS integer
	CONSTRAINT write_place_is_known CHECK ((VALUE >= '-1000'::integer));


ALTER DOMAIN haive_private.write_place OWNER TO postgres;
