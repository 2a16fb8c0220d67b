create domain haive_private.tenant_status as text collate "C"
constraint tenant_status_is_known check (value in ('active', 'suspended', 'moving', 'deleted'));
comment on domain haive_private.tenant_status is
'active; suspended: closed to all; moving: read only, for a while; deleted: closed until purged.';

create domain haive_private.tenant_isolation as text collate "C"
constraint tenant_isolation_is_known check (value in ('row', 'schema', 'database'));
comment on domain haive_private.tenant_isolation is
'What is a tenant''s own: its rows, a schema, or a database.';

create domain haive_private.audit_mode as text collate "C"
constraint audit_mode_is_known check (value in ('off', 'writes', 'all'));
comment on domain haive_private.audit_mode is 'What is put on record: nothing, writes, or reads too.';

create domain haive_private.tenant_limit as bigint
constraint tenant_limit_is_positive check (value >= 0);
comment on domain haive_private.tenant_limit is 'A limit of a tenant; null: none.';
