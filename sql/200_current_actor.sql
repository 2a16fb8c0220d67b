-- Who calls: the verified subject of a user's token, null for a trusted key or connection.
create or replace function haive.current_actor()
returns text
language sql
stable
security invoker
set search_path = ''
as $$
  select nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
$$;

comment on function haive.current_actor() is
'The user that calls ("sub" of the token), or null for a trusted key or connection.';
