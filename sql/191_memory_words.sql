create table haive_private.memory_words (
  tenant_id text storage plain collate "C" not null,
  collection text storage plain collate "C" not null,
  lexeme text storage plain collate "C" not null,
  part bigint not null,
  in_text bigint not null,
  in_all bigint not null,
  constraint memory_words_pkey primary key (tenant_id, collection, lexeme, part)
);

comment on table haive_private.memory_words is
'In how many memories of a tenant a word is: the sum of its parts. Part 0 is the word''s own row; the '
'others are what writers added who did not wait for it, by their transaction.';
comment on column haive_private.memory_words.in_text is 'In so many texts.';
comment on column haive_private.memory_words.in_all is 'In so many texts, or the texts before them.';

-- Serves: whoever may change part 0, and adds the other parts to it.
create index memory_words_parts_idx on haive_private.memory_words (tenant_id, collection)
where part <> 0;
