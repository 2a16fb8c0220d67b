-- Stable: all that it counts is of one snapshot, its caller's.
create or replace function haive_private.count_rows(
  p_tenant text, out conversations bigint, out bytes bigint
)
returns record
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  v_more numeric;
begin
  select
    count(*),
    coalesce(
      sum(
        haive_private.conversation_bytes(c.title, c.tags, c.context, c.participants, c.settings)
        + coalesce(octet_length(c.sealed), 0)
      ),
      0
    )
  into conversations, bytes
  from haive.conversations as c where c.tenant_id = p_tenant;
  select sum(u.bytes) into v_more
  from (
    select
      sum(
        haive_private.message_bytes(m.content, m.parts, m.metadata)
        + coalesce(octet_length(m.sealed), 0)
      ) as bytes
    from haive.messages as m where m.tenant_id = p_tenant
    union all
    select sum(haive_private.checkpoint_bytes(c.payload, c.sealed, c.metadata, c.tags, c.search))
    from haive.checkpoints as c where c.tenant_id = p_tenant
    union all
    select sum(haive_private.checkpoint_bytes(w.payload))
    from haive.checkpoint_writes as w where w.tenant_id = p_tenant
    union all
    select sum(haive_private.checkpoint_bytes(s.payload))
    from haive.checkpoint_schemas as s where s.tenant_id = p_tenant
    union all
    select sum(haive_private.checkpoint_bytes(null, b.sealed, b.metadata))
    from haive.branches as b
    where b.tenant_id = p_tenant and num_nulls(b.metadata, b.sealed) < 2
    union all
    select sum(haive_private.merge_bytes(cardinality(g.conversation_ids)))
    from haive.session_segments as g where g.tenant_id = p_tenant
    union all
    select sum(haive_private.merge_bytes(0, m.dropped, m.conflicts, m.summary_of))
    from haive.session_merges as m where m.tenant_id = p_tenant
  ) as u;
  bytes := bytes + coalesce(v_more, 0) + haive_private.stored_memory_bytes(p_tenant);
end;
$$;

alter function haive_private.count_rows(text) owner to haive_writer;

comment on function haive_private.count_rows(text) is
'What the tenant that was entered has, counted from its rows.';
