create table haive.session_merges (
  tenant_id text collate "C" not null,
  id uuid not null,
  session_id uuid not null,
  secondary_id uuid not null,
  segment haive_private.segment_number not null,
  before_segment haive_private.segment_number not null,
  before_count bigint not null,
  secondary_count bigint not null,
  secondary_status haive_private.session_status not null,
  strategy text not null,
  conflict_resolution text not null,
  root_count bigint not null,
  dropped haive_private.json_list not null default '[]',
  conflicts haive_private.json_list not null default '[]',
  summary_seq bigint,
  summary_of haive_private.json_list not null default '[]',
  created_at timestamptz not null default now(),
  undone_at timestamptz,
  constraint session_merges_pkey primary key (tenant_id, id),
  constraint session_merges_session_fkey foreign key (tenant_id, session_id)
  references haive.sessions (tenant_id, id) on delete cascade,
  constraint session_merges_strategy_is_known check (
    strategy in ('append', 'chronological', 'primary_wins', 'secondary_wins', 'intelligent')
  ),
  constraint session_merges_resolution_is_known check (
    conflict_resolution in ('primary_wins', 'secondary_wins', 'latest', 'keep_both')
  )
);

comment on table haive.session_merges is
'Which session was merged into which, what was left out and why: places of messages, no content. '
'What came from where is in the segment that the merge made.';
comment on column haive.session_merges.root_count is
'How many messages the two had in common at their beginning.';
comment on column haive.session_merges.before_segment is
'The segment of the session before, and before_count its messages: what undoing goes back to.';
comment on column haive.session_merges.secondary_status is 'What undoing gives back to the other.';
comment on column haive.session_merges.summary_of is
'The messages that the summary (of summary_seq) was drawn from.';

-- Serves: the merges of a session, and the last one that is not undone.
create index session_merges_session_idx on haive.session_merges (session_id, segment);
-- Serves: where a session was merged into.
create index session_merges_secondary_idx on haive.session_merges (secondary_id);
