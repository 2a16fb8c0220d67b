-- The trigger of the fast path of several messages: append_message puts a lone one on record itself. Of
-- a tenant that is not audited it does nothing, and nearly so fast.
create or replace function haive_private.audit_messages()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_one record;
begin
  if current_setting('persistence.watch', true) like '_-%' then
    return null;
  end if;
  select
    count(*) as n, min(m.tenant_id) as tenant_id, min(m.conversation_id::text) as conversation_id,
    min(m.seq) as seq
  into v_one
  from changed as m;
  if v_one.n = 1 then
    -- What a lone caller waits for: groups of one row cost more than all the rest.
    if
      current_setting('persistence.watch', true) like '_w%'
      or haive_private.is_audited(v_one.tenant_id)
    then
      insert into haive_private.audit_queue (tenant_id, action, object, rows, row_count)
      values (
        v_one.tenant_id, 'insert', 'messages',
        jsonb_build_object(v_one.conversation_id, jsonb_build_array(v_one.seq, v_one.seq)), 1
      );
    end if;
    return null;
  end if;
  insert into haive_private.audit_queue (tenant_id, action, object, rows, row_count)
  select
    g.tenant_id, 'insert', 'messages',
    jsonb_object_agg(g.conversation_id, jsonb_build_array(g.first_seq, g.last_seq))
    filter (where g.place <= 1000)
    || case when count(*) > 1000 then jsonb_build_object('more', count(*) - 1000) else '{}' end,
    sum(g.n)
  from (
    select
      m.tenant_id, m.conversation_id, min(m.seq) as first_seq, max(m.seq) as last_seq,
      count(*) as n, row_number() over (partition by m.tenant_id) as place
    from changed as m
    group by m.tenant_id, m.conversation_id
  ) as g
  group by g.tenant_id
  -- The setting and not a variable: with a parameter this would be planned at each call, for what it
  -- spares where the tenant is known.
  having
    current_setting('persistence.watch', true) like '_w%' or haive_private.is_audited(g.tenant_id);
  return null;
end;
$$;

alter function haive_private.audit_messages() owner to haive_writer;

comment on function haive_private.audit_messages() is
'Puts messages that were added on record: one row a statement and tenant.';
