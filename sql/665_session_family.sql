-- Definer, as get_session is. offset 0: as in session_doc.
create or replace function haive_private.session_family(
  p_tenant text, p_session_id uuid, p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered record := haive_private.enter_session(p_tenant, p_session_id, 'read', p_acting, false);
  v_answer json;
  v_ids uuid[];
begin
  with recursive up as (
    select (v_entered.session).id as id, (v_entered.session).parent_id as parent_id
    union
    select s.id, s.parent_id
    from up as u
    cross join lateral (
      select s.id, s.parent_id from haive.sessions as s
      where s.tenant_id = v_entered.tenant and s.id = u.parent_id
      offset 0
    ) as s
  ),
  down as (
    select u.id from up as u
    union -- each once, which also ends a circle of parents
    select s.id
    from down as d
    cross join lateral (
      select s.id from haive.sessions as s
      where s.tenant_id = v_entered.tenant and s.parent_id = d.id
      offset 0
    ) as s
  )
  select
    coalesce(json_agg(haive_private.session_doc(f.s, f.c, v_entered.actor) order by (f.s).id), '[]'),
    array_agg((f.s).id)
  into v_answer, v_ids
  from (
    select p.s, p.c
    from down as d
    cross join lateral (
      select s, c
      from haive.sessions as s
      join haive.conversations as c on c.tenant_id = s.tenant_id and c.id = s.id
      where s.tenant_id = v_entered.tenant and s.id = d.id
      offset 0
    ) as p
    where
      v_entered.actor is null or (p.c).user_id = v_entered.actor
      or v_entered.actor = any((p.c).participants)
    order by d.id
    limit 10000
  ) as f;
  if v_entered.audit_reads then
    perform haive_private.audit_read(
      'session_family',
      (select jsonb_object_agg(u.id, null) from unnest(v_ids) as u (id)),
      cardinality(v_ids)
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.session_family(text, uuid, text) owner to haive_writer;

comment on function haive_private.session_family(text, uuid, text) is
'What haive.session_family does, for a caller without rights on the tables.';

create or replace function haive.session_family(
  session_id uuid, acting_user text default null, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.session_family(
    session_family.tenant, session_family.session_id, session_family.acting_user
  )
$$;

comment on function haive.session_family(uuid, text, text) is
'A session with all that it branched off and all that branched off those, as far as the caller sees '
'them; at most 10,000, in the order in which they began.';
