-- Definer: the table itself is closed.
create or replace function haive_private.list_invitations(
  p_tenant text, p_page_size int, p_page_after uuid
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_as_administrator(p_tenant, false);
  v_docs json;
begin
  if (p_page_size between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 10000',
      hint = 'Read on with page_after, the id of the last invitation of a page.';
  end if;
  v_docs := (
    select coalesce(json_agg(haive_private.invitation_doc(i.*) order by i.id), '[]')
    from (
      select o.* from haive.invitations as o
      where o.tenant_id = v_caller.tenant and (p_page_after is null or o.id > p_page_after)
      order by o.id
      limit p_page_size
    ) as i
  );
  if exists (
    select from haive.tenants as t where t.tenant_id = v_caller.tenant and t.audit = 'all'
  ) then
    perform haive_private.audit_read(
      'list_invitations',
      (
        select jsonb_object_agg(d.doc ->> 'id', d.doc ->> 'role')
        from json_array_elements(v_docs) as d (doc)
      ),
      json_array_length(v_docs)
    );
  end if;
  return v_docs;
end;
$$;

alter function haive_private.list_invitations(text, int, uuid) owner to haive_writer;

comment on function haive_private.list_invitations(text, int, uuid) is
'What haive.list_invitations does, for a caller without rights on the table.';

create or replace function haive.list_invitations(
  page_size int default 1000, page_after uuid default null, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.list_invitations(
    list_invitations.tenant, list_invitations.page_size, list_invitations.page_after
  )
$$;

comment on function haive.list_invitations(int, uuid, text) is
'A page of the tenant''s invitations, used and expired ones too, for its administrators.';
