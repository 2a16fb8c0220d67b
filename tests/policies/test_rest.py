"""Through the real PostgREST: no persona ever reads the canary of a tenant that is not theirs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from uuid import uuid4

import asyncpg
import httpx
import jwt
import pytest

_FILTERS = {
    "user_id": "everyone",
    "agent_id": "agent",
    "tags": ["tag"],
    "any_tags": ["tag", "other"],
    "participants": ["everyone"],
    "context": {"common": 1},
    "title": "canary",
    "text": "canary",
    "min_messages": 1,
    "max_messages": 10,
    "created_after": "2000-01-01",
    "created_before": "2100-01-01",
    "updated_after": "2000-01-01",
    "updated_before": "2100-01-01",
    "active_after": "2000-01-01",
    "active_before": "2100-01-01",
}
_ORDERS = ("created_at", "last_message_at", "message_count", "updated_at")
_TABLES = (
    "conversations?select=*,messages(*)",
    "messages?select=*,conversations(*)",
    "messages?select=*&limit=1000",
    "members",
    "tenants?select=*,members(*),conversations(*,messages(*))",
    "events",
)


@dataclass(frozen=True)
class Tenant:
    """A tenant with one conversation, and its name in every text that it has."""

    name: str
    conversation: str
    canary: str


@pytest.fixture(scope="module")
async def tenants(stack):
    """Two tenants that differ in nothing but their canaries, with users of each kind."""
    made = []
    connection = await asyncpg.connect(stack.database_url)
    for color in ("red", "blue"):
        name = f"{color}-{uuid4().hex[:12]}"
        tenant = Tenant(name, str(uuid4()), f"canary-{name}")
        made.append(tenant)
        await connection.execute(
            "insert into haive.tenants (tenant_id, name, settings) values ($1, $2, $3)",
            *(name, tenant.canary, f'{{"note": "{tenant.canary}"}}'),
        )
        await connection.executemany(
            "insert into haive.members (tenant_id, user_id, role) values ($1, $2 || $3, $3)",
            [(name, f"{name}-", role) for role in ("owner", "admin", "member", "reader")],
        )
        users = [f"{name}-{role}" for role in ("member", "reader")]
        await connection.execute(
            "insert into haive.conversations"
            " (tenant_id, id, agent_id, user_id, title, tags, context, participants, settings)"
            " values ($1, $2, 'agent', 'everyone', $3::text, array['tag', $3::text], $4::jsonb, $5,"
            " $4::jsonb)",
            *(name, tenant.conversation, tenant.canary),
            *(f'{{"common": 1, "note": "{tenant.canary}"}}', ["everyone", *users]),
        )
        await connection.execute(
            "select haive_private.append_message($1, $2, $3, 'user', $4, $5, $6, 1, 1, $4)",
            *(name, tenant.conversation, uuid4(), tenant.canary),
            *(f'[{{"type": "text", "text": "{tenant.canary}"}}]', f'{{"note": "{tenant.canary}"}}'),
        )
    await connection.close()
    return made


@pytest.fixture(scope="module")
async def api(stack):
    headers = {"Accept-Profile": "haive", "Content-Profile": "haive"}
    base = f"{stack.url}/rest/v1/"
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=30) as client:
        yield client


def _user(stack, sub, **claims):
    token = stack.mint_user_token(sub, **claims)
    return {"apikey": stack.publishable_key, "Authorization": f"Bearer {token}"}


async def _everything(api, headers, tenants, *, tables=True):
    """Return all that a caller can get to read, by every way there is, as one text."""
    direct = _TABLES if tables else ()
    read = [(await api.get(table, headers=headers)).text for table in direct]
    for named in (None, *tenants):
        tenant = {"tenant": named.name} if named else {}
        entered = headers | ({"x-haive-tenant": named.name} if named else {})
        for arguments, extra in ((tenant, headers), ({}, entered)):
            calls = [("query_conversations", {"message_limit": 10, "order_by": o}) for o in _ORDERS]
            calls += [
                ("query_conversations", {"message_limit": 10, "filters": {key: value}})
                for key, value in _FILTERS.items()
            ]
            calls += [
                (name, {"conversation_id": target.conversation, limit: 10})
                for target in tenants
                for name, limit in (
                    ("get_conversation", "message_limit"),
                    ("get_messages", "page_size"),
                )
            ]
            for name, given in calls:
                answer = await api.post(f"rpc/{name}", headers=extra, json=given | arguments)
                read.append(answer.text)
    return "\n".join(read)


@pytest.mark.parametrize("role", ["owner", "admin", "member", "reader"])
async def test_a_user_reads_all_of_their_tenant_and_no_canary_of_the_other(
    stack, api, tenants, role
):
    red, blue = tenants
    for mine, other in ((red, blue), (blue, red)):
        text = await _everything(api, _user(stack, f"{mine.name}-{role}"), tenants)
        assert text.count(mine.canary) > 100
        assert other.canary not in text
        assert other.name not in text


async def test_anon_and_users_of_no_tenant_read_no_canary(stack, api, tenants):
    anon = {"apikey": stack.publishable_key}
    for headers in (anon, _user(stack, "everyone")):
        text = await _everything(api, headers, tenants)
        for tenant in tenants:
            assert tenant.canary not in text


async def test_a_function_called_with_the_secret_key_stays_in_the_tenant_named(stack, api, tenants):
    red, blue = tenants
    headers = {"apikey": stack.secret_key, "x-haive-tenant": red.name}
    text = await _everything(api, headers, [red], tables=False)
    assert red.canary in text
    assert blue.canary not in text
    answer = await api.post(
        "rpc/get_conversation", headers=headers, json={"conversation_id": blue.conversation}
    )
    assert answer.status_code == 404


_SPOOFS = {
    "user metadata": {"user_metadata": {"tenant": "$", "tenant_id": "$", "role": "owner"}},
    "app metadata": {"app_metadata": {"tenant": "$", "tenant_id": "$", "role": "owner"}},
    "a claim tenant": {"tenant": "$", "tenant_id": "$", "x-haive-tenant": "$"},
    "a setting's name": {"persistence.tenant": "$"},
    "an admin's flags": {"is_super_admin": True, "aal": "aal2", "user_role": "service_role"},
}


@pytest.mark.parametrize("spoof", _SPOOFS)
async def test_no_claim_but_sub_means_anything(stack, api, tenants, spoof):
    red, blue = tenants

    def named(value):
        if isinstance(value, dict):
            return {key: named(inner) for key, inner in value.items()}
        return red.name if value == "$" else value

    user = _user(stack, f"{blue.name}-owner", **named(_SPOOFS[spoof]))
    text = await _everything(api, user, tenants)
    assert red.canary not in text
    assert blue.canary in text


async def test_naming_the_tenant_of_others_is_forbidden(stack, api, tenants):
    red, blue = tenants
    user = _user(stack, f"{blue.name}-owner")
    by_header = await api.post(
        "rpc/query_conversations", headers={**user, "x-haive-tenant": red.name}, json={}
    )
    by_argument = await api.post("rpc/query_conversations", headers=user, json={"tenant": red.name})
    for answer in (by_header, by_argument):
        assert answer.status_code == 403
        assert answer.json()["code"] == "PT403"


@pytest.mark.parametrize("role", ["postgres", "supabase_admin", "haive_writer", "haive_client"])
async def test_even_a_signed_token_cannot_claim_a_role_of_the_database(stack, api, tenants, role):
    user = _user(stack, f"{tenants[1].name}-owner", role=role)
    text = await _everything(api, user, tenants)
    for tenant in tenants:
        assert tenant.canary not in text
    answer = await api.get("conversations", headers=user)
    assert answer.status_code in {401, 403}


@pytest.mark.parametrize("forgery", ["wrong secret", "no signature", "expired"])
async def test_a_forged_or_expired_token_reads_nothing(stack, api, tenants, forgery):
    now = int(time.time())
    claims = {"sub": f"{tenants[0].name}-owner", "role": "service_role", "exp": now + 60}
    token = {
        "wrong secret": lambda: jwt.encode(claims, "x" * 64, "HS256"),
        "no signature": lambda: jwt.encode(claims, None, "none"),
        "expired": lambda: jwt.encode({**claims, "exp": now - 60}, stack.jwt_secret, "HS256"),
    }[forgery]()
    headers = {"apikey": stack.publishable_key, "Authorization": f"Bearer {token}"}
    answer = await api.get("conversations", headers=headers)
    assert answer.status_code == 401


@pytest.mark.parametrize("table", ["tenants", "members", "conversations", "messages", "events"])
async def test_nobody_writes_a_table_through_the_api(stack, api, tenants, table):
    callers = [{"apikey": stack.secret_key}, {"apikey": stack.publishable_key}]
    callers.append(_user(stack, f"{tenants[0].name}-owner"))
    everything = f"{table}?tenant_id=neq.nothing"
    for headers in callers:
        answers = [
            await api.post(table, headers=headers, json={"tenant_id": tenants[0].name}),
            await api.patch(everything, headers=headers, json={"tenant_id": "default"}),
            await api.delete(everything, headers=headers),
        ]
        assert {answer.status_code for answer in answers} <= {401, 403}


async def test_the_private_schema_is_not_exposed(stack, api):
    headers = {"apikey": stack.secret_key}
    profile = {"Accept-Profile": "haive_private", "Content-Profile": "haive_private"}
    answer = await api.post("rpc/my_tenants", headers=headers | profile, json={})
    assert answer.status_code == 406


@pytest.mark.parametrize("encrypted", [False, True])
async def test_no_user_seals_what_nobody_could_open(stack, api, encrypted):
    tenant = f"poisoned-{uuid4().hex[:12]}"
    connection = await asyncpg.connect(stack.database_url)
    try:
        await connection.execute(
            "insert into haive.tenants (tenant_id, name) values ($1, $1)", tenant
        )
        for role in ("member", "owner"):
            await connection.execute("select haive.set_member($1, $2, $3)", role, role, tenant)
        headers = _user(stack, "member") | {"x-haive-tenant": tenant}

        async def call(name, **arguments):
            return await api.post(f"rpc/{name}", headers=headers, json=arguments)

        session = {"agent_id": "agent", "participants": ["owner"], "writers": ["owner"]}
        told = await call("create_session", session=session)
        place = told.json()["id"]
        await connection.execute(
            "update haive.tenants set encrypted = $2 where tenant_id = $1", tenant, encrypted
        )
        sealed = {"sealed": "eHh4eHh4eHg=", "sealed_with": "deadbeef"}
        message = {"conversation_id": place, "role": "user", "content": "", **sealed}
        plain = {"conversation_id": place, "role": "user", "content": "hello"}
        answers = [
            await call("create_conversations", conversations=[{"agent_id": "agent", **sealed}]),
            await call("create_session", session=session | sealed),
            await call("add_messages", messages=[message]),
            await call("add_messages", messages=[message] * 2),
            await call("add_messages", messages=[plain, message]),
            await call("update_conversation", conversation_id=place, changes=sealed),
            await call("update_session_state", session_id=place, changes=sealed),
            await call("continue_session", session_id=place, successor=sealed),
        ]
        refused = [answer.status_code for answer in answers]
        # Of two in one call one is in the clear, which an encrypted tenant takes from nobody.
        assert refused == [403] * 4 + [422 if encrypted else 403] + [403] * 3
        assert {answer.json()["code"] for answer in answers} <= {"PT403", "PT422"}
        count = "select count(*) from haive.{} where tenant_id = $1 and sealed is not null"
        for table in ("conversations", "messages"):
            assert await connection.fetchval(count.format(table), tenant) == 0
    finally:
        await connection.close()
