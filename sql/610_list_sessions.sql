-- Definer, as get_session is.
create or replace function haive_private.list_sessions(
  p_tenant text,
  p_user_id text,
  p_agent_id text,
  p_statuses text[],
  p_parent_id uuid,
  p_page_size int,
  p_page_after text,
  p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, false);
  v_actor text := v_caller.actor;
  v_answer json;
  v_ids uuid[];
begin
  if p_acting is not null then
    if v_caller.trusted then
      v_actor := p_acting;
    elsif p_acting <> haive.current_actor() then
      raise exception using
        errcode = 'PT403',
        message = 'only services act for others',
        hint = 'Leave out acting_user: the token says who calls.';
    end if;
  end if;
  if (p_page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on with page_after, the next_page of a page.';
  end if;
  -- By id, which is the order in which they began.
  with page as (
    select s, c
    from haive.sessions as s
    join haive.conversations as c on c.tenant_id = s.tenant_id and c.id = s.id
    where
      s.tenant_id = v_caller.tenant
      and (p_user_id is null or c.user_id = p_user_id or p_user_id = any(c.participants))
      and (p_agent_id is null or c.agent_id = p_agent_id)
      and (p_parent_id is null or s.parent_id = p_parent_id)
      and (p_statuses is null or haive_private.session_status_now(s) = any(p_statuses))
      and (p_page_after is null or s.id < p_page_after::uuid)
      and (
        v_actor is null or c.user_id = v_actor or v_actor = any(c.participants)
      )
    order by s.id desc
    limit p_page_size
  )
  select
    json_build_object(
      'sessions', coalesce(
        json_agg(haive_private.session_doc(p.s, p.c) order by (p.s).id desc), '[]'
      ),
      'next_page', case
        when count(*) = p_page_size then (array_agg((p.s).id order by (p.s).id))[1]
      end
    ),
    array_agg((p.s).id)
  into v_answer, v_ids
  from page as p;
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'list_sessions',
      (select jsonb_object_agg(u.id, null) from unnest(v_ids) as u (id)),
      coalesce(cardinality(v_ids), 0)
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.list_sessions(text, text, text, text[], uuid, int, text, text)
owner to haive_writer;

comment on function haive_private.list_sessions(text, text, text, text[], uuid, int, text, text) is
'What haive.list_sessions does, for a caller without rights on what a branch inherits.';

create or replace function haive.list_sessions(
  user_id text default null,
  agent_id text default null,
  statuses text[] default null,
  parent_id uuid default null,
  page_size int default 100,
  page_after text default null,
  acting_user text default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.list_sessions(
    list_sessions.tenant, list_sessions.user_id, list_sessions.agent_id, list_sessions.statuses,
    list_sessions.parent_id, list_sessions.page_size, list_sessions.page_after,
    list_sessions.acting_user
  )
$$;

comment on function haive.list_sessions(text, text, text[], uuid, int, text, text, text) is
'Sessions, the latest first: of a user (theirs, or where they take part), an agent, in some statuses, '
'branches of one: {sessions, next_page}.';
