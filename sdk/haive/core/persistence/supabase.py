"""The store over Supabase's REST API."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from haive.core.persistence import schema as _schema
from haive.core.persistence._supabase_transport import ProjectApi, SupabaseTransport
from haive.core.persistence.errors import ConfigurationError, UnsupportedOperationError
from haive.core.persistence.schema import DEFAULT_SCHEMA, check_schema_name
from haive.core.persistence.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haive.core.persistence._transport import Transport
    from haive.core.persistence.events import Subscription
    from haive.core.persistence.privacy import PIIPolicy

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
        enable_realtime: Whether subscriptions are woken by Supabase Realtime, within milliseconds;
            else they look every two seconds.
        realtime_channels: Any of ``conversations`` and ``agent_states``: what `events` hears of.
            `initialize` joins them, and nothing is missed that happens after it: each `events`
            goes on where the one before it left off.
        enable_rls: Refuse a key that row level security does not bind.
        auth_header: The header in which ``access_token`` travels, for gateways that keep
            ``Authorization`` for themselves.
        access_token: A user's JWT.
        tenant: The tenant to work in, where it is not the caller's only one.
        retry_timeout: Seconds to go on trying when the server is away; 0 tries once.
        pii: What is done with personal data before it is stored; nothing if not given.

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
        pii: PIIPolicy | None = None,
    ) -> None:
        super().__init__(pii=pii)
        if not url or not key:
            raise ConfigurationError(
                "No Supabase project is named.",
                hint="Set SUPABASE_URL and SUPABASE_SECRET_KEY, or, for a user's access_token, "
                "SUPABASE_ANON_KEY; `haive local env` prints them.",
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
        check_schema_name(schema)
        self._api = ProjectApi(
            url,
            key,
            schema=schema,
            auth_header=auth_header,
            access_token=access_token,
            retry_timeout=retry_timeout,
            realtime=enable_realtime,
        )
        self._rest = SupabaseTransport(self._api, schema, tenant)
        if realtime_channels:
            self._channels = self.realtime_channels
        self._begun: Subscription | None = None

    @property
    def _transport(self) -> Transport:
        return self._rest

    async def initialize(
        self,
        *,
        create_schema: bool = False,
        run_migrations: bool = False,
        check_version: bool = True,
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
        self._api.open()
        version = await self._rest.schema_version()
        if check_version:
            _schema.check_version(self._rest.schema, version)
        if self.realtime_channels and self._begun is None:
            begun = self.events()
            await begun.__aenter__()
            self._begun = begun
            self._last_read = dict.fromkeys(self.realtime_channels, begun)

    @property
    def _state(self) -> str:
        is_open = "closed" if self._api.is_closed else "open"
        return f"schema={self._rest.schema!r} tenant={self._rest.tenant!r}, {is_open}"

    async def __aenter__(self) -> Self:
        self._api.open()
        return self

    def set_access_token(self, token: str | None) -> None:
        """Act as the user of a refreshed token from now on, subscriptions included.

        Args:
            token: The user's new JWT; None acts with the key alone.
        """
        self._api.set_access_token(token)

    async def aclose(self) -> None:
        """Wait for writes on their way, end what was joined, and close the client.

        Closing what is closed does nothing. `initialize` opens it again.
        """
        self._api.check_loop()  # before anything is given up
        if self._begun is not None:
            await self._begun.aclose()
            self._begun = None
            self._last_read = {}
        await super().aclose()
        self._commits = None
        await self._rest.aclose()


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
