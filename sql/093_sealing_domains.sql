create domain haive_private.sealed_content as bytea
constraint sealed_content_is_bounded check (octet_length(value) <= 34604032);
comment on domain haive_private.sealed_content is
'Content that the client sealed, at most 33 MiB and 1 KiB: the parts, the metadata and the seal.';

create domain haive_private.key_status as text collate "C"
constraint key_status_is_known check (value in ('next', 'active', 'retired', 'destroyed'));
comment on domain haive_private.key_status is
'next: to be known before it is used; active: seals; retired: opens; destroyed: is no more.';
