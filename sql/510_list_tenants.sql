-- Definer: closed tenants are read too.
create or replace function haive_private.list_tenants(
  p_page_size int, p_page_after text, p_status text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_docs json;
begin
  perform haive_private.administer_tenant(null);
  if (p_page_size between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 10000',
      hint = 'Read on with page_after, the id of the last tenant of a page.';
  end if;
  select coalesce(json_agg(haive_private.tenant_doc(t.*) order by t.tenant_id), '[]') into v_docs
  from (
    select s.* from haive.tenants as s
    where
      s.tenant_id > coalesce(p_page_after, '')
      and (p_status is null or s.status = p_status)
    order by s.tenant_id
    limit p_page_size
  ) as t;
  return v_docs;
end;
$$;

alter function haive_private.list_tenants(int, text, text) owner to haive_writer;

comment on function haive_private.list_tenants(int, text, text) is
'What haive.list_tenants does, for a caller without rights on the table.';

create or replace function haive.list_tenants(
  page_size int default 100, page_after text default '', status text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.list_tenants(
    list_tenants.page_size, list_tenants.page_after, list_tenants.status
  )
$$;

comment on function haive.list_tenants(int, text, text) is
'A page of tenants in the order of their ids; for trusted callers only.';
