-- Pending writes are found by their checkpoints, but their checkpoints need not be saved yet.
create or replace function haive.list_checkpoint_writes(
  thread_id text,
  namespace text default '',
  after_checkpoint_id uuid default null,
  after_task_id uuid default null,
  after_idx int default null,
  page_size int default 1000,
  tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_caller record := haive_private.enter_tenant(list_checkpoint_writes.tenant, false);
  v_docs json;
begin
  if (list_checkpoint_writes.page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on after the last one.';
  end if;
  v_docs := (
    select coalesce(
      json_agg(
        json_build_object(
          'thread_key', w.thread_key, 'checkpoint_id', w.checkpoint_id, 'task_id', w.task_id,
          'idx', w.idx, 'channel', w.channel::text, 'task_path', w.task_path::text,
          'codec', w.codec::int2, 'size', w.size, 'key_id', w.key_id::text,
          'payload', replace(encode(w.payload, 'base64'), e'\n', '')
        )
        order by w.checkpoint_id, w.task_id, w.idx
      ),
      '[]'
    )
    from (
      select
        p.*,
        sum(octet_length(p.payload)) over (order by p.checkpoint_id, p.task_id, p.idx)
        - octet_length(p.payload) as bytes_before
      from haive.threads as t
      cross join lateral (
        select w.*
        from haive.checkpoint_writes as w
        where
          w.tenant_id = t.tenant_id and w.thread_key = t.thread_key
          and (w.checkpoint_id, w.task_id, w.idx::int) > (
            coalesce(
              list_checkpoint_writes.after_checkpoint_id, '00000000-0000-0000-0000-000000000000'
            ),
            coalesce(
              list_checkpoint_writes.after_task_id, '00000000-0000-0000-0000-000000000000'
            ),
            coalesce(list_checkpoint_writes.after_idx, -2147483648)
          )
        order by w.checkpoint_id, w.task_id, w.idx
        limit list_checkpoint_writes.page_size
      ) as p
      where
        t.tenant_id = v_caller.tenant and t.thread_id = list_checkpoint_writes.thread_id
        and t.namespace = list_checkpoint_writes.namespace
        and (v_caller.actor is null or t.user_id = v_caller.actor)
    ) as w
    where w.bytes_before < 33554432 -- as in find_checkpoints
  );
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'list_checkpoint_writes',
      (
        select jsonb_object_agg(d.doc ->> 'checkpoint_id', d.doc -> 'thread_key')
        from json_array_elements(v_docs) as d (doc)
      ),
      json_array_length(v_docs)
    );
  end if;
  return v_docs;
end;
$$;

comment on function haive.list_checkpoint_writes(text, text, uuid, uuid, int, int, text) is
'The pending writes of a thread by checkpoint, task and place, also where the checkpoint is not saved '
'yet: at most page_size, ending after 32 MiB; empty when there are no more.';
