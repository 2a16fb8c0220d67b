create or replace function haive.find_stale_messages(
  key_id text,
  after_conversation uuid default '00000000-0000-0000-0000-000000000000',
  after_seq bigint default 0,
  page_size int default 500,
  tenant text default null
)
returns json
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(find_stale_messages.tenant, true);
  v_docs json;
begin
  if (find_stale_messages.page_size between 1 and 5000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 5000',
      hint = 'Read on after the last conversation_id and seq.';
  end if;
  v_docs := (
    select coalesce(
      json_agg(
        json_build_object(
          'conversation_id', p.conversation_id, 'seq', p.seq, 'id', p.id, 'role', p.role::text,
          'content', case when p.sealed is null then p.content::text end,
          -- As text: what is sealed is exactly what was stored, whatever a client makes of numbers.
          'parts', p.parts::text,
          'metadata', p.metadata::text,
          'sealed', replace(encode(p.sealed, 'base64'), e'\n', ''),
          'sealed_with', p.sealed_with::text
        )
        order by p.conversation_id, p.seq
      ),
      '[]'
    )
    from (
      select
        m.*,
        row_number() over w as place,
        sum(
          octet_length(m.content) + coalesce(octet_length(m.parts::text), 0)
          + coalesce(octet_length(m.sealed), 0)
        ) over w as bytes
      from (
        select m.* from haive.messages as m
        where
          m.tenant_id = v_caller.tenant
          and (m.conversation_id, m.seq) > (
            find_stale_messages.after_conversation, find_stale_messages.after_seq
          )
          and m.sealed_with is distinct from find_stale_messages.key_id
        order by m.conversation_id, m.seq
        limit find_stale_messages.page_size
      ) as m
      window w as (order by m.conversation_id, m.seq)
    ) as p
    -- No answer grows with the messages: those of 16 MiB, and one at least.
    where p.bytes <= 16777216 or p.place = 1
  );
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'find_stale_messages',
      (
        select jsonb_object_agg(d.doc ->> 'id', jsonb_build_array(d.doc ->> 'conversation_id', d.doc -> 'seq'))
        from json_array_elements(v_docs) as d (doc)
      ),
      json_array_length(v_docs)
    );
  end if;
  return v_docs;
end;
$$;

comment on function haive.find_stale_messages(text, uuid, bigint, int, text) is
'Messages that are not sealed with this key, in the order of the table: those after a place in it, as '
'they are stored. For trusted callers only.';
