"""The store over Supabase's REST API."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from postgrest import APIError
from supabase import AsyncClient, AsyncClientOptions, acreate_client

from haive.core.persistence import schema as _schema
from haive.core.persistence._encoding import Document
from haive.core.persistence._retry import retrying
from haive.core.persistence.errors import (
    ConfigurationError,
    ConnectionLostError,
    PersistenceError,
    StatementTimeoutError,
    UnsupportedOperationError,
    database_error,
)
from haive.core.persistence.schema import DEFAULT_SCHEMA, check_schema_name
from haive.core.persistence.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import TypeAdapter

    from haive.core.persistence._rows import MessageRow
    from haive.core.persistence._transport import Transport
    from haive.core.persistence.models import Message

T = TypeVar("T")

# Seconds: a little more than the API's own longest statement (8 for users, 60 behind the gateway).
_TIMEOUT = httpx.Timeout(70.0, connect=10.0)

# What `realtime_channels` may name; each is a topic of its own in the tenant.
_CHANNELS = frozenset({"conversations", "agent_states"})


class SupabaseStore(Store):
    """Conversations and messages through a Supabase project's API.

    Nothing is connected before the first call. With a secret key it works for the whole tenant;
    with a publishable key and a user's ``access_token`` as that user, under row level security.

    Args:
        url: The project's address; ``stack.url`` of a local stack.
        key: A publishable or secret key, or an older anon or service_role one.
        schema: The name that the kit is installed under; the API must expose it.
        enable_realtime: Join channels for changes. The names are checked now and joined when
            something subscribes; with False a subscription is refused.
        realtime_channels: Which: ``conversations``, ``agent_states``.
        enable_rls: Refuse a key that row level security does not bind.
        auth_header: The header in which ``access_token`` travels, for gateways that keep
            ``Authorization`` for themselves.
        access_token: A user's JWT.
        tenant: The tenant to work in, where it is not the caller's only one.
        retry_timeout: Seconds to go on trying when the server is away; 0 tries once.

    Raises:
        ConfigurationError: The arguments contradict each other.
    """

    def __init__(
        self,
        url: str | None,
        key: str | None,
        *,
        schema: str = DEFAULT_SCHEMA,
        enable_realtime: bool = False,
        realtime_channels: Sequence[str] = (),
        enable_rls: bool = False,
        auth_header: str = "Authorization",
        access_token: str | None = None,
        tenant: str | None = None,
        retry_timeout: float = 30.0,
    ) -> None:
        super().__init__()
        if not url or not key:
            raise ConfigurationError(
                "No Supabase project is named.",
                hint="Set SUPABASE_URL and SUPABASE_ANON_KEY; `haive local env` prints them.",
            )
        if urlsplit(url).scheme not in {"http", "https"}:
            raise ConfigurationError("A Supabase project's url begins with https:// or http://.")
        if unknown := set(realtime_channels) - _CHANNELS:
            raise ConfigurationError(
                f"Unknown realtime channels: {', '.join(sorted(unknown))}.",
                hint=f"There are {', '.join(sorted(_CHANNELS))}.",
            )
        if realtime_channels and not enable_realtime:
            raise ConfigurationError("realtime_channels are given, but enable_realtime is False.")
        if enable_rls and _bypasses_rls(key):
            raise ConfigurationError(
                "This key is not bound by row level security.",
                hint="Use a publishable (anon) key and a user's access_token, or enable_rls=False.",
            )
        if not auth_header.replace("-", "").isalnum():
            raise ConfigurationError("auth_header is no name of an HTTP header.")
        self.realtime_channels = tuple(realtime_channels)
        headers = {auth_header: f"Bearer {access_token}"} if access_token else {}
        self._rest = SupabaseTransport(
            url, key, check_schema_name(schema), tenant, headers, retry_timeout
        )

    @property
    def _transport(self) -> Transport:
        return self._rest

    async def __aenter__(self) -> Self:
        return self

    async def initialize(
        self, create_schema: bool = False, run_migrations: bool = False, check_version: bool = True
    ) -> None:
        """Make the first call, and check what answers.

        Args:
            create_schema: Refused when True: the REST API makes no tables.
            run_migrations: The same.
            check_version: Refuse to work with a schema of another version.

        Raises:
            UnsupportedOperationError: It was asked to create or migrate.
            SchemaMissingError: The schema is not installed, or the API does not expose it.
            SchemaVersionError: It is of another version than this package.
        """
        if create_schema or run_migrations:
            raise UnsupportedOperationError(
                "The REST API makes no tables.",
                hint="Run `supabase db push`, or `haive migrate` with the DATABASE_URL.",
            )
        version = await self._rest.schema_version()
        if check_version:
            _schema.check_version(self._rest.schema, version)

    async def aclose(self) -> None:
        """Wait for writes on their way and close the client."""
        await super().aclose()
        self._commits = None
        await self._rest.aclose()


class SupabaseTransport:
    """Calls functions through PostgREST with supabase-py."""

    def __init__(
        self,
        url: str,
        key: str,
        schema: str,
        tenant: str | None,
        headers: dict[str, str],
        retry_timeout: float,
    ) -> None:
        self.schema = schema
        self.tenant = tenant
        self._url = url
        self._key = key
        self._headers = headers
        self._retry_timeout = retry_timeout
        self._client: AsyncClient | None = None
        self._http: httpx.AsyncClient

    async def _connected(self) -> AsyncClient:
        if self._client is None:
            self._http = httpx.AsyncClient(timeout=_TIMEOUT, http2=True)
            self._client = await acreate_client(
                self._url,
                self._key,
                # One client a caller: nobody's session is refreshed or kept in here.
                AsyncClientOptions(
                    schema=self.schema,
                    headers=dict(self._headers),
                    auto_refresh_token=False,
                    persist_session=False,
                    httpx_client=self._http,
                ),
            )
        return self._client

    async def _rpc(self, function: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        client = await self._connected()
        try:
            answer = await client.postgrest.rpc(function, arguments).execute()
        except APIError as error:
            raise _translated(error) from error
        except httpx.TimeoutException as error:
            raise StatementTimeoutError("The API did not answer in time.") from error
        except httpx.TransportError as error:
            raise ConnectionLostError(
                f"The API cannot be reached ({type(error).__name__})."
            ) from error
        return answer.data

    async def call(
        self, function: str, arguments: Mapping[str, object], returns: TypeAdapter[T], *, safe: bool
    ) -> T:
        """Call a function; see `Transport.call`."""
        body = {name: _jsonable(value) for name, value in arguments.items()}
        if self.tenant is not None:
            body["tenant"] = self.tenant

        answer = await retrying(
            lambda: self._rpc(function, body), self._retry_timeout if safe else 0
        )
        return returns.validate_python(answer)

    async def schema_version(self) -> str | None:
        """The newest migration of the installation."""
        version: str | None = await retrying(
            lambda: self._rpc("schema_version", {}), self._retry_timeout
        )
        return version

    async def append(self, rows: Sequence[MessageRow]) -> Sequence[Message | PersistenceError]:
        """Write messages in one request; see `Transport.append`."""
        return await self.append_many(rows)

    async def append_many(self, rows: Sequence[MessageRow]) -> list[Message]:
        """Write many messages, all or none; see `Transport.append_many`."""
        body: dict[str, Any] = {"messages": [row.document() for row in rows]}
        if self.tenant is not None:
            body["tenant"] = self.tenant
        written = await retrying(lambda: self._rpc("add_messages", body), self._retry_timeout)
        return [
            row.stored(one["seq"], datetime.fromisoformat(one["created_at"]))
            for row, one in zip(rows, written, strict=True)
        ]

    async def execute(self, sql: str, arguments: Sequence[object]) -> NoReturn:
        """Refuse: the REST API runs no SQL."""
        raise UnsupportedOperationError(
            "The REST API runs no SQL.", hint="Use a PostgresStore with the project's DATABASE_URL."
        )

    async def aclose(self) -> None:
        """Close the client's connections."""
        if self._client is not None:
            self._client = None
            await self._http.aclose()


def _jsonable(value: object) -> object:
    if isinstance(value, UUID):
        return str(value)
    # Documents come as JSON text that was checked; the client encodes the body as a whole.
    if isinstance(value, Document):
        return json.loads(value)
    return value


def _bypasses_rls(key: str) -> bool:
    """Whether a key acts as service_role. Read, not verified: the server does that."""
    if key.startswith("sb_secret_"):
        return True
    try:
        payload = key.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, binascii.Error, ValueError):
        return False
    return isinstance(claims, dict) and claims.get("role") == "service_role"


def _translated(error: APIError) -> PersistenceError:
    return database_error(error.code, message=error.message, hint=error.hint)
