create or replace function haive_private.sum_counts(p_one jsonb, p_other jsonb)
returns jsonb
language sql
immutable
security invoker
set search_path = ''
as $$
  select coalesce(jsonb_object_agg(s.name, s.rows), '{}')
  from (
    select c.key as name, sum(c.value::bigint) as rows
    from (
      select o.key, o.value from jsonb_each_text(p_one) as o
      union all
      select t.key, t.value from jsonb_each_text(p_other) as t
    ) as c
    group by c.key
  ) as s
  where s.rows > 0
$$;

comment on function haive_private.sum_counts(jsonb, jsonb) is
'Two objects of numbers by table as one, without those that are zero.';
