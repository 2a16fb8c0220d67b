create or replace function haive.count_sealed(tenant text default null)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(count_sealed.tenant, false);
begin
  return (
    select coalesce(
      json_agg(
        json_build_object('table', s.name, 'key_id', s.key_id, 'rows', s.n)
        order by s.name, s.key_id
      ),
      '[]'
    )
    from (
      select 'conversations' as name, c.sealed_with::text as key_id, count(*) as n
      from haive.conversations as c where c.tenant_id = v_caller.tenant group by 2
      union all
      select 'messages', m.sealed_with::text, count(*)
      from haive.messages as m where m.tenant_id = v_caller.tenant group by 2
      union all
      select 'checkpoints', k.key_id::text, count(*)
      from haive.checkpoints as k where k.tenant_id = v_caller.tenant group by 2
      union all
      select 'checkpoint_writes', w.key_id::text, count(*)
      from haive.checkpoint_writes as w where w.tenant_id = v_caller.tenant group by 2
      union all
      select 'checkpoint_schemas', s.key_id::text, count(*)
      from haive.checkpoint_schemas as s where s.tenant_id = v_caller.tenant group by 2
      union all
      select 'branches', b.key_id::text, count(*)
      from haive.branches as b
      where b.tenant_id = v_caller.tenant and num_nonnulls(b.metadata, b.sealed) > 0
      group by 2
    ) as s
  );
end;
$$;

comment on function haive.count_sealed(text) is
'How many rows of the tenant are sealed with which key, by table; without a key_id: in the clear. For '
'trusted callers only.';
