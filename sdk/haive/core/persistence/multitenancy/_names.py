"""The names of tenants' schemas."""

from __future__ import annotations

import hashlib
import re

from haive.core.persistence.schema import check_schema_name

# What check_schema_name takes at most.
_LONGEST = 55
_UNFIT = re.compile(r"[^a-z0-9]+")
_DIGITS = 8


def tenant_schema(base: str, tenant_id: str) -> str:
    """The name of the schema of a tenant: ``{base}_t_{slug}_{8 hex digits}``.

    The digits are of the SHA-256 of base and tenant, both whole, so that names that are alike, or
    were cut, stay apart. Of four billion pairs of tenants that are alike one shares them:
    `provision` looks whose a schema is before it uses it.

    Args:
        base: The schema that the kit is installed under, whose registry has the tenant.
        tenant_id: Any text.

    Raises:
        InvalidInputError: ``base`` is no schema name.
    """
    check_schema_name(base)
    digest = hashlib.sha256(f"{base}/{tenant_id}".encode("utf-8", "surrogatepass")).hexdigest()
    end = f"_{digest[:_DIGITS]}"
    head = _head(base)
    slug = _UNFIT.sub("_", tenant_id.lower()).strip("_")[: _LONGEST - len(head) - len(end)]
    return check_schema_name(f"{head}{slug.strip('_') or 'tenant'}{end}")


def tenant_schemas(base: str) -> str:
    """What the names of the schemas of all tenants match, in the register or not: a pattern."""
    check_schema_name(base)
    return f"^{_head(base)}[a-z0-9_]+_[0-9a-f]{{{_DIGITS}}}$"


def _head(base: str) -> str:
    # A long base leaves the slug eight characters at least: else all its tenants look the same.
    head = f"{base[: _LONGEST - len('_') - _DIGITS - len('_t_') - 9]}_t_"
    return f"_{head}" if head.startswith("pg_") else head  # Postgres keeps those for itself
