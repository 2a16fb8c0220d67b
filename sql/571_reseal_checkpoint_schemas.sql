-- How schemas of states are stored, and nothing of what they say: each that is still as it was read.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.reseal_checkpoint_schemas(p_tenant text, p_schemas jsonb)
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
  update haive.checkpoint_schemas as s
  set payload = decode(d.payload, 'base64'), key_id = d.key_id
  from jsonb_to_recordset(p_schemas) as d (hash text, was_key_id text, payload text, key_id text)
  where
    s.tenant_id = v_caller.tenant and s.hash = decode(d.hash, 'hex')
    and s.key_id is not distinct from d.was_key_id and d.payload is not null;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

alter function haive_private.reseal_checkpoint_schemas(text, jsonb) owner to haive_writer;

comment on function haive_private.reseal_checkpoint_schemas(text, jsonb) is
'What haive.reseal_checkpoint_schemas does, for a caller without rights on the table.';

create or replace function haive.reseal_checkpoint_schemas(
  checkpoint_schemas jsonb, tenant text default null
)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.reseal_checkpoint_schemas(
    reseal_checkpoint_schemas.tenant, reseal_checkpoint_schemas.checkpoint_schemas
  )
$$;

comment on function haive.reseal_checkpoint_schemas(jsonb, text) is
'Replaces how schemas of states are sealed: a list of {hash, was_key_id, payload, key_id}. Those with '
'another key by now stay. Returns how many were. For trusted callers only.';
