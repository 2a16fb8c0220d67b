"""`haive tenants`, by both ways to the database."""

from __future__ import annotations

import asyncio
import itertools
import json
import zipfile

import asyncpg
import pytest

from haive.core.persistence import SupabaseStore
from haive.core.persistence.multitenancy import Members

_numbers = itertools.count(1)


@pytest.fixture
def new():
    """An id that no tenant has."""
    return f"made-{next(_numbers)}"


def _json(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def direct(bare_haive, stack):
    """Run `haive tenants` on a direct connection: what both ways share is tried by one."""

    def run(*arguments, **environment):
        return bare_haive("tenants", *arguments, DATABASE_URL=stack.database_url, **environment)

    return run


@pytest.fixture
def alone(bare_haive, database):
    """Run `haive tenants` in a database that no other test has left tenants in."""

    def run(*arguments):
        return bare_haive("tenants", *arguments, DATABASE_URL=database)

    return run


def test_a_tenant_is_made_changed_closed_and_removed(haive, new):
    def tenants(*arguments):
        return haive("tenants", *arguments)

    made = _json(
        tenants(
            *("create", new, "--name", "Acme", "--timezone", "America/New_York"),
            *("--retention-days", "90", "--max-conversations", "5", "--json"),
        )
    )
    assert made["name"] == "Acme"
    assert made["settings"] == {"timezone": "America/New_York", "data_retention_days": 90}
    assert made["quota"]["max_conversations"] == 5
    assert new in {one["tenant_id"] for one in _json(tenants("list", "--json"))}
    changed = _json(
        tenants(
            *("update", new, "--name", "Acme Corporation", "--unset", "timezone"),
            *("--max-tokens-per-month", "1000", "--json"),
        )
    )
    assert changed["name"] == "Acme Corporation"
    assert changed["settings"] == {"data_retention_days": 90}
    assert changed["quota"]["max_conversations"] == 5
    assert changed["quota"]["max_tokens_per_month"] == 1000
    assert _json(tenants("delete", new, "--yes", "--json"))["status"] == "deleted"
    assert "0 conversations" in tenants("purge", new, "--yes").stdout


def test_settings_and_limits_are_taken_away_by_name(direct, new):
    limits = ("--max-conversations", "5", "--max-storage-gb", "1.5")
    _json(direct("create", new, "--timezone", "Europe/Zurich", *limits, "--json"))
    wrong = direct("update", new, "--unset", "timezone", "--unset", "max_tokens_per_month")
    assert wrong.returncode == 2
    said = " ".join(wrong.stderr.replace("│", " ").split())
    assert "max_tokens_per_month is not set" in said
    assert "timezone, max_conversations, max_storage_gb" in said
    gone = ("--unset", "max_conversations", "--unset", "timezone", "--max-storage-gb", "2")
    changed = _json(direct("update", new, *gone, "--json"))
    assert changed["settings"] == {}
    assert changed["quota"]["max_conversations"] is None
    assert changed["quota"]["max_storage_gb"] == 2
    nothing = direct("update", new, "--unset", "timezone", "--unset", "max_storage_gb", "--json")
    assert nothing.returncode == 2
    assert _json(direct("update", new, "--unset", "max_storage_gb", "--json"))["quota"] == {
        "max_conversations": None, "max_storage_gb": None,
        "max_requests_per_minute": None, "max_tokens_per_month": None,
    }  # fmt: skip


def test_a_tenant_is_closed_and_opened_and_nothing_goes_unasked(direct, new):
    assert direct("create", new, "--name", "Acme").stdout.startswith(f"{new} Acme")
    assert _json(direct("suspend", new, "--json"))["status"] == "suspended"
    assert _json(direct("resume", new, "--json"))["status"] == "active"
    assert direct("purge", new, "--yes").returncode == 1  # it is not deleted
    assert direct("delete", new).returncode == 1  # nobody answers
    assert new in direct("list", "--status", "active").stdout
    direct("delete", new, "--yes")
    assert direct("purge", new).returncode == 1  # nobody answers
    assert "no database of its own" in direct("purge", new, "--database-is-gone", "--yes").stderr
    shown = direct("show", new)
    assert "Acme" in shown.stdout
    assert "status deleted" in shown.stdout
    gone = direct("show", "nobody")
    assert gone.returncode == 1
    assert "no tenant" in gone.stderr


def test_a_mode_that_cannot_be_met_is_refused_with_what_to_do(direct, new):
    done = direct("create", new, "--compliance", "HIPAA")
    assert done.returncode == 1
    assert "enable_encryption_at_rest" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_encrypted_tenant_needs_its_key(direct, new):
    key = {"TENANT_MASTER_KEY": "0f" * 32}
    assert "TENANT_MASTER_KEY" in direct("create", new, "--encrypted").stderr
    made = _json(direct("create", new, "--encrypted", "--compliance", "HIPAA", "--json", **key))
    assert made["encrypted"]
    assert made["audit"] == "all"
    done = _json(direct("erase-user", new, "ada", "--yes", "--json", **key))
    assert done["counts"] == {}
    assert direct("erase-user", new, "ada", "--yes").returncode == 1


def test_usage_is_shown_with_its_limits(direct, new):
    _json(direct("create", new, "--max-conversations", "10", "--json"))
    found = _json(direct("usage", new, "--json"))
    assert (found["conversations"]["used"], found["conversations"]["limit"]) == (0, 10)
    assert "conversations 0 of 10 (0%)" in direct("usage", new).stdout


def test_a_mode_raises_the_audit(direct, new):
    made = _json(direct("create", new, "--compliance", "SOC2", "--audit", "off", "--json"))
    assert made["audit"] == "writes"


def test_members_and_invitations(direct, tenant, stack):
    command = ("members", tenant, "--set", "ada=owner", "--set", "a=b=reader")
    found = _json(direct(*command, "--json"))
    assert {one["user_id"]: one["role"] for one in found} == {"ada": "owner", "a=b": "reader"}
    assert direct("members", tenant, "--remove", "a=b").stdout == "owner   ada\n"

    made = _json(direct("invite", tenant, "--role", "admin", "--label", "c", "--json"))
    token = direct("invite", tenant).stdout.splitlines()[-1]

    async def accept(user):
        jwt = stack.mint_user_token(user)
        async with SupabaseStore(stack.url, stack.publishable_key, access_token=jwt) as store:
            return await Members(store).accept(token)

    assert asyncio.run(accept(f"{tenant}-dora")).role == "member"
    shown = _json(direct("invitations", tenant, "--revoke", made["id"], "--json"))
    assert sorted(one["status"] for one in shown) == ["accepted", "revoked"]
    assert "token" not in shown[0]
    assert made["token"] not in direct("invitations", tenant).stdout


@pytest.mark.parametrize("wrong", ["ada", "=owner", "ada=king"])
def test_a_member_that_is_none_is_a_wrong_option(direct, tenant, wrong):
    done = direct("members", tenant, "--set", wrong)
    assert done.returncode == 2
    assert "USER=ROLE" in done.stderr.replace("\n", "")


async def test_a_user_is_exported_and_erased(haive, tenant, stack, tmp_path):
    async with SupabaseStore(stack.url, stack.secret_key, tenant=tenant) as store:
        for user in ("ada", "bob"):
            one = await store.create_conversation("agent", user)
            await store.add_message(one.id, "user", f"I am {user}")
    path = tmp_path / "ada.zip"
    done = _json(haive("tenants", "export-user", tenant, "ada", "-o", str(path), "--json"))
    assert done["counts"]["messages"] == 1
    with zipfile.ZipFile(path) as packed:
        text = packed.read("conversations.jsonl").decode()
    assert "I am ada" in text
    assert "bob" not in text

    assert haive("tenants", "erase-user", tenant, "ada").returncode == 1  # nobody answers
    erased = _json(haive("tenants", "erase-user", tenant, "ada", "--yes", "--json"))
    assert erased["counts"]["messages"] == 1
    left = _json(haive("conversations", "list", "--json"))
    assert [one["user_id"] for one in left] == ["bob"]


def test_retention_works_on_one_tenant_or_on_all_that_ask_for_it(alone, new):
    _json(alone("create", new, "--retention-days", "30", "--json"))
    (report,) = _json(alone("retention", new, "--json"))
    assert report["tenant_id"] == new
    assert report["counts"] == {}
    assert [one["tenant_id"] for one in _json(alone("retention", "--json"))] == [new]
    assert "keeps everything" in alone("retention", "default").stdout


def test_use_is_counted_anew_in_one_tenant_or_in_all_that_are_metered(alone, new, database):
    _json(alone("create", new, "--json"))

    async def tamper():
        owner = await asyncpg.connect(database)
        await owner.execute(
            "insert into haive_private.meters (tenant_id, slot, day, conversations, bytes)"
            " values ($1, 3, current_date, 2, 500)"
            " on conflict (tenant_id, slot) do update set conversations = 2, bytes = 500",
            new,
        )
        await owner.close()

    asyncio.run(tamper())
    found = alone("reconcile", new)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == f"{new}: 0 conversations (-2), 0 bytes (-500)."
    (report,) = _json(alone("reconcile", "--json"))  # the use of the other one is not kept
    assert report["tenant_id"] == new
    assert (report["conversations_drift"], report["storage_drift"]) == (0, 0)
    assert alone("reconcile", "default").returncode == 1


def test_scrub_says_what_is_left(bare_haive, alone, stack):
    done = alone("scrub", "--yes", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1  # the owner of the tables may not switch the log
    assert report["tables"] > 10
    assert any("write-ahead log" in one for one in report["left"])
    assert alone("scrub").returncode == 1  # nobody answers
    api = bare_haive(
        "tenants", "scrub", "--yes", SUPABASE_URL=stack.url, SUPABASE_SECRET_KEY=stack.secret_key
    )
    assert "direct connection" in api.stderr
