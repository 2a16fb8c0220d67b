-- The trigger of tables whose rows are rewritten by what others do, counters and heads: it is asked
-- only where a statement sets one of the columns that it names. And of tenants, of which it tells
-- how they are switched.
create or replace function haive_private.audit_row()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_tenant text := coalesce(new.tenant_id, old.tenant_id);
  v_changed jsonb;
  v_rows jsonb;
begin
  if tg_table_name = 'tenants' then
    if 'off' = all(array[coalesce(old.audit, 'off'), coalesce(new.audit, 'off')]) then
      return null;
    end if;
  elsif
    current_setting('persistence.watch', true) like '_-%' or not haive_private.is_audited(v_tenant)
  then
    return null;
  end if;
  if tg_op = 'UPDATE' then
    select coalesce(jsonb_agg(n.key order by n.key), '[]') into v_changed
    from jsonb_each(to_jsonb(new)) as n
    join jsonb_each(to_jsonb(old)) as o on o.key = n.key
    where o.value is distinct from n.value and n.key <> 'updated_at';
  end if;
  case tg_table_name
    when 'conversations' then
      v_rows := jsonb_build_object(new.id, v_changed);
    when 'sessions' then
      v_rows := jsonb_build_object(new.id, v_changed);
    when 'branches' then
      v_rows := jsonb_build_object(new.branch_id, v_changed);
    when 'tenants' then
      v_rows := jsonb_strip_nulls(jsonb_build_object(
        'changed', v_changed,
        'status', coalesce(new.status, old.status),
        'isolation', coalesce(new.isolation, old.isolation),
        'audit', coalesce(new.audit, old.audit),
        'encrypted', coalesce(new.encrypted, old.encrypted)
      ));
  end case;
  insert into haive_private.audit_queue (tenant_id, action, object, rows, row_count)
  values (v_tenant, lower(tg_op), tg_table_name, v_rows, 1);
  return null;
end;
$$;

alter function haive_private.audit_row() owner to haive_writer;

comment on function haive_private.audit_row() is
'Puts one row on record, of an update with the names of the columns that it changed.';
