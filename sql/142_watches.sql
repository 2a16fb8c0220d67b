-- Unlogged: after a crash every reader comes back and says anew what it watches.
create unlogged table haive_private.watches (
  tenant_id text storage plain collate "C" not null,
  channel text storage plain collate "C" not null,
  way text storage plain collate "C" not null,
  expires_at timestamptz not null,
  constraint watches_pkey primary key (tenant_id, channel, way),
  constraint watches_way_is_known check (way in ('notify', 'realtime'))
) with (fillfactor = 50); -- readers renew their rows in place

comment on table haive_private.watches is
'Which channels somebody listens to: hints are sent for these alone.';
comment on column haive_private.watches.way is
'notify: a direct connection listens; realtime: a client of Supabase Realtime does.';
