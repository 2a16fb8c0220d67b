-- Statement triggers: a statement of 256 messages is counted once. Where the tenant that was entered is
-- not metered, nothing is looked at. For what is inserted and what is deleted, "changed" is the rows and
-- the trigger's argument says which.
create or replace function haive_private.meter_messages()
returns trigger
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  v_first text;
  v_last text;
  v_messages bigint;
  v_bytes bigint;
  v_input_tokens bigint;
  v_output_tokens bigint;
  v_cost numeric;
  v record;
  v_done boolean;
begin
  if current_setting('persistence.watch', true) like '-%' then
    return null;
  end if;
  if tg_op = 'UPDATE' then
    -- What is rewritten, sealed or masked is no new message, and its tokens are counted already.
    for v in
      select u.tenant_id, sum(u.bytes)::bigint as bytes
      from (
        select
          a.tenant_id,
          haive_private.message_bytes(a.content, a.parts, a.metadata)
          + coalesce(octet_length(a.sealed), 0) as bytes
        from added as a
        union all
        select
          r.tenant_id,
          -haive_private.message_bytes(r.content, r.parts, r.metadata)
          - coalesce(octet_length(r.sealed), 0)
        from removed as r
      ) as u
      group by u.tenant_id
      having sum(u.bytes) <> 0
    loop
      perform haive_private.meter(v.tenant_id, 0, v.bytes);
    end loop;
    return null;
  end if;
  -- Nearly always they are of one tenant, and a loop costs more than the sum.
  select
    min(c.tenant_id), max(c.tenant_id), count(*),
    sum(
      haive_private.message_bytes(c.content, c.parts, c.metadata)
      + coalesce(octet_length(c.sealed), 0)
    ),
    coalesce(sum(c.input_tokens), 0), coalesce(sum(c.output_tokens), 0), coalesce(sum(c.cost), 0)
  into v_first, v_last, v_messages, v_bytes, v_input_tokens, v_output_tokens, v_cost
  from changed as c;
  if v_first = v_last then
    v_done := case
      when tg_argv[0] = 'added' then haive_private.meter(
        v_first, 0, v_bytes, v_messages, v_input_tokens, v_output_tokens, v_cost
      )
      else haive_private.meter(v_first, 0, -v_bytes)
    end;
    return null;
  end if;
  for v in
    select
      c.tenant_id, count(*) as messages,
      sum(
        haive_private.message_bytes(c.content, c.parts, c.metadata)
        + coalesce(octet_length(c.sealed), 0)
      )::bigint as bytes,
      coalesce(sum(c.input_tokens), 0) as input_tokens,
      coalesce(sum(c.output_tokens), 0) as output_tokens,
      coalesce(sum(c.cost), 0) as cost
    from changed as c
    group by c.tenant_id
    order by c.tenant_id
  loop
    v_done := case
      when tg_argv[0] = 'added' then haive_private.meter(
        v.tenant_id, 0, v.bytes, v.messages, v.input_tokens, v.output_tokens, v.cost
      )
      else haive_private.meter(v.tenant_id, 0, -v.bytes)
    end;
  end loop;
  return null;
end;
$$;

alter function haive_private.meter_messages() owner to haive_writer;

comment on function haive_private.meter_messages() is 'Counts messages that a statement wrote or removed.';

-- Asked where a tenant is metered, audited or sealed, or none was entered (else what persistence.watch
-- says is ---: calls that return at once, of this, the audit's and the hints' trigger, are 7 % of a lone
-- message); and not while append_message or save_checkpoint write, which add --- to it and count
-- themselves.
create trigger meter_added after insert on haive.messages
referencing new table as changed
for each statement when ((current_setting('persistence.watch', true) like '%---') is not true)
execute function haive_private.meter_messages('added');

create trigger meter_changed after update on haive.messages
referencing old table as removed new table as added
for each statement execute function haive_private.meter_messages();

create trigger meter_removed after delete on haive.messages
referencing old table as changed
for each statement execute function haive_private.meter_messages('removed');
