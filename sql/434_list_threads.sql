create or replace function haive.list_threads(
  user_id text default null,
  thread_id text default null,
  page_size int default 100,
  page_after text default null,
  tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(list_threads.tenant, false);
  v_docs json;
begin
  if (list_threads.page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on with page_after, the last thread_id.';
  end if;
  v_docs := (
    select coalesce(
      json_agg(
        json_build_object(
          'thread_id', p.thread_id, 'user_id', p.user_id, 'namespaces', p.namespaces,
          'branches', s.branches, 'checkpoints', s.checkpoints, 'bytes', s.bytes,
          'created_at', p.created_at, 'updated_at', s.updated_at
        )
        order by p.thread_id
      ),
      '[]'
    )
    from (
      select
        t.thread_id::text as thread_id, min(t.user_id::text) as user_id,
        array_agg(t.namespace::text order by t.namespace) as namespaces,
        array_agg(t.thread_key) as keys, min(t.created_at) as created_at
      from haive.threads as t
      where
        t.tenant_id = v_caller.tenant
        and (list_threads.page_after is null or t.thread_id > list_threads.page_after)
        and (list_threads.thread_id is null or t.thread_id = list_threads.thread_id)
        and (list_threads.user_id is null or t.user_id = list_threads.user_id)
        and (v_caller.actor is null or t.user_id = v_caller.actor)
      group by t.thread_id
      order by t.thread_id
      limit list_threads.page_size
    ) as p
    cross join lateral (
      select
        count(distinct b.branch_id) as branches, count(c.id) as checkpoints,
        coalesce(sum(octet_length(c.payload)), 0) as bytes, max(b.updated_at) as updated_at
      from haive.branches as b
      left join haive.checkpoints as c
        on c.tenant_id = b.tenant_id and c.branch_id = b.branch_id
      where b.tenant_id = v_caller.tenant and b.thread_key = any(p.keys)
    ) as s
  );
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'list_threads',
      (
        select jsonb_object_agg(d.doc ->> 'thread_id', d.doc -> 'checkpoints')
        from json_array_elements(v_docs) as d (doc)
      ),
      json_array_length(v_docs)
    );
  end if;
  return v_docs;
end;
$$;

comment on function haive.list_threads(text, text, int, text, text) is
'The threads of the tenant by their names, with how many checkpoints they have and of what size.';
