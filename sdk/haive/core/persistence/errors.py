"""Every error that this package raises.

    PersistenceError
    ├── InvalidInputError            an argument is wrong; nothing was stored
    │   ├── ContentTooLargeError
    │   └── StateError               a state holds what cannot be stored; `path` says where
    ├── NotFoundError                no such row, or none that the caller may see
    ├── ConflictError                the id is taken by other content
    │   └── BranchConflict           another checkpoint follows the parent already: `winner`
    ├── CheckpointError
    │   ├── CorruptCheckpointError   what is stored is damaged, or was put there by somebody else
    │   ├── CheckpointKeyError       no key of the ring opens it
    │   └── StateMismatchError       the state does not fit its model any more: `paths`
    ├── AccessDeniedError            the caller may not
    │   └── TokenExpiredError
    ├── SchemaError                  the database has not what this version needs
    │   ├── SchemaMissingError
    │   └── SchemaVersionError
    ├── UnsupportedOperationError    this transport cannot; the message names the one that can
    ├── ConfigurationError           the settings contradict themselves or the server
    ├── DatabaseError                the server refused for a reason that has no class here
    ├── UnavailableError             the server cannot be reached now            (retryable)
    │   ├── ConnectionLostError
    │   ├── TooManyConnectionsError
    │   └── PoolTimeoutError
    ├── OperationTimeoutError        the server gave up                          (retryable)
    │   ├── StatementTimeoutError
    │   ├── LockTimeoutError
    │   └── DeadlockError
    └── LocalStackError
        └── PartUnavailableError

Errors of the database are told apart by SQLSTATE (or PostgREST's code), never by text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID


class PersistenceError(Exception):
    """The operation failed."""

    #: Whether the same call may succeed later. Writes carry ids, so repeating one is safe.
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str | None = None, *, hint: str | None = None, sqlstate: str | None = None
    ) -> None:
        doc = (type(self).__doc__ or "").partition("\n")[0]
        self.message = message or doc
        #: What to do next, if there is something to say.
        self.hint = hint
        #: The SQLSTATE or PostgREST code it came with, if it came from the database.
        self.sqlstate = sqlstate
        super().__init__(self.message)

    def __str__(self) -> str:
        ended = self.message if self.message.endswith((".", "]", "?", "!")) else f"{self.message}."
        return f"{ended} {self.hint}" if self.hint else ended


class InvalidInputError(PersistenceError, ValueError):
    """An argument is wrong; nothing was stored."""


class ContentTooLargeError(InvalidInputError):
    """Something is over its limit; store the bulk elsewhere and its address here."""


class StateError(InvalidInputError):
    """A state holds something that cannot be stored."""

    def __init__(self, message: str | None = None, *, path: str = "$", hint: str | None = None):
        super().__init__(message, hint=hint)
        #: Where it is, as a JSON path.
        self.path = path


class NotFoundError(PersistenceError, LookupError):
    """There is no such row, or none that the caller may see."""


class ConflictError(PersistenceError):
    """The id is taken by other content; repeat a call only with the same content."""


class BranchConflict(ConflictError):  # noqa: N818 - the documented name
    """Another checkpoint follows the parent already; restore it, or save to a branch."""

    def __init__(
        self, message: str | None = None, *, winner: UUID | None = None, hint: str | None = None
    ):
        super().__init__(message, hint=hint)
        #: The checkpoint that is the head of the branch now.
        self.winner = winner


class CheckpointError(PersistenceError):
    """A checkpoint cannot be read."""


class CorruptCheckpointError(CheckpointError):
    """What is stored of a checkpoint is damaged or forged; nothing of it was used."""


class CheckpointKeyError(CheckpointError):
    """No key of the ring opens the checkpoint; add the key that it was saved with."""


class StateMismatchError(CheckpointError):
    """The state does not fit its model; add an upcaster, or restore without validation."""

    def __init__(
        self, message: str | None = None, *, paths: Sequence[str] = (), hint: str | None = None
    ):
        super().__init__(message, hint=hint)
        #: Where it does not fit, as JSON paths.
        self.paths = tuple(paths)


class AccessDeniedError(PersistenceError):
    """The caller may not do this; use another key, or become a member of the tenant."""


class TokenExpiredError(AccessDeniedError):
    """The token has expired; sign in again and make a store with the new one."""


class SchemaError(PersistenceError):
    """The database does not have the schema that this version needs."""


class SchemaMissingError(SchemaError):
    """The schema is not installed here; run `haive migrate` or `supabase db push`."""


class SchemaVersionError(SchemaError):
    """The schema is of another version than this package; run `haive migrate`."""


class UnsupportedOperationError(PersistenceError):
    """This transport cannot do that; use a PostgresStore."""


class ConfigurationError(PersistenceError, ValueError):
    """The settings contradict themselves or the server."""


class DatabaseError(PersistenceError):
    """The server refused."""


class UnavailableError(PersistenceError):
    """The server cannot be reached now; try again."""

    retryable = True


class ConnectionLostError(UnavailableError):
    """The connection to the server was lost; try again, writes are safe to repeat."""


class TooManyConnectionsError(UnavailableError):
    """The server accepts no more connections; lower pool_size or use a pooler."""


class PoolTimeoutError(UnavailableError):
    """No connection of the pool came free in time; raise pool_size or pool_timeout."""


class OperationTimeoutError(PersistenceError):
    """The server gave up on the operation; try again."""

    retryable = True


class StatementTimeoutError(OperationTimeoutError):
    """The statement ran longer than statement_timeout; narrow it or raise the limit."""


class LockTimeoutError(OperationTimeoutError):
    """A lock did not come free within lock_timeout; try again."""


class DeadlockError(OperationTimeoutError):
    """Two operations waited for each other and this one was ended; try again."""


class LocalStackError(PersistenceError):
    """The local stack could not be started or has stopped."""


class PartUnavailableError(LocalStackError):
    """A part of the local stack cannot run on this machine."""


#: SQLSTATEs and PostgREST codes, whole ones before the two characters of their class.
_CLASSES: dict[str, type[PersistenceError]] = {
    # ours: sql/020_errors.sql
    "PT401": AccessDeniedError,
    "PT403": AccessDeniedError,
    "PT404": NotFoundError,
    "PT409": ConflictError,
    "PT413": ContentTooLargeError,
    "PT422": InvalidInputError,
    # Postgres
    "08": ConnectionLostError,
    "22": InvalidInputError,
    "23": InvalidInputError,
    "23503": NotFoundError,
    "23505": ConflictError,
    "28": AccessDeniedError,
    "3D000": SchemaMissingError,
    "3F000": SchemaMissingError,
    "40P01": DeadlockError,
    "42501": AccessDeniedError,
    "42883": SchemaMissingError,
    "42P01": SchemaMissingError,
    "53300": TooManyConnectionsError,
    "54": ContentTooLargeError,
    "55P03": LockTimeoutError,
    "57014": StatementTimeoutError,
    "57P01": ConnectionLostError,
    "57P02": ConnectionLostError,
    "57P03": UnavailableError,
    "57P05": ConnectionLostError,
    "25P03": ConnectionLostError,
    "25P04": StatementTimeoutError,
    # PostgREST
    "PGRST000": UnavailableError,
    "PGRST001": UnavailableError,
    "PGRST002": UnavailableError,
    "PGRST003": PoolTimeoutError,
    "PGRST102": InvalidInputError,
    "PGRST106": SchemaMissingError,
    "PGRST202": SchemaMissingError,
    "PGRST205": SchemaMissingError,
    "PGRST300": AccessDeniedError,
    "PGRST301": TokenExpiredError,
    "PGRST302": AccessDeniedError,
    "PGRST303": TokenExpiredError,
}


def error_class(code: str | None) -> type[PersistenceError]:
    """The class for a SQLSTATE or a code of PostgREST."""
    if not code:
        return DatabaseError
    return _CLASSES.get(code) or _CLASSES.get(code[:2], DatabaseError)


def database_error(
    code: str | None,
    *,
    message: str | None = None,
    hint: str | None = None,
    constraint: str | None = None,
) -> PersistenceError:
    """An error of the database as one of ours.

    Only messages of our own functions (``PT…``) are passed on: those of Postgres can quote rows,
    and rows are somebody's data.
    """
    cls = error_class(code)
    if code and code.startswith("PT"):
        return cls(message, hint=hint, sqlstate=code)
    if constraint and constraint.endswith("_is_bounded"):
        cls = ContentTooLargeError
    detail = f" ({constraint})" if constraint else ""
    doc = (cls.__doc__ or "").partition("\n")[0]
    return cls(f"{doc}{detail} [{code}]" if code else doc, sqlstate=code)
