-- Owned by whoever installs and not by haive_writer, as no other definer function is: it is whom
-- Supabase lets write to realtime.messages. Only the trigger below calls it.
create or replace function haive_private.send_hint(p_topic text, p_event bigint)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  -- A plain Postgres has no such function. It never fails: an error is a warning of its own.
  if to_regprocedure('realtime.send(jsonb,text,text,boolean)') is not null then
    execute 'select realtime.send($1, ''events'', $2, true)'
    using jsonb_build_object('event', p_event), p_topic;
  end if;
end;
$$;

comment on function haive_private.send_hint(text, bigint) is
'Tells those who have joined a private topic of Supabase Realtime that there is something to read.';
