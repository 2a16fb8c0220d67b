"""LocalStack: a Supabase-compatible stack for as long as an `async with` lasts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haive.core.persistence.errors import LocalStackError
from haive.core.persistence.local.client import SupervisorClient
from haive.core.persistence.local.settings import StackSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType


class LocalStack:
    """Postgres, PostgREST, Auth, Storage and Realtime behind one URL, without containers.

    ```python
    async with LocalStack() as stack:
        client = await acreate_client(stack.url, stack.secret_key)
    ```

    The parts run in processes of their own, so synchronous clients work too, and all of them
    end with the block, or with this process, however it dies.

    Args:
        migrate: Install the schema `haive` before the stack is handed over.
        data_dir: Where the data stays for the next time. None: a temporary directory that is
            removed at the end.
        schemas: The schemas that the REST API exposes; they need not exist yet.
        postgres_settings: Server settings over the stack's own, for example `{"fsync": "off"}`
            where a test suite's data may be lost.

    Raises:
        PartUnavailableError: A part cannot run on this machine.
        LocalStackError: The stack did not start.
    """

    def __init__(
        self,
        *,
        migrate: bool = True,
        data_dir: Path | None = None,
        schemas: Sequence[str] = ("public", "haive"),
        postgres_settings: Mapping[str, str] | None = None,
    ) -> None:
        self._migrate = migrate
        self._settings = StackSettings(
            data_dir=None if data_dir is None else str(data_dir.absolute()),
            schemas=tuple(schemas),
            postgres_settings=dict(postgres_settings or {}),
            pause_for_migration=migrate,
        )
        self._supervisor: SupervisorClient | None = None
        self._about: dict[str, str] = {}

    async def __aenter__(self) -> LocalStack:
        if self._supervisor is not None:
            raise LocalStackError("This LocalStack runs already.")
        self._supervisor = SupervisorClient(self._settings)
        try:
            self._about = await self._supervisor.start(migrate=self._migrate)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            # Shielded: a cancelled caller must not leave processes behind.
            await asyncio.shield(asyncio.ensure_future(supervisor.stop()))

    @property
    def url(self) -> str:
        """The URL of the API, for `create_client`."""
        return self._get("url")

    @property
    def publishable_key(self) -> str:
        """The API key for browsers and users: role `anon` until a user signs in."""
        return self._get("publishable_key")

    @property
    def secret_key(self) -> str:
        """The API key for servers: role `service_role`, which bypasses row level security."""
        return self._get("secret_key")

    @property
    def jwt_secret(self) -> str:
        """The HS256 secret that signs and verifies the stack's JWTs."""
        return self._get("jwt_secret")

    @property
    def database_url(self) -> str:
        """The connection string of the role `postgres`, which, as on hosted, is no superuser."""
        return self._get("database_url")

    @property
    def admin_url(self) -> str:
        """The connection string of the superuser `supabase_admin`, for tests that need one."""
        return self._get("admin_url")

    @property
    def data_dir(self) -> Path:
        """The directory of the data and of the log files (`logs/`)."""
        return Path(self._get("data_dir"))

    def mint_user_token(self, sub: str, **claims: Any) -> str:
        """Return an access token for a user, as Supabase Auth would issue it.

        Args:
            sub: The user's id.
            **claims: Claims to add or to override: `email`, `app_metadata`, `exp`, `role`, …
                The token is valid for an hour unless `exp` says otherwise.
        """
        from haive.core.persistence.local import keys  # noqa: PLC0415 - needs the extra "local"

        return keys.mint_user_token(self.jwt_secret, sub, claims)

    def _get(self, name: str) -> str:
        if self._supervisor is None:
            raise LocalStackError("The local stack is not running: use `async with LocalStack()`.")
        return self._about[name]
