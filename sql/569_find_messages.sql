create or replace function haive.find_messages(ids uuid[], tenant text default null)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(find_messages.tenant, false);
  v_conversation_ids uuid[];
  v_seqs bigint[];
begin
  if (cardinality(find_messages.ids) between 0 and 10000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'there are more than 10000 ids, or none were given',
      hint = 'Ask for some at a time.';
  end if;
  select array_agg(m.conversation_id), array_agg(m.seq) into v_conversation_ids, v_seqs
  from haive.messages as m
  where m.id = any(find_messages.ids) and m.tenant_id = v_caller.tenant;
  if v_caller.audit_reads then
    -- As get_messages says it: within which places of which conversations.
    perform haive_private.audit_read(
      'find_messages',
      coalesce(
        (
          select jsonb_object_agg(g.conversation_id, jsonb_build_array(g.first_seq, g.last_seq))
          from (
            select u.conversation_id, min(u.seq) as first_seq, max(u.seq) as last_seq
            from unnest(v_conversation_ids, v_seqs) as u (conversation_id, seq)
            group by u.conversation_id
          ) as g
        ),
        '{}'
      ),
      coalesce(cardinality(v_seqs), 0)
    );
  end if;
  return (
    select coalesce(json_agg(d.doc -> 0), '[]')
    from unnest(
      haive_private.message_docs(v_caller.tenant, v_conversation_ids, v_seqs, v_seqs)
    ) as d (doc)
    where json_array_length(d.doc) > 0 -- not deleted since
  );
end;
$$;

comment on function haive.find_messages(uuid[], text) is
'Messages by their ids, in any order; those that are not there, or not the caller''s to see, are '
'left out.';
