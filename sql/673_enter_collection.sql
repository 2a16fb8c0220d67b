-- The first step of what is done with memories. Definer, as enter_tenant is.
-- The owner of the tables, which haive_writer is, is not bound by their policies: with policies, no
-- index of words or metadata could be used, for their operators are not leakproof. So each statement
-- names the tenant, and the condition made here is in all of them.
create or replace function haive_private.enter_collection(
  p_tenant text,
  p_collection text,
  p_write boolean,
  out tenant text,
  out actor text, -- null: all memories of the tenant; else: theirs, and those that are no user's
  out audit_reads boolean,
  out collection haive_private.memory_collections,
  out relation text, -- quoted
  out own text -- a condition on t: what the caller may see
)
returns record
language plpgsql
volatile
security definer
set search_path = ''
as $$
#variable_conflict use_column
declare
  v_caller record := haive_private.enter_tenant(p_tenant, p_write);
begin
  tenant := v_caller.tenant;
  actor := v_caller.actor;
  audit_reads := v_caller.audit_reads;
  select c.* into collection from haive_private.memory_collections as c
  where c.name = p_collection;
  if collection.name is null then
    raise exception using
      errcode = 'PT404',
      message = format('no collection %s', left(p_collection, 63)),
      hint = 'A service makes it with open_memory_collection.';
  end if;
  relation := format('vecs.%I', collection.table_name);
  own := format('t.tenant_id = %L', v_caller.tenant)
    || case
      when v_caller.actor is null then ''
      else format(' and (t.user_id is null or t.user_id = %L)', v_caller.actor)
    end;
end;
$$;

alter function haive_private.enter_collection(text, text, boolean) owner to haive_writer;

comment on function haive_private.enter_collection(text, text, boolean) is
'Enters the tenant, and finds a collection with what the caller may see of it.';

create or replace function haive_private.refuse_sealed_memories()
returns void
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  if current_setting('persistence.watch', true) like '%s%' then
    raise exception using
      errcode = 'PT422',
      message = 'this tenant''s content is sealed by the client',
      hint = 'Memories are searched by their words, which the database would have to see.';
  end if;
end;
$$;

comment on function haive_private.refuse_sealed_memories() is
'Refuses to write and search memories in a tenant whose content the database must not see; what is there '
'can be read and deleted.';

-- Of the server, not ours: another schema than extensions, where somebody made it there.
create or replace function haive_private.vector_schema()
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_schema oid;
begin
  select e.extnamespace into v_schema from pg_extension as e where e.extname = 'vector';
  if v_schema is null or not has_schema_privilege('haive_writer', v_schema, 'usage') then
    raise exception using
      errcode = 'PT422',
      message = 'this database has no vectors',
      hint = 'As the superuser: create extension vector with schema extensions; grant usage on schema '
        'extensions to haive_writer;';
  end if;
  return v_schema::regnamespace::text;
end;
$$;

comment on function haive_private.vector_schema() is
'Where pgvector is installed, quoted.';
