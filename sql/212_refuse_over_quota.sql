-- PostgREST makes the status and the headers of its answer from an error of the SQLSTATE PGRST; on a
-- direct connection it is PT429, with the same facts.
create or replace function haive_private.refuse_over_quota(
  p_tenant text, p_resource text, p_limit bigint, p_used bigint, p_resets_at timestamptz
)
returns void
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_seconds bigint := greatest(ceil(extract(epoch from p_resets_at - clock_timestamp())), 1);
  v_message text := format(
    'the tenant %s is at its limit of %s %s', p_tenant, p_limit,
    case p_resource
      when 'storage' then 'bytes of storage'
      when 'requests' then 'requests a minute'
      when 'tokens' then 'tokens a month'
      else p_resource
    end
  );
  v_hint text := case p_resource
    when 'requests' then 'Repeat the call after retry_after seconds.'
    when 'tokens' then 'The month begins anew at resets_at; or raise the limit with update_tenant.'
    else 'Delete what is not needed, or raise the limit with update_tenant.'
  end;
  v_facts text := json_build_object(
    'resource', p_resource, 'limit', p_limit, 'used', p_used, 'resets_at', p_resets_at,
    'retry_after', case when p_resets_at is not null then v_seconds end
  );
begin
  if nullif(current_setting('request.method', true), '') is null then
    raise exception using
      errcode = 'PT429', message = v_message, detail = v_facts, hint = v_hint;
  end if;
  raise exception using
    errcode = 'PGRST',
    message = json_build_object(
      'code', 'PT429', 'message', v_message, 'details', v_facts, 'hint', v_hint
    ),
    detail = json_build_object(
      'status', 429,
      'headers', case
        when p_resets_at is null then '{}'::json
        else json_build_object('Retry-After', v_seconds::text)
      end
    );
end;
$$;

comment on function haive_private.refuse_over_quota(text, text, bigint, bigint, timestamptz) is
'Raises the error of a tenant that is at a limit, with what it has used and when that begins anew.';
