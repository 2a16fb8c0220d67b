-- What get_messages and read_messages answer differently: which tenant, and which messages.
create or replace function haive_private.message_range(
  p_conversation_id uuid,
  p_after bigint,
  p_before bigint,
  p_page_size int,
  p_last boolean,
  p_tenant text,
  out tenant text,
  out first_seq bigint,
  out last_seq bigint
)
returns record
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, false);
  v_count bigint;
begin
  if (p_page_size between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 10000',
      hint = 'Read on with after, the seq of the last message of a page.';
  end if;
  select c.message_count into v_count
  from haive.conversations as c
  where c.tenant_id = v_caller.tenant and c.id = p_conversation_id;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no conversation %s', p_conversation_id),
      hint = 'It was deleted, belongs to another tenant, or is not the caller''s to see.';
  end if;
  tenant := v_caller.tenant;
  first_seq := greatest(p_after, 0) + 1;
  last_seq := least(p_before - 1, v_count);
  if p_last then
    first_seq := greatest(first_seq, last_seq - p_page_size + 1);
  else
    last_seq := least(last_seq, first_seq + p_page_size - 1);
  end if;
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'get_messages',
      jsonb_build_object(
        p_conversation_id,
        case when first_seq <= last_seq then jsonb_build_array(first_seq, last_seq) end
      ),
      greatest(last_seq - first_seq + 1, 0)
    );
  end if;
end;
$$;

comment on function haive_private.message_range(uuid, bigint, bigint, int, boolean, text) is
'Enters the tenant, and says which messages a page has.';
