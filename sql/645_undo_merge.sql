-- Undone, a session has what it had before, and what was written to it since, without the summaries.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.undo_merge(
  p_tenant text, p_session_id uuid, p_merge_id uuid, p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered record := haive_private.enter_session(p_tenant, p_session_id, 'write', p_acting, true);
  v_tenant text := v_entered.tenant;
  v_session haive.sessions := v_entered.session;
  v_merge haive.session_merges;
  v_start bigint;
  v_gone bigint[];
  v_first bigint[];
  v_last bigint[];
  v_borrowed bigint;
begin
  select m.* into v_merge from haive.session_merges as m
  where m.tenant_id = v_tenant and m.id = p_merge_id and m.session_id = p_session_id;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('no merge %s', p_merge_id),
      hint = 'list_merges has those of a session.';
  elsif v_merge.undone_at is not null then
    if v_entered.audit_reads then
      perform haive_private.audit_read('undo_merge', jsonb_build_object(p_session_id, null), 1);
    end if;
    return haive_private.merge_doc(v_merge);
  end if;
  perform haive_private.refuse_closed_session(v_session);
  if exists (
    select from haive.session_merges as m
    where
      m.tenant_id = v_tenant and m.session_id = p_session_id and m.segment > v_merge.segment
      and m.undone_at is null
  ) then
    raise exception using
      errcode = 'PT409',
      message = 'another merge came after this one',
      hint = 'Undo the later one first.';
  end if;

  select g.start_seq into v_start from haive.session_segments as g
  where
    g.tenant_id = v_tenant and g.session_id = p_session_id and g.number = v_merge.segment;
  v_gone := array(
    select m.summary_seq from haive.session_merges as m
    where
      m.tenant_id = v_tenant and m.session_id = p_session_id and m.segment >= v_merge.segment
      and m.summary_seq is not null
    order by m.summary_seq
  );
  -- What lies between the summaries is listed; what comes after the last one is its own.
  select
    coalesce(array_agg(r.first_seq order by r.first_seq), '{}'),
    coalesce(array_agg(r.last_seq order by r.first_seq), '{}'),
    coalesce(sum(r.last_seq - r.first_seq + 1), 0)
  into v_first, v_last, v_borrowed
  from (
    select
      lag(u.seq, 1, v_start) over (order by u.seq) + 1 as first_seq, u.seq - 1 as last_seq
    from unnest(v_gone) as u (seq)
  ) as r
  where r.first_seq <= r.last_seq;
  v_start := greatest(v_start, v_gone[cardinality(v_gone)]);
  insert into haive.session_segments (
    tenant_id, session_id, number, base_segment, base_count, conversation_ids, first_seqs,
    last_seqs, borrowed, start_seq
  )
  values (
    v_tenant, p_session_id, v_session.segment + 1, v_merge.before_segment, v_merge.before_count,
    array_fill(p_session_id, array[cardinality(v_first)]), v_first, v_last, v_borrowed, v_start
  );
  update haive.sessions as s
  set
    segment = v_session.segment + 1,
    index_offset = v_merge.before_count + v_borrowed - v_start,
    active_at = now()
  where s.tenant_id = v_tenant and s.id = p_session_id;
  -- No deadlock with a merge the other way round: that one would find this session closed.
  perform from haive.sessions as s
  where s.tenant_id = v_tenant and s.id = v_merge.secondary_id and s.status = 'merged'
  for no key update;
  -- Merged into several, it stays merged until all of that is undone: the next one has to give back
  -- what this one would.
  update haive.session_merges as m
  set secondary_status = v_merge.secondary_status
  where
    m.tenant_id = v_tenant and m.secondary_status = 'merged'
    and m.id = (
      select o.id from haive.session_merges as o
      where
        o.tenant_id = v_tenant and o.secondary_id = v_merge.secondary_id
        and o.id <> p_merge_id and o.undone_at is null and o.secondary_status = 'merged'
      order by o.created_at, o.id
      limit 1
    );
  update haive.sessions as s
  set
    status = v_merge.secondary_status,
    closed_at = case when v_merge.secondary_status <> 'open' then s.closed_at end,
    active_at = case when v_merge.secondary_status = 'open' then now() else s.active_at end
  where
    s.tenant_id = v_tenant and s.id = v_merge.secondary_id and s.status = 'merged'
    and not exists (
      select from haive.session_merges as o
      where
        o.tenant_id = v_tenant and o.secondary_id = v_merge.secondary_id
        and o.id <> p_merge_id and o.undone_at is null
    );
  update haive.session_merges as m
  set undone_at = now()
  where m.tenant_id = v_tenant and m.id = p_merge_id
  returning m.* into v_merge;
  insert into haive.events (tenant_id, kind, conversation_id)
  values
    (v_tenant, 'session.unmerged', p_session_id),
    (v_tenant, 'session.updated', v_merge.secondary_id);
  return haive_private.merge_doc(v_merge);
end;
$$;

alter function haive_private.undo_merge(text, uuid, uuid, text) owner to haive_writer;

comment on function haive_private.undo_merge(text, uuid, uuid, text) is
'What haive.undo_merge does, for a caller without rights on the tables.';

create or replace function haive.undo_merge(
  session_id uuid, merge_id uuid, acting_user text default null, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.undo_merge(
    undo_merge.tenant, undo_merge.session_id, undo_merge.merge_id, undo_merge.acting_user
  )
$$;

comment on function haive.undo_merge(uuid, uuid, text, text) is
'Undoes the last merge of a session that is not undone yet: it has what it had before, and what was '
'written to it since; the other one is again what it was. Repeated, it changes nothing.';

create or replace function haive_private.list_merges(
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
begin
  if v_entered.audit_reads then
    perform haive_private.audit_read('list_merges', jsonb_build_object(p_session_id, null), 1);
  end if;
  return (
    select coalesce(json_agg(haive_private.merge_doc(m) order by m.segment), '[]')
    from haive.session_merges as m
    where m.tenant_id = v_entered.tenant and m.session_id = p_session_id
  );
end;
$$;

alter function haive_private.list_merges(text, uuid, text) owner to haive_writer;

comment on function haive_private.list_merges(text, uuid, text) is
'What haive.list_merges does, for a caller without rights on the tables.';

create or replace function haive.list_merges(
  session_id uuid, acting_user text default null, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.list_merges(
    list_merges.tenant, list_merges.session_id, list_merges.acting_user
  )
$$;

comment on function haive.list_merges(uuid, text, text) is
'The merges into a session, in order: what came from where, what was left out and why.';
