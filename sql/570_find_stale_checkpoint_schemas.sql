create or replace function haive.find_stale_checkpoint_schemas(
  key_id text,
  after bytea default '',
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
  v_caller record := haive_private.enter_tenant(find_stale_checkpoint_schemas.tenant, true);
  v_docs json;
begin
  if (find_stale_checkpoint_schemas.page_size between 1 and 1000) is not true then
    raise exception using
      errcode = 'PT422',
      message = 'page_size is not between 1 and 1000',
      hint = 'Read on after the last hash.';
  end if;
  v_docs := (
    select coalesce(
      json_agg(
        json_build_object(
          'hash', encode(p.hash, 'hex'), 'key_id', p.key_id::text,
          'payload', replace(encode(p.payload, 'base64'), e'\n', '')
        )
        order by p.hash
      ),
      '[]'
    )
    from (
      select s.*, row_number() over w as place, sum(octet_length(s.payload)) over w as bytes
      from (
        select s.* from haive.checkpoint_schemas as s
        where
          s.tenant_id = v_caller.tenant and s.hash > find_stale_checkpoint_schemas.after
          and s.key_id is distinct from find_stale_checkpoint_schemas.key_id
        order by s.hash
        limit find_stale_checkpoint_schemas.page_size
      ) as s
      window w as (order by s.hash)
    ) as p
    where p.bytes <= 16777216 or p.place = 1
  );
  if v_caller.audit_reads then
    perform haive_private.audit_read(
      'find_stale_checkpoint_schemas',
      (
        select jsonb_object_agg(d.doc ->> 'hash', null)
        from json_array_elements(v_docs) as d (doc)
      ),
      json_array_length(v_docs)
    );
  end if;
  return v_docs;
end;
$$;

comment on function haive.find_stale_checkpoint_schemas(text, bytea, int, text) is
'Schemas of states that are not sealed with this key, by hash, as they are stored; no checkpoint may '
'have them any more. For trusted callers only.';
