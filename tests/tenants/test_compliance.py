"""What a mode of compliance turns on, in the SDK and in the database."""

from __future__ import annotations

import itertools
import json

import asyncpg
import pytest

from haive.core.persistence.errors import ConfigurationError, InvalidInputError
from haive.core.persistence.multitenancy import AuditMode, ComplianceMode
from haive.core.persistence.multitenancy.compliance import (
    Switches,
    audit_for,
    check,
    requirements,
)

CONTRACT = {
    "timezone": "America/New_York",
    "data_retention_days": 90,
    "compliance_mode": "HIPAA",
}


def test_no_mode_asks_for_nothing():
    assert requirements(None) == Switches()
    check({}, encrypted=False, has_key=False, echo_sql=True)


def test_hipaa_keeps_audit_records_for_six_years_and_data_as_short_as_wanted():
    switches = requirements("HIPAA")
    assert switches.audit_days == 2190
    assert switches.encrypted
    assert switches.audit is AuditMode.ALL
    check(CONTRACT, encrypted=True, has_key=True)


@pytest.mark.parametrize(
    ("settings", "here", "names"),
    [
        (CONTRACT, {"encrypted": False, "has_key": True}, "enable_encryption_at_rest"),
        (CONTRACT, {"encrypted": True, "has_key": False}, "key-encryption key"),
        (CONTRACT, {"encrypted": True, "has_key": True, "echo_sql": True}, "echo_sql"),
        (
            {"compliance_mode": "GDPR"},
            {"encrypted": False, "has_key": False},
            "data_retention_days",
        ),
    ],
)
def test_what_cannot_be_met_is_refused_and_named(settings, here, names):
    with pytest.raises(ConfigurationError, match=names):
        check(settings, **here)


def test_an_unknown_mode_is_refused():
    with pytest.raises(InvalidInputError, match="HIPAA, GDPR, SOC2"):
        requirements("hipaa")


@pytest.mark.parametrize("wanted", list(AuditMode))
@pytest.mark.parametrize("mode", [None, *ComplianceMode])
def test_the_audit_of_a_mode_is_raised_and_never_lowered(mode, wanted):
    order = list(AuditMode)
    found = audit_for({"compliance_mode": mode}, wanted)
    assert order.index(found) >= order.index(wanted)
    assert order.index(found) >= order.index(requirements(mode).audit)
    assert found in {wanted, requirements(mode).audit}


# -- in the database -------------------------------------------------------------------------------


async def _create(connection, settings, **options):
    await connection.fetchval(
        "select haive.create_tenant('t', 'T', $1, $2)", json.dumps(settings), json.dumps(options)
    )


async def _update(connection, **changes):
    await connection.fetchval("select haive.update_tenant('t', $1)", json.dumps(changes))


async def test_the_database_lets_in_what_the_table_of_switches_does(postgres):
    order = list(AuditMode)
    for mode, audit, encrypted, days in itertools.product(
        (None, *ComplianceMode), AuditMode, (False, True), (None, 30)
    ):
        switches = requirements(mode)
        settings = {"compliance_mode": mode, "data_retention_days": days}
        enough = (
            (encrypted or not switches.encrypted)
            and order.index(audit) >= order.index(switches.audit)
            and (days is not None or not switches.needs_retention)
        )
        transaction = postgres.transaction()
        await transaction.start()
        code = None
        try:
            await _create(postgres, settings, audit=audit, encrypted=encrypted)
        except asyncpg.PostgresError as error:
            code = error.sqlstate
        await transaction.rollback()
        assert code == (None if enough else "PT422"), (mode, audit, encrypted, days)


async def test_a_switch_is_not_lowered_while_the_mode_stands(postgres):
    await _create(postgres, CONTRACT, audit="all", encrypted=True)
    for lower in ({"audit": "writes"}, {"audit": "off"}, {"encrypted": False}):
        with pytest.raises(asyncpg.PostgresError, check=lambda e: e.sqlstate == "PT422"):
            await _update(postgres, **lower)
        # Nor by whoever owns the table.
        column, value = next(iter(lower.items()))
        with pytest.raises(asyncpg.PostgresError, check=lambda e: e.sqlstate == "PT422"):
            await postgres.execute(
                f"update haive.tenants set {column} = '{value}' where tenant_id = 't'"
            )
    await _update(postgres, settings={}, audit="off", encrypted=False)


async def test_a_mode_is_not_set_before_its_switches(postgres):
    await _create(postgres, {})
    with pytest.raises(asyncpg.PostgresError, check=lambda e: e.sqlstate == "PT422"):
        await _update(postgres, settings=CONTRACT)
    await _update(postgres, settings=CONTRACT, audit="all", encrypted=True)
