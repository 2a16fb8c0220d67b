"""A stranger gets nothing, ever: every object there is, by every verb, over both ways.

Nothing is listed here but who is a stranger and what arguments mean. The objects come from the
catalogue, so one that is new is tried like the others, and one that cannot be tried fails.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field

import asyncpg
import httpx
import jwt
import pytest

from haive.core.persistence import SupabaseStore
from haive.core.persistence.multitenancy._exposure import await_exposure, expose, hide

_OBJECTS = """
select c.relname as name, null as parameters, null as required
from pg_class as c
where c.relnamespace = $1::text::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
union all
select p.proname, p.proargnames[:p.pronargs], p.pronargs - p.pronargdefaults
from pg_proc as p
where p.pronamespace = $1::text::regnamespace and p.prorettype <> 'trigger'::regtype
order by 1
"""

# Of all tenants, for those who run the platform: a secret key may.
_PLATFORM = {"list_tenants", "tenant_analytics"}
_VERBS = ("select", "count", "insert", "update", "delete", "upsert")


def _arguments(red, mine):
    """What each parameter is called with: what is red's, where it can be named."""
    key = str(red.key)
    message = {"conversation_id": key, "role": "user", "content": "x", "id": key}
    return {
        "tenant": red.name,
        "tenant_id": red.name,
        "conversation_id": key,
        "channel": f"conversation:{key}",
        "session_id": key,
        "primary_id": key,
        "secondary_id": key,
        "merge_id": key,
        "message_id": key,
        "session": {"id": key, "agent_id": "agent", "parent_id": key},
        "plan": {"strategy": "append", "conflict_resolution": "primary_wins", "entries": []},
        "checkpoint_id": key,
        "from_checkpoint": key,
        "parent_id": key,
        "task_id": key,
        "id": "019aaaaa-0000-7000-8000-00000000abcd",
        "ids": [key],
        "invitation_id": key,
        "thread_id": key,
        "new_thread_id": "copied",
        "messages": [message],
        "conversations": [{"id": key, "agent_id": "agent", "user_id": mine}],
        "changes": {"name": "changed"},
        "hash": "\\x" + red.key.hex,
        "checkpoint_schemas": [{"hash": red.key.hex, "payload": "", "key_id": red.canary[:8]}],
        "payload": "\\x00",
        "size": 1,
        "writes": [{"idx": 1, "channel": "c", "size": 0, "codec": 0, "payload": ""}],
        "name": "stolen",
        "user_id": mine,
        "role": "owner",
        "kind": "conversations",
        "key_id": red.canary[:8],
        "kek_id": "kek",
        "wrapped": "\\x00",
        "status": "retired",
        "token": "guess",
        "collection": "notes",
        "memories": [{"id": key, "metadata": {"text": "x", "user_id": mine}}],
        "items": [{"id": key, "namespace": ["n"], "key": "k", "value": {}, "user_id": mine}],
        "refresh": ["true"],
        "searches": [{"namespace": [], "text": red.canary, "limit": 100}],
        "listings": [{"limit": 100}],
        "query": {"text": red.canary, "vector": "[1,0]", "limit": 100},
        "settings": {"name": "notes", "model": "m", "dimensions": 2},
    }


@dataclass(frozen=True)
class Stranger:
    """Who has no business with red."""

    headers: dict = field(default_factory=dict)
    #: A secret key or a direct connection, which is believed in which tenant it works: in blue.
    trusted: bool = False
    refused: bool = False


async def _objects(connection, schema):
    rows = await connection.fetch(_OBJECTS, schema)
    tables = [row["name"] for row in rows if row["required"] is None]
    functions = [
        (row["name"], list(row["parameters"] or ()), row["required"])
        for row in rows
        if row["required"] is not None
    ]
    return tables, functions


def _calls(functions, red, blue, mine, *, trusted):
    """Each function, with red named and with no tenant named; of the trusted, as blue."""
    known = _arguments(red, mine)
    if trusted:
        known |= {"tenant": blue.name, "tenant_id": blue.name}
    for name, parameters, required in functions:
        assert set(parameters[:required]) <= known.keys(), f"no argument for {name}: add it above"
        if trusted and name in _PLATFORM:
            continue
        aimed = ("conversation_id", "checkpoint_id", "thread_id", "tenant")
        given = {p: known[p] for i, p in enumerate(parameters) if i < required or p in aimed}
        yield name, given
        if "tenant" in parameters[required:]:
            yield name, {p: v for p, v in given.items() if p != "tenant"}


# -- by the REST API -------------------------------------------------------------------------------


def _strangers(stack, red, blue):
    def user(sub, secret=stack.jwt_secret, algorithm="HS256", **claims):
        now = int(time.time())
        body = {"role": "authenticated", "aud": "authenticated", "exp": now + 600, "sub": sub}
        token = jwt.encode({**body, **claims}, secret, algorithm)
        return {"apikey": stack.publishable_key, "Authorization": f"Bearer {token}"}

    owner = f"{red.name}-owner"
    return {
        "anon": Stranger({"apikey": stack.publishable_key}, refused=True),
        "anon, naming the tenant": Stranger(
            {"apikey": stack.publishable_key, "x-haive-tenant": red.name}, refused=True
        ),
        "other tenant": Stranger(user(f"{blue.name}-owner")),
        "other tenant, naming it": Stranger(
            user(f"{blue.name}-owner") | {"x-haive-tenant": red.name}
        ),
        "ex-member": Stranger(user(f"{red.name}-gone") | {"x-haive-tenant": red.name}),
        "expired token": Stranger(user(owner, exp=int(time.time()) - 60), refused=True),
        "bad signature": Stranger(user(owner, "x" * 64), refused=True),
        "no signature": Stranger(user(owner, None, "none"), refused=True),
        "role postgres": Stranger(user(owner, role="postgres"), refused=True),
        "role haive_client": Stranger(user(owner, role="haive_client"), refused=True),
        "no tenant claim": Stranger(user(None)),
        "secret key, in the other tenant": Stranger(
            {"apikey": stack.secret_key, "x-haive-tenant": blue.name}, trusted=True
        ),
    }


class Rest:
    """Tries every object through PostgREST."""

    def __init__(self, client, red, blue):
        self._client = client
        self._red, self._blue = red, blue
        self._turns = asyncio.Semaphore(6)

    async def _request(self, stranger, method, path, **more):
        schema = self._red.schema
        headers = {"Accept-Profile": schema, "Content-Profile": schema}
        headers |= stranger.headers | more.pop("headers", {})
        async with self._turns:
            return await self._client.request(method, path, headers=headers, **more)

    async def table(self, stranger, name, verb):
        """Return what is wrong with the answer, or None."""
        row = {"tenant_id": self._red.name}
        of = f"{name}?tenant_id=eq.{self._red.name}"
        if verb in {"select", "count"} and stranger.trusted:
            return None  # reads past the functions see all tenants: a secret key bypasses policies
        if verb == "select":
            answer = await self._request(stranger, "GET", f"{name}?select=*")
            return self._heard(answer)
        if verb == "count":
            exact = {"Prefer": "count=exact"}
            answer = await self._request(stranger, "HEAD", of, headers=exact)
            total = answer.headers.get("content-range", "*/0").rpartition("/")[2]
            return None if total in {"0", "*"} else f"counted {total}"
        merge = {"Prefer": "resolution=merge-duplicates,return=representation"}
        answer = await {
            "insert": lambda: self._request(stranger, "POST", name, json=row),
            "upsert": lambda: self._request(stranger, "POST", name, json=row, headers=merge),
            "update": lambda: self._request(stranger, "PATCH", of, json=row),
            "delete": lambda: self._request(stranger, "DELETE", of),
        }[verb]()
        allowed = None if answer.status_code in {401, 403} else f"status {answer.status_code}"
        return self._heard(answer) or allowed

    async def call(self, stranger, name, arguments):
        """The same, of a function."""
        answer = await self._request(stranger, "POST", f"rpc/{name}", json=arguments)
        if stranger.refused and answer.status_code not in {401, 403}:
            return f"status {answer.status_code}"
        return self._heard(answer)

    def _heard(self, answer):
        if answer.status_code >= 500:
            return f"status {answer.status_code}: {answer.text[:200]}"
        return "a canary" if self._red.seen_in(answer.text + str(answer.headers)) else None


async def _findings(rest, objects, stranger, red, blue, mine):
    tables, functions = objects
    tried = [((name, verb), rest.table(stranger, name, verb)) for name in tables for verb in _VERBS]
    tried += [
        ((name, json.dumps(given)), rest.call(stranger, name, given))
        for name, given in _calls(functions, red, blue, mine, trusted=stranger.trusted)
    ]
    answers = await asyncio.gather(*(attempt for _, attempt in tried))
    return {what: wrong for (what, _), wrong in zip(tried, answers, strict=True) if wrong}


@pytest.fixture(scope="module")
async def server_connection(stack):
    connection = await asyncpg.connect(stack.database_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="module", params=["row", "schema"])
async def world(request, stack, settled):
    red, blue = await settled(stack.database_url, request.param)
    own = [tenant.schema for tenant in (red, blue) if tenant.schema != "haive"]
    if own:
        await expose(stack.database_url, own, beside=["haive"])
        async with SupabaseStore(stack.url, stack.secret_key) as store:
            for schema in own:
                await await_exposure(store._transport.scoped(schema=schema))
    async with httpx.AsyncClient(base_url=f"{stack.url}/rest/v1/", timeout=60) as client:
        yield red, blue, Rest(client, red, blue)
    if own:
        await hide(stack.database_url, own)


async def test_by_the_api_no_stranger_sees_or_changes_anything(stack, world, server_connection):
    red, blue, rest = world
    objects = await _objects(server_connection, red.schema)
    before = await red.contents(server_connection)
    assert [name for name, rows in before.items() if not rows and name in objects[0]] == []
    found = {}
    for name, stranger in _strangers(stack, red, blue).items():
        mine = f"{blue.name}-owner"
        found[name] = await _findings(rest, objects, stranger, red, blue, mine)
        if await red.contents(server_connection) != before:
            found[name]["rows"] = "changed"
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


async def test_by_the_api_its_owner_sees_the_canary(stack, world, server_connection):
    # The control of the probe: it does find what there is to find.
    red, blue, rest = world
    token = stack.mint_user_token(f"{red.name}-owner")
    owner = Stranger({"apikey": stack.publishable_key, "Authorization": f"Bearer {token}"})
    tables, functions = await _objects(server_connection, red.schema)
    seen = {name for name in tables if await rest.table(owner, name, "select")}
    assert seen >= {"tenants", "members", "conversations", "messages", "threads", "checkpoints"}
    reading = {"get_conversation", "get_messages", "query_conversations", "find_checkpoints"}
    for name, given in _calls(functions, red, blue, "x", trusted=False):
        if name in reading:
            assert await rest.call(owner, name, given) == "a canary"


# In rows the tables are those of other tests; the direct matrix opens them.
@pytest.mark.parametrize("world", ["schema"], indirect=True, scope="module")
async def test_by_the_api_an_open_table_is_noticed(stack, world, server_connection):
    red, blue, rest = world
    stranger = _strangers(stack, red, blue)["other tenant"]
    table = f"{red.schema}.conversations"
    await server_connection.execute(f"alter table {table} disable row level security")
    found = await _findings(
        rest, await _objects(server_connection, red.schema), stranger, red, blue, "x"
    )
    await server_connection.execute(f"alter table {table} enable row level security")
    assert found[("conversations", "select")] == "a canary"
    assert found[("conversations", "count")] == "counted 1"


# -- by a direct connection ------------------------------------------------------------------------

# Role, user, and tenant that is entered: by the setting of a session, or by the header.
_DIRECT = {
    "other tenant": ("authenticated", "{blue}-owner", None),
    "ex-member": ("authenticated", "{red}-gone", "{red}"),
    "anon": ("anon", None, "{red}"),
    "client in the other tenant": ("haive_client", None, "{blue}"),
    "client in none": ("haive_client", None, None),
}


async def _become(connection, role, sub, entered, red, blue):
    names = {"red": red.name, "blue": blue.name}
    sub, entered = (text and text.format(**names) for text in (sub, entered))
    settings = {
        "request.jwt.claims": json.dumps({"role": role} | ({"sub": sub} if sub else {})),
        "request.headers": json.dumps({"x-haive-tenant": entered} if entered else {}),
        "persistence.tenant": entered or "",
    }
    if role == "haive_client":
        settings |= {"request.jwt.claims": "", "request.headers": ""}
    for name, value in settings.items():
        await connection.execute("select set_config($1, $2, true)", name, value)
    await connection.execute(f"set local role {role}")


async def _try(connection, statement, *arguments):
    """The rows as text, or the whole error; what was done is undone."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        return True, str(await connection.fetch(statement, *arguments))
    except asyncpg.PostgresError as error:
        return False, str(error.as_dict())
    finally:
        await transaction.rollback()


def _statements(schema, tables, red):
    for name in tables:
        table = f"{schema}.{name}"
        row = f"(tenant_id) values ('{red.name}')"
        yield name, "select", f"select * from {table}"
        yield name, "count", f"select count(*) = 0 as empty from {table} where tenant_id = $1"
        yield name, "explain", f"explain (analyze, verbose) select * from {table}"
        yield name, "insert", f"insert into {table} {row}"
        yield name, "upsert", f"insert into {table} {row} on conflict do nothing"
        yield name, "update", f"update {table} set tenant_id = 'mine'"
        yield name, "delete", f"delete from {table}"


async def _direct_findings(connection, red, blue):
    tables, functions = await _objects(connection, red.schema)
    types = {
        (row["proname"], name): kind
        for row in await connection.fetch(
            "select proname, proargnames[:pronargs] as names,"
            " array(select t::regtype::text from unnest(proargtypes) as t) as types"
            " from pg_proc where pronamespace = $1::text::regnamespace",
            red.schema,
        )
        for name, kind in zip(row["names"] or (), row["types"], strict=True)
    }
    found = {}
    for who, (role, sub, entered) in _DIRECT.items():
        trusted = role == "haive_client"
        outer = connection.transaction()
        await outer.start()
        await _become(connection, role, sub, entered, red, blue)
        for name, verb, statement in _statements(red.schema, tables, red):
            arguments = [red.name] if verb == "count" else []
            done, text = await _try(connection, statement, *arguments)
            if red.seen_in(text) or (verb == "count" and "empty=False" in text):
                found[who, name, verb] = "a canary"
            if done and verb not in {"select", "count", "explain"}:
                found[who, name, verb] = "allowed"
        for name, given in _calls(functions, red, blue, f"{blue.name}-owner", trusted=trusted):
            named = ", ".join(
                f"{p} => {_literal(value, types[name, p])}" for p, value in given.items()
            )
            _, text = await _try(connection, f"select {red.schema}.{name}({named})")
            if red.seen_in(text):
                found[who, name, named] = "a canary"
        await outer.rollback()
    return found


def _literal(value, kind):
    if kind.endswith("[]"):
        value = "{" + ",".join(value) + "}"
    elif not isinstance(value, str):
        value = json.dumps(value)
    return "'" + value.replace("'", "''") + f"'::{kind}"


@pytest.mark.parametrize("isolation", ["row", "schema"])
async def test_directly_no_stranger_sees_or_changes_anything(
    database, postgres, settled, isolation
):
    red, blue = await settled(database, isolation)
    before = await red.contents(postgres)
    assert await _direct_findings(postgres, red, blue) == {}
    assert await red.contents(postgres) == before


_LEAK = """
create function {0}.leak() returns setof {0}.messages language sql security definer
as 'select * from {0}.messages';
grant execute on function {0}.leak to authenticated
"""
_VIEW = """
create view {0}.open as select * from {0}.messages;
grant select on {0}.open to anon;
grant usage on schema {0} to anon
"""


@pytest.mark.parametrize("isolation", ["row", "schema"])
@pytest.mark.parametrize(
    ("sabotage", "notices"),
    [
        ("alter table {}.conversations disable row level security", "conversations"),
        ("create policy o on {}.messages for select to authenticated using (true)", "messages"),
        ("create policy o on {}.threads for select to haive_client using (true)", "threads"),
        ("grant update on {}.events to authenticated", "events"),
        (_LEAK, "leak"),
        (_VIEW, "open"),
    ],
)
async def test_directly_what_is_opened_is_noticed(
    database, postgres, settled, isolation, sabotage, notices
):
    red, blue = await settled(database, isolation)
    await postgres.execute(sabotage.format(red.schema))
    found = await _direct_findings(postgres, red, blue)
    assert notices in {name for _, name, _ in found}


async def test_a_function_whose_arguments_mean_nothing_here_fails_the_matrix(
    database, postgres, settled
):
    red, blue = await settled(database, "row")
    await postgres.execute(
        "create function haive.peek(whatever text) returns int language sql as 'select 1'"
    )
    with pytest.raises(AssertionError, match="peek"):
        await _direct_findings(postgres, red, blue)
