"""Calls the schema's functions through PostgREST, with supabase-py."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Self, TypeVar
from uuid import UUID
from weakref import WeakSet

import httpx
from postgrest import APIError
from pydantic import BaseModel, Field, TypeAdapter
from supabase import AsyncClient, AsyncClientOptions, acreate_client

from haive.core.persistence._decoding import decode
from haive.core.persistence._encoding import Document
from haive.core.persistence._home_loop import check_loop
from haive.core.persistence._retry import retrying
from haive.core.persistence._tls import tls_context
from haive.core.persistence.errors import (
    AccessDeniedError,
    ConnectionLostError,
    DatabaseError,
    PersistenceError,
    StatementTimeoutError,
    UnavailableError,
    UnsupportedOperationError,
    database_error,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from haive.core.persistence._hints import Hints
    from haive.core.persistence._rows import MessageRow
    from haive.core.persistence._supabase_hints import SupabaseHints
    from haive.core.persistence._supabase_room import Room
    from haive.core.persistence.models import Message

T = TypeVar("T")


class _Place(BaseModel):
    seq: int
    created_at: datetime


_PLACES = TypeAdapter(list[_Place])
_VERSION: TypeAdapter[str | None] = TypeAdapter(Annotated[str, Field(pattern=r"^\d+$")] | None)

# Seconds: a little more than the longest statement that the API lets run.
_TIMEOUT = httpx.Timeout(70.0, connect=10.0)


class ProjectApi:
    """The client of a project, with its key and headers; one serves all tenants and schemas."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        schema: str,
        auth_header: str,
        access_token: str | None,
        retry_timeout: float,
        realtime: bool,
    ) -> None:
        self.retry_timeout = retry_timeout
        self._schema = schema
        self._url = url
        self._key = key
        self._auth_header = auth_header
        self._access_token = access_token
        self._client: AsyncClient | None = None
        self._http: httpx.AsyncClient | None = None
        self._realtime = realtime
        self._hints: SupabaseHints | None = None
        self._rooms: WeakSet[Room] = WeakSet()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.is_closed = False

    def open(self) -> None:
        """Work again after it was closed; a new one needs no opening."""
        self.is_closed = False

    def check_loop(self) -> None:
        """Refuse another event loop than that of the connections, if there are any."""
        if self._loop is not None:
            check_loop(self._loop)

    async def _connected(self) -> AsyncClient:
        if self.is_closed:
            raise PersistenceError(
                "The store is closed.",
                hint="Work inside `async with SupabaseStore(...)`, or await initialize() again.",
            )
        self.check_loop()
        if self._client is None:
            if self._http is None:
                self._loop = asyncio.get_running_loop()
                self._http = httpx.AsyncClient(
                    verify=tls_context(http2=True),
                    timeout=_TIMEOUT,
                    http2=True,
                    event_hooks={"response": [_name_gateway_errors]},
                )
            headers = {}
            if self._access_token:
                headers[self._auth_header] = f"Bearer {self._access_token}"
            self._client = await acreate_client(
                self._url,
                self._key,
                # One client a caller: nobody's session is refreshed or kept in here.
                AsyncClientOptions(
                    schema=self._schema,
                    headers=headers,
                    auto_refresh_token=False,
                    persist_session=False,
                    httpx_client=self._http,
                ),
            )
        return self._client

    def hints(self) -> Hints | None:
        """Where hints come from, if they are wanted; it connects when somebody listens."""
        if not self._realtime:
            return None
        if self._hints is None:
            from haive.core.persistence._supabase_hints import (  # noqa: PLC0415 - where it is used
                SupabaseHints,
            )

            self._hints = SupabaseHints(self._url, self._key, self._access_token)
        return self._hints

    def room(self, name: str, changed: Callable[[], None]) -> Room:
        """A realtime topic to be seen on; it follows the token."""
        from haive.core.persistence._supabase_room import Room  # noqa: PLC0415 - where it is used

        url = f"{self._url.rstrip('/')}/realtime/v1"
        room = Room(url, self._key, lambda: self._access_token, name, changed)
        self._rooms.add(room)
        return room

    def set_access_token(self, token: str | None) -> None:
        """Act as the user of another token from the next call on."""
        self._access_token = token
        self._client = None  # the connections stay
        if self._hints is not None:
            self._hints.set_token(token)
        for room in list(self._rooms):
            room.renew()

    async def rpc(self, schema: str, function: str, arguments: dict[str, Any]) -> Any:
        """Call a function and return the JSON that it answers with."""
        client = await self._connected()
        rest = client.postgrest if schema == self._schema else client.postgrest.schema(schema)
        try:
            answer = await rest.rpc(function, arguments).execute()
        except APIError as error:
            if error.code == "":  # no SQLSTATE: not the server's words, but of who lost it
                raise ConnectionLostError("The API lost its connection to the database.") from None
            # Nothing beneath it: details of the server can quote rows.
            raise database_error(
                error.code, message=error.message, hint=error.hint, detail=error.details
            ) from None
        except httpx.TimeoutException as error:
            raise StatementTimeoutError("The API did not answer in time.") from error
        except httpx.TransportError as error:
            raise ConnectionLostError(
                f"The API cannot be reached ({type(error).__name__}).",
                hint="Does it run, and where the url says?",
            ) from error
        except ValueError:
            raise DatabaseError("The answer of the API cannot be read.") from None
        return answer.data

    async def aclose(self) -> None:
        """Close the client's connections."""
        if self._hints is not None:
            await self._hints.aclose()
        self.is_closed = True
        self._client = self._loop = None
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()


class SupabaseTransport:
    """Calls functions through PostgREST with supabase-py."""

    def __init__(self, api: ProjectApi, schema: str, tenant: str | None) -> None:
        self.schema = schema
        self.tenant = tenant
        self._api = api

    async def _rpc(self, function: str, arguments: dict[str, Any]) -> Any:
        return await self._api.rpc(self.schema, function, arguments)

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
        body = {name: _jsonable(value) for name, value in arguments.items()}
        if in_tenant and self.tenant is not None:
            body["tenant"] = self.tenant

        answer = await retrying(
            lambda: self._rpc(function, body), self._api.retry_timeout, safe=safe
        )
        return decode(returns, answer)

    async def rows(self, function: str, arguments: Mapping[str, object]) -> None:
        """Nothing: PostgREST answers in JSON; see `Transport.rows`."""

    async def schema_version(self) -> str | None:
        """The newest migration of the installation."""
        answer = await retrying(lambda: self._rpc("schema_version", {}), self._api.retry_timeout)
        # As JSON once more: a text is taken for JSON, and a version for a number.
        return decode(_VERSION, json.dumps(answer))

    async def append(self, rows: Sequence[MessageRow]) -> Sequence[Message | PersistenceError]:
        """Write messages in one request; see `Transport.append`."""
        places = await self.append_many(rows)
        return [row.stored(seq, at) for row, (seq, at) in zip(rows, places, strict=True)]

    async def append_many(self, rows: Sequence[MessageRow]) -> list[tuple[int, datetime]]:
        """Write many messages, all or none; see `Transport.append_many`."""
        body: dict[str, Any] = {"messages": [row.document() for row in rows]}
        if self.tenant is not None:
            body["tenant"] = self.tenant
        answer = await retrying(lambda: self._rpc("add_messages", body), self._api.retry_timeout)
        written = decode(_PLACES, answer)
        if len(written) != len(rows):
            raise DatabaseError("The answer of the API cannot be read.")
        return [(place.seq, place.created_at) for place in written]

    def check_loop(self) -> None:
        """Refuse another event loop than that of the connections, if there are any."""
        self._api.check_loop()

    def hints(self) -> Hints | None:
        """Supabase Realtime; see `Transport.hints`."""
        return self._api.hints()

    def room(self, name: str, changed: Callable[[], None]) -> Room:
        """See `Transport.room`."""
        return self._api.room(name, changed)

    @asynccontextmanager
    async def alone(self, job: str) -> AsyncIterator[bool]:
        """Nothing: there is no session here; see `Transport.alone`."""
        yield True

    async def execute(self, sql: str, arguments: Sequence[object]) -> NoReturn:
        """Refuse: the REST API runs no SQL."""
        raise UnsupportedOperationError(
            "The REST API runs no SQL.", hint="Use a PostgresStore with the project's DATABASE_URL."
        )

    def scoped(self, *, schema: str | None = None, tenant: str | None = None) -> Self:
        """The same client, for another tenant or installation of the same project."""
        return type(self)(self._api, schema or self.schema, tenant or self.tenant)

    async def aclose(self) -> None:
        """Close the client's connections."""
        await self._api.aclose()


def _jsonable(value: object) -> object:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    # Documents come as JSON text that was checked; the client encodes the body as a whole.
    if isinstance(value, Document):
        return json.loads(value)
    return value


async def _name_gateway_errors(response: httpx.Response) -> None:
    """Raise for answers that no database gave: those have no code of Postgres or PostgREST."""
    if response.is_success:
        return
    await response.aread()
    try:
        body = response.json()
    except ValueError:
        body = None
    told = body if isinstance(body, dict) else {}
    if isinstance(told.get("code"), str):
        return
    status = response.status_code
    if status in {401, 403}:
        raise AccessDeniedError(f"The API refuses the key: {told.get('message', status)}")
    if status in {408, 429} or status >= 500:
        raise UnavailableError(f"The API cannot answer now ({status}).")
