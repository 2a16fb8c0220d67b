-- haive_writer owns the definer functions, and an owner must be able to create in the schema while
-- a function is handed to it; 900_grants takes this away again.
grant usage, create on schema haive_private to haive_writer;
