-- The trigger of all other statements: "changed" is the rows they wrote, of deletions those that
-- were there. What a foreign key takes along is no row of its own: it went with what is on record.
create or replace function haive_private.audit_rows()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered text := current_setting('persistence.tenant', true);
  v_tenant text;
  v_rows record;
  -- The tables of collections are one thing, whatever their names.
  v_object text := case when tg_table_schema = 'vecs' then 'memories' else tg_table_name end;
begin
  if current_setting('persistence.watch', true) like '_-%' then
    return null;
  end if;
  for v_tenant in select distinct c.tenant_id from changed as c loop
    continue when not haive_private.is_audited(v_tenant);
    -- Entered for the while, since the owner's own statements enter none.
    perform set_config('persistence.tenant', v_tenant, true);
    case v_object
      when 'conversations' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            c.id, 1 as n, row_number() over () as place,
            case
              when tg_op = 'DELETE' and c.message_count > 0
                then jsonb_build_array(1, c.message_count)
            end as detail
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'messages' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            c.conversation_id as id, count(*) as n, row_number() over () as place,
            jsonb_build_array(min(c.seq), max(c.seq)) as detail
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.conversations as p
                where p.tenant_id = c.tenant_id and p.id = c.conversation_id
              )
            )
          group by c.conversation_id
        ) as g;
      when 'sessions' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.id, c.parent_id as detail, 1 as n, row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.conversations as p
                where p.tenant_id = c.tenant_id and p.id = c.id
              )
            )
        ) as g;
      when 'session_segments' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.session_id as id, c.number as detail, 1 as n, row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.sessions as p
                where p.tenant_id = c.tenant_id and p.id = c.session_id
              )
            )
        ) as g;
      when 'session_merges' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            c.id, jsonb_build_array(c.session_id, c.secondary_id) as detail, 1 as n,
            row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.sessions as p
                where p.tenant_id = c.tenant_id and p.id = c.session_id
              )
            )
        ) as g;
      when 'memories' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.id, tg_table_name as detail, 1 as n, row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (select from haive.tenants as p where p.tenant_id = c.tenant_id)
            )
        ) as g;
      when 'members' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.user_id as id, c.role as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'threads' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.thread_key as id, null as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'branches' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.branch_id as id, c.thread_key as detail, 1 as n, row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.threads as p
                where p.tenant_id = c.tenant_id and p.thread_key = c.thread_key
              )
            )
        ) as g;
      when 'checkpoints' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.id, c.thread_key as detail, 1 as n, row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.branches as p
                where p.tenant_id = c.tenant_id and p.branch_id = c.branch_id
              )
            )
        ) as g;
      when 'checkpoint_writes' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            c.checkpoint_id as id, c.thread_key as detail, count(*) as n,
            row_number() over () as place
          from changed as c
          where
            c.tenant_id = v_tenant
            and (
              tg_op <> 'DELETE'
              or exists (
                select from haive.threads as p
                where p.tenant_id = c.tenant_id and p.thread_key = c.thread_key
              )
            )
          group by c.thread_key, c.checkpoint_id
        ) as g;
      when 'checkpoint_schemas' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            encode(c.hash, 'hex') as id, c.key_id as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'invitations' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.id, c.role as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'erasures' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select
            encode(c.subject_hash, 'hex') as id, c.counts as detail, 1 as n,
            row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
      when 'tenant_keys' then
        select
          jsonb_object_agg(g.id, g.detail) filter (where g.place <= 1000) as ids,
          count(*) as places, sum(g.n) as n
        into v_rows
        from (
          select c.key_id as id, c.status as detail, 1 as n, row_number() over () as place
          from changed as c
          where c.tenant_id = v_tenant
        ) as g;
    end case;
    insert into haive_private.audit_queue (tenant_id, action, object, rows, row_count)
    select
      v_tenant, lower(tg_op), v_object,
      v_rows.ids || case
        when v_rows.places > 1000 then jsonb_build_object('more', v_rows.places - 1000) else '{}'
      end,
      v_rows.n
    where v_rows.n > 0;
  end loop;
  perform set_config('persistence.tenant', coalesce(v_entered, ''), true);
  return null;
end;
$$;

alter function haive_private.audit_rows() owner to haive_writer;

comment on function haive_private.audit_rows() is
'Puts what a statement wrote on record: one row for each tenant, with the ids of the rows.';
