-- The caller's tenants as sets, for policies: evaluated once a statement, whatever the rows.
-- A tenant that is suspended, deleted or has moved shows nothing to its members either.
-- One whose reads are on record is shown to functions only, which have entered it and write the record.
-- Definer: the policies of haive.members themselves ask them.
create or replace function haive_private.my_tenants()
returns setof text
language sql
stable
security definer
set search_path = ''
as $$
  select m.tenant_id
  from haive.members as m
  join haive.tenants as t on t.tenant_id = m.tenant_id
  where
    m.user_id = (select haive.current_actor())
    and t.status in ('active', 'moving') and t.isolation = 'row'
    and (t.audit <> 'all' or t.tenant_id = current_setting('persistence.tenant', true))
$$;

create or replace function haive_private.my_admin_tenants()
returns setof text
language sql
stable
security definer
set search_path = ''
as $$
  select m.tenant_id
  from haive.members as m
  join haive.tenants as t on t.tenant_id = m.tenant_id
  where
    m.user_id = (select haive.current_actor()) and m.role in ('owner', 'admin')
    and t.status in ('active', 'moving') and t.isolation = 'row'
    and (t.audit <> 'all' or t.tenant_id = current_setting('persistence.tenant', true))
$$;

alter function haive_private.my_tenants() owner to haive_writer;
alter function haive_private.my_admin_tenants() owner to haive_writer;

comment on function haive_private.my_tenants() is 'The tenants that the caller is a member of.';
comment on function haive_private.my_admin_tenants() is
'The tenants that the caller owns or administers.';
