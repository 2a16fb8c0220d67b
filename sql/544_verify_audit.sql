-- Definer: it reads the log and its head at one moment.
create or replace function haive_private.verify_audit(
  p_tenant text,
  p_after bigint,
  p_hash text,
  p_head_seq bigint,
  p_head_hash text,
  p_max_rows int
)
returns json
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_tenant text := haive_private.enter_audit(p_tenant);
  v_after bigint := coalesce(p_after, 0);
  v_previous bytea := '';
  v_found record;
  v_bad bigint;
  v_reason text;
begin
  if (v_after >= 0 and p_max_rows between 1 and 1000000) is not true
    or coalesce(p_hash, '') !~ '^([0-9a-f]{64})?$'
    or coalesce(p_head_hash, '') !~ '^([0-9a-f]{64})?$'
    or num_nulls(p_head_seq, p_head_hash) = 1
  then
    raise exception using
      errcode = 'PT422',
      message = 'the arguments of a check mean nothing',
      hint = 'max_rows is 1 to 1,000,000, hashes are 64 hex digits, a head has seq and hash.';
  end if;
  if v_after > 0 then
    select l.hash into v_previous
    from haive.audit_log as l where l.tenant_id = v_tenant and l.seq = v_after;
    if not found then
      v_bad := v_after;
      v_reason := 'missing';
    elsif p_hash is not null and v_previous <> decode(p_hash, 'hex') then
      v_bad := v_after;
      v_reason := 'changed';
    end if;
  end if;

  -- One statement, so that what is written meanwhile is in both the rows and the head, or in none.
  with chain as materialized (
    select
      l.seq, l.hash,
      lag(l.seq, 1, v_after) over (order by l.seq) as previous_seq,
      sha256(
        lag(l.hash, 1, v_previous) over (order by l.seq)
        || convert_to(haive_private.audit_entry(l), 'UTF8')
      ) as expected
    from (
      select a.* from haive.audit_log as a
      where a.tenant_id = v_tenant and a.seq > v_after
      order by a.seq
      limit p_max_rows
    ) as l
  )
  select
    c.checked, coalesce(c.last_seq, v_after) as last_seq, coalesce(c.last_hash, v_previous) as last_hash,
    c.checked < p_max_rows as complete,
    b.seq as bad_seq, b.previous_seq,
    coalesce(h.seq, 0) as head_seq, coalesce(h.hash, '') as head_hash
  into v_found
  from (
    select
      count(*) as checked, max(k.seq) as last_seq,
      (array_agg(k.hash order by k.seq desc))[1] as last_hash
    from chain as k
  ) as c
  left join lateral (
    select k.seq, k.previous_seq from chain as k
    where k.seq <> k.previous_seq + 1 or k.hash <> k.expected
    order by k.seq
    limit 1
  ) as b on true
  left join haive_private.audit_heads as h on h.tenant_id = v_tenant;

  if v_reason is not null then
    v_found.complete := true; -- where to go on from is not sound
  elsif v_found.bad_seq > v_found.previous_seq + 1 then
    v_bad := v_found.previous_seq + 1;
    v_reason := 'missing';
  elsif v_found.bad_seq is not null then
    v_bad := v_found.bad_seq;
    v_reason := 'changed';
  elsif v_found.complete and v_found.head_seq > v_found.last_seq then
    v_bad := v_found.last_seq + 1;
    v_reason := 'missing';
  elsif v_found.complete and v_found.head_seq < v_found.last_seq then
    v_bad := v_found.head_seq + 1;
    v_reason := 'added';
  elsif v_found.complete and v_found.head_hash <> v_found.last_hash then
    v_bad := v_found.last_seq;
    v_reason := 'changed';
  elsif v_found.complete and p_head_seq > v_found.last_seq then
    v_bad := v_found.last_seq + 1;
    v_reason := 'missing';
  elsif p_head_seq between 1 and v_found.last_seq and not exists (
    select from haive.audit_log as l
    where l.tenant_id = v_tenant and l.seq = p_head_seq and l.hash = decode(p_head_hash, 'hex')
  ) then
    v_bad := p_head_seq;
    v_reason := 'rewritten';
  end if;
  return json_build_object(
    'tenant', v_tenant, 'ok', v_bad is null, 'bad_seq', v_bad, 'reason', v_reason,
    'checked', v_found.checked, 'seq', v_found.last_seq, 'hash', encode(v_found.last_hash, 'hex'),
    'complete', v_found.complete
  );
end;
$$;

alter function haive_private.verify_audit(text, bigint, text, bigint, text, int)
owner to haive_writer;

comment on function haive_private.verify_audit(text, bigint, text, bigint, text, int) is
'What haive.verify_audit does, for a caller without rights on the tables.';

create or replace function haive.verify_audit(
  after bigint default 0,
  hash text default null,
  head_seq bigint default null,
  head_hash text default null,
  max_rows int default 100000,
  tenant text default null
)
returns json
language sql
volatile
security invoker
set search_path = ''
as $$
  select haive_private.verify_audit(
    verify_audit.tenant, verify_audit.after, verify_audit.hash, verify_audit.head_seq,
    verify_audit.head_hash, verify_audit.max_rows
  )
$$;

comment on function haive.verify_audit(bigint, text, bigint, text, int, text) is
'Checks the chain of a tenant''s log from the row after a seq, whose hash may be given, and whether it '
'holds a head that was kept: {ok, bad_seq, reason, checked, seq, hash, complete}. Not complete: go on '
'after seq, with hash. Reasons are changed, missing, added and rewritten (bad_seq or a row before it).';
