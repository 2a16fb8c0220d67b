"""What a tenant's compliance_mode turns on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from haive.core.persistence.errors import ConfigurationError, InvalidInputError
from haive.core.persistence.multitenancy.config import AuditMode

if TYPE_CHECKING:
    from collections.abc import Mapping

_STRICTNESS = (AuditMode.OFF, AuditMode.WRITES, AuditMode.ALL)


class ComplianceMode(StrEnum):
    """The values of the setting ``compliance_mode``."""

    HIPAA = "HIPAA"
    GDPR = "GDPR"
    SOC2 = "SOC2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Switches:
    """What a mode asks of a tenant. The database refuses a tenant that has less.

    Export and erasure of data subjects are allowed in every mode.
    """

    encrypted: bool = False
    """Content is sealed with the tenant's own key."""
    audit: AuditMode = AuditMode.OFF
    """What goes on record at least; changes of members are writes."""
    needs_retention: bool = False
    """``data_retention_days`` has to be set."""
    audit_days: int = 0
    """Days that records of the audit log are kept at least. Conversations and checkpoints are no
    such records: ``data_retention_days`` may be less."""
    allows_echo: bool = True
    """Whether statements may be logged: literals of a caller's own SQL would be content."""


_SWITCHES = {
    ComplianceMode.HIPAA: Switches(
        encrypted=True,
        audit=AuditMode.ALL,
        audit_days=2190,  # six years: 45 CFR 164.316(b)(2)(i)
        allows_echo=False,
    ),
    ComplianceMode.GDPR: Switches(audit=AuditMode.WRITES, needs_retention=True),
    ComplianceMode.SOC2: Switches(audit=AuditMode.WRITES, audit_days=365),
}


def requirements(mode: str | None) -> Switches:
    """The switches of a mode; of None, those of a tenant without one.

    Raises:
        InvalidInputError: There is no such mode.
    """
    if mode is None:
        return Switches()
    try:
        return _SWITCHES[ComplianceMode(mode)]
    except ValueError:
        raise InvalidInputError(
            "settings.compliance_mode is unknown.",
            hint=f"Modes are {', '.join(ComplianceMode)}.",
        ) from None


def audit_for(settings: Mapping[str, Any], audit: AuditMode) -> AuditMode:
    """The audit of a tenant with these settings: what is wanted, or what its mode asks for."""
    least = requirements(settings.get("compliance_mode")).audit
    return max(audit, least, key=_STRICTNESS.index)


def check(
    settings: Mapping[str, Any], *, encrypted: bool, has_key: bool, echo_sql: bool = False
) -> None:
    """Refuse settings whose mode cannot be met here.

    Args:
        settings: Of the tenant.
        encrypted: Whether its content will be sealed.
        has_key: Whether there is a key to seal it with.
        echo_sql: Whether the store logs statements.

    Raises:
        ConfigurationError: Something has to be configured; the message names it.
        InvalidInputError: There is no such mode.
    """
    mode = settings.get("compliance_mode")
    switches = requirements(mode)
    if switches.encrypted and not encrypted:
        raise ConfigurationError(
            f"A tenant of mode {mode} is encrypted.",
            hint="Set enable_encryption_at_rest=True in TenantConfig.",
        )
    if switches.encrypted and not has_key:
        raise ConfigurationError(
            f"A tenant of mode {mode} is encrypted, and there is no key to do it with.",
            hint="Configure a key-encryption key for enable_encryption_at_rest.",
        )
    if switches.needs_retention and settings.get("data_retention_days") is None:
        raise ConfigurationError(
            f"A tenant of mode {mode} says how long it keeps data.",
            hint="Set data_retention_days in its settings.",
        )
    if echo_sql and not switches.allows_echo:
        raise ConfigurationError(
            f"For a tenant of mode {mode} no content may go to logs, and echo_sql logs statements.",
            hint="Set echo_sql=False in PersistenceConfig.",
        )
