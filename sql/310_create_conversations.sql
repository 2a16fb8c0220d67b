-- Any number of conversations in one call. Definer, for nobody writes tables directly.
create or replace function haive_private.create_conversations(p_tenant text, p_conversations jsonb)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_user text := haive.current_actor();
  v_given jsonb;
  v_fresh bigint;
  v_docs json;
begin
  -- Ids come from the client, for a safe retry; who sends none gets one here. And a user who
  -- names no owner is it.
  select jsonb_agg(
    jsonb_build_object('id', gen_random_uuid()) || u.doc
    || jsonb_build_object('user_id', coalesce(u.doc ->> 'user_id', v_user))
    order by u.place
  )
  into v_given
  from jsonb_array_elements(p_conversations) with ordinality as u (doc, place);
  v_fresh := haive_private.begin_conversations(v_caller.tenant, v_caller.actor, v_given);

  -- offset 0: as in begin_conversations.
  select json_agg(haive_private.conversation_doc(c.found) order by g.place) into v_docs
  from jsonb_array_elements(v_given) with ordinality as g (doc, place)
  cross join lateral (
    select c as found from haive.conversations as c
    where c.tenant_id = v_caller.tenant and c.id = (g.doc ->> 'id')::uuid
    offset 0
  ) as c;
  if v_caller.audit_reads and v_fresh < jsonb_array_length(v_given) then
    perform haive_private.audit_read(
      'create_conversations',
      (select jsonb_object_agg(u.doc ->> 'id', null) from jsonb_array_elements(v_given) as u (doc)),
      jsonb_array_length(v_given) - v_fresh
    );
  end if;
  return coalesce(v_docs, '[]');
end;
$$;

alter function haive_private.create_conversations(text, jsonb) owner to haive_writer;

comment on function haive_private.create_conversations(text, jsonb) is
'What haive.create_conversations does, for a caller without rights on the table.';

create or replace function haive.create_conversations(conversations jsonb, tenant text default null)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.create_conversations(
    create_conversations.tenant, create_conversations.conversations
  )
$$;

comment on function haive.create_conversations(jsonb, text) is
'Begins conversations: a list of {id, agent_id, user_id, title, tags, context, participants, '
'settings, created_at, sealed, sealed_with}. Returns them. The same id with the same agent and user is the same one.';
