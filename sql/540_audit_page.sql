-- Definer: nobody but trusted callers reads the table itself.
create or replace function haive_private.audit_page(
  p_tenant text, p_after bigint, p_page_size int, p_last boolean, p_entries boolean
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_tenant text := haive_private.enter_audit(p_tenant);
  v_after bigint := coalesce(p_after, 0);
begin
  if (p_page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on with after, the seq of the last row of a page.';
  end if;
  if p_last then
    select greatest(v_after, max(l.seq) - p_page_size) into v_after
    from haive.audit_log as l where l.tenant_id = v_tenant;
  end if;
  return (
    select coalesce(
      json_agg(
        case
          when p_entries then json_build_object(
            'seq', l.seq, 'hash', encode(l.hash, 'hex'), 'entry', haive_private.audit_entry(l)
          )
          else json_build_object(
            'seq', l.seq, 'at', l.at, 'actor', l.actor, 'login', l.login, 'role', l.role,
            'action', l.action, 'object', l.object, 'rows', l.rows, 'row_count', l.row_count,
            'address', l.address, 'application', l.application, 'request_id', l.request_id,
            'hash', encode(l.hash, 'hex')
          )
        end
        order by l.seq
      ),
      '[]'
    )
    from (
      select a.* from haive.audit_log as a
      where a.tenant_id = v_tenant and a.seq > v_after
      order by a.seq
      limit p_page_size
    ) as l
  );
end;
$$;

alter function haive_private.audit_page(text, bigint, int, boolean, boolean) owner to haive_writer;

comment on function haive_private.audit_page(text, bigint, int, boolean, boolean) is
'What haive.audit_page does, for a caller without rights on the table.';

create or replace function haive.audit_page(
  after bigint default 0,
  page_size int default 100,
  last boolean default false,
  entries boolean default false,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.audit_page(
    audit_page.tenant, audit_page.after, audit_page.page_size, audit_page.last, audit_page.entries
  )
$$;

comment on function haive.audit_page(bigint, int, boolean, boolean, text) is
'A page of a tenant''s audit log: the rows after a seq, or the last ones. With entries, the text that '
'each hash covers in place of the columns: {seq, hash, entry}.';
