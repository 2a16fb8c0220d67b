-- Carries out a plan, all of it or nothing, if the two sessions still are what it was made from. It may
-- only order and leave out: whatever it says, nothing gets in that was in neither of them.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.merge_sessions(
  p_tenant text, p_primary_id uuid, p_secondary_id uuid, p_plan jsonb, p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_entered record := haive_private.enter_session(p_tenant, p_primary_id, 'write', p_acting, false);
  v_tenant text := v_entered.tenant;
  v_plan record;
  v_known haive.session_merges;
  v_primary haive.sessions;
  v_secondary haive.sessions;
  v_counts bigint[];
  v_root bigint;
  v_ids uuid[];
  v_first bigint[];
  v_last bigint[];
  v_borrowed bigint;
  v_start bigint;
  v_segment int;
  v_summary bigint;
  v_record record;
  v_merge haive.session_merges;
begin
  v_entered := haive_private.enter_session(p_tenant, p_secondary_id, 'write', p_acting, false);
  select * into v_plan
  from jsonb_to_record(p_plan) as g (
    id uuid, strategy text, conflict_resolution text, segments int[], counts bigint[],
    entries jsonb, dropped jsonb, conflicts jsonb, summary jsonb, summary_of jsonb
  );
  -- Conversations before sessions, and each in the order of ids: as all who lock several.
  perform from haive.conversations as c
  where c.tenant_id = v_tenant and c.id in (p_primary_id, p_secondary_id)
  order by c.id
  for no key update;
  perform from haive.sessions as s
  where s.tenant_id = v_tenant and s.id in (p_primary_id, p_secondary_id)
  order by s.id
  for no key update;
  select m.* into v_known from haive.session_merges as m
  where m.tenant_id = v_tenant and m.id = v_plan.id;
  if found and v_known.session_id = p_primary_id and v_known.secondary_id = p_secondary_id then
    if v_entered.audit_reads then
      perform haive_private.audit_read(
        'merge_sessions', jsonb_build_object(p_primary_id, null), 1
      );
    end if;
    return haive_private.merge_doc(v_known); -- a retry
  end if;
  select s.* into v_primary from haive.sessions as s
  where s.tenant_id = v_tenant and s.id = p_primary_id;
  select s.* into v_secondary from haive.sessions as s
  where s.tenant_id = v_tenant and s.id = p_secondary_id;
  perform haive_private.refuse_closed_session(v_primary);
  v_counts := array(
    select s.index_offset + c.message_count
    from haive.sessions as s
    join haive.conversations as c on c.tenant_id = s.tenant_id and c.id = s.id
    where s.tenant_id = v_tenant and s.id in (p_primary_id, p_secondary_id)
    order by s.id <> p_primary_id
  );
  if
    p_primary_id = p_secondary_id
    or v_plan.counts is distinct from v_counts
    or v_plan.segments is distinct from array[v_primary.segment::int, v_secondary.segment::int]
  then
    raise exception using
      errcode = 'PT409',
      message = 'the sessions are not what the merge was planned for',
      hint = 'Somebody wrote to one of them: read them again, and plan anew.';
  end if;

  v_root := haive_private.common_root(
    v_tenant, p_primary_id, v_primary.segment, v_counts[1],
    p_secondary_id, v_secondary.segment, v_counts[2]
  );
  select
    array_agg(e.conversation_id order by e.place), array_agg(e.first_seq order by e.place),
    array_agg(e.last_seq order by e.place), coalesce(sum(e.last_seq - e.first_seq + 1), 0)
  into v_ids, v_first, v_last, v_borrowed
  from (
    select d.*, u.place
    from jsonb_array_elements(v_plan.entries) with ordinality as u (doc, place)
    cross join lateral jsonb_to_record(u.doc) as d (
      conversation_id uuid, first_seq bigint, last_seq bigint
    )
  ) as e;
  if
    v_borrowed > v_counts[1] + v_counts[2] - 2 * v_root
    or v_borrowed > 20000
    or exists (
      select from unnest(v_first, v_last) as u (first_seq, last_seq)
      where (u.first_seq between 1 and u.last_seq) is not true
    )
    or exists (
      with planned as (
        select u.id, g.seq
        from unnest(v_ids, v_first, v_last) as u (id, first_seq, last_seq)
        cross join lateral generate_series(u.first_seq, u.last_seq) as g (seq)
      ),
      given as (
        select l.conversation_id as id, g.seq
        from unnest(
          array[p_primary_id, p_secondary_id],
          array[v_primary.segment::int, v_secondary.segment::int],
          v_counts
        ) as s (id, segment, n)
        cross join lateral haive_private.session_line(v_tenant, s.id, s.segment, v_root + 1, s.n)
          as l
        cross join lateral generate_series(
          l.first_seq, l.first_seq + l.last_index - l.first_index
        ) as g (seq)
        where v_root < s.n
      )
      select from (
        select p.id, p.seq from planned as p except all select distinct g.id, g.seq from given as g
      ) as strange
    )
  then
    raise exception using
      errcode = 'PT422',
      message = 'the plan has a message twice, or one that is in neither session',
      hint = 'Plan a merge from what read_merge answers.';
  end if;
  v_record := haive_private.merge_record(
    v_plan.dropped, v_plan.conflicts, v_plan.summary_of, v_counts[1] + v_counts[2] - 2 * v_root
  );

  select c.message_count into v_start from haive.conversations as c
  where c.tenant_id = v_tenant and c.id = p_primary_id;
  v_segment := v_primary.segment + 1;
  insert into haive.session_segments (
    tenant_id, session_id, number, base_segment, base_count, conversation_ids, first_seqs,
    last_seqs, borrowed, start_seq
  )
  values (
    v_tenant, p_primary_id, v_segment, v_primary.segment, v_root, coalesce(v_ids, '{}'),
    coalesce(v_first, '{}'), coalesce(v_last, '{}'), v_borrowed, v_start
  );
  if v_plan.summary is not null then
    -- It is a part of the merge, which may make a session longer than any message may.
    update haive.sessions as s
    set max_messages = null
    where s.tenant_id = v_tenant and s.id = p_primary_id and s.max_messages is not null;
    perform haive.add_session_messages(
      p_primary_id, jsonb_build_array(v_plan.summary), p_acting, v_tenant
    );
    v_summary := v_start + 1;
  end if;
  update haive.sessions as s
  set
    segment = v_segment, index_offset = v_root + v_borrowed - v_start, active_at = now(),
    max_messages = v_primary.max_messages
  where s.tenant_id = v_tenant and s.id = p_primary_id;
  update haive.sessions as s
  set status = 'merged', closed_at = coalesce(s.closed_at, now())
  where s.tenant_id = v_tenant and s.id = p_secondary_id and s.status <> 'continued';
  insert into haive.session_merges (
    tenant_id, id, session_id, secondary_id, segment, before_segment, before_count,
    secondary_count, secondary_status, strategy, conflict_resolution, root_count, dropped,
    conflicts, summary_seq, summary_of
  )
  values (
    v_tenant, coalesce(v_plan.id, gen_random_uuid()), p_primary_id, p_secondary_id, v_segment,
    v_primary.segment, v_counts[1], v_counts[2], haive_private.session_status_now(v_secondary),
    v_plan.strategy, v_plan.conflict_resolution, v_root, v_record.dropped, v_record.conflicts,
    v_summary, v_record.summary_of
  )
  returning * into v_merge;
  insert into haive.events (tenant_id, kind, conversation_id)
  values
    (v_tenant, 'session.merged', p_primary_id), (v_tenant, 'session.updated', p_secondary_id);
  return haive_private.merge_doc(v_merge);
end;
$$;

alter function haive_private.merge_sessions(text, uuid, uuid, jsonb, text) owner to haive_writer;

comment on function haive_private.merge_sessions(text, uuid, uuid, jsonb, text) is
'What haive.merge_sessions does, for a caller without rights on the tables.';

create or replace function haive.merge_sessions(
  primary_id uuid,
  secondary_id uuid,
  plan jsonb,
  acting_user text default null,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.merge_sessions(
    merge_sessions.tenant, merge_sessions.primary_id, merge_sessions.secondary_id,
    merge_sessions.plan, merge_sessions.acting_user
  )
$$;

comment on function haive.merge_sessions(uuid, uuid, jsonb, text, text) is
'Merges a session into another by a plan made from read_merge: {id, strategy, conflict_resolution, '
'segments, counts, entries: [{conversation_id, first_seq, last_seq}], dropped, conflicts, summary, '
'summary_of}. Refused with 409 where one of them has changed since.';
