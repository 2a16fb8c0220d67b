-- In a transaction of its own: rows are read and written while it looks at those that are there.
alter table haive.conversations validate constraint conversations_are_sealed_whole;
alter table haive.messages validate constraint messages_are_sealed_whole;

insert into haive_private.migrations (version, name) values
  ('20261122120500', 'sealed_checks')
on conflict do nothing;
