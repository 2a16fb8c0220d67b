create or replace function haive_private.get_messages(
  conversation_id uuid,
  after bigint default 0,
  before bigint default null,
  page_size int default 100,
  last boolean default false,
  tenant text default null
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_range record := haive_private.message_range(
    get_messages.conversation_id, get_messages.after, get_messages.before,
    get_messages.page_size, get_messages.last, get_messages.tenant
  );
begin
  return (
    haive_private.message_docs(
      v_range.tenant, array[get_messages.conversation_id], array[v_range.first_seq],
      array[v_range.last_seq]
    )
  )[1];
end;
$$;

comment on function haive_private.get_messages(uuid, bigint, bigint, int, boolean, text) is
'What haive.get_messages does, in one snapshot.';

-- Volatile, for a request is counted, and PostgREST lets no other function write; what it reads is read
-- in one snapshot all the same.
create or replace function haive.get_messages(
  conversation_id uuid,
  after bigint default 0,
  before bigint default null,
  page_size int default 100,
  last boolean default false,
  tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  return haive_private.get_messages(
    get_messages.conversation_id, get_messages.after, get_messages.before,
    get_messages.page_size, get_messages.last, get_messages.tenant
  );
end;
$$;

comment on function haive.get_messages(uuid, bigint, bigint, int, boolean, text) is
'A page of messages in order: those after a seq, or the last ones before a seq.';
