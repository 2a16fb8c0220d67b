-- Definer, for nobody writes the log directly.
create or replace function haive_private.audit_read(p_function text, p_rows jsonb, p_count bigint)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  if current_setting('transaction_read_only') = 'on' then
    raise exception using
      errcode = 'PT403',
      message = 'what is read of this tenant goes on record, which this transaction may not write',
      hint = 'Call the function by POST and on a primary, in a transaction that may write.';
  end if;
  insert into haive_private.audit_queue (tenant_id, action, object, rows, row_count)
  values (
    current_setting('persistence.tenant'), 'read', p_function, coalesce(p_rows, '{}'),
    coalesce(p_count, 0)
  );
end;
$$;

alter function haive_private.audit_read(text, jsonb, bigint) owner to haive_writer;

comment on function haive_private.audit_read(text, jsonb, bigint) is
'Puts on record what a function reads of the tenant that was entered; called where enter_tenant '
'answers audit_reads.';
