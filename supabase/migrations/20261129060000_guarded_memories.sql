-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it; the last lines take this away again.
grant usage, create on schema haive_private to haive_writer;

-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.write_memories(
  v record, -- as enter_collection answers to who writes
  p_memories jsonb,
  p_replace_only boolean
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_type text := format('%s.%I', haive_private.vector_schema(), (v.collection).storage);
  -- What is nobody's is everybody's to read, and not to replace.
  v_own text := v.own || case when v.actor is null then '' else ' and t.user_id is not null' end;
  v_changes constant text := $q$
    vec = coalesce(%1$s.vec, t.vec),
    metadata = %1$s.metadata,
    tokens = case when %1$s.vec is null then coalesce(%1$s.tokens, t.tokens) else %1$s.tokens end
  $q$;
  v_write text;
  v_said boolean;
  v_given bigint;
  v_written bigint;
begin
  perform haive_private.refuse_sealed_memories();
  if jsonb_typeof(p_memories) is distinct from 'array' or jsonb_array_length(p_memories) > 10000 then
    raise exception using
      errcode = 'PT422',
      message = 'memories is no list of at most 10,000',
      hint = 'Each is {id, metadata, vector, tokens}.';
  end if;
  perform from jsonb_array_elements(p_memories) as m (memory)
  where
    (
      jsonb_typeof(m.memory -> 'id') = 'string' and length(m.memory ->> 'id') between 1 and 200
      and jsonb_typeof(m.memory -> 'metadata') = 'object'
      and coalesce(jsonb_typeof(m.memory -> 'vector'), 'null') in ('null', 'string')
      and coalesce(jsonb_typeof(m.memory -> 'tokens'), 'null') in ('null', 'string')
      and coalesce(jsonb_typeof(m.memory -> 'once'), 'null') in ('null', 'boolean')
    ) is not true;
  if found then
    raise exception using
      errcode = 'PT422',
      message = 'a memory is not {id, metadata, vector, tokens, once}',
      hint = 'id is a text of 1 to 200 characters, metadata an object, vector a text such as [1,2], '
        'tokens base64, once a boolean; the last three may be left out.';
  end if;
  perform from jsonb_array_elements(p_memories) as m (memory)
  where
    pg_column_size(m.memory -> 'metadata') > 1048576
    or octet_length(m.memory ->> 'tokens') > 4194304;
  if found then
    raise exception using
      errcode = 'PT413',
      message = 'a memory is too large',
      hint = 'Metadata, its text included, is at most 1 MiB, and tokens 3 MiB.';
  end if;
  if v.actor is not null then
    perform from jsonb_array_elements(p_memories) as m (memory)
    -- A number is no user's id, and would make a memory of nobody's.
    where m.memory -> 'metadata' -> 'user_id' is distinct from to_jsonb(v.actor);
    if found then
      raise exception using
        errcode = 'PT403',
        message = 'members write memories of their own',
        hint = 'The user_id of each is the user''s; administrators and services write all.';
    end if;
  end if;
  if (v.collection).model is null and jsonb_path_exists(
    p_memories, '$[*].vector ? (@ != null)', '{}', true
  ) then
    raise exception using
      errcode = 'PT422',
      message = format('the collection %s has no vectors', (v.collection).name),
      hint = 'It was opened without a model.';
  end if;

  if not p_replace_only and jsonb_path_exists(p_memories, '$[*].once ? (@ == true)', '{}', true) then
    -- Writers of one user's memories wait for each other here, and the next statement sees what the
    -- one before has written.
    perform pg_advisory_xact_lock(hashtextextended(u.lock, 0))
    from (
      select distinct jsonb_build_array(
        v.relation, v.tenant, m.memory -> 'metadata' ->> 'user_id'
      )::text as lock
      from jsonb_array_elements(p_memories) as m (memory)
      where m.memory -> 'once' = 'true'
      order by lock
    ) as u;
    execute format(
      $q$
        select exists (
          select from jsonb_array_elements($1) as m (memory)
          join %1$s as t on t.metadata @> jsonb_build_object(
            'words_hash', m.memory -> 'metadata' -> 'words_hash',
            'kind', m.memory -> 'metadata' -> 'kind'
          )
          where m.memory -> 'once' = 'true' and m.memory -> 'metadata' ->> 'words_hash' is not null
            and %2$s and t.id <> m.memory ->> 'id'
            and t.user_id is not distinct from m.memory -> 'metadata' ->> 'user_id'
            and m.memory -> 'metadata' ->> 'valid_to' is null
            and t.valid_to is null and t.expires_at is null and not t.archived
        )
      $q$, v.relation, v.own
    ) into v_said using p_memories;
    if v_said then
      raise exception using
        errcode = 'PT409',
        message = 'a memory says the same already',
        hint = 'It was written meanwhile: look it up.';
    end if;
  end if;

  -- In one order, so that writers of the same memories do not wait in a circle. What is only replaced
  -- is locked first: it is there then, or somebody has removed it and it stays away.
  v_write := case
    when p_replace_only then format(
      $q$
        there as (
          select t.id from %1$s as t
          where %2$s and t.id in (select g.id from given as g)
          order by t.id
          for update
        ),
        written as (
          update %1$s as t set %3$s
          from given as g join there as h on h.id = g.id
          where t.id = g.id and (%4$s)
          returning 1
        ),
        wanted as (
          select from there
          union all
          select from %1$s as t where t.id in (select g.id from given as g) and (%2$s) is not true
        )
      $q$, v.relation, v_own, format(v_changes, 'g'),
      -- What is superseded is not superseded by another one as well.
      $q$
        g.once is not true
        or t.metadata ->> 'superseded_by' is null
        or t.metadata ->> 'superseded_by' = g.metadata ->> 'superseded_by'
      $q$
    )
    else format(
      $q$
        written as (
          insert into %1$s as t (id, vec, metadata, tenant_id, tokens)
          select g.id, g.vec, g.metadata, $2, g.tokens from given as g order by g.id
          on conflict (id) do update set %3$s
          where %2$s
          returning 1
        ),
        wanted as (select from given)
      $q$, v.relation, v_own, format(v_changes, 'excluded')
    )
  end;
  perform set_config('persistence.putting', 'on', true);
  begin
    execute format(
      $q$
        with given as (
          select distinct on (m.memory ->> 'id')
            m.memory ->> 'id' as id, (m.memory ->> 'vector')::%1$s as vec,
            m.memory -> 'metadata' as metadata, decode(m.memory ->> 'tokens', 'base64') as tokens,
            (m.memory ->> 'once')::boolean as once
          from jsonb_array_elements($1) with ordinality as m (memory, place)
          order by m.memory ->> 'id', m.place desc
        ),
        %2$s
        select (select count(*) from wanted), (select count(*) from written)
      $q$, v_type, v_write
    ) into v_given, v_written using p_memories, v.tenant;
  exception
    -- Of the values, and nothing else: what a trigger refuses has codes of ours.
    when data_exception or invalid_text_representation or numeric_value_out_of_range then
      raise exception using
        errcode = 'PT422',
        message = 'a vector or the tokens of a memory cannot be read',
        hint = format(
          'Vectors are of %s finite numbers, tokens base64.',
          coalesce((v.collection).dimensions::text, 'no')
        );
  end;
  perform set_config('persistence.putting', '', true);
  if v_written < v_given then
    raise exception using
      errcode = 'PT409',
      message = 'the id of a memory is taken',
      hint = case
        when p_replace_only then 'It is another user''s or tenant''s, or it is superseded already.'
        else 'It is another user''s or tenant''s. Give each memory an id of its own, a UUIDv7.'
      end;
  end if;
  return v_written;
end;
$$;

alter function haive_private.write_memories(record, jsonb, boolean) owner to haive_writer;

comment on function haive_private.write_memories(record, jsonb, boolean) is
'Writes memories to a collection that was entered.';

-- Definer: haive_writer owns the tables in schema vecs.
create or replace function haive_private.put_memories(
  p_tenant text, p_collection text, p_memories jsonb, p_replace_only boolean
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v record := haive_private.enter_collection(p_tenant, p_collection, true);
  v_forged text;
begin
  if v.actor is not null and jsonb_typeof(p_memories) = 'array' then
    -- A service makes derived memories anew of all that they name, whoever that belongs to.
    execute format(
      $q$
        select f.name
        from jsonb_array_elements($1) as m (memory)
        cross join unnest(
          array[
            'kind', 'sources', 'context_ids', 'superseded_by', 'archived_for', 'archived_from', 'trust',
            'writer'
          ]
        ) as f (name)
        cross join lateral (select m.memory -> 'metadata' -> f.name as value) as g
        left join %s as t on t.id = m.memory ->> 'id' and %s
        where g.value is distinct from t.metadata -> f.name
          and coalesce(g.value, 'null') not in ('null', '[]')
          and not (f.name = 'kind' and g.value in ('"turn"', '"chunk"', '"note"'))
          and not (f.name = 'trust' and g.value = '"user"')
          and not (f.name = 'writer' and g.value = to_jsonb($2))
        limit 1
      $q$, v.relation, v.own
    ) into v_forged using p_memories, v.actor;
    if v_forged is not null then
      raise exception using
        errcode = 'PT403',
        message = format('members do not say the %s of a memory', v_forged),
        hint = 'Theirs are turns, chunks and notes that they wrote and made of no others; what a service '
          'has written there they may keep.';
    end if;
  end if;
  return haive_private.write_memories(v, p_memories, p_replace_only);
end;
$$;

alter function haive_private.put_memories(text, text, jsonb, boolean) owner to haive_writer;

comment on function haive_private.put_memories(text, text, jsonb, boolean) is
'What haive.put_memories does, for a caller without rights on the tables.';

create or replace function haive.put_memories(
  collection text, memories jsonb, tenant text default null, replace_only boolean default false
)
returns bigint
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.put_memories(
    put_memories.tenant, put_memories.collection, put_memories.memories, put_memories.replace_only
  )
$$;

comment on function haive.put_memories(text, jsonb, text, boolean) is
'Writes memories, all or none, replacing those of the same id, and returns how many. Each is {id, '
'metadata, vector, tokens, once}: vector as text, [1,2,3]; tokens as base64. Without a vector the one '
'that is there stays, and without either the tokens too. With replace_only those that are not there (any more) '
'are left out: it does not bring back what was forgotten meanwhile. With once a memory is refused where '
'one of its kind and user, with the same words_hash in its metadata, holds already; and with '
'replace_only where it is superseded by another one than it says.';

revoke create on schema haive_private from haive_writer;

insert into haive_private.migrations (version, name) values
  ('20261129060000', 'guarded_memories')
on conflict do nothing;
