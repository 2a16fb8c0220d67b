create or replace function haive_private.usage_doc(
  p_used bigint, p_limit bigint, p_resets_at timestamptz default null
)
returns json
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return json_build_object(
    'used', p_used,
    'limit', p_limit,
    -- Of a limit of nothing, all is used.
    'fraction', case
      when p_limit is not null then coalesce(round(p_used::numeric / nullif(p_limit, 0), 4), 1)
    end,
    'resets_at', p_resets_at
  );
end;
$$;

comment on function haive_private.usage_doc(bigint, bigint, timestamptz) is
'The use of one resource as the functions of the API return it.';
