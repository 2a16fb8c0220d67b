create or replace function haive_private.read_messages(
  conversation_id uuid,
  after bigint default 0,
  before bigint default null,
  page_size int default 100,
  last boolean default false,
  tenant text default null
)
returns setof haive_private.stored_columns
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_range record := haive_private.message_range(
    read_messages.conversation_id, read_messages.after, read_messages.before,
    read_messages.page_size, read_messages.last, read_messages.tenant
  );
begin
  return query
  select *
  from haive_private.message_columns(
    v_range.tenant, array[read_messages.conversation_id], array[v_range.first_seq],
    array[v_range.last_seq]
  );
end;
$$;

comment on function haive_private.read_messages(uuid, bigint, bigint, int, boolean, text) is
'What haive.get_messages answers, by column.';
