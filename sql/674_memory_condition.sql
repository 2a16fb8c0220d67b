-- A filter as SQL. Nothing of it reaches the statement but as a literal: names of keys and values are
-- quoted, operators are one of the list below.
-- Below a "not" a condition on a key that is missing must be false and not null; elsewhere null does
-- as well, and an index can be used.
create or replace function haive_private.memory_condition(
  p_filter jsonb, p_depth int default 0, p_exact boolean default false
)
returns text
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_op text := p_filter ->> 'op';
  v_value jsonb := p_filter -> 'value';
  v_path text[];
  v_at text; -- the value in the metadata, as jsonb
  v_test text;
  v_parts text[];
begin
  if p_filter is null or p_filter = 'null' then
    return 'true';
  end if;
  if p_depth > 40 or (p_depth = 0 and pg_column_size(p_filter) > 1048576) then
    raise exception using
      errcode = 'PT422',
      message = 'the filter is too large',
      hint = 'It has at most 10 levels, 200 comparisons and 1,000 values in a list.';
  end if;
  if v_op in ('and', 'or', 'not') then
    if jsonb_typeof(p_filter -> 'parts') is distinct from 'array' then
      raise exception using
        errcode = 'PT422',
        message = format('the filter has no parts for %s', v_op),
        hint = 'parts is a list of filters.';
    end if;
    v_parts := array(
      select haive_private.memory_condition(e.part, p_depth + 1, p_exact or v_op = 'not')
      from jsonb_array_elements(p_filter -> 'parts') as e (part)
    );
    return case v_op
      when 'and' then coalesce('(' || nullif(array_to_string(v_parts, ' and '), '') || ')', 'true')
      when 'or' then coalesce('(' || nullif(array_to_string(v_parts, ' or '), '') || ')', 'false')
      else format('not (%s)', coalesce(nullif(array_to_string(v_parts, ' and '), ''), 'true'))
    end;
  end if;

  if
    jsonb_typeof(p_filter -> 'path') is distinct from 'array'
    or jsonb_array_length(p_filter -> 'path') not between 1 and 20
  then
    raise exception using
      errcode = 'PT422',
      message = 'the filter has no path',
      hint = 'path is a list of 1 to 20 keys.';
  end if;
  v_path := array(select jsonb_array_elements_text(p_filter -> 'path'));
  -- Key by key, and not by #>, to which '0' is the first of a list.
  v_at := 't.metadata' || (
    select string_agg(format(' -> %L', u.key), '' order by u.place)
    from unnest(v_path) with ordinality as u (key, place)
  );
  case v_op
    when 'eq', 'in' then
      if v_op = 'eq' then
        v_value := jsonb_build_array(v_value);
      end if;
      if jsonb_typeof(v_value) is distinct from 'array' or jsonb_array_length(v_value) > 1000 then
        raise exception using
          errcode = 'PT422',
          message = 'the filter has no list for in',
          hint = 'value is a list of at most 1,000.';
      end if;
      if
        jsonb_array_length(v_value) <= 20
        and not jsonb_path_exists(
          v_value, 'strict $[*] ? (@.type() == "object" || @.type() == "array")'
        )
      then
        -- The index of the metadata answers these: the value itself, or a list with it.
        v_test := coalesce((
          select string_agg(
            format(
              't.metadata @> %L or t.metadata @> %L',
              haive_private.nested(v_path, e.value),
              haive_private.nested(v_path, jsonb_build_array(e.value))
            ),
            ' or '
          )
          from jsonb_array_elements(v_value) as e (value)
        ), 'false');
      else
        v_test := format(
          '(%1$s) = any(%2$L::jsonb[]) or case when jsonb_typeof(%1$s) = ''array'' then exists ('
          'select from jsonb_array_elements(%1$s) as e (value) where e.value = any(%2$L::jsonb[])) end',
          v_at, array(select jsonb_array_elements(v_value))
        );
      end if;
    when 'is' then
      -- What is equal contains the value, too: that the index of the metadata answers.
      v_test := format(
        't.metadata @> %L and %s = %L::jsonb', haive_private.nested(v_path, v_value), v_at, v_value
      );
    when 'type' then
      v_test := format('jsonb_typeof(%s) = %L', v_at, v_value #>> '{}');
    when 'ne' then
      return format('not (%s)', haive_private.memory_condition(
        p_filter || '{"op": "eq"}', p_depth + 1, true
      ));
    when 'nin' then
      return format('not (%s)', haive_private.memory_condition(
        p_filter || '{"op": "in"}', p_depth + 1, true
      ));
    when 'gt', 'gte', 'lt', 'lte' then
      v_test := case v_op when 'gt' then '>' when 'gte' then '>=' when 'lt' then '<' else '<=' end;
      v_test := case
        -- Between its bounds the column, which has an index and ends at them, compares the same.
        when v_path = array['importance'] and jsonb_typeof(v_value) = 'number'
          and v_value > '0' and v_value < '1' then
          format('t.importance %s %L::double precision', v_test, v_value)
        when jsonb_typeof(v_value) = 'number' then
          format(
            'case when jsonb_typeof(%1$s) = ''number'' then (%1$s)::numeric %2$s %3$L::numeric end',
            v_at, v_test, v_value
          )
        when jsonb_typeof(v_value) = 'string' then
          case
            when v_path = array['timestamp'] then
              format('t.happened_at %s %L collate "C"', v_test, v_value #>> '{}')
            -- As the index of items has it.
            when v_path = array['path'] then
              format('(t.metadata ->> ''path'') collate "C" %s %L', v_test, v_value #>> '{}')
            else format(
              'case when jsonb_typeof(%1$s) = ''string'' then (%1$s #>> ''{}'') collate "C" %2$s %3$L end',
              v_at, v_test, v_value #>> '{}'
            )
          end
        else 'false'
      end;
    when 'contains' then
      v_test := format(
        'case when jsonb_typeof(%1$s) = ''array'' then exists ('
        'select from jsonb_array_elements(%1$s) as e (value) where e.value = %2$L::jsonb) end',
        v_at, v_value
      );
      if jsonb_typeof(v_value) = 'string' then
        v_test := format(
          '%s or case when jsonb_typeof(%s) = ''string'' then strpos(%s #>> ''{}'', %L) > 0 end',
          v_test, v_at, v_at, v_value #>> '{}'
        );
      end if;
    when 'exists' then
      v_test := format('(%s) is %s null', v_at, case when v_value = 'true' then 'not' else '' end);
    else
      raise exception using
        errcode = 'PT422',
        message = format('the filter has an unknown operator %s', left(v_op, 40)),
        hint = 'Operators are eq, ne, is, gt, gte, lt, lte, in, nin, contains, exists, type, and, or, not.';
  end case;
  return case when p_exact then format('coalesce(%s, false)', v_test) else format('(%s)', v_test) end;
end;
$$;

comment on function haive_private.memory_condition(jsonb, int, boolean) is
'The document of a filter as a condition on t, a row of a collection.';

create or replace function haive_private.nested(p_path text[], p_value jsonb)
returns jsonb
language plpgsql
immutable
security invoker
set search_path = ''
as $$
begin
  for v_place in reverse cardinality(p_path)..1 loop
    p_value := jsonb_build_object(p_path[v_place], p_value);
  end loop;
  return p_value;
end;
$$;

comment on function haive_private.nested(text[], jsonb) is
'An object with a value at a path of keys.';
