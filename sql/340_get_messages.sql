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
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'get_messages',
      jsonb_build_object(
        get_messages.conversation_id,
        case when v_from <= v_to then jsonb_build_array(v_from, v_to) end
      ),
      greatest(v_to - v_from + 1, 0)
    );
  end if;
  return (
    haive_private.message_docs(
      v_caller.tenant, array[get_messages.conversation_id], array[v_from], array[v_to]
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
