"""Calls the schema's functions through an asyncpg pool."""

from __future__ import annotations

import itertools
import logging
from contextlib import asynccontextmanager, suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self, TypeVar

import asyncpg

from haive.core.persistence._decoding import decode
from haive.core.persistence._postgres_errors import FOREIGN as _FOREIGN
from haive.core.persistence._postgres_pool import is_gone
from haive.core.persistence._retry import retrying
from haive.core.persistence.errors import (
    AccessDeniedError,
    ConflictError,
    DatabaseError,
    NotFoundError,
    PersistenceError,
    SessionClosedError,
    SessionFullError,
    error_class,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from datetime import datetime

    from pydantic import TypeAdapter

    from haive.core.persistence._hints import Hints
    from haive.core.persistence._postgres_pool import Connection, ConnectionPool
    from haive.core.persistence._rows import MessageRow
    from haive.core.persistence.models import Message

T = TypeVar("T")

_UNUSED = (None, None, None, None)
_log = logging.getLogger("haive.core.persistence.sql")

# From here on COPY is ahead of arrays (at 5,000 rows 64,000 against 59,000 messages a second);
# below, three more round trips cost more than it saves (at 2,000 rows 59,000 against 65,000).
_COPY_FROM = 4_000

# These have functions of the same name and arguments within, and are their wrappers for PostgREST.
_WRAPPED = frozenset({"get_conversation", "get_messages", "query_conversations"})
# Of this one what is within takes all arguments by place; the wrapper costs a tenth of a call, and
# one statement for all of them is prepared once.
_INNER: dict[str, dict[str, object]] = {
    "save_checkpoint": {
        "tenant": None, "thread_id": None, "namespace": "", "branch": "main", "fork": None,
        "id": None, "parent_id": None, "payload": None, "codec": 0, "base_id": None, "depth": 0,
        "size": None, "metadata": None, "tags": None, "search": None, "sealed": None,
        "key_id": None, "schema_hash": None, "schema": None, "failed": False, "user_id": None,
        "count_failed": None,
    },
}  # fmt: skip

_MESSAGE_COLUMNS = (
    "tenant_id", "conversation_id", "seq", "id", "role", "content", "parts", "metadata",
    "input_tokens", "output_tokens", "model", "cost", "created_at", "sealed", "sealed_with",
)  # fmt: skip


class PostgresTransport:
    """Calls functions through an asyncpg pool."""

    def __init__(self, pool: ConnectionPool, schema: str, tenant: str | None) -> None:
        self.schema = schema
        self.tenant = tenant
        self._pool = pool
        self._config = config = pool.config
        self._statements: dict[tuple[str, ...], str] = {}
        private = f"{self.schema}_private"
        # No `from`: a scan of the function costs 5 % of the server's time for one message.
        self._append_one = (
            f"select {private}.append_message($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14)"  # nosec B608
        )
        self._append_all = f"select * from {private}.append_messages($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14)"  # noqa: E501, S608 # nosec B608
        self._reserve = f"select e.tenant, pg_catalog.now(), r.* from {private}.enter_tenant($1, true) as e, lateral {private}.reserve_messages(e.tenant, e.actor, $2, $3, $4, $5, $6, $7) as r"  # noqa: E501, S608 # nosec B608
        self._may_copy = not config.through_transaction_pooler

    async def call(
        self,
        function: str,
        arguments: Mapping[str, object],
        returns: TypeAdapter[T],
        *,
        safe: bool,
        in_tenant: bool = True,
    ) -> T:
        """Call a function; see `Transport.call`."""
        if in_tenant:
            arguments = {**arguments, "tenant": self.tenant}
        if (defaults := _INNER.get(function)) is not None:
            statement = self._by_place(function, defaults)
            arguments = {**defaults, **arguments}
        else:
            schema = f"{self.schema}_private" if function in _WRAPPED else self.schema
            statement = self._statement("select", schema, function, arguments)
        row = await self._called(self._fetchrow, statement, arguments, safe=safe)
        return decode(returns, row[0])

    async def rows(self, function: str, arguments: Mapping[str, object]) -> Sequence[Any]:
        """Call a function that answers by column; see `Transport.rows`."""
        arguments = {**arguments, "tenant": self.tenant}
        # Without `from` a row is one value, whose arrays asyncpg does not read.
        statement = self._statement("select * from", f"{self.schema}_private", function, arguments)
        return await self._called(self._fetch, statement, arguments, safe=True)

    def _statement(
        self, select: str, schema: str, function: str, arguments: Mapping[str, object]
    ) -> str:
        key = (select, function, *arguments)
        statement = self._statements.get(key)
        if statement is None:
            named = ", ".join(f"{name} => ${place}" for place, name in enumerate(arguments, 1))
            statement = self._statements[key] = f"{select} {schema}.{function}({named})"
        return statement

    def _by_place(self, function: str, defaults: Mapping[str, object]) -> str:
        key = ("by place", function)
        statement = self._statements.get(key)
        if statement is None:
            places = ", ".join(f"${place}" for place, _ in enumerate(defaults, 1))
            statement = self._statements[key] = f"select {self.schema}_private.{function}({places})"
        return statement

    async def _called(
        self,
        fetch: Callable[..., Awaitable[T]],
        statement: str,
        arguments: Mapping[str, object],
        *,
        safe: bool,
    ) -> T:
        async def once() -> T:
            async with self._pool.connection(self.schema) as connection:
                return await fetch(connection, statement, *arguments.values())

        return await retrying(once, self._config.retry_timeout, safe=safe)

    async def schema_version(self) -> str | None:
        """The newest migration of the installation; None where there is none."""
        async with self._pool.connection(self.schema) as connection:
            exists = await connection.fetchval(
                "select pg_catalog.to_regprocedure($1) is not null",
                f"{self.schema}.schema_version()",
            )
            if not exists:
                return None
            version: str | None = await connection.fetchval(
                f"select {self.schema}.schema_version()"
            )
            return version

    async def append(self, rows: Sequence[MessageRow]) -> Sequence[Message | PersistenceError]:
        """Write messages in one statement; see `Transport.append`."""
        once = self._append_row if len(rows) == 1 else self._append_rows
        return await retrying(lambda: once(rows), self._config.retry_timeout)

    async def _append_row(self, rows: Sequence[MessageRow]) -> Sequence[Message | PersistenceError]:
        (row,) = rows
        usage = row.usage
        arguments = (
            self.tenant, row.conversation_id, row.id, row.role, row.text, row.parts, row.metadata,
            usage and usage.input_tokens, usage and usage.output_tokens, usage and usage.model,
            usage and usage.cost, row.created_at, row.sealed, row.sealed_with,
        )  # fmt: skip
        async with self._pool.connection(self.schema) as connection:
            answer = await self._fetchval(connection, self._append_one, *arguments)
        seq, created_at, failure = answer
        return (_outcome(row, seq, created_at, failure),)

    async def _append_rows(
        self, rows: Sequence[MessageRow]
    ) -> Sequence[Message | PersistenceError]:
        columns = _columns(rows)
        async with self._pool.connection(self.schema) as connection:
            answer = await self._fetchrow(connection, self._append_all, self.tenant, *columns)
        seqs, times, failures = answer
        if failures is None:
            return [row.stored(seq, at) for row, seq, at in zip(rows, seqs, times, strict=True)]
        return [
            _outcome(row, seq, at, failure)
            for row, seq, at, failure in zip(rows, seqs, times, failures, strict=True)
        ]

    async def append_many(self, rows: Sequence[MessageRow]) -> list[tuple[int, datetime]]:
        """Write many messages, all or none; see `Transport.append_many`."""
        if self._may_copy and len(rows) >= _COPY_FROM:
            try:
                return await retrying(lambda: self._copy(rows), self._config.retry_timeout)
            except (ConflictError, SessionClosedError, SessionFullError):
                # Some are there already, or may be: the function tells a retry from a conflict, and
                # answers one of a session that takes nothing more by now.
                pass
            except AccessDeniedError:
                # A login of its own that is no owner: it writes by the function alone.
                self._may_copy = False
        return await retrying(lambda: self._append_all_or_none(rows), self._config.retry_timeout)

    async def _append_all_or_none(self, rows: Sequence[MessageRow]) -> list[tuple[int, datetime]]:
        columns = _columns(rows)
        async with self._pool.connection(self.schema) as connection, connection.transaction():
            answer = await self._fetchrow(connection, self._append_all, self.tenant, *columns)
            seqs, times, failures = answer
            for row, failure in zip(rows, failures or (), strict=False):
                if failure is not None:
                    raise _failure(row, failure)
        return [*zip(seqs, times, strict=True)]

    async def _copy(self, rows: Sequence[MessageRow]) -> list[tuple[int, datetime]]:
        """Reserve places for the rows and COPY them in, in one transaction.

        COPY does not work under row level security, so this acts as the session's own user, who
        owns the table; the tenant is the one that was entered.
        """
        async with self._pool.connection(self.schema) as connection, connection.transaction():
            await connection.execute("set local role none")
            tenant, now, ids, lasts, counts = await self._fetchrow(
                connection,
                self._reserve,
                self.tenant,
                [row.conversation_id for row in rows],
                *_usages(rows),
                [row.created_at for row in rows],
                all(row.sealed is not None for row in rows),
            )
            places = {}
            for conversation_id, last, count in zip(ids, lasts, counts, strict=True):
                if last is None:
                    raise NotFoundError(f"no conversation {conversation_id}", sqlstate="PT404")
                places[conversation_id] = itertools.count(last - count + 1)
            written = [(next(places[row.conversation_id]), row.created_at or now) for row in rows]
            records = [
                (
                    tenant, row.conversation_id, seq, row.id, row.role, row.text, row.parts,
                    row.metadata or "{}",
                    *(_UNUSED if (u := row.usage) is None
                      else (u.input_tokens, u.output_tokens, u.model, u.cost)),
                    at, row.sealed, row.sealed_with,
                )
                for row, (seq, at) in zip(rows, written, strict=True)
            ]  # fmt: skip
            await connection.copy_records_to_table(
                "messages", schema_name=self.schema, columns=_MESSAGE_COLUMNS, records=records
            )
        return written

    def hints(self) -> Hints | None:
        """Notifications; a transaction pooler passes none on. See `Transport.hints`."""
        return None if self._config.through_transaction_pooler else self._pool.hints

    def room(self, name: str, changed: Callable[[], None]) -> None:
        """Nothing: a direct connection knows no Realtime; see `Transport.room`."""

    @asynccontextmanager
    async def alone(self, job: str) -> AsyncIterator[bool]:
        """Hold an advisory lock; see `Transport.alone`."""
        if self._config.through_transaction_pooler:
            yield True
            return
        async with self._pool.connection(self.schema) as connection:
            taken = await connection.fetchval(
                "select pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended($1, 0))", job
            )
            try:
                yield bool(taken)
            finally:
                # The end of a session ends its locks too.
                if taken and not is_gone(connection):
                    with suppress(*_FOREIGN):
                        await connection.execute(
                            "select pg_catalog.pg_advisory_unlock("
                            "pg_catalog.hashtextextended($1, 0))",
                            job,
                        )

    async def execute(self, sql: str, arguments: Sequence[object]) -> list[dict[str, object]]:
        """Run a statement as the session's own user; see `Store.execute`."""
        async with self._pool.connection(self.schema) as connection:
            if self._config.echo_sql:
                _log.info("%s", sql)
            try:
                if self._config.through_transaction_pooler:
                    return [dict(row) for row in await connection.fetch(sql, *arguments)]
                return await self._execute_as_owner(connection, sql, arguments)
            except asyncpg.SyntaxOrAccessError as error:
                # The statement is the caller's own: what is wrong with it names no values.
                raise DatabaseError(error.args[0], sqlstate=error.sqlstate) from None

    async def _execute_as_owner(
        self, connection: Connection, sql: str, arguments: Sequence[object]
    ) -> list[dict[str, object]]:
        ready = False
        try:
            await connection.execute("reset role")
            rows = await connection.fetch(sql, *arguments)
            await connection.reset()
            await self._pool.prepare(connection)
            ready = True
        finally:
            if not ready and not is_gone(connection):
                connection.terminate()  # a session that is still the owner's does not go back
        return [dict(row) for row in rows]

    def scoped(self, *, schema: str | None = None, tenant: str | None = None) -> Self:
        """The same connections, for another tenant or installation of the same database."""
        return type(self)(self._pool, schema or self.schema, tenant or self.tenant)

    def check_loop(self) -> None:
        """Refuse another event loop than that of the connections."""
        self._pool.check_loop()

    async def aclose(self) -> None:
        """Close the pool, waiting for what is under way."""
        await self._pool.aclose()

    async def _fetchval(self, connection: Connection, sql: str, *arguments: Any) -> Any:
        row = await self._fetchrow(connection, sql, *arguments)
        return row[0]

    async def _fetch(
        self, connection: Connection, sql: str, *arguments: Any
    ) -> Sequence[asyncpg.Record]:
        return await self._told(sql, connection.fetch(sql, *arguments))

    async def _fetchrow(self, connection: Connection, sql: str, *arguments: Any) -> asyncpg.Record:
        row = await self._told(sql, connection.fetchrow(sql, *arguments))
        if row is None:
            raise PersistenceError("The server answered with no row.")
        return row

    async def _told(self, sql: str, answer: Awaitable[T]) -> T:
        """An answer, and where SQL is echoed how long it took."""
        if not self._config.echo_sql:
            return await answer
        start = perf_counter()
        found = await answer
        _log.info("%s -- %.2f ms", sql, (perf_counter() - start) * 1e3)
        return found


def _usages(rows: Sequence[MessageRow]) -> tuple[list[object] | None, ...]:
    """Input tokens, output tokens and costs of rows; each None where none has any."""
    usages = [row.usage for row in rows]
    if not any(usages):
        return None, None, None
    return (
        [usage and usage.input_tokens for usage in usages],
        [usage and usage.output_tokens for usage in usages],
        [usage and usage.cost for usage in usages],
    )


def _columns(rows: Sequence[MessageRow]) -> tuple[Sequence[object] | None, ...]:
    """Rows as the arrays of `append_messages`; a column that no row has is None."""
    usages = [row.usage for row in rows]
    used = any(usage is not None for usage in usages)

    def column(values: list[object]) -> list[object] | None:
        return values if any(value is not None for value in values) else None

    return (
        [row.conversation_id for row in rows],
        [row.id for row in rows],
        [row.role for row in rows],
        [row.text for row in rows],
        column([row.parts for row in rows]),
        column([row.metadata for row in rows]),
        [usage and usage.input_tokens for usage in usages] if used else None,
        [usage and usage.output_tokens for usage in usages] if used else None,
        column([usage and usage.model for usage in usages]) if used else None,
        column([usage and usage.cost for usage in usages]) if used else None,
        column([row.created_at for row in rows]),
        column([row.sealed for row in rows]),
        column([row.sealed_with for row in rows]),
    )


def _outcome(
    row: MessageRow, seq: int, created_at: datetime, failure: str | None
) -> Message | PersistenceError:
    return row.stored(seq, created_at) if failure is None else _failure(row, failure)


def _failure(row: MessageRow, code: str) -> PersistenceError:
    if code == "PT409":
        message = f"another message has the id {row.id}"
        hint = "Repeat a call only with the same content."
    else:
        message = f"no conversation {row.conversation_id}"
        hint = "It was deleted, belongs to another tenant, or is not the caller's to write to."
    return error_class(code)(message, hint=hint, sqlstate=code)
