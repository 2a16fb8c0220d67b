create domain haive_private.namespace as text collate "C"
constraint namespace_is_bounded check (octet_length(value) <= 1000);
comment on domain haive_private.namespace is
'Which part of a thread: empty for its main graph, else the path of a subgraph; at most 1,000 bytes.';

create domain haive_private.codec as smallint
constraint codec_is_known check (value between 0 and 3);
comment on domain haive_private.codec is
'How a payload is packed: 0 as it is, 1 by zstd, 2 as a delta against the state of the parent, 3 as one '
'against that of base_id.';

create domain haive_private.payload as bytea
constraint payload_is_bounded check (octet_length(value) <= 67108864);
comment on domain haive_private.payload is 'At most 64 MiB; what is in it only the SDK knows.';

create domain haive_private.key_id as text collate "C"
constraint key_id_is_hexadecimal check (value ~ '^[0-9a-f]{8}$');
comment on domain haive_private.key_id is 'Names the key that something was sealed with.';

create domain haive_private.state_size as int
constraint state_size_is_bounded check (value between 0 and 67108864);
comment on domain haive_private.state_size is 'Bytes of a state before it is packed: at most 64 MiB.';

create domain haive_private.chain_depth as smallint
constraint chain_depth_is_positive check (value >= 0);
comment on domain haive_private.chain_depth is 'How many deltas lie between a state and a whole one, at most.';

create domain haive_private.write_place as int
constraint write_place_is_known check (value >= -1000);
comment on domain haive_private.write_place is
'A place among the writes of a task; below zero for errors, interrupts and the like.';
