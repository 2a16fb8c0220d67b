-- The caller's tenants as sets, for policies: evaluated once a statement, whatever the rows.
-- Definer: the policies of haive.members themselves ask them.
create or replace function haive_private.my_tenants()
returns setof text
language sql
stable
security definer
set search_path = ''
as $$
  select m.tenant_id from haive.members as m where m.user_id = (select haive.current_actor())
$$;

create or replace function haive_private.my_admin_tenants()
returns setof text
language sql
stable
security definer
set search_path = ''
as $$
  select m.tenant_id from haive.members as m
  where m.user_id = (select haive.current_actor()) and m.role in ('owner', 'admin')
$$;

alter function haive_private.my_tenants() owner to haive_writer;
alter function haive_private.my_admin_tenants() owner to haive_writer;

comment on function haive_private.my_tenants() is 'The tenants that the caller is a member of.';
comment on function haive_private.my_admin_tenants() is
'The tenants that the caller owns or administers.';
