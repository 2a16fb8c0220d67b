create domain haive_private.session_status as text collate "C"
constraint session_status_is_known check (
  value in ('open', 'closed', 'expired', 'merged', 'continued')
);
comment on domain haive_private.session_status is
'open; closed by somebody; expired; merged into another; continued in its successor.';

create domain haive_private.json_list as jsonb
constraint json_list_is_bounded check (
  jsonb_typeof(value) = 'array' and pg_column_size(value) <= 8388608
)
constraint json_list_is_of_objects check (
  not jsonb_path_exists(value, 'strict $[*] ? (@.type() <> "object")')
);
comment on domain haive_private.json_list is 'A JSON array of objects, of at most 8 MiB.';

create domain haive_private.segment_number as int
constraint segment_number_is_counted check (value >= 0);
comment on domain haive_private.segment_number is
'Counts what happens to a session as a whole: its merges, and who was removed from it.';

create domain haive_private.positive as int
constraint positive_is_above_zero check (value > 0);
comment on domain haive_private.positive is 'A whole number above zero.';
