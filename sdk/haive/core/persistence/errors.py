"""Every error that this package raises.

    PersistenceError
    ├── InvalidInputError            an argument is wrong; nothing was stored
    │   ├── ContentTooLargeError
    │   ├── InvalidFilterError       a filter of memories is wrong; the message says where
    │   ├── PersonalDataError        the policy refuses what is in it: `entities`, `paths`
    │   └── StateError               a state holds what cannot be stored; `path` says where
    ├── NotFoundError                no such row, or none that the caller may see
    ├── ConflictError                the id is taken by other content
    │   └── BranchConflict           another checkpoint follows the parent already: `winner`
    ├── CheckpointError
    │   ├── CorruptCheckpointError   what is stored is damaged, or was put there by somebody else
    │   ├── CheckpointKeyError       no key of the ring opens it
    │   └── StateMismatchError       the state does not fit its model any more: `paths`
    ├── DecryptionError              what is sealed does not open: changed, moved, or another key's
    │   ├── KeyMissingError          no key at hand opens it
    │   └── KeyDestroyedError        the tenant's keys were destroyed
    ├── CursorExpiredError           the events after the cursor are not kept any more
    ├── AccessDeniedError            the caller may not
    │   └── TokenExpiredError
    ├── SessionClosedError           it takes no writes: `status`, `successor_id`
    ├── SessionFullError             it is at max_messages; it goes on in a successor
    ├── AuditSignatureError          the head of an audit log is not signed by the key
    ├── SubjectErasedError           the user was erased; nothing more is stored about them
    ├── TenantError
    │   ├── TenantSuspendedError     the tenant is closed
    │   ├── TenantMovedError         its rows are in another place now               (retryable)
    │   └── TenantMovingError        it takes no writes for a moment                 (retryable)
    ├── QuotaExceededError           the tenant is at a limit: `resource`, `used`, `resets_at`
    ├── SchemaError                  the database has not what this version needs
    │   ├── SchemaMissingError
    │   └── SchemaVersionError
    ├── UnsupportedOperationError    this transport cannot; the message names the one that can
    ├── ConfigurationError           the settings contradict themselves or the server
    │   └── CollectionMismatchError  a collection has another model, width or metric
    ├── DatabaseError                the server refused for a reason that has no class here
    ├── UnavailableError             the server cannot be reached now            (retryable)
    │   ├── ConnectionLostError
    │   ├── TooManyConnectionsError
    │   └── PoolTimeoutError
    ├── OperationTimeoutError        the server gave up                          (retryable)
    │   ├── StatementTimeoutError
    │   ├── LockTimeoutError
    │   └── DeadlockError
    ├── ModelError                   a model's API gave no usable answer: `status`
    │   ├── ModelAccessError         it refuses the key
    │   ├── ModelRequestError        it refuses what it was asked
    │   ├── ModelLimitError          too much was asked of it: `retry_after`         (retryable)
    │   ├── ModelUnavailableError    it cannot be reached now                        (retryable)
    │   └── ModelAnswerError         its answer is not what was asked for
    └── LocalStackError
        └── PartUnavailableError

Errors of the database are told apart by SQLSTATE (or PostgREST's code), never by text.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Self
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Sequence


class PersistenceError(Exception):
    """The operation failed."""

    #: Whether the same call may succeed later. Writes carry ids, so repeating one is safe.
    retryable: bool = False

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


class InvalidFilterError(InvalidInputError):
    """A filter is wrong; nothing was read."""


class PersonalDataError(InvalidInputError):
    """Personal data is not stored here; leave it out, or have it masked."""

    def __init__(
        self,
        message: str | None = None,
        *,
        entities: Sequence[str] = (),
        paths: Sequence[str] = (),
        hint: str | None = None,
    ):
        if message is None and entities:
            places = ", ".join(paths[:5]) + (" and more" if len(paths) > 5 else "")
            message = f"Personal data is not stored here: {', '.join(entities)} at {places}."
        super().__init__(message, hint=hint)
        #: What was found: ``EMAIL``, ``IBAN``, …
        self.entities = tuple(entities)
        #: Where, as JSON paths; a key that is personal data itself is told as ``*``.
        self.paths = tuple(paths)


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


class CursorExpiredError(PersistenceError):
    """The events after the cursor are not kept any more; read the present state and begin anew."""


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


class DecryptionError(PersistenceError):
    """What is sealed does not open: it was changed or moved; nothing of it was used."""


class KeyMissingError(DecryptionError):
    """No key at hand opens what is sealed; work in the tenant's context, which has its keys."""


class KeyDestroyedError(DecryptionError):
    """The tenant's keys were destroyed; what they sealed cannot be read any more."""


class AccessDeniedError(PersistenceError):
    """The caller may not do this; use another key, or become a member of the tenant."""


class TokenExpiredError(AccessDeniedError):
    """The token has expired; sign in again and make a store with the new one."""


class AuditSignatureError(PersistenceError):
    """The head of an audit log is not signed by this key, or was changed since."""


class SessionClosedError(PersistenceError):
    """The session takes no writes; open it again, or go on in its successor."""

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        sqlstate: str | None = None,
        status: str = "",
        successor_id: UUID | None = None,
    ) -> None:
        super().__init__(message, hint=hint, sqlstate=sqlstate)
        #: ``closed``, ``expired``, ``merged`` or ``continued``.
        self.status = status
        #: The session that it goes on in, if it is continued.
        self.successor_id = successor_id

    @classmethod
    def from_facts(cls, message: str | None, hint: str | None, facts: str | None) -> Self:
        """The error with the JSON object of facts that the database sent along."""
        try:
            known = json.loads(facts or "{}")
            successor = known.get("successor_id")
            return cls(
                message,
                hint=hint,
                sqlstate="PT412",
                status=known.get("status", ""),
                successor_id=UUID(successor) if successor else None,
            )
        except (AttributeError, TypeError, ValueError):
            return cls(message, hint=hint, sqlstate="PT412")


class SessionFullError(PersistenceError):
    """The session is at max_messages; `continue_session` opens the one that it goes on in."""


class SubjectErasedError(PersistenceError):
    """The user was erased from this tenant; nothing is stored about them any more."""


class TenantError(PersistenceError):
    """The tenant cannot be worked in."""


class TenantSuspendedError(TenantError):
    """The tenant is closed; an administrator of the platform opens it with resume_tenant."""


class TenantMovedError(TenantError):
    """The rows of the tenant are in another place now; work in tenant_context, which knows."""

    retryable = True


class TenantMovingError(TenantError):
    """The tenant is being moved and takes no writes; try again in a second."""

    retryable = True


class QuotaExceededError(PersistenceError):
    """The tenant is at one of its limits; nothing was stored."""

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        sqlstate: str | None = None,
        resource: str = "",
        limit: int | None = None,
        used: int | None = None,
        resets_at: datetime | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint, sqlstate=sqlstate)
        #: ``conversations``, ``storage`` (bytes), ``requests`` (a minute) or ``tokens`` (a month).
        self.resource = resource
        #: The limit.
        self.limit = limit
        #: What was in use, without what was refused.
        self.used = used
        #: When there is something to use again; None where only deleting makes room.
        self.resets_at = resets_at
        #: Seconds until then.
        self.retry_after = retry_after
        #: Only what a minute brings back is worth a second try.
        self.retryable = resource == "requests"

    @classmethod
    def from_facts(cls, message: str | None, hint: str | None, facts: str | None) -> Self:
        """The error with the JSON object of facts that the database sent along."""
        try:
            known = json.loads(facts or "{}")
            resets_at = known.get("resets_at")
            return cls(
                message,
                hint=hint,
                sqlstate="PT429",
                resource=known.get("resource", ""),
                limit=known.get("limit"),
                used=known.get("used"),
                resets_at=datetime.fromisoformat(resets_at) if resets_at else None,
                retry_after=known.get("retry_after"),
            )
        except (AttributeError, TypeError, ValueError):
            return cls(message, hint=hint, sqlstate="PT429")


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


class CollectionMismatchError(ConfigurationError):
    """The collection has another model, width or metric; name another one, or re-embed it."""


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


class ModelError(PersistenceError):
    """A model's API gave no usable answer."""

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        status: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        #: The HTTP status, if there was an answer.
        self.status = status
        #: The API's own code, as ``insufficient_quota``, if it gave one.
        self.code = code


class ModelAccessError(ModelError):
    """The model's API refuses the key; set another one."""


class ModelRequestError(ModelError):
    """The model's API refuses the request; check the model's name and its limits."""


class ModelLimitError(ModelError):
    """Too much was asked of the model's API; try again later, or ask for a higher limit."""

    retryable = True

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint, status=status, code=code)
        #: Seconds until the API takes more, if it said so.
        self.retry_after = retry_after


class ModelUnavailableError(ModelError):
    """The model's API cannot be reached now, or failed; try again."""

    retryable = True


class ModelAnswerError(ModelError):
    """The model's API answered something else than it was asked for; nothing of it was used."""


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
    "PT410": SubjectErasedError,
    "PT412": SessionClosedError,
    "PT413": ContentTooLargeError,
    "PT416": CursorExpiredError,
    "PT421": TenantMovedError,
    "PT422": InvalidInputError,
    "PT423": TenantSuspendedError,
    "PT429": QuotaExceededError,
    "PT503": TenantMovingError,
    "PT507": SessionFullError,
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


# What a class says of itself is not what happened here.
_SAID = {
    "28000": "The server refuses the user of the connection string.",
    "28P01": "The server refuses the user or the password of the connection string.",
    "3D000": "The server has no database of the name in the connection string.",
    "PGRST106": "The API does not expose the schema: add it to the exposed schemas of the project,"
    " and run `haive migrate` or `supabase db push` if it is not installed.",
}


def database_error(
    code: str | None,
    *,
    message: str | None = None,
    hint: str | None = None,
    constraint: str | None = None,
    detail: str | None = None,
) -> PersistenceError:
    """An error of the database as one of ours.

    Only messages of our own functions (``PT…``) are passed on: those of Postgres can quote rows,
    and rows are somebody's data.
    """
    cls = error_class(code)
    if issubclass(cls, QuotaExceededError | SessionClosedError):
        return cls.from_facts(message, hint, detail)
    if code and code.startswith("PT"):
        return cls(message, hint=hint, sqlstate=code)
    if constraint and constraint.endswith("_is_bounded"):
        cls = ContentTooLargeError
    if cls is TokenExpiredError and message and "expired" not in message:
        # PostgREST has these codes for whatever is wrong with a token.
        return AccessDeniedError(
            "The API refuses the token: it is not this project's, or not for this time or audience."
            f" [{code}]",
            sqlstate=code,
        )
    detail = f" ({constraint})" if constraint else ""
    doc = _SAID.get(code or "") or (cls.__doc__ or "").partition("\n")[0]
    return cls(f"{doc}{detail} [{code}]" if code else doc, sqlstate=code)
