create type haive_private.session_pair as (
  session haive.sessions,
  conversation haive.conversations
);

comment on type haive_private.session_pair is 'A session and the conversation that it is.';
