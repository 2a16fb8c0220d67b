-- Also for a day of the tenant that is not today: months end at midnight there, whatever the season.
create or replace function haive_private.month_end(p_tenant text, p_today date)
returns timestamptz
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return (
    select
      (date_trunc('month', p_today::timestamp) + interval '1 month')
      at time zone coalesce(t.settings ->> 'timezone', 'UTC')
    from haive.tenants as t where t.tenant_id = p_tenant
  );
end;
$$;

alter function haive_private.month_end(text, date) owner to haive_writer;

comment on function haive_private.month_end(text, date) is
'When the month of a day ends in the time zone of a tenant.';
