-- What users and PostgREST see, and what they do not.
create schema if not exists haive;
create schema if not exists haive_private;

comment on schema haive_private is
'Helpers of schema haive. Never expose it through PostgREST.';
