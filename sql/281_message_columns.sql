-- The messages of some conversations by column, a row for each, in no order: what message_docs answers
-- as JSON, for a third of its time. A column of what few messages have is of these alone: a null in an
-- array costs as much as a value. The casts take the domains off, whose arrays drivers do not know.
create or replace function haive_private.message_columns(
  p_tenant text,
  p_conversation_ids uuid[],
  p_from bigint[],
  p_to bigint[]
)
returns setof haive_private.stored_columns
language plpgsql
stable
security invoker
set search_path = ''
-- Planned once: to plan it takes as long as to read fifty messages.
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  select
    w.conversation_id, null::bigint, null::text, null::text, null::text, null::text, null::text[],
    null::jsonb, null::text[], null::jsonb, null::bigint, null::bigint, null::bigint, null::text,
    null::timestamptz, null::timestamptz, null::timestamptz, null::text, c.*
  from unnest(p_conversation_ids, p_from, p_to) as w (conversation_id, first_seq, last_seq)
  cross join lateral (
    select
      array_agg(d.seq),
      string_agg(uuid_send(d.id), ''::bytea),
      array_agg(d.role::text),
      array_agg(d.content::text),
      array_agg(d.created_at::timestamptz),
      array_agg(d.seq) filter (where d.parts is not null),
      array_agg(d.parts::jsonb) filter (where d.parts is not null),
      array_agg(d.seq) filter (where d.is_described),
      array_agg(d.metadata::jsonb) filter (where d.is_described),
      array_agg(d.seq) filter (where d.input_tokens is not null),
      array_agg(d.input_tokens::int) filter (where d.input_tokens is not null),
      array_agg(d.output_tokens::int) filter (where d.input_tokens is not null),
      array_agg(d.seq) filter (where d.is_priced),
      array_agg(d.model::text) filter (where d.is_priced),
      array_agg(d.cost::text) filter (where d.is_priced),
      coalesce(bool_or(d.sealed_with is not null), false)
    from (
      select
        m.seq, m.id, m.role, m.content, m.created_at, m.parts, m.metadata, m.input_tokens,
        m.output_tokens, m.model, m.cost, m.sealed_with,
        m.metadata <> '{}' as is_described,
        m.model is not null or m.cost is not null as is_priced
      from haive.messages as m
      where
        m.tenant_id = p_tenant and m.conversation_id = w.conversation_id
        and m.seq between w.first_seq and w.last_seq
      order by m.seq
    ) as d
  ) as c;
end;
$$;

comment on function haive_private.message_columns(text, uuid[], bigint[], bigint[]) is
'Ranges of messages as the SDK reads them on a direct connection.';
