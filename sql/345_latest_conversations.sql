-- What is asked for most, without planning it each time, which takes longer than to find it.
create or replace function haive_private.latest_conversations(
  p_tenant text,
  p_user_id text,
  p_tags text[],
  p_min_messages bigint,
  p_limit int
)
returns haive.conversations[]
language plpgsql
stable
security invoker
set search_path = ''
-- The table may be empty when the plan is made, and it stays: without the other scans the user's index
-- is what is left to it.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  return array(
    select c
    from haive.conversations as c
    where
      c.tenant_id = p_tenant and c.user_id = p_user_id
      and (p_tags is null or c.tags @> p_tags)
      and (p_min_messages is null or c.message_count >= p_min_messages)
    order by c.active_hour desc, c.last_message_at desc, c.id desc
    limit p_limit
  );
end;
$$;

comment on function haive_private.latest_conversations(text, text, text[], bigint, int) is
'The latest conversations of a user, if asked with all of some tags and so many messages.';
