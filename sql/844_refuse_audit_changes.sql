-- Grants close the log to all but its owner; this, to the owner's mistakes too. Who disables the
-- trigger on purpose leaves a chain that does not hold.
create or replace function haive_private.refuse_audit_changes()
returns trigger
language plpgsql
volatile
security invoker
set search_path = ''
as $$
begin
  raise exception using
    errcode = 'PT403',
    message = 'the audit log is only added to',
    hint = 'What was put on record stays.';
end;
$$;

comment on function haive_private.refuse_audit_changes() is
'Refuses every update, deletion and truncation of the audit log.';
