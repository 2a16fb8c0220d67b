-- add_messages for JavaScript, psql and PostgREST: rows as JSON, all or nothing.
create or replace function haive.add_messages(messages jsonb, tenant text default null)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_rows record;
  v_failed int;
  v_one record;
  v_result record;
begin
  select
    array_agg(m.conversation_id order by m.place) as conversation_ids,
    array_agg(coalesce(m.id, gen_random_uuid()) order by m.place) as ids,
    array_agg(m.role order by m.place) as roles,
    array_agg(m.content order by m.place) as contents,
    array_agg(m.parts order by m.place) as parts,
    array_agg(m.metadata order by m.place) as metadata,
    array_agg(m.input_tokens order by m.place) as input_tokens,
    array_agg(m.output_tokens order by m.place) as output_tokens,
    array_agg(m.model order by m.place) as models,
    array_agg(m.cost order by m.place) as costs,
    array_agg(m.created_at order by m.place) as created_at,
    array_agg(decode(m.sealed, 'base64') order by m.place) as sealed,
    array_agg(m.sealed_with order by m.place) as sealed_with,
    bool_or(m.total_tokens <> m.input_tokens + m.output_tokens) as has_wrong_total
  into v_rows
  from (
    select u.place, d.*
    from jsonb_array_elements(add_messages.messages) with ordinality as u (doc, place)
    cross join lateral jsonb_to_record(u.doc) as d (
      conversation_id uuid, id uuid, role text, content text, parts jsonb, metadata jsonb,
      input_tokens int, output_tokens int, total_tokens int, model text, cost numeric,
      created_at timestamptz, sealed text, sealed_with text
    )
  ) as m;
  if v_rows.conversation_ids is null then
    return '[]';
  end if;
  if v_rows.has_wrong_total then
    raise exception using
      errcode = 'PT422',
      message = 'total_tokens is not the sum of input_tokens and output_tokens',
      hint = 'Leave total_tokens out: it is computed.';
  end if;

  if cardinality(v_rows.ids) = 1 then
    v_one := haive_private.append_message(
      add_messages.tenant, v_rows.conversation_ids[1], v_rows.ids[1], v_rows.roles[1],
      v_rows.contents[1], v_rows.parts[1], v_rows.metadata[1], v_rows.input_tokens[1],
      v_rows.output_tokens[1], v_rows.models[1], v_rows.costs[1], v_rows.created_at[1],
      v_rows.sealed[1], v_rows.sealed_with[1]
    );
    select array[v_one.seq] as seqs, array[v_one.created_at] as times, array[v_one.failure] as failures
    into v_result;
  else
    v_result := haive_private.append_messages(
      add_messages.tenant, v_rows.conversation_ids, v_rows.ids, v_rows.roles, v_rows.contents,
      v_rows.parts, v_rows.metadata, v_rows.input_tokens, v_rows.output_tokens, v_rows.models,
      v_rows.costs, v_rows.created_at, v_rows.sealed, v_rows.sealed_with
    );
  end if;
  select min(f.place) into v_failed
  from unnest(v_result.failures) with ordinality as f (code, place)
  where f.code is not null;
  if v_failed is not null then
    raise exception using
      errcode = v_result.failures[v_failed],
      message = case v_result.failures[v_failed]
        when 'PT409' then format('another message has the id %s', v_rows.ids[v_failed])
        else format('no conversation %s', v_rows.conversation_ids[v_failed])
      end,
      hint = case v_result.failures[v_failed]
        when 'PT409' then 'Repeat a call only with the same content.'
        else 'It was deleted, belongs to another tenant, or is not the caller''s to write to.'
      end;
  end if;
  return (
    select json_agg(
      json_build_object('id', u.id, 'seq', u.seq, 'created_at', u.created_at) order by u.place
    )
    from unnest(v_rows.ids, v_result.seqs, v_result.times) with ordinality
      as u (id, seq, created_at, place)
  );
end;
$$;

comment on function haive.add_messages(jsonb, text) is
'Adds messages, all or none: a list of {conversation_id, id, role, content, parts, metadata, '
'input_tokens, output_tokens, model, cost, created_at, sealed, sealed_with}. Returns id, seq and created_at of each. '
'The same id with the same content is the same message.';
