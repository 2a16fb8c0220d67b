create table haive.session_segments (
  tenant_id text collate "C" not null,
  session_id uuid not null,
  number haive_private.segment_number not null,
  base_segment haive_private.segment_number not null,
  base_count bigint not null,
  conversation_ids uuid [] not null default '{}',
  first_seqs bigint [] not null default '{}',
  last_seqs bigint [] not null default '{}',
  borrowed bigint not null default 0,
  start_seq bigint not null,
  constraint session_segments_pkey primary key (tenant_id, session_id, number),
  constraint session_segments_session_fkey foreign key (tenant_id, session_id)
  references haive.sessions (tenant_id, id) on delete cascade,
  constraint session_segments_build_on_earlier_ones check (
    number > base_segment and base_count >= 0 and borrowed >= 0 and start_seq >= 0
  ),
  constraint session_segments_lists_are_parallel check (
    cardinality(conversation_ids) = cardinality(first_seqs)
    and cardinality(conversation_ids) = cardinality(last_seqs)
  )
);

comment on table haive.session_segments is
'How the messages of a session follow each other after a merge, or after one was undone: the first '
'base_count messages of an earlier segment of it, then those listed, then its own after start_seq. '
'Segment 0 has no row: it is the beginning of the parent, then all that is its own.';
comment on column haive.session_segments.conversation_ids is
'With first_seqs and last_seqs: ranges of messages, wherever they are.';
comment on column haive.session_segments.borrowed is 'How many messages the ranges have.';
