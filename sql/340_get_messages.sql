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
stable
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(get_messages.tenant, false);
  v_count bigint;
begin
  if get_messages.page_size not between 1 and 10000 then
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
  return haive_private.message_docs(
    v_caller.tenant, get_messages.conversation_id, greatest(get_messages.after, 0),
    least(get_messages.before, v_count + 1), get_messages.page_size, get_messages.last
  );
end;
$$;

comment on function haive.get_messages(uuid, bigint, bigint, int, boolean, text) is
'A page of messages in order: those after a seq, or the last ones before a seq.';
