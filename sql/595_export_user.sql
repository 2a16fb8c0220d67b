-- What has no function of its own to be read by: conversations and threads have theirs.
-- Definer: some of the tables are closed to callers. Users read what is about themselves.
create or replace function haive_private.export_user(
  p_tenant text, p_user_id text, p_kind text, p_page_size int, p_page_after text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, false);
  v_answer json;
begin
  if v_caller.actor <> p_user_id then
    raise exception using
      errcode = 'PT403',
      message = 'only administrators export what is about others',
      hint = 'Name yourself, or ask an administrator of the tenant.';
  end if;
  if (p_page_size between 1 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 10000',
      hint = 'Read on with page_after, the next of a page.';
  end if;
  if p_kind = 'memberships' then
    select json_build_object('rows', coalesce(json_agg(m), '[]'), 'next', null) into v_answer
    from (
      select o.tenant_id, o.user_id::text, o.role, o.created_at
      from haive.members as o
      where o.tenant_id = v_caller.tenant and o.user_id = p_user_id
    ) as m;
  elsif p_kind = 'invitations' then
    select
      json_build_object(
        'rows', coalesce(json_agg(haive_private.invitation_doc(i.*) order by i.id), '[]'),
        'next', case when count(*) = p_page_size then max(i.id::text) end
      )
    into v_answer
    from (
      select o.* from haive.invitations as o
      where
        o.tenant_id = v_caller.tenant
        and p_user_id in (o.accepted_by, o.created_by, o.label)
        and (p_page_after is null or o.id > p_page_after::uuid)
      order by o.id
      limit p_page_size
    ) as i;
  elsif p_kind = 'participations' then
    select
      json_build_object(
        'rows', coalesce(json_agg(c order by c.id), '[]'),
        'next', case when count(*) = p_page_size then max(c.id::text) end
      )
    into v_answer
    from (
      select o.id, o.agent_id::text, o.title::text, o.created_at::timestamptz, o.last_message_at
      from haive.conversations as o
      where
        o.tenant_id = v_caller.tenant and o.participants::text[] @> array[p_user_id]
        and o.user_id is distinct from p_user_id
        and (p_page_after is null or o.id > p_page_after::uuid)
      order by o.id
      limit p_page_size
    ) as c;
  elsif p_kind = 'authorships' then
    -- By their places: the content is another's conversation, and sealed where the tenant's content is.
    select
      json_build_object(
        'rows', coalesce(json_agg(m order by m.id), '[]'),
        'next', case when count(*) = p_page_size then max(m.id::text) end
      )
    into v_answer
    from (
      select o.id, o.conversation_id, o.seq, o.created_at::timestamptz
      from haive.messages as o
      where
        o.author = p_user_id and o.tenant_id = v_caller.tenant
        and (p_page_after is null or o.id > p_page_after::uuid)
        and not exists (
          select from haive.conversations as c
          where
            c.tenant_id = o.tenant_id and c.id = o.conversation_id and c.user_id = p_user_id
        )
      order by o.id
      limit p_page_size
    ) as m;
  elsif p_kind = 'memories' then
    v_answer := haive_private.memories_of_user(
      v_caller.tenant, p_user_id, p_page_size, p_page_after
    );
  elsif p_kind = 'events' then
    select
      json_build_object(
        'rows', coalesce(json_agg(e order by e.xid, e.id), '[]'),
        'next', case
          when count(*) = p_page_size then (
            array_agg(format('%s/%s', e.xid, e.id) order by e.xid, e.id)
          )[p_page_size]
        end
      )
    into v_answer
    from (
      select
        o.xid, o.id, o.kind::text, o.conversation_id, o.first_seq, o.last_seq, o.thread_key,
        o.checkpoint_id, o.created_at
      from haive.events as o
      where
        o.tenant_id = v_caller.tenant
        and (
          p_page_after is null
          or (o.xid, o.id) > (
            split_part(p_page_after, '/', 1)::xid8, split_part(p_page_after, '/', 2)::bigint
          )
        )
        and (
          o.conversation_id in (
            select c.id from haive.conversations as c
            where c.tenant_id = v_caller.tenant and c.user_id = p_user_id
          )
          or o.thread_key in (
            select t.thread_key from haive.threads as t
            where t.tenant_id = v_caller.tenant and t.user_id = p_user_id
          )
        )
      order by o.xid, o.id
      limit p_page_size
    ) as e;
  elsif p_kind = 'audit' then
    -- What they did and, for administrators, what was done to their membership: that names others.
    select
      json_build_object(
        'rows', coalesce(json_agg(a order by a.seq), '[]'),
        'next', case when count(*) = p_page_size then max(a.seq)::text end
      )
    into v_answer
    from (
      select
        o.seq, o.at, o.actor, o.login, o.role, o.action, o.object, o.rows, o.row_count,
        o.address, o.application, o.request_id
      from haive.audit_log as o
      where
        o.tenant_id = v_caller.tenant
        and (
          o.actor = p_user_id
          or (v_caller.actor is null and o.object = 'members' and o.rows ? p_user_id)
        )
        and o.seq > coalesce(p_page_after, '0')::bigint
      order by o.seq
      limit p_page_size
    ) as a;
  else
    raise exception using
      errcode = 'PT422',
      message = 'the kind is unknown',
      hint = 'Kinds are memberships, invitations, participations, authorships, memories, events and '
        'audit.';
  end if;
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'export_user', jsonb_build_object(p_user_id, p_kind), json_array_length(v_answer -> 'rows')
    );
  end if;
  return v_answer;
end;
$$;

alter function haive_private.export_user(text, text, text, int, text) owner to haive_writer;

comment on function haive_private.export_user(text, text, text, int, text) is
'What haive.export_user does, for a caller without rights on the tables.';

create or replace function haive.export_user(
  user_id text,
  kind text,
  page_size int default 1000,
  page_after text default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.export_user(
    export_user.tenant, export_user.user_id, export_user.kind, export_user.page_size,
    export_user.page_after
  )
$$;

comment on function haive.export_user(text, text, int, text, text) is
'A page of what is held about a user: memberships, invitations, participations (conversations of '
'others that name them), authorships (messages there), memories, events or audit. Returns {rows, '
'next}; read on with page_after, the next of the page before. For administrators, and for the users themselves.';
