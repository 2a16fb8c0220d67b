"""The tenants of a store: making them, entering them, closing them."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import TypeAdapter

from haive.core.persistence._encoding import object_to_json, to_json
from haive.core.persistence._sealing import Sealer
from haive.core.persistence._supabase_transport import SupabaseTransport
from haive.core.persistence.encryption import (
    DatabaseKeyStore,
    DataKeys,
    EnvironmentKey,
    Rotated,
    rotate,
)
from haive.core.persistence.encryption._rotation import has_plain
from haive.core.persistence.errors import (
    AccessDeniedError,
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PersistenceError,
    UnsupportedOperationError,
)
from haive.core.persistence.multitenancy import compliance
from haive.core.persistence.multitenancy._analytics import (
    METRICS,
    ROWS,
    Analytics,
    TimeRange,
    arguments,
    counted,
)
from haive.core.persistence.multitenancy._arguments import check_name
from haive.core.persistence.multitenancy._databases import Databases
from haive.core.persistence.multitenancy._exposure import await_exposure, expose, hide
from haive.core.persistence.multitenancy._moving import move, stop_moving
from haive.core.persistence.multitenancy._names import tenant_schema
from haive.core.persistence.multitenancy._retention import apply_retention
from haive.core.persistence.multitenancy._schemas import (
    check_register,
    drop,
    provision,
    purge,
)
from haive.core.persistence.multitenancy._tenant_store import (
    Place,
    RoutedTransport,
    TenantStore,
)
from haive.core.persistence.multitenancy._usage import Reconciliation, TenantUsage
from haive.core.persistence.multitenancy.config import (
    AuditMode,
    IsolationLevel,
    ResourceQuota,
    TenantConfig,
)
from haive.core.persistence.multitenancy.models import Tenant, TenantStatus
from haive.core.persistence.postgres import PostgresStore
from haive.core.persistence.supabase import SupabaseStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from enum import StrEnum
    from types import TracebackType

    from haive.core.persistence._transport import Transport
    from haive.core.persistence.encryption import Destroyed
    from haive.core.persistence.multitenancy._moving import MoveReport
    from haive.core.persistence.multitenancy._retention import Expired
    from haive.core.persistence.store import Store

T = TypeVar("T")
E = TypeVar("E", bound="StrEnum")

_TENANT = TypeAdapter(Tenant)
_TENANTS = TypeAdapter(list[Tenant])
_COUNT = TypeAdapter(int)
_USAGE = TypeAdapter(TenantUsage)
_RECONCILIATION = TypeAdapter(Reconciliation)
_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)

_PAGE_SIZE = 500
# How many tenants' places are kept at hand: one takes about a kilobyte, finding it a round trip.
_PLACES = 10_000


class TenantManager:
    """Makes tenants, lets callers into them, and administers them.

    It works on the connections of one store, which serve all tenants that share its database. What
    administers needs a trusted store: a direct connection or a secret key. ``async with``
    closes it at the end, and leaves the store open.

    Args:
        base_store: An open `PostgresStore`, or a `SupabaseStore`.
        config: How tenants are made and kept apart.
        keys: The data keys of tenants, where their content is sealed. If not given and
            ``enable_encryption_at_rest`` is set: kept in the database, wrapped by
            ``TENANT_MASTER_KEY``.

    Raises:
        ConfigurationError: Encryption is asked for, and there is no key to wrap others with.
    """

    def __init__(
        self,
        base_store: Store,
        config: TenantConfig | None = None,
        *,
        keys: DataKeys | None = None,
    ) -> None:
        self.config = config or TenantConfig()
        if keys is None and self.config.enable_encryption_at_rest:
            keys = DataKeys(EnvironmentKey(), DatabaseKeyStore(base_store))
        self._store = base_store
        self._keys = keys
        self._databases = Databases(self.config)
        self._places: OrderedDict[str, Place] = OrderedDict()
        self._checked = False

    # -- tenants -----------------------------------------------------------------------------------

    async def create_tenant(
        self,
        tenant_id: str,
        name: str | None = None,
        settings: Mapping[str, Any] | None = None,
        custom_quota: ResourceQuota | None = None,
        *,
        isolation_level: IsolationLevel | None = None,
        location: str | None = None,
        audit: AuditMode | None = None,
    ) -> Tenant:
        """Make a tenant. The same call again finds it made.

        Args:
            tenant_id: A slug: 1 to 63 of a-z, 0-9, - and _, with a letter or digit first.
            name: For people; the id if not given.
            settings: ``timezone`` (IANA, for the days and months of quotas),
                ``data_retention_days``, ``event_retention_days`` (7 if not set),
                ``compliance_mode`` (``HIPAA``, ``GDPR`` or ``SOC2``), and what an
                application keeps of its own.
            custom_quota: Its limits; what it leaves out is taken from the config's default.
            isolation_level: If not the config's.
            location: Of a tenant with a database of its own: the name that the config's
                ``databases`` knows it by; the id if not given.
            audit: If not the config's.

        Raises:
            ConflictError: Another tenant has the id, or had it and left an audit log.
            InvalidInputError: An argument means nothing.
            AccessDeniedError: The store is not trusted to administer.
        """
        await self._check_row_security()
        isolation = _one_of(IsolationLevel, isolation_level or self.config.isolation_level)
        audit = _one_of(AuditMode, audit or self.config.audit)
        _check_given(name, settings, custom_quota, "custom_quota")
        if location is not None and isolation is not IsolationLevel.DATABASE:
            raise InvalidInputError(
                "location is the name of a tenant's own database.",
                hint="Pass isolation_level=IsolationLevel.DATABASE, or leave it out.",
            )
        wanted = dict(settings or {})
        encrypted = self.config.enable_encryption_at_rest
        self._check_compliance(wanted, encrypted=encrypted)
        if isolation is IsolationLevel.SCHEMA:
            self._owner()  # before anything is written, for who has none
        quota = (custom_quota or ResourceQuota()).over(self.config.default_quota)
        place = location or tenant_id
        if isolation is IsolationLevel.SCHEMA:
            place = tenant_schema(self._base, tenant_id)
        elif isolation is IsolationLevel.DATABASE:
            await self._databases.prepare(place)
        options = {
            "isolation": isolation,
            "location": None if isolation is IsolationLevel.ROW else place,
            "audit": compliance.audit_for(wanted, audit),
            "encrypted": encrypted,
            "metered": True,
            **quota.limits(),
        }
        asked = {
            "tenant_id": tenant_id,
            "name": name,
            "settings": object_to_json(wanted, "settings"),
        }
        tenant = await self._platform(
            "create_tenant",
            {**asked, "options": to_json(options, "options", 4096)},
            _TENANT,
            safe=True,
        )
        # What follows can be repeated too: a call that was ended in between goes on here.
        if self._keys is not None and tenant.encrypted:
            await self._keys.create(tenant_id)
        if tenant.isolation is IsolationLevel.SCHEMA:
            await check_register(self._owner(), self._base, tenant)
            await self._open_schema(await provision(self._owner(), self._base, tenant_id))
        elif tenant.isolation is IsolationLevel.DATABASE:
            # There it shares the tables, with whomever else that database has.
            there = {**options, "isolation": IsolationLevel.ROW, "location": None}
            await self._way_to(tenant).call(
                "create_tenant",
                {**asked, "options": to_json(there, "options", 4096)},
                _TENANT,
                safe=True,
                in_tenant=False,
            )
        return tenant

    def _check_compliance(self, settings: Mapping[str, Any], *, encrypted: bool) -> None:
        compliance.check(
            settings,
            encrypted=encrypted,
            has_key=self._keys is not None,
            echo_sql=isinstance(self._store, PostgresStore) and self._store.config.echo_sql,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Wait for what is on its way in contexts, and close the databases of tenants.

        The base store stays open; close the manager before it.
        """
        await asyncio.gather(*(place.commits.drain() for place in self._places.values()))
        await self._databases.aclose()

    @property
    def _base(self) -> str:
        return self._store._transport.schema

    def _owner(self) -> str:
        """The connection string of who may make schemas."""
        if self.config.admin_connection_string is not None:
            return self.config.admin_connection_string.get_secret_value()
        if isinstance(self._store, PostgresStore):
            return self._store.config.dsn
        if dsn := os.environ.get("DATABASE_URL"):
            return dsn
        raise UnsupportedOperationError(
            "The REST API makes no schemas.",
            hint="Give TenantConfig an admin_connection_string, set DATABASE_URL, or use "
            "IsolationLevel.ROW.",
        )

    async def _open_schema(self, schema: str) -> None:
        through_rest = isinstance(self._store, SupabaseStore)
        if self.config.expose_schemas or (self.config.expose_schemas is None and through_rest):
            await expose(self._owner(), [schema], beside=[self._base, *self.config.served_schemas])
            transport = self._store._transport.scoped(schema=schema)
            if isinstance(transport, SupabaseTransport):
                await await_exposure(transport)

    async def get_tenant(self, tenant_id: str) -> Tenant:
        """A tenant, whatever its status.

        Raises:
            NotFoundError: There is none.
        """
        return await self._platform("get_tenant", {"tenant_id": tenant_id}, _TENANT, safe=True)

    async def list_tenants(self, *, status: TenantStatus | None = None) -> AsyncIterator[Tenant]:
        """All tenants in the order of their ids, page by page.

        Args:
            status: Only those.
        """
        after = ""
        while True:
            page = await self._platform(
                "list_tenants",
                {"page_size": _PAGE_SIZE, "page_after": after, "status": status},
                _TENANTS,
                safe=True,
            )
            for tenant in page:
                yield tenant
            if len(page) < _PAGE_SIZE:
                return
            after = page[-1].tenant_id

    async def update_tenant(
        self,
        tenant_id: str,
        *,
        name: str | None = None,
        settings: Mapping[str, Any] | None = None,
        quota: ResourceQuota | None = None,
        audit: AuditMode | None = None,
    ) -> Tenant:
        """Replace what is given of a tenant; of a quota, the limits that were set.

        Raises:
            NotFoundError: There is none.
            InvalidInputError: A value means nothing.
        """
        _check_given(name, settings, quota, "quota")
        tenant = await self.get_tenant(tenant_id)
        changes: dict[str, Any] = {}
        if name is not None:
            changes["name"] = name
        if settings is not None:
            self._check_compliance(settings, encrypted=tenant.encrypted)
            changes["settings"] = dict(settings)
        if audit is not None:
            changes["audit"] = _one_of(AuditMode, audit)
        if quota is not None:
            changes |= quota.over(tenant.quota).limits()
        return await self._change(tenant, changes)

    async def suspend_tenant(self, tenant_id: str) -> Tenant:
        """Close a tenant at once: every call in it raises `TenantSuspendedError`."""
        return await self._turn(tenant_id, TenantStatus.SUSPENDED)

    async def resume_tenant(self, tenant_id: str) -> Tenant:
        """Open a tenant that is suspended, or deleted and not yet purged."""
        return await self._turn(tenant_id, TenantStatus.ACTIVE)

    async def delete_tenant(self, tenant_id: str) -> Tenant:
        """Close a tenant for good, but keep what it has until `purge_tenant`."""
        return await self._turn(tenant_id, TenantStatus.DELETED)

    async def purge_tenant(self, tenant_id: str, *, database_is_gone: bool = False) -> int:
        """Remove a deleted tenant with all that it has, and return how many conversations it had.

        Args:
            tenant_id: Its id.
            database_is_gone: The tenant's own database, or project, is no more: take the tenant,
                deleted or not, out of the register. A database that answers is not gone. Nothing
                is counted then: 0.

        Raises:
            ConflictError: It is not deleted, or its database is said to be gone and answers.
            InvalidInputError: It is said to be gone, and there never was one of its own.
        """
        tenant = await self.get_tenant(tenant_id)
        if database_is_gone:
            return await self._purge_without_database(tenant)
        if tenant.isolation is IsolationLevel.ROW:
            removed = await self._platform(
                "purge_tenant", {"tenant_id": tenant_id}, _COUNT, safe=False
            )
            self._places.pop(tenant_id, None)
            return removed
        if tenant.status is not TenantStatus.DELETED:
            raise ConflictError(
                f"The tenant {tenant_id} is not deleted.",
                hint="Delete it first: that can be undone, and this cannot.",
            )
        # The register last: a call that was ended in between is repeated.
        removed = 0
        if tenant.isolation is IsolationLevel.SCHEMA and tenant.location is not None:
            await check_register(self._owner(), self._base, tenant)
            await hide(self._owner(), [tenant.location])
            removed = await purge(self._owner(), self._base, tenant_id)
            await drop(self._owner(), self._base, tenant_id)
        else:
            with suppress(NotFoundError):
                removed = await self._way_to(tenant).call(
                    "purge_tenant", {"tenant_id": tenant_id}, _COUNT, safe=False, in_tenant=False
                )
        await self._platform("purge_tenant", {"tenant_id": tenant_id}, _COUNT, safe=False)
        self._places.pop(tenant_id, None)
        return removed

    async def _purge_without_database(self, tenant: Tenant) -> int:
        named = {"tenant_id": tenant.tenant_id}
        if tenant.isolation is not IsolationLevel.DATABASE:
            raise InvalidInputError(
                f"The tenant {tenant.tenant_id} has no database of its own.",
                hint="Delete it, and purge it without database_is_gone.",
            )
        if await self._is_there(tenant):
            raise ConflictError(
                f"The database of the tenant {tenant.tenant_id} answers.",
                hint="Delete it, and purge it without database_is_gone.",
            )
        deleted = to_json({"status": TenantStatus.DELETED}, "changes", 128)
        await self._platform("update_tenant", named | {"changes": deleted}, _TENANT, safe=False)
        await self._platform("purge_tenant", named, _COUNT, safe=False)
        self._places.pop(tenant.tenant_id, None)
        return 0  # how many there were, only that database knew

    async def _is_there(self, tenant: Tenant) -> bool:
        named = {"tenant_id": tenant.tenant_id}
        try:
            await self._way_to(tenant).call(
                "get_tenant", named, _TENANT, safe=True, in_tenant=False
            )
        except PersistenceError:  # whatever keeps it from us: a project without the kit is gone too
            return False
        return True

    async def usage(self, tenant_id: str) -> TenantUsage:
        """What a tenant uses of its limits, whatever its status.

        Raises:
            NotFoundError: There is none.
        """
        place = await self._find(tenant_id)
        return await place.call("tenant_usage", {}, _USAGE, safe=True)

    async def reconcile_usage(self, tenant_id: str) -> Reconciliation:
        """Count the rows of a metered tenant and correct what is kept of its use.

        A job for the night, beside which writers go on. A drift other than 0 comes from whoever
        changed the tables past the functions.

        Raises:
            NotFoundError: There is none, or it is not metered.
        """
        place = await self._find(tenant_id)
        return await place.call(
            "reconcile_usage",
            {"tenant_id": tenant_id},
            _RECONCILIATION,
            safe=True,
            in_tenant=False,
        )

    async def get_analytics(
        self,
        include_tenants: Sequence[str] | None = None,
        metrics: Sequence[str] = METRICS,
        time_range: TimeRange = "last_30_days",
    ) -> Analytics:
        """What tenants did in a time; for those who run the platform.

        Args:
            include_tenants: Their ids; all if not given. Those that do not exist are answered
                without numbers and are in ``unknown``, and those whose own schema or database does
                not answer in ``unreached``.
            metrics: Any of ``conversation_count``, ``message_count``, ``token_usage``,
                ``storage_used`` and ``active_users``.
            time_range: ``last_N_days`` (today included), ``today`` or ``this_month``, in the time
                zone of each tenant, which are counted when they are written; ``all``;
                ``last_N_hours``, or ``(start, end)`` without its end, which are by the times of
                the rows and read all of a tenant's.

        Raises:
            InvalidInputError: A metric or a range is unknown.
            AccessDeniedError: The store is not trusted to administer.
        """
        asked = arguments(include_tenants, metrics, time_range)
        rows = await self._platform("tenant_analytics", asked, ROWS, safe=True)
        return Analytics(await counted(rows, asked, self._find), metrics, time_range)

    async def _platform(
        self, function: str, arguments: Mapping[str, object], returns: TypeAdapter[T], *, safe: bool
    ) -> T:
        return await self._store._transport.call(
            function, arguments, returns, safe=safe, in_tenant=False
        )

    async def _turn(self, tenant_id: str, status: TenantStatus) -> Tenant:
        return await self._change(await self.get_tenant(tenant_id), {"status": status})

    async def _change(self, tenant: Tenant, changes: Mapping[str, Any]) -> Tenant:
        given = {
            "tenant_id": tenant.tenant_id,
            "changes": to_json(changes, "changes", 128 * 1024),
        }
        while True:
            if tenant.isolation is not IsolationLevel.ROW:
                # Where its rows are, its limits and its status are looked up; the register has a
                # copy.
                await self._way_to(tenant).call(
                    "update_tenant", given, _TENANT, safe=False, in_tenant=False
                )
            changed = await self._platform("update_tenant", given, _TENANT, safe=False)
            if (changed.isolation, changed.location) == (tenant.isolation, tenant.location):
                return changed
            tenant = changed  # moved meanwhile: where it is now was not told

    async def move_tenant(self, tenant_id: str, to: IsolationLevel) -> MoveReport:
        """Move a tenant between shared tables and a schema of its own, while it is in use.

        Reading goes on; writes wait for the second that copying its rows takes.

        Raises:
            ConflictError: It is closed, or being moved by somebody else.
            UnsupportedOperationError: It has, or is to get, a database of its own.
        """
        await check_register(self._owner(), self._base, await self.get_tenant(tenant_id))
        report = await move(self._owner(), self._base, tenant_id, to, on_ready=self._open_schema)
        self._places.pop(tenant_id, None)
        return report

    async def stop_moving(self, tenant_id: str) -> bool:
        """Give up a move that was ended from outside; whether there was one."""
        return await stop_moving(self._owner(), self._base, tenant_id)

    # -- keys --------------------------------------------------------------------------------------

    async def rotate_keys(
        self,
        tenant_id: str,
        *,
        batch: int = 500,
        progress: Callable[[str, int], None] | None = None,
    ) -> Rotated:
        """Seal all that a tenant has with a new key, while it is in use; see `encryption.rotate`.

        Raises:
            ConfigurationError: The manager has no keys.
            ConflictError: Somebody else rotates them.
        """
        keys = self._data_keys()
        async with self.tenant_context(tenant_id) as store:
            sealer = store._sealer
            if sealer is None:
                raise ConfigurationError(
                    f"The content of tenant {tenant_id} is not sealed.",
                    hint="encrypt_tenant seals what it has.",
                )
            return await rotate(store, sealer, keys, batch=batch, progress=progress)

    async def encrypt_tenant(
        self,
        tenant_id: str,
        *,
        batch: int = 500,
        progress: Callable[[str, int], None] | None = None,
    ) -> Rotated:
        """Seal all of a tenant that was made without encryption, and what is written from now on.

        The same call goes on where another one was ended, and finds done what is. Contexts of this
        manager that are entered meanwhile read what is sealed and what is not yet. Those that are
        open, and the managers of other processes that were in the tenant before, have no key: enter
        it anew, there with a new manager, which reads what is sealed already. It takes a minute at
        least.

        Raises:
            ConfigurationError: The manager has no keys.
            ConflictError: Somebody else seals its rows, or it has memories: those cannot be sealed,
                and are forgotten first.
        """
        keys = self._data_keys()
        tenant = await self.get_tenant(tenant_id)
        if not tenant.encrypted:
            self._check_compliance(tenant.settings, encrypted=True)
            await keys.create(tenant_id)
            tenant = await self._change(tenant, {"encrypted": True})
        sealer = Sealer(tenant_id, keys, allow_plain=True)
        way = RoutedTransport(tenant_id, self._way_to(tenant), self._find)
        earlier = self._places.get(tenant_id)
        self._places[tenant_id] = Place(way, sealer)
        try:
            async with self.tenant_context(tenant_id) as store:
                if await has_plain(store):
                    return await rotate(store, sealer, keys, batch=batch, progress=progress)
                active = await keys.create(tenant_id)
                return Rotated(key_id=active, began=False, rows=0, checkpoints=0)
        except ConflictError:
            # Perhaps another call of this manager is at it, whose contexts read both.
            if earlier is not None:
                self._places[tenant_id] = earlier
            raise
        finally:
            sealer.allow_plain = False
            sealer.forget()

    async def destroy_keys(self, tenant_id: str) -> Destroyed:
        """Destroy the keys of a tenant: what they sealed cannot be read any more, by anybody.

        The answer says whether a backup of the database still could be.
        """
        await self.get_tenant(tenant_id)
        destroyed = await self._data_keys().destroy(tenant_id)
        place = self._places.pop(tenant_id, None)
        if place is not None and place.sealer is not None:
            place.sealer.forget()  # for contexts that are open
        return destroyed

    def _data_keys(self) -> DataKeys:
        if self._keys is None:
            raise ConfigurationError(
                "The manager has no keys.",
                hint="Pass keys=DataKeys(…), or set enable_encryption_at_rest=True; on the command "
                "line, set TENANT_MASTER_KEY.",
            )
        return self._keys

    # -- working in one ----------------------------------------------------------------------------

    @asynccontextmanager
    async def tenant_context(self, tenant_id: str) -> AsyncIterator[TenantStore]:
        """Enter a tenant: a store whose every operation is of this tenant alone.

        Of a tenant that is closed, each operation raises `TenantSuspendedError`.

        Checkpointers and the other parts work on it as on any store. It shares the connections of
        the base store; leaving the context ends its use.

        Raises:
            NotFoundError: There is no such tenant.
            ConfigurationError: Its content is sealed, and the manager has no keys.
        """
        await self._check_row_security()
        place = self._places.get(tenant_id)
        if place is None:
            # Of two who enter at once both look, and share what the first one found.
            place = self._places.setdefault(tenant_id, await self._place(tenant_id))
            while len(self._places) > _PLACES:
                self._places.popitem(last=False)
        else:
            self._places.move_to_end(tenant_id)
        store = TenantStore(tenant_id, place, self._store._redactor)
        try:
            yield store
        finally:
            await store.aclose()

    async def apply_retention(self, tenant_id: str) -> Expired:
        """Delete what a tenant does not keep any longer; `apply_retention` without its keys.

        Raises:
            NotFoundError: There is no such tenant.
            TenantSuspendedError: It is closed.
            ConflictError: Somebody else does it now.
        """
        way = RoutedTransport(tenant_id, self._way_to(await self.get_tenant(tenant_id)), self._find)
        return await apply_retention(TenantStore(tenant_id, Place(way), None))

    async def _place(self, tenant_id: str) -> Place:
        try:
            tenant = await self.get_tenant(tenant_id)
        except AccessDeniedError:
            return self._place_by_itself(tenant_id)
        sealer = Sealer(tenant_id, self._data_keys()) if tenant.encrypted else None
        self._check_compliance(tenant.settings, encrypted=tenant.encrypted)
        return Place(RoutedTransport(tenant_id, self._way_to(tenant), self._find), sealer)

    def _place_by_itself(self, tenant_id: str) -> Place:
        """Where the tenant itself says that it is, for who does not read the register."""
        here = self._store._transport.scoped(tenant=tenant_id)
        return Place(RoutedTransport(tenant_id, here, self._find))

    def _log_store(self, tenant_id: str) -> TenantStore:
        """A store for the record of a tenant: no key is needed, and it may be closed or purged."""
        return TenantStore(tenant_id, self._place_by_itself(tenant_id), None)

    async def _find(self, tenant_id: str) -> Transport:
        return self._way_to(await self.get_tenant(tenant_id))

    def _way_to(self, tenant: Tenant) -> Transport:
        if tenant.isolation is IsolationLevel.DATABASE and tenant.location is not None:
            return self._databases.transport(tenant.location, tenant.tenant_id)
        return self._store._transport.scoped(schema=tenant.location, tenant=tenant.tenant_id)

    async def _check_row_security(self) -> None:
        if self._checked or not self.config.enable_row_level_security:
            return
        found = await self._platform("row_security", {}, _ANYTHING, safe=True)
        if found["without"]:
            raise ConfigurationError(
                f"Row level security is off for {', '.join(found['without'])}.",
                hint="Run `haive migrate`, which turns it on.",
            )
        if found["direct"] and not found["binds"]:
            raise ConfigurationError(
                "Row level security does not bind this connection.",
                hint="Connect as a login that is a member of haive_client and owns no table, "
                "or set enable_row_level_security=False.",
            )
        self._checked = True


def _check_given(name: str | None, settings: object, quota: object, quota_is: str) -> None:
    """Refuse what no tenant can have.

    Raises:
        InvalidInputError: An argument means nothing.
    """
    if name is not None:
        check_name(name, "name")
    if settings is not None and not isinstance(settings, Mapping):
        raise InvalidInputError("settings is no mapping.")
    if quota is not None and not isinstance(quota, ResourceQuota):
        raise InvalidInputError(f"{quota_is} is no ResourceQuota.")


def _one_of(kind: type[E], value: str) -> E:
    try:
        return kind(value)
    except ValueError:
        raise InvalidInputError(f"{kind.__name__} is one of {', '.join(kind)}.") from None
