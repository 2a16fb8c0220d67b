-- The frames that some checkpoints are decoded from: they themselves and, of a delta, its ancestors
-- up to the next whole state. Each comes once, in the order in which they are decoded.
create or replace function haive_private.checkpoint_frames(
  p_tenant text, p_branch_ids uuid[], p_seqs bigint[]
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
begin
  return (
    with recursive chain as (
      select c.thread_key, c.id, c.parent_id, c.codec, c.branch_id, c.seq
      from unnest(p_branch_ids, p_seqs) as p (branch_id, seq)
      cross join lateral (
        select c.* from haive.checkpoints as c
        where c.tenant_id = p_tenant and c.branch_id = p.branch_id and c.seq = p.seq
        limit 1 -- or an empty table is planned to be read whole for each row
      ) as c
      union -- and not all: deltas of a page share their ancestors
      select c.thread_key, c.id, c.parent_id, c.codec, c.branch_id, c.seq
      from chain as k
      cross join lateral (
        select c.* from haive.checkpoints as c
        where c.id = k.parent_id and c.thread_key = k.thread_key and c.tenant_id = p_tenant
        limit 1
      ) as c
      where k.codec = 2
    )
    select coalesce(
      json_agg(
        json_build_object(
          'thread_key', c.thread_key, 'id', c.id, 'parent_id', c.parent_id, 'codec', c.codec::int2,
          'size', c.size, 'key_id', c.key_id::text,
          'payload', replace(encode(c.payload, 'base64'), e'\n', '')
        )
        order by c.seq
      ),
      '[]'
    )
    from chain as k
    cross join lateral (
      select c.* from haive.checkpoints as c
      where c.tenant_id = p_tenant and c.branch_id = k.branch_id and c.seq = k.seq
      limit 1
    ) as c
  );
end;
$$;

comment on function haive_private.checkpoint_frames(text, uuid[], bigint[]) is
'What the SDK needs to decode some checkpoints.';
