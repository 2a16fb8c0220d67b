-- Definer, as get_session is.
create or replace function haive_private.list_sessions(
  p_tenant text,
  p_user_id text,
  p_participant text,
  p_agent_id text,
  p_statuses text[],
  p_parent_id uuid,
  p_page_size int,
  p_page_after text,
  p_acting text,
  p_threads boolean
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, false);
  v_actor text := haive_private.act_for(v_caller.trusted, v_caller.actor, p_acting);
  v_owner text := coalesce(p_user_id, p_acting, haive.current_actor());
  v_pairs haive_private.session_pair[];
begin
  if (p_page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on with page_after, the next_page of a page.';
  elsif not pg_input_is_valid(p_page_after, 'uuid') then
    raise exception using
      errcode = 'PT422',
      message = 'page_after is no cursor',
      hint = 'Pass next_page of the page before.';
  elsif p_threads and p_page_after is not null then
    raise exception using
      errcode = 'PT422',
      message = 'page_after is not taken with threads',
      hint = 'They are not in the order of their ids: ask for as many as there may be.';
  end if;
  -- By id, which is the order in which they began; for threading, those of one owner by when somebody
  -- wrote to them last: branches are somebody's excursions, and a room that nobody owns is of those who
  -- take part. Put together from fixed fragments, so that the planner sees only what is asked: the
  -- sessions of an owner are found by the owner.
  -- Somebody may have any number of open ones: a hundred are looked at, by the hours of their last
  -- messages, which have an index. One that was opened again since then is the latest among these.
  execute format(
    $q$
    select array(
      select row(f.s, f.c)::haive_private.session_pair
      from (
        select s, c
        from haive.sessions as s
        join haive.conversations as c on c.tenant_id = s.tenant_id and c.id = s.id
        where s.tenant_id = $1 and c.tenant_id = $1 %s
        order by %s
        limit %s
      ) as f
      order by %s (f.s).id desc
      limit $2
    )
    $q$,
    concat(
      case when p_user_id is not null then 'and c.user_id = $3 ' end,
      case when p_participant is not null then 'and $4 = any(c.participants) ' end,
      case when p_agent_id is not null then 'and c.agent_id = $5 ' end,
      case when p_parent_id is not null then 'and s.parent_id = $6 ' end,
      case
        when p_statuses is null then ''
        when p_threads then 'and ''open'' = any($7) '
        else 'and haive_private.session_status_now(s) = any($7) '
      end,
      case when p_page_after is not null then 'and s.id < $8 ' end,
      case when v_actor is not null then 'and (c.user_id = $9 or $9 = any(c.participants)) ' end,
      -- As session_status_now has it; the status as it is stored has an index.
      case
        when p_threads
          then
            'and s.parent_id is null and s.status = ''open'' '
            'and (s.ttl is null or s.active_at + s.ttl * interval ''1 second'' > now()) '
      end,
      case
        when p_threads and v_owner is null then 'and c.user_id is null and c.participants = ''{}'' '
        when p_threads then 'and c.user_id = $10 '
      end
    ),
    -- The owner as well, or of nobody's the index is not seen to be in this order.
    case when p_threads then 'c.user_id desc, c.active_hour desc, s.active_at desc' else 's.id desc' end,
    case when p_threads then 'greatest($2, 100)' else '$2' end,
    case when p_threads then '(f.s).active_at desc,' end
  )
  into v_pairs
  using
    v_caller.tenant, p_page_size, p_user_id, p_participant, p_agent_id, p_parent_id, p_statuses,
    p_page_after::uuid, v_actor, v_owner;
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'list_sessions',
      (select jsonb_object_agg((p.session).id, null) from unnest(v_pairs) as p),
      cardinality(v_pairs)
    );
  end if;
  return json_build_object(
    'sessions', (
      select coalesce(
        json_agg(haive_private.session_doc(p.session, p.conversation, v_actor) order by p.place),
        '[]'
      )
      from unnest(v_pairs) with ordinality as p (session, conversation, place)
    ),
    'next_page', case
      when p_threads is not true and cardinality(v_pairs) = p_page_size
        then ((v_pairs[p_page_size]).session).id
    end
  );
end;
$$;

alter function haive_private.list_sessions(
  text, text, text, text, text[], uuid, int, text, text, boolean
) owner to haive_writer;

comment on function haive_private.list_sessions(
  text, text, text, text, text[], uuid, int, text, text, boolean
) is
'What haive.list_sessions does, for a caller without rights on what a branch inherits.';

create or replace function haive.list_sessions(
  user_id text default null,
  participant text default null,
  agent_id text default null,
  statuses text[] default null,
  parent_id uuid default null,
  page_size int default 100,
  page_after text default null,
  acting_user text default null,
  threads boolean default false,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.list_sessions(
    list_sessions.tenant, list_sessions.user_id, list_sessions.participant,
    list_sessions.agent_id, list_sessions.statuses, list_sessions.parent_id,
    list_sessions.page_size, list_sessions.page_after, list_sessions.acting_user,
    list_sessions.threads
  )
$$;

comment on function haive.list_sessions(
  text, text, text, text[], uuid, int, text, text, boolean, text
) is
'Sessions, the latest first: of an owner, a participant, an agent, in some statuses, branches of one; '
'threads: those that a message may go on in now, by when somebody wrote to them last, without pages; with '
'no owner named, of the user who calls, or of nobody where a service does: {sessions, next_page}.';
