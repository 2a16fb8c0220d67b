-- How conversations are stored, and nothing of what they say: each that is still as it was read.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.reseal_conversations(p_tenant text, p_conversations jsonb)
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
  update haive.conversations as c
  set
    title = null, context = '{}', settings = '{}',
    sealed = decode(d.sealed, 'base64'), sealed_with = d.sealed_with
  from jsonb_to_recordset(p_conversations) as d (
    id uuid, was_sealed_with text, was_updated_at timestamptz, sealed text, sealed_with text
  )
  where
    c.tenant_id = v_caller.tenant and c.id = d.id
    and c.sealed_with is not distinct from d.was_sealed_with and c.updated_at = d.was_updated_at
    and d.sealed is not null;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

alter function haive_private.reseal_conversations(text, jsonb) owner to haive_writer;

comment on function haive_private.reseal_conversations(text, jsonb) is
'What haive.reseal_conversations does, for a caller without rights on the table.';

create or replace function haive.reseal_conversations(
  conversations jsonb, tenant text default null
)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.reseal_conversations(
    reseal_conversations.tenant, reseal_conversations.conversations
  )
$$;

comment on function haive.reseal_conversations(jsonb, text) is
'Replaces how conversations are sealed: a list of {id, was_sealed_with, was_updated_at, sealed, '
'sealed_with}. Those that were changed meanwhile stay. Returns how many were. For trusted callers '
'only.';
