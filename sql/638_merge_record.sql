-- Places of messages as they are put on record, and nothing else that may be with them; null where one of
-- them is none.
create or replace function haive_private.message_places(p_places jsonb)
returns jsonb
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  return (
    select
      case
        when p_places is not null and bool_and(num_nulls(d.conversation_id, d.seq) = 0) is not false
          then coalesce(jsonb_agg(to_jsonb(d) order by u.place), '[]')
      end
    from jsonb_array_elements(p_places) with ordinality as u (doc, place)
    cross join lateral jsonb_to_record(u.doc) as d (conversation_id uuid, seq bigint)
  );
end;
$$;

comment on function haive_private.message_places(jsonb) is
'A list of {conversation_id, seq}, or null where one has not both.';

-- A record is never sealed, and lies beside the messages: it has their places, and words that are known
-- here, and of each kind no more than there are messages.
create or replace function haive_private.merge_record(
  p_dropped jsonb,
  p_conflicts jsonb,
  p_summary_of jsonb,
  p_messages bigint, -- of both sides after the common beginning
  out dropped jsonb,
  out conflicts jsonb,
  out summary_of jsonb
)
returns record
language plpgsql
immutable
security invoker
set search_path = ''
as $$
declare
  v_dropped_are_known boolean;
  v_conflicts_are_known boolean;
  v_answers bigint;
begin
  select
    coalesce(
      jsonb_agg(
        jsonb_build_object(
          'conversation_id', d.conversation_id, 'seq', d.seq, 'side', d.side, 'reason', d.reason,
          'because_of', to_jsonb(b), 'similarity', d.similarity
        )
        order by u.place
      ),
      '[]'
    ),
    bool_and((
      num_nulls(d.conversation_id, d.seq, b.conversation_id, b.seq) = 0
      and d.side in ('primary', 'secondary')
      and d.reason in ('same_message', 'near_duplicate', 'conflict')
    ) is true)
  into dropped, v_dropped_are_known
  from jsonb_array_elements(p_dropped) with ordinality as u (doc, place)
  cross join lateral jsonb_to_record(u.doc) as d (
    conversation_id uuid, seq bigint, side text, reason text, because_of jsonb,
    similarity double precision
  )
  cross join lateral jsonb_to_record(coalesce(d.because_of, '{}')) as b (
    conversation_id uuid, seq bigint
  );
  select
    coalesce(
      jsonb_agg(
        jsonb_build_object(
          'primary', d.ours, 'secondary', d.theirs, 'kept', d.kept, 'reason', d.reason,
          'by', left(d.by, 200)
        )
        order by d.place
      ),
      '[]'
    ),
    bool_and((
      num_nulls(d.ours, d.theirs, d.by) = 0
      and d.kept in ('primary', 'secondary', 'both')
      and d.reason in (
        'numbers', 'names', 'negation', 'yes / no', 'different answers', 'model'
      )
    ) is true),
    greatest(sum(jsonb_array_length(d.ours)), sum(jsonb_array_length(d.theirs)))
  into conflicts, v_conflicts_are_known, v_answers
  from (
    select
      u.place, g.kept, g.reason, g.by, haive_private.message_places(g."primary") as ours,
      haive_private.message_places(g.secondary) as theirs
    from jsonb_array_elements(p_conflicts) with ordinality as u (doc, place)
    cross join lateral jsonb_to_record(u.doc) as g (
      "primary" jsonb, secondary jsonb, kept text, reason text, by text
    )
    offset 0 -- their places once
  ) as d;
  summary_of := haive_private.message_places(coalesce(p_summary_of, '[]'));
  if
    not v_dropped_are_known
    or not v_conflicts_are_known
    or summary_of is null
    or greatest(
      jsonb_array_length(dropped), jsonb_array_length(conflicts), v_answers,
      jsonb_array_length(summary_of)
    ) > p_messages
  then
    raise exception using
      errcode = 'PT422',
      message = 'the plan says what is not put on record of a merge',
      hint = 'It has places of messages, known reasons, and no more of them than there are messages.';
  end if;
end;
$$;

comment on function haive_private.merge_record(jsonb, jsonb, jsonb, bigint) is
'What a plan says of what is left out, of conflicts and of a summary, as it is put on record.';
