create or replace function haive_private.checkpoint_write_docs(
  p_tenant text, p_branch_ids uuid[], p_seqs bigint[]
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  return (
    select coalesce(
      json_agg(
        json_build_object(
          'thread_key', w.thread_key, 'checkpoint_id', w.checkpoint_id, 'task_id', w.task_id,
          'idx', w.idx, 'channel', w.channel::text, 'task_path', w.task_path::text,
          'codec', w.codec::int2, 'size', w.size, 'key_id', w.key_id::text,
          'payload', replace(encode(w.payload, 'base64'), e'\n', '')
        )
        order by w.task_path, w.task_id, w.idx
      ),
      '[]'
    )
    from unnest(p_branch_ids, p_seqs) as p (branch_id, seq)
    join haive.checkpoints as c
      on c.tenant_id = p_tenant and c.branch_id = p.branch_id and c.seq = p.seq
    join haive.checkpoint_writes as w
      on w.tenant_id = p_tenant and w.thread_key = c.thread_key and w.checkpoint_id = c.id
  );
end;
$$;

comment on function haive_private.checkpoint_write_docs(text, uuid[], bigint[]) is
'The pending writes of some checkpoints, by task path, task and place.';
