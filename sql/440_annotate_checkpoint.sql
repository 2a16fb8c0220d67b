-- What may change of a checkpoint: its tags, and whether it failed. Of a sealed one the tags lie in
-- the ciphertext: the client sends a new one, made from the one that it names.
-- Definer, for nobody writes tables directly.
create or replace function haive_private.annotate_checkpoint(
  p_tenant text,
  p_checkpoint_id uuid,
  p_thread_id text,
  p_namespace text,
  p_add text[],
  p_remove text[],
  p_failed boolean,
  p_sealed bytea,
  p_was_sealed bytea,
  p_search jsonb
)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_caller record := haive_private.enter_tenant(p_tenant, true);
  v_keys record;
  v_row haive.checkpoints;
begin
  select array_agg(c.thread_key) as threads, count(*) as n into v_keys
  from haive.checkpoints as c
  join haive.threads as t on t.tenant_id = c.tenant_id and t.thread_key = c.thread_key
  where
    c.id = p_checkpoint_id and c.tenant_id = v_caller.tenant
    and (p_thread_id is null or (t.thread_id = p_thread_id and t.namespace = p_namespace))
    and (v_caller.actor is null or t.user_id = v_caller.actor);
  if v_keys.n = 0 then
    raise exception using
      errcode = 'PT404',
      message = format('no checkpoint %s', p_checkpoint_id),
      hint = 'It was pruned, belongs to another tenant, or is not the caller''s to see.';
  elsif v_keys.n > 1 then
    raise exception using
      errcode = 'PT422',
      message = 'several threads have a checkpoint of this id, for one is a copy',
      hint = 'Pass thread_id too.';
  end if;
  update haive.checkpoints as c
  set
    tags = case
      when c.key_id is null then (
        select array_agg(u.tag order by u.place)
        from (
          select a.tag, min(a.place) as place
          from unnest(c.tags || p_add) with ordinality as a (tag, place)
          where a.tag <> all(coalesce(p_remove, '{}'))
          group by a.tag
        ) as u
      )
    end,
    failed = coalesce(p_failed, c.failed),
    sealed = coalesce(p_sealed, c.sealed),
    search = coalesce(p_search, c.search)
  where
    c.id = p_checkpoint_id and c.thread_key = v_keys.threads[1] and c.tenant_id = v_caller.tenant
    and (p_sealed is null or c.sealed = p_was_sealed)
    and (c.key_id is null or (p_add is null and p_remove is null))
  returning * into v_row;
  if not found then
    return false;
  end if;
  insert into haive.events (tenant_id, kind, thread_key, checkpoint_id)
  values (v_caller.tenant, 'checkpoint.changed', v_row.thread_key, v_row.id);
  return true;
end;
$$;

alter function haive_private.annotate_checkpoint(
  text, uuid, text, text, text[], text[], boolean, bytea, bytea, jsonb
) owner to haive_writer;

comment on function haive_private.annotate_checkpoint(
  text, uuid, text, text, text[], text[], boolean, bytea, bytea, jsonb
) is 'What haive.annotate_checkpoint does, for a caller without rights on the tables.';

create or replace function haive.annotate_checkpoint(
  checkpoint_id uuid,
  thread_id text default null,
  namespace text default '',
  add_tags text[] default null,
  remove_tags text[] default null,
  failed boolean default null,
  sealed bytea default null,
  was_sealed bytea default null,
  search jsonb default null,
  tenant text default null
)
returns boolean
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.annotate_checkpoint(
    annotate_checkpoint.tenant, annotate_checkpoint.checkpoint_id, annotate_checkpoint.thread_id,
    annotate_checkpoint.namespace, annotate_checkpoint.add_tags, annotate_checkpoint.remove_tags,
    annotate_checkpoint.failed, annotate_checkpoint.sealed, annotate_checkpoint.was_sealed,
    annotate_checkpoint.search
  )
$$;

comment on function haive.annotate_checkpoint(
  uuid, text, text, text[], text[], boolean, bytea, bytea, jsonb, text
) is
'Adds and removes tags, and marks a checkpoint as failed or not. False: its sealed part was changed '
'by somebody else meanwhile.';
