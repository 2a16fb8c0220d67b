-- The tables of collections have no foreign key: count_memories holds the tenant of what is written.
-- Of a transaction that sees no later commit, the rows of one that it waited for would stay.
create or replace function haive_private.drop_tenant_memories()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_table text;
begin
  for v_table in
    select format('vecs.%I', c.table_name) from haive_private.memory_collections as c order by c.name
  loop
    continue when to_regclass(v_table) is null;
    if current_setting('transaction_isolation') <> 'read committed' then
      raise exception using
        errcode = 'PT409',
        message = 'a tenant is removed with what others have just written',
        hint = 'Remove it in a transaction that is read committed.';
    end if;
    execute format('delete from %s as t where t.tenant_id = $1', v_table) using old.tenant_id;
  end loop;
  return null;
end;
$$;

alter function haive_private.drop_tenant_memories() owner to haive_writer;

comment on function haive_private.drop_tenant_memories() is
'Removes the memories of a tenant that is removed.';

create trigger drop_memories after delete on haive.tenants
for each row execute function haive_private.drop_tenant_memories();
