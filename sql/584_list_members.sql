create or replace function haive.list_members(
  page_size int default 1000, page_after text default '', tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(list_members.tenant, false);
  v_docs json;
begin
  if (list_members.page_size between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 10000',
      hint = 'Read on with page_after, the user_id of the last member of a page.';
  end if;
  v_docs := (
    select coalesce(
      json_agg(
        json_build_object('user_id', m.user_id, 'role', m.role, 'created_at', m.created_at)
        order by m.user_id
      ),
      '[]'
    )
    from (
      select o.user_id::text as user_id, o.role, o.created_at
      from haive.members as o
      where
        o.tenant_id = v_caller.tenant and o.user_id > coalesce(list_members.page_after, '')
        and (v_caller.actor is null or o.user_id = v_caller.actor)
      order by o.user_id
      limit list_members.page_size
    ) as m
  );
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'list_members',
      (
        select jsonb_object_agg(d.doc ->> 'user_id', d.doc ->> 'role')
        from json_array_elements(v_docs) as d (doc)
      ),
      json_array_length(v_docs)
    );
  end if;
  return v_docs;
end;
$$;

comment on function haive.list_members(int, text, text) is
'A page of the tenant''s members in the order of their ids; who is no administrator sees themself.';
