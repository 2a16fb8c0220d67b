create or replace function haive.find_stale_conversations(
  key_id text,
  after uuid default '00000000-0000-0000-0000-000000000000',
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
  v_caller record := haive_private.enter_tenant(find_stale_conversations.tenant, true);
  v_docs json;
begin
  if (find_stale_conversations.page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on after the last id.';
  end if;
  v_docs := (
    select coalesce(
      json_agg(
        json_build_object(
          'id', p.id, 'title', p.title::text, 'context', p.context::text,
          'settings', p.settings::text,
          'sealed', replace(encode(p.sealed, 'base64'), e'\n', ''),
          'sealed_with', p.sealed_with::text, 'updated_at', p.updated_at
        )
        order by p.id
      ),
      '[]'
    )
    from (
      select
        c.*,
        row_number() over w as place,
        sum(
          octet_length(c.context::text) + octet_length(c.settings::text)
          + coalesce(octet_length(c.sealed), 0)
        ) over w as bytes
      from (
        select c.* from haive.conversations as c
        where
          c.tenant_id = v_caller.tenant and c.id > find_stale_conversations.after
          and c.sealed_with is distinct from find_stale_conversations.key_id
        order by c.id
        limit find_stale_conversations.page_size
      ) as c
      window w as (order by c.id)
    ) as p
    where p.bytes <= 16777216 or p.place = 1
  );
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'find_stale_conversations',
      (
        select jsonb_object_agg(d.doc ->> 'id', null)
        from json_array_elements(v_docs) as d (doc)
      ),
      json_array_length(v_docs)
    );
  end if;
  return v_docs;
end;
$$;

comment on function haive.find_stale_conversations(text, uuid, int, text) is
'Conversations that are not sealed with this key, by id, as they are stored. For trusted callers only.';
