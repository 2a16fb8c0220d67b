-- Definer: nobody but the functions reads the table.
create or replace function haive_private.list_tenant_keys(p_tenant text)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  perform haive_private.administer_tenant(p_tenant);
  return (
    select coalesce(
      json_agg(
        json_build_object(
          'key_id', k.key_id::text, 'wrapped', encode(k.wrapped, 'base64'),
          'kek_id', k.kek_id::text, 'status', k.status::text, 'created_at', k.created_at
        )
        order by k.created_at, k.key_id
      ),
      '[]'
    )
    from haive_private.tenant_keys as k
    where k.tenant_id = p_tenant
  );
end;
$$;

alter function haive_private.list_tenant_keys(text) owner to haive_writer;

comment on function haive_private.list_tenant_keys(text) is
'What haive.list_tenant_keys does, for a caller without rights on the table.';

create or replace function haive.list_tenant_keys(tenant text)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.list_tenant_keys(list_tenant_keys.tenant)
$$;

comment on function haive.list_tenant_keys(text) is
'The wrapped data keys of a tenant, oldest first, whatever its status; for trusted callers only.';
