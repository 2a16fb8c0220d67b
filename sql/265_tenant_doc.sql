-- A tenant as JSON. Limits are together, as a quota.
create or replace function haive_private.tenant_doc(p_row haive.tenants)
returns json
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return json_build_object(
    'tenant_id', p_row.tenant_id,
    'name', p_row.name,
    'status', p_row.status::text,
    'isolation', p_row.isolation::text,
    'location', p_row.location::text,
    'settings', p_row.settings,
    'quota', json_build_object(
      'max_conversations', p_row.max_conversations::bigint,
      'max_storage_bytes', p_row.max_storage_bytes::bigint,
      'max_requests_per_minute', p_row.max_requests_per_minute::bigint,
      'max_tokens_per_month', p_row.max_tokens_per_month::bigint
    ),
    'audit', p_row.audit::text,
    'encrypted', p_row.encrypted,
    'metered', p_row.metered,
    'created_at', p_row.created_at,
    'updated_at', p_row.updated_at,
    'deleted_at', p_row.deleted_at
  );
end;
$$;

comment on function haive_private.tenant_doc(haive.tenants) is
'A tenant as the functions of the API return it.';
