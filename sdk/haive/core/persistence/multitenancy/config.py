"""How tenants are kept apart, and what each may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping  # noqa: TC003 - pydantic reads the annotations
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from haive.core.persistence._encoding import describe
from haive.core.persistence.errors import ConfigurationError

_GB = 1_000_000_000
_Limit = Annotated[int, Field(ge=0, le=2**62)]


class IsolationLevel(StrEnum):
    """What is a tenant's own."""

    ROW = "row"
    """Its rows, in tables that all share: thousands of tenants, no set-up."""
    SCHEMA = "schema"
    """A schema with tables of its own: dumped, restored and dropped alone."""
    DATABASE = "database"
    """A database or Supabase project of its own."""


class AuditMode(StrEnum):
    """What is put on record."""

    OFF = "off"
    WRITES = "writes"
    ALL = "all"
    """Reads too."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ConfigurationError(describe(error)) from None


class ResourceQuota(_Settings):
    """What a tenant may use; None is no limit.

    A request is one call of a function of the database, whatever it carries: messages that are
    added at once share one. Months and days are those of the tenant's time zone.
    """

    max_conversations: _Limit | None = None
    """Conversations that exist at the same time."""
    max_storage_gb: Annotated[float, Field(ge=0, le=2**30)] | None = None
    """What its rows hold, in 10⁹ bytes: text, JSON and payloads before the server compresses."""
    max_requests_per_minute: _Limit | None = None
    max_tokens_per_month: _Limit | None = None
    """Tokens read and written, of all messages added in the month."""

    def limits(self) -> dict[str, int | None]:
        """The limits as the database keeps them: storage in bytes."""
        storage = self.max_storage_gb
        return {
            "max_conversations": self.max_conversations,
            "max_storage_bytes": None if storage is None else round(storage * _GB),
            "max_requests_per_minute": self.max_requests_per_minute,
            "max_tokens_per_month": self.max_tokens_per_month,
        }

    @classmethod
    def from_limits(cls, limits: Mapping[str, int | None]) -> Self:
        """The reverse of `limits`."""
        stored = limits["max_storage_bytes"]
        return cls(
            max_conversations=limits["max_conversations"],
            max_storage_gb=None if stored is None else stored / _GB,
            max_requests_per_minute=limits["max_requests_per_minute"],
            max_tokens_per_month=limits["max_tokens_per_month"],
        )

    def over(self, other: ResourceQuota) -> ResourceQuota:
        """This quota, with what it leaves out taken from another."""
        return type(self)(**{**other.model_dump(), **self.model_dump(exclude_unset=True)})


class TenantConfig(_Settings):
    """How a `TenantManager` makes and opens tenants."""

    isolation_level: IsolationLevel = IsolationLevel.ROW
    """Of tenants that are made from now on; each keeps its own until it is moved."""
    enable_row_level_security: bool = True
    """See that row level security is on for every table and, on a direct connection, that it binds
    the session, before the first tenant is made or entered. The policies are there either way;
    False is for a login that owns the tables, behind a transaction pooler."""
    enable_encryption_at_rest: bool = False
    """Seal the content of tenants that are made from now on, with a data key for each; see
    `haive.core.persistence.encryption`. What wraps the keys is the manager's argument ``keys``,
    else ``TENANT_MASTER_KEY`` from the environment."""
    audit: AuditMode = AuditMode.WRITES
    """What goes on record of tenants that are made from now on."""
    default_quota: ResourceQuota = ResourceQuota()
    """For what a tenant's own quota leaves out."""
    expose_schemas: bool | None = None
    """Have the REST API serve the schemas of tenants. Unset: where the base store works through
    it. With hundreds of schemas PostgREST takes seconds to read them anew."""
    served_schemas: tuple[str, ...] = ()
    """What the project's dashboard exposes besides ``public``, ``graphql_public`` and the base
    schema: the first tenant's schema makes a setting that replaces that list."""
    admin_connection_string: SecretStr | None = None
    """A direct connection as the owner of the schema, for what the REST API cannot do: making and
    moving schemas. Unset: that of a PostgresStore, else ``DATABASE_URL`` from the environment."""
    databases: Mapping[str, SecretStr] | Callable[[str], str | SecretStr] | None = None
    """Where the databases of tenants are: by the name of their location, as secrets or in the
    clear, or a function of it. Unset, the variable ``TENANT_DATABASE_URL_<LOCATION>``."""
