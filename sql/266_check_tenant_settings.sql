-- What the settings of a tenant mean to us; anything else in them is the application's.
create or replace function haive_private.check_tenant_settings(p_settings jsonb)
returns void
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  if jsonb_typeof(p_settings) is distinct from 'object' or pg_column_size(p_settings) > 65536 then
    raise exception using
      errcode = 'PT422',
      message = 'settings is no JSON object of at most 64 KiB',
      hint = 'Settings are timezone, data_retention_days, compliance_mode, and your own.';
  end if;
  if coalesce(jsonb_typeof(p_settings -> 'timezone'), 'string') not in ('string', 'null') then
    raise exception using
      errcode = 'PT422',
      message = 'settings.timezone is no text',
      hint = 'A name of the IANA database, such as America/New_York.';
  end if;
  -- What Postgres takes besides, such as XYZ+3, counts in a direction that nobody expects.
  if p_settings ->> 'timezone' !~ '^([A-Za-z_]+(/[A-Za-z0-9_+-]+)*|[A-Z]{3}[0-9][A-Z]{3})$' then
    raise exception using
      errcode = 'PT422',
      message = 'settings.timezone is no name of a time zone',
      hint = 'A name of the IANA database, such as America/New_York.';
  end if;
  -- Postgres looks for an abbreviation first, and those know no summer: CET is none of Brussels' then.
  if exists (
    select from pg_timezone_abbrevs as a
    where a.abbrev = upper(p_settings ->> 'timezone') and a.abbrev not in ('UTC', 'GMT')
  ) then
    raise exception using
      errcode = 'PT422',
      message = 'settings.timezone is an abbreviation, which knows no summer time',
      hint = 'A name of the IANA database, such as America/New_York.';
  end if;
  begin
    perform now() at time zone (p_settings ->> 'timezone');
  exception
    when invalid_parameter_value then
      raise exception using
        errcode = 'PT422',
        message = 'settings.timezone is no time zone that Postgres knows',
        hint = 'A name of the IANA database, such as America/New_York.';
  end;
  if p_settings ->> 'data_retention_days' is not null and not coalesce(
    jsonb_typeof(p_settings -> 'data_retention_days') = 'number'
    and (p_settings ->> 'data_retention_days')::numeric between 1 and 36500
    and (p_settings ->> 'data_retention_days')::numeric % 1 = 0,
    false
  ) then
    raise exception using
      errcode = 'PT422',
      message = 'settings.data_retention_days is no number of days',
      hint = 'A whole number from 1 to 36,500; leave it out to keep everything.';
  end if;
  if p_settings ->> 'event_retention_days' is not null and not coalesce(
    jsonb_typeof(p_settings -> 'event_retention_days') = 'number'
    and (p_settings ->> 'event_retention_days')::numeric between 1 and 365
    and (p_settings ->> 'event_retention_days')::numeric % 1 = 0,
    false
  ) then
    raise exception using
      errcode = 'PT422',
      message = 'settings.event_retention_days is no number of days',
      hint = 'A whole number from 1 to 365; 7 if it is left out.';
  end if;
  if p_settings ->> 'compliance_mode' is not null
    and not p_settings ->> 'compliance_mode' in ('HIPAA', 'GDPR', 'SOC2')
  then
    raise exception using
      errcode = 'PT422',
      message = 'settings.compliance_mode is unknown',
      hint = 'Modes are HIPAA, GDPR and SOC2.';
  end if;
end;
$$;

comment on function haive_private.check_tenant_settings(jsonb) is
'Refuses settings of a tenant that mean nothing.';
