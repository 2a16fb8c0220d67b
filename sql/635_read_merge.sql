-- What a merge is planned from, and which states of the two sessions the plan is for.
-- Definer, as session_messages is.
create or replace function haive_private.read_merge(
  p_tenant text, p_primary_id uuid, p_secondary_id uuid, p_acting text
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_one record := haive_private.enter_session(p_tenant, p_primary_id, 'write', p_acting, false);
  v_two record := haive_private.enter_session(p_tenant, p_secondary_id, 'write', p_acting, false);
  v_primary haive.sessions := v_one.session;
  v_secondary haive.sessions := v_two.session;
  v_counts bigint[] := array[
    v_primary.index_offset + (v_one.conversation).message_count,
    v_secondary.index_offset + (v_two.conversation).message_count
  ];
  v_root bigint;
  v_answer json;
begin
  if p_primary_id = p_secondary_id then
    raise exception using
      errcode = 'PT422',
      message = 'a session is not merged with itself',
      hint = 'Name two sessions.';
  end if;
  v_root := haive_private.common_root(
    v_one.tenant, p_primary_id, v_primary.segment, v_counts[1],
    p_secondary_id, v_secondary.segment, v_counts[2]
  );
  if greatest(v_counts[1], v_counts[2]) - v_root > 10000 then
    raise exception using
      errcode = 'PT413',
      message = 'a session has more than 10000 messages after the common beginning',
      hint = 'Branch nearer to the end, and merge that.';
  end if;
  if v_one.audit_reads then
    perform haive_private.audit_read(
      'read_merge',
      jsonb_build_object(
        p_primary_id, jsonb_build_array(v_root + 1, v_counts[1]),
        p_secondary_id, jsonb_build_array(v_root + 1, v_counts[2])
      ),
      v_counts[1] + v_counts[2] - 2 * v_root
    );
  end if;
  return json_build_object(
    'root_count', v_root,
    'segments', json_build_array(v_primary.segment, v_secondary.segment),
    'counts', v_counts,
    'primary', haive_private.line_messages(
      v_one.tenant, p_primary_id, v_primary.segment, v_root + 1, v_counts[1]
    ),
    'secondary', haive_private.line_messages(
      v_one.tenant, p_secondary_id, v_secondary.segment, v_root + 1, v_counts[2]
    )
  );
end;
$$;

alter function haive_private.read_merge(text, uuid, uuid, text) owner to haive_writer;

comment on function haive_private.read_merge(text, uuid, uuid, text) is
'What haive.read_merge does, for a caller without rights on what a branch begins with.';

create or replace function haive.read_merge(
  primary_id uuid, secondary_id uuid, acting_user text default null, tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.read_merge(
    read_merge.tenant, read_merge.primary_id, read_merge.secondary_id, read_merge.acting_user
  )
$$;

comment on function haive.read_merge(uuid, uuid, text, text) is
'What two sessions have after their common beginning, to plan a merge from: {root_count, segments, '
'counts, primary, secondary}; the last two are messages in order.';
