"""Every failure has a class of ours, says whether to try again, and tells no secrets."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from decimal import Decimal
from uuid import uuid4

import asyncpg
import httpx
import jwt
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore, SupabaseStore
from haive.core.persistence.errors import (
    AccessDeniedError,
    ConnectionLostError,
    ContentTooLargeError,
    InvalidInputError,
    LockTimeoutError,
    NotFoundError,
    PersistenceError,
    PoolTimeoutError,
    SchemaMissingError,
    StatementTimeoutError,
    TokenExpiredError,
    TooManyConnectionsError,
    UnavailableError,
)
from haive.core.persistence.models import MessageRole, NewMessage

# Put together here, so that no line of source that a traceback shows contains it.
CANARY = "-".join(("the", "canary", "sings"))


def password_of(dsn: str) -> str:
    return httpx.URL(dsn).password


def tells(error: BaseException, *secrets: str) -> list[str]:
    """Which secrets an error tells, alone or with all that led to it."""
    text = "\n".join((str(error), repr(error), *traceback.format_exception(error)))
    return [secret for secret in (*secrets, CANARY) if secret in text]


def says_sql(error: BaseException) -> bool:
    words = ("select ", "insert ", "append_message(", "$1")
    return any(word in str(error) or word in repr(error) for word in words)


async def caught(expected: type[PersistenceError], doing, *, retryable: bool) -> PersistenceError:
    with pytest.raises(expected) as raised:
        await doing
    assert type(raised.value) is expected
    assert raised.value.retryable is retryable
    assert not says_sql(raised.value)
    return raised.value


@pytest.fixture
async def locked(database, open_store):
    """A conversation whose row another session holds."""
    store = await open_store(retry_timeout=0)
    conversation = await store.create_conversation("agent")
    other = await asyncpg.connect(database)
    await other.execute("begin")
    await other.execute("select from haive.conversations where id = $1 for update", conversation.id)
    yield conversation.id
    await other.close()


async def test_a_full_pool_is_a_pool_timeout(database, open_store):
    store = await open_store(pool_size=1, max_overflow=0, pool_timeout=0.2, retry_timeout=0)
    busy = asyncio.create_task(store.execute("select pg_sleep(1)"))
    await asyncio.sleep(0.05)

    error = await caught(PoolTimeoutError, store.get_conversation(uuid4()), retryable=True)

    assert tells(error, password_of(database)) == []
    await busy


async def test_a_pool_that_comes_free_is_waited_for(open_store):
    store = await open_store(pool_size=1, max_overflow=0, pool_timeout=5, retry_timeout=0)
    busy = asyncio.create_task(store.execute("select pg_sleep(0.5)"))
    await asyncio.sleep(0.05)

    with pytest.raises(NotFoundError):
        await store.get_conversation(uuid4())

    await busy


@pytest.mark.parametrize("together", [1, 10])
async def test_a_statement_that_runs_too_long_is_a_statement_timeout(
    database, open_store, locked, together
):
    store = await open_store(statement_timeout="80ms", retry_timeout=0)
    error = await caught(StatementTimeoutError, write(store, locked, together), retryable=True)
    assert error.sqlstate == "57014"
    assert tells(error, password_of(database)) == []


@pytest.mark.parametrize("together", [1, 10])
async def test_a_lock_that_does_not_come_free_is_a_lock_timeout(
    database, open_store, locked, together
):
    store = await open_store(lock_timeout="80ms", retry_timeout=0)
    error = await caught(LockTimeoutError, write(store, locked, together), retryable=True)
    assert error.sqlstate == "55P03"
    assert tells(error, password_of(database)) == []


async def test_a_lock_that_comes_free_is_waited_for(database, open_store):
    store = await open_store(lock_timeout="5s", retry_timeout=0)
    conversation = await store.create_conversation("agent")
    other = await asyncpg.connect(database)
    await other.execute("begin; lock table haive.conversations")
    writing = asyncio.create_task(store.add_message(conversation.id, "user", "hello"))
    await asyncio.sleep(0.3)
    await other.close()
    assert (await writing).seq == 1


@pytest.mark.parametrize("together", [1, 10])
async def test_a_server_that_is_gone_is_a_lost_connection(database, open_store, proxy_to, together):
    proxy, dsn = await proxy_to(database)
    store = await open_store(dsn, retry_timeout=0, pool_timeout=2)
    conversation = await store.create_conversation("agent")
    await proxy.stop()

    error = await caught(
        ConnectionLostError, write(store, conversation.id, together), retryable=True
    )
    assert tells(error, password_of(database)) == []
    error = await caught(
        ConnectionLostError, store.get_conversation(conversation.id), retryable=True
    )
    assert tells(error, password_of(database)) == []


async def test_a_session_that_the_server_ends_is_replaced_unseen(database, open_store):
    store = await open_store(pool_size=2)
    conversation = await store.create_conversation("agent")
    for n in range(1, 6):
        connection = await asyncpg.connect(database)
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = "
            "'client backend' and datname = current_database() and pid <> pg_backend_pid()"
        )
        await connection.close()
        assert (await store.add_message(conversation.id, "user", f"{n}")).seq == n


async def test_a_server_without_a_free_connection_says_so(database, server):
    name = httpx.URL(database).path.strip("/")
    await server.execute(f"alter database {name} connection limit 0")
    store = PostgresStore(PersistenceConfig(connection_string=database, retry_timeout=0))
    error = await caught(TooManyConnectionsError, store.initialize(), retryable=True)
    assert tells(error, password_of(database)) == []


async def test_a_wrong_password_is_a_denial_that_does_not_tell_it(database):
    wrong = str(httpx.URL(database).copy_with(password=CANARY))
    store = PostgresStore(PersistenceConfig(connection_string=wrong))
    error = await caught(AccessDeniedError, store.initialize(), retryable=False)
    assert error.sqlstate == "28P01"
    assert "the password of the connection string" in str(error)
    assert tells(error, password_of(database)) == []
    assert CANARY not in repr(store.config)


async def test_a_database_that_is_not_there_is_no_missing_schema(database):
    elsewhere = str(httpx.URL(database).copy_with(path="/nowhere"))
    store = PostgresStore(PersistenceConfig(connection_string=elsewhere))
    error = await caught(SchemaMissingError, store.initialize(), retryable=False)
    assert str(error).startswith("The server has no database of the name")


async def test_a_server_that_is_not_there_is_a_lost_connection(database):
    nowhere = str(httpx.URL(database).copy_with(port=1))
    store = PostgresStore(PersistenceConfig(connection_string=nowhere, retry_timeout=0))
    error = await caught(ConnectionLostError, store.initialize(), retryable=True)
    assert error.hint == "Does it run, and where the connection string says?"
    assert tells(error, password_of(database)) == []


# What PostgREST says when libpq lost the connection and no server gave a code: seen when a session
# is ended while it answers.
NO_CODE = b'{"code":"","details":null,"hint":null,"message":""}'


async def test_an_api_that_lost_its_connection_is_a_lost_connection():
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(NO_CODE), NO_CODE)
        )
        writer.close()

    api = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{api.sockets[0].getsockname()[1]}"
    async with api, SupabaseStore(url, "sb_secret_key", retry_timeout=0) as store:
        await caught(ConnectionLostError, store.get_conversation(uuid4()), retryable=True)


BIG = {CANARY: [1] * 100_000}  # 200 kB of JSON, 1.2 MB in the database: only that refuses it


@pytest.mark.parametrize("together", [1, 10, 1_100])
async def test_content_that_the_database_refuses_is_not_told(database, open_store, together):
    store = await open_store()
    conversation = await store.create_conversation("agent")
    writing = (
        write(store, conversation.id, together, metadata=BIG)
        if together < 1_000
        else store.add_messages(
            [
                NewMessage(
                    conversation_id=conversation.id,
                    role=MessageRole.USER,
                    content=f"{CANARY} {n}",
                    metadata=BIG if n == 0 else {},
                )
                for n in range(together)
            ]
        )
    )
    error = await caught(ContentTooLargeError, writing, retryable=False)
    assert tells(error, password_of(database)) == []
    assert await store.get_messages(conversation.id) == []


async def test_an_id_that_is_taken_is_told_without_the_content(database, open_store):
    store = await open_store()
    conversation = await store.create_conversation("agent")
    message = await store.add_message(conversation.id, "user", CANARY)
    with pytest.raises(PersistenceError) as raised:
        await store.add_message(conversation.id, "user", CANARY + "!", id=message.id)
    assert tells(raised.value, password_of(database)) == []


@pytest.mark.parametrize(
    ("sql", "argument"),
    [
        ("select $1::int", CANARY),  # the driver refuses it
        ("select $1::text::int", CANARY),  # Postgres quotes it in its message
        ("select jsonb_build_object($1::text, 1)::text::int", CANARY),
        ("insert into haive.tenants (tenant_id, name) values ($1, 'x')", CANARY + "!"),
    ],
)
async def test_arguments_of_a_statement_of_ones_own_are_not_told_by_the_error_itself(
    open_store, sql, argument
):
    store = await open_store()
    with pytest.raises(InvalidInputError) as raised:
        await store.execute(sql, argument)
    assert CANARY not in str(raised.value)
    assert CANARY not in repr(raised.value)
    assert not says_sql(raised.value)


async def test_logs_tell_statements_without_arguments(open_store, caplog):
    caplog.set_level(logging.DEBUG, logger="haive")
    store = await open_store(echo_sql=True)
    conversation = await store.create_conversation(CANARY)
    await store.add_message(conversation.id, "user", CANARY, token_usage=usage())
    await store.query_conversations(filters={"agent_id": CANARY})
    assert "append_message" in caplog.text
    assert CANARY not in caplog.text


async def test_a_schema_that_the_api_does_not_serve_may_be_installed(stack):
    async with SupabaseStore(stack.url, stack.secret_key, schema="elsewhere") as store:
        with pytest.raises(SchemaMissingError, match="does not expose the schema"):
            await store.query_conversations()


async def test_a_forged_token_has_not_expired(stack):
    def signed(secret: str, expires: int) -> str:
        claims = {"sub": "ada", "role": "authenticated", "exp": int(time.time()) + expires}
        return jwt.encode(claims, secret, "HS256")

    for token, error in (
        (signed("x" * 64, 60), AccessDeniedError),
        (signed(stack.jwt_secret, -120), TokenExpiredError),
    ):
        with pytest.raises(AccessDeniedError) as raised:
            async with SupabaseStore(stack.url, stack.publishable_key, access_token=token) as store:
                await store.query_conversations()
        assert type(raised.value) is error


def test_unavailability_is_retryable_and_refusal_is_not():
    assert UnavailableError.retryable
    assert not AccessDeniedError.retryable
    assert not InvalidInputError.retryable


def usage() -> dict[str, object]:
    return {"input_tokens": 1, "output_tokens": 1, "model": CANARY, "cost": Decimal("0.5")}


async def write(store: PostgresStore, conversation_id, together: int, metadata=None) -> None:
    """Add messages at the same time; the first error is raised, after all have ended."""
    outcomes = await asyncio.gather(
        *(
            store.add_message(conversation_id, "user", f"{CANARY} {n}", metadata=metadata)
            for n in range(together)
        ),
        return_exceptions=True,
    )
    assert all(isinstance(outcome, PersistenceError) for outcome in outcomes), outcomes
    raise outcomes[0]
