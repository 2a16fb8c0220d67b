create table haive_private.audit_heads (
  tenant_id text storage plain collate "C" not null,
  seq bigint not null default 0,
  hash bytea storage plain not null default '',
  constraint audit_heads_pkey primary key (tenant_id)
) with (fillfactor = 50); -- every row of the log rewrites it: leave room to do it in place

comment on table haive_private.audit_heads is
'Where the log of a tenant ends. Its lock, taken at the commit, is what puts the rows in order.';
