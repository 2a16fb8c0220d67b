-- A page of a conversation's messages as JSON, always in the order of seq: the first ones after
-- p_after, or, when p_last, the last ones before p_before.
create or replace function haive_private.message_docs(
  p_tenant text,
  p_conversation_id uuid,
  p_after bigint,
  p_before bigint,
  p_limit int,
  p_last boolean
)
returns json
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_from bigint := p_after + 1;
  v_to bigint := p_before - 1;
  v_docs json;
begin
  -- seq has no gaps, so a page is a range, and the range is known without reading it.
  if p_last then
    v_from := greatest(v_from, v_to - p_limit + 1);
  else
    v_to := least(v_to, v_from + p_limit - 1);
  end if;
  select coalesce(json_agg(d), '[]') into v_docs
  from (
    select
      m.id, m.conversation_id, m.seq, m.role, coalesce(m.parts, to_jsonb(m.content)) as content,
      m.metadata,
      case
        when m.input_tokens is not null then json_build_object(
          'input_tokens', m.input_tokens,
          'output_tokens', m.output_tokens,
          'total_tokens', m.input_tokens + m.output_tokens,
          'model', m.model,
          'cost', m.cost::text
        )
      end as token_usage,
      m.created_at
    from haive.messages as m
    where
      m.tenant_id = p_tenant and m.conversation_id = p_conversation_id
      and m.seq between v_from and v_to
    order by m.seq
  ) as d;
  return v_docs;
end;
$$;

comment on function haive_private.message_docs(text, uuid, bigint, bigint, int, boolean) is
'A page of messages as the functions of the API return them.';
