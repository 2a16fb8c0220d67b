-- Who joins a topic of Supabase Realtime, and who sends on it. The server tries with a row of its
-- own, as the user. A plain Postgres has no such table.
-- Making a policy can lock tables of others until the end: then rather fail, and come again.
set local lock_timeout = '2s';

do $$
begin
  if
    to_regclass('realtime.messages') is null
    or to_regprocedure('realtime.topic()') is null
    or exists (
      select from pg_catalog.pg_policies
      where
        schemaname = 'realtime' and tablename = 'messages'
        and policyname = 'haive: who may watch a channel joins its topic'
    )
  then
    return;
  end if;
  create policy "haive: who may watch a channel joins its topic" on realtime.messages
  for select to authenticated
  using (haive_private.may_join((select realtime.topic()), extension, false));
  create policy "haive: who may write to a channel sends on its topic" on realtime.messages
  for insert to authenticated
  with check (haive_private.may_join((select realtime.topic()), extension, true));
end;
$$;
