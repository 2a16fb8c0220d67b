-- Every error of ours: SQLSTATE, HTTP status through PostgREST, and the SDK's class.
-- PTnnn sets the HTTP status. 40001 is never used: PostgREST before 16 retries it for ever.
create or replace function haive.error_catalogue()
returns table (sqlstate text, http_status int, error text, retryable boolean, meaning text)
language sql
immutable
security invoker
set search_path = ''
as $$
  values
    ('PT401', 401, 'AccessDeniedError', false, 'the token names no user'),
    ('PT403', 403, 'AccessDeniedError', false, 'the caller may not do this in this tenant'),
    ('PT404', 404, 'NotFoundError', false, 'no such row, or none that the caller may see'),
    ('PT409', 409, 'ConflictError', false, 'the id is taken by other content'),
    ('PT410', 410, 'SubjectErasedError', false, 'the user was erased, and nothing is stored about them'),
    ('PT412', 412, 'SessionClosedError', false, 'the session was closed, has expired, or goes on elsewhere'),
    ('PT413', 413, 'ContentTooLargeError', false, 'content, parts or metadata are over their limit'),
    ('PT416', 416, 'CursorExpiredError', false, 'the cursor is older than the events that are kept'),
    ('PT421', 421, 'TenantMovedError', true, 'the tenant''s rows are in another place now'),
    ('PT422', 422, 'InvalidInputError', false, 'an argument does not mean anything'),
    ('PT423', 423, 'TenantSuspendedError', false, 'the tenant is closed until an administrator opens it'),
    ('PT429', 429, 'QuotaExceededError', false, 'the tenant is at one of its limits'),
    ('PT507', 507, 'SessionFullError', false, 'the session is at max_messages'),
    ('PT503', 503, 'TenantMovingError', true, 'the tenant is being moved and takes no writes now')
$$;

comment on function haive.error_catalogue() is
'The errors that the functions of this schema raise themselves.';
