create or replace function haive.list_branches(
  thread_id text, namespace text default '', tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(list_branches.tenant, false);
  v_docs json;
begin
  v_docs := (
    select coalesce(
      json_agg(
        json_build_object(
          'branch_id', b.branch_id, 'name', b.name, 'head_id', b.head_id,
          'root_id', (
            select c.id from haive.checkpoints as c
            where
              c.tenant_id = b.tenant_id and c.branch_id = b.root_branch_id and c.seq <= b.root_seq
            order by c.seq desc
            limit 1
          ),
          'metadata', b.metadata::jsonb, 'sealed', encode(b.sealed, 'base64'), 'key_id', b.key_id,
          'created_at', b.created_at, 'updated_at', b.updated_at
        )
        order by b.created_at, b.branch_id
      ),
      '[]'
    )
    from haive.threads as t
    join haive.branches as b on b.tenant_id = t.tenant_id and b.thread_key = t.thread_key
    where
      t.thread_id = list_branches.thread_id and t.namespace = list_branches.namespace
      and t.tenant_id = v_caller.tenant
      and (v_caller.actor is null or t.user_id = v_caller.actor)
  );
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'list_branches',
      (
        select jsonb_object_agg(d.doc ->> 'branch_id', null)
        from json_array_elements(v_docs) as d (doc)
      ),
      json_array_length(v_docs)
    );
  end if;
  return v_docs;
end;
$$;

comment on function haive.list_branches(text, text, text) is
'The branches of a thread, oldest first, with their heads and where they begin.';
