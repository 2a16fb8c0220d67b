-- How messages are stored, and nothing of what they say: each that is still as it was read.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.reseal_messages(p_tenant text, p_messages jsonb)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_count bigint;
begin
  if not v_caller.trusted then
    raise exception using
      errcode = 'PT403',
      message = 'only services seal what others wrote',
      hint = 'Call with a secret key, or on a direct connection.';
  end if;
  update haive.messages as m
  set
    content = '', parts = null, metadata = '{}',
    sealed = decode(d.sealed, 'base64'), sealed_with = d.sealed_with
  from jsonb_to_recordset(p_messages) as d (
    conversation_id uuid, seq bigint, id uuid, was_sealed_with text, sealed text, sealed_with text
  )
  where
    m.tenant_id = v_caller.tenant and m.conversation_id = d.conversation_id and m.seq = d.seq
    and m.id = d.id and m.sealed_with is not distinct from d.was_sealed_with
    and d.sealed is not null;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

alter function haive_private.reseal_messages(text, jsonb) owner to haive_writer;

comment on function haive_private.reseal_messages(text, jsonb) is
'What haive.reseal_messages does, for a caller without rights on the table.';

create or replace function haive.reseal_messages(messages jsonb, tenant text default null)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.reseal_messages(reseal_messages.tenant, reseal_messages.messages)
$$;

comment on function haive.reseal_messages(jsonb, text) is
'Replaces how messages are sealed: a list of {conversation_id, seq, id, was_sealed_with, sealed, '
'sealed_with}. Those with another key by now stay. Returns how many were. For trusted callers only.';
