-- The frames that some checkpoints are decoded from: they themselves and, of a delta, what it is made
-- against, up to the next whole state. Each comes once, in the order in which they are decoded: payloads
-- are fetched when the chain is known, from where each row was found. The planner's settings are those
-- of find_checkpoints.
create or replace function haive_private.checkpoint_frames(
  p_tenant text,
  p_branch_ids uuid[],
  p_seqs bigint[],
  out frame_thread_keys uuid[],
  out frame_ids uuid[],
  out frame_parent_ids uuid[],
  out frame_base_ids uuid[],
  out frame_codecs smallint[],
  out frame_sizes int[],
  out frame_key_ids text[],
  out frame_payloads bytea[]
)
returns record
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  with recursive chain as (
    select
      c.thread_key, c.id, c.seq, c.ctid as place,
      case c.codec when 2 then c.parent_id when 3 then c.base_id end as before_id
    from unnest(p_branch_ids, p_seqs) as p (branch_id, seq)
    cross join lateral (
      select c.*, c.ctid from haive.checkpoints as c
      where c.tenant_id = p_tenant and c.branch_id = p.branch_id and c.seq = p.seq
      limit 1 -- or an empty table is planned to be read whole for each row
    ) as c
    union -- and not all: deltas of a page share what they are made against
    select
      c.thread_key, c.id, c.seq, c.ctid as place,
      case c.codec when 2 then c.parent_id when 3 then c.base_id end
    from chain as k
    cross join lateral (
      select c.*, c.ctid from haive.checkpoints as c
      where c.id = k.before_id and c.thread_key = k.thread_key and c.tenant_id = p_tenant
      limit 1
    ) as c
    where k.before_id is not null
  )
  select
    array_agg(f.thread_key),
    array_agg(f.id),
    array_agg(f.parent_id),
    array_agg(f.base_id),
    array_agg(f.codec),
    array_agg(f.size),
    array_agg(f.key_id),
    array_agg(f.payload)
  into
    frame_thread_keys, frame_ids, frame_parent_ids, frame_base_ids, frame_codecs, frame_sizes,
    frame_key_ids, frame_payloads
  from (
    select
      c.thread_key, c.id, c.parent_id, c.base_id, c.codec::smallint as codec, c.size::int as size,
      c.key_id::text as key_id, c.payload::bytea as payload
    from chain as k
    cross join lateral (
      select c.* from haive.checkpoints as c
      where c.ctid = k.place and c.tenant_id = p_tenant
      limit 1
    ) as c
    order by c.seq
  ) as f;
end;
$$;

comment on function haive_private.checkpoint_frames(text, uuid[], bigint[]) is
'What the SDK needs to decode some checkpoints, by column.';
