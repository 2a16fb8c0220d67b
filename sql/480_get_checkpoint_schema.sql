create or replace function haive.get_checkpoint_schema(hash bytea, tenant text default null)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(get_checkpoint_schema.tenant, false);
begin
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'get_checkpoint_schema',
      jsonb_build_object(encode(get_checkpoint_schema.hash, 'hex'), null),
      1
    );
  end if;
  return (
    select json_build_object('payload', encode(s.payload, 'base64'), 'key_id', s.key_id)
    from haive.checkpoint_schemas as s
    where s.tenant_id = v_caller.tenant and s.hash = get_checkpoint_schema.hash
  );
end;
$$;

comment on function haive.get_checkpoint_schema(bytea, text) is
'The JSON Schema that a checkpoint''s schema_hash stands for, as the SDK packed it.';
