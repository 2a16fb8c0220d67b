-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it, and to see the types of its arguments; 900_grants takes the first away
-- again.
grant usage, create on schema haive_private to haive_writer;
grant usage on schema haive to haive_writer;
