-- Schemas of states are found and sealed anew whether a checkpoint has them or not: one that none has any
-- more stayed with its old key, and no rotation came to an end. No data change.
grant usage, create on schema haive_private to haive_writer;

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

-- How schemas of states are stored, and nothing of what they say: each that is still as it was read.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.reseal_checkpoint_schemas(p_tenant text, p_schemas jsonb)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_count bigint;
begin
  if not v_caller.trusted then
    raise exception using
      errcode = 'PT403',
      message = 'only services seal what others wrote',
      hint = 'Call with a secret key, or on a direct connection.';
  end if;
  update haive.checkpoint_schemas as s
  set payload = decode(d.payload, 'base64'), key_id = d.key_id
  from jsonb_to_recordset(p_schemas) as d (hash text, was_key_id text, payload text, key_id text)
  where
    s.tenant_id = v_caller.tenant and s.hash = decode(d.hash, 'hex')
    and s.key_id is not distinct from d.was_key_id and d.payload is not null;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

alter function haive_private.reseal_checkpoint_schemas(text, jsonb) owner to haive_writer;

comment on function haive_private.reseal_checkpoint_schemas(text, jsonb) is
'What haive.reseal_checkpoint_schemas does, for a caller without rights on the table.';

create or replace function haive.reseal_checkpoint_schemas(
  checkpoint_schemas jsonb, tenant text default null
)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.reseal_checkpoint_schemas(
    reseal_checkpoint_schemas.tenant, reseal_checkpoint_schemas.checkpoint_schemas
  )
$$;

comment on function haive.reseal_checkpoint_schemas(jsonb, text) is
'Replaces how schemas of states are sealed: a list of {hash, was_key_id, payload, key_id}. Those with '
'another key by now stay. Returns how many were. For trusted callers only.';

revoke all on function
haive.find_stale_checkpoint_schemas(text, bytea, int, text),
haive.reseal_checkpoint_schemas(jsonb, text),
haive_private.reseal_checkpoint_schemas(text, jsonb)
from public, anon, authenticated, service_role, haive_client;
grant execute on function
haive.find_stale_checkpoint_schemas(text, bytea, int, text),
haive.reseal_checkpoint_schemas(jsonb, text),
haive_private.reseal_checkpoint_schemas(text, jsonb)
to service_role, haive_client;

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261130060000', 'schemas_without_checkpoints')
on conflict do nothing;
