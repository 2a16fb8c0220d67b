"""How a `PostgresStore` connects."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)

from haive.core.persistence._encoding import describe
from haive.core.persistence.errors import ConfigurationError
from haive.core.persistence.schema import DEFAULT_SCHEMA, check_schema_name

_DURATION = re.compile(r"\d+\s*(us|ms|s|min|h|d)?")
_MEMORY = re.compile(r"\d+\s*(B|kB|MB|GB|TB)?")


def _duration(value: str) -> str:
    if not _DURATION.fullmatch(value):
        raise ValueError("a duration is a number and us, ms, s, min, h or d, such as '30s'")
    return value


def _memory(value: str) -> str:
    if not _MEMORY.fullmatch(value):
        raise ValueError("an amount of memory is a number and kB, MB, GB or TB, such as '256MB'")
    return value


Duration = Annotated[str, AfterValidator(_duration)]
Memory = Annotated[str, AfterValidator(_memory)]


class PersistenceConfig(BaseModel):
    """Settings of a `PostgresStore`.

    Times are seconds where they are numbers and Postgres's own notation where they are text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ConfigurationError(describe(error)) from None

    connection_string: SecretStr | None = Field(default=None, validate_default=True)
    """Where the database is; ``DATABASE_URL`` from the environment if not given."""
    schema_name: str = Field(default=DEFAULT_SCHEMA, alias="schema")
    """The name that the kit is installed under."""
    tenant: str | None = None
    """The tenant to work in; ``default`` if not given."""

    pool_size: int = Field(default=5, ge=1, le=1000)
    """Connections that stay open."""
    max_overflow: int = Field(default=10, ge=0, le=1000)
    """Connections that may be opened beyond ``pool_size`` and are closed when idle."""
    pool_timeout: float = Field(default=30.0, gt=0)
    """Seconds to wait for a free connection, and for a new one to be made."""
    retry_timeout: float = Field(default=30.0, ge=0)
    """Seconds to go on trying when the server is away or restarts; 0 tries once."""
    transaction_pooler: bool | None = None
    """Whether a pooler shares sessions between statements; told by port 6543 if not given."""
    echo_sql: bool = False
    """Log each call, without its arguments, to ``haive.core.persistence.sql`` at INFO."""

    statement_timeout: Duration | None = None
    lock_timeout: Duration | None = None
    idle_in_transaction_session_timeout: Duration | None = None

    work_mem: Memory | None = None
    """Memory of a sort or hash, set for each session."""
    maintenance_work_mem: Memory | None = None
    """Memory of an index build, set for each session."""
    effective_cache_size: Memory | None = None
    """What the planner takes to be cached, set for each session."""

    @field_validator("connection_string", mode="after")
    @classmethod
    def _from_environment(cls, value: SecretStr | None) -> SecretStr:
        text = value.get_secret_value() if value else os.environ.get("DATABASE_URL", "")
        if not text:
            raise ConfigurationError(
                "No database is named.",
                hint="Pass connection_string or set DATABASE_URL; `haive local env` prints one.",
            )
        parts = urlsplit(text)
        if parts.scheme not in {"postgresql", "postgres"}:
            raise ConfigurationError("A connection string begins with postgresql://.")
        if "@" in f"{parts.path}{parts.query}{parts.fragment}" and "@" not in parts.netloc:
            raise ConfigurationError("Percent-encode / ? and # in the password.")
        ports = re.findall(r":([^:\],]*)(?=,|$)", parts.netloc.rpartition("@")[2])
        if any(port and not (port.isdecimal() and 0 < int(port) < 65_536) for port in ports):
            raise ConfigurationError("A port in the connection string is no number up to 65535.")
        return SecretStr(text)

    @field_validator("schema_name", mode="after")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        return check_schema_name(value)

    @property
    def dsn(self) -> str:
        """The connection string in the clear."""
        if self.connection_string is None:
            raise ConfigurationError("No database is named.")
        return self.connection_string.get_secret_value()

    @property
    def through_transaction_pooler(self) -> bool:
        """Whether sessions are shared from statement to statement."""
        if self.transaction_pooler is not None:
            return self.transaction_pooler
        return re.search(r":6543(,|$)", urlsplit(self.dsn).netloc) is not None

    @property
    def session_settings(self) -> dict[str, str]:
        """The settings that each session makes for itself."""
        names = (
            "statement_timeout",
            "lock_timeout",
            "idle_in_transaction_session_timeout",
            "work_mem",
            "maintenance_work_mem",
            "effective_cache_size",
        )
        return {name: value for name in names if (value := getattr(self, name)) is not None}
