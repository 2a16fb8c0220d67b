-- What a write has to know of its tenant: its id, the day there, the limits of conversations, bytes and
-- tokens, and whether it was warned of any. Text, for a setting of the transaction.
create or replace function haive_private.meter_facts(p_row haive.tenants)
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return concat_ws(
    ' ', p_row.tenant_id, (now() at time zone coalesce(p_row.settings ->> 'timezone', 'UTC'))::date,
    coalesce(p_row.max_conversations::text, '-'), coalesce(p_row.max_storage_bytes::text, '-'),
    coalesce(p_row.max_tokens_per_month::text, '-'), left(p_row.warned, 1)
  );
end;
$$;

comment on function haive_private.meter_facts(haive.tenants) is
'What it takes to count what is written to a metered tenant.';
