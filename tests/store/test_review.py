"""What a review found: rows nobody can read, answers of gateways, plans, and values in errors."""

from __future__ import annotations

import json
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import asyncpg
import httpx
import pytest
from aiohttp import ClientSession, web

from haive.core.persistence import PersistenceConfig, PostgresStore, SupabaseStore
from haive.core.persistence.errors import (
    AccessDeniedError,
    InvalidInputError,
    PersistenceError,
    SchemaMissingError,
    UnavailableError,
)
from haive.core.persistence.local import LocalStack

# Put together here, so that no line of source that a traceback shows contains it.
CANARY = "-".join(("the", "canary", "sings"))


# -- what a member may not store -------------------------------------------------------------------


@pytest.fixture
async def member(stack, tenant) -> AsyncIterator[httpx.AsyncClient]:
    """A signed-in member of the tenant, who calls the API without the SDK."""
    connection = await asyncpg.connect(stack.database_url)
    await connection.execute(
        "insert into haive.members (tenant_id, user_id) values ($1, $2)", tenant, f"{tenant}-user"
    )
    await connection.close()
    headers = {
        "apikey": stack.publishable_key,
        "Authorization": f"Bearer {stack.mint_user_token(f'{tenant}-user')}",
        "Content-Profile": "haive",
    }
    base = f"{stack.url}/rest/v1/rpc/"
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
async def members_conversation(member: httpx.AsyncClient) -> str:
    answer = await member.post("create_conversations", json={"conversations": [{"agent_id": "a"}]})
    assert answer.status_code == 200, answer.text
    return answer.json()[0]["id"]


async def add(member: httpx.AsyncClient, conversation_id: str, *more: dict) -> httpx.Response:
    message = {"conversation_id": conversation_id, "role": "user", "content": "hello"}
    return await member.post("add_messages", json={"messages": [message | one for one in more]})


UNREADABLE = {
    "infinity": {"created_at": "infinity"},
    "minus infinity": {"created_at": "-infinity"},
    "year 20000": {"created_at": "20000-01-01"},
    "before Christ": {"created_at": "0044-03-15 BC"},
    "an unknown part": {"parts": [{"type": "image_url", "image_url": {"url": "x"}}]},
    "a number": {"parts": [5]},
    "null": {"parts": [None]},
    "a part of no type": {"parts": [{"text": "hello"}]},
    "text without text": {"parts": [{"type": "text"}]},
    "text that is a list": {"parts": [{"type": "text", "text": ["hello"]}]},
    "image without a source": {"parts": [{"type": "image", "url": None}]},
    "arguments as text": {
        "parts": [{"type": "tool_call", "id": "1", "name": "x", "arguments": "{}"}]
    },
    "a result of nothing": {"parts": [{"type": "tool_result", "content": "x"}]},
    "the second of two": {"parts": [{"type": "text", "text": "hello"}, {"type": "text"}]},
    "no list": {"parts": {"type": "text", "text": "hello"}},
    "a list in the list": {"parts": [[]]},
    "a part in a list": {"parts": [[{"type": "text", "text": "hello"}]]},
    "a type that is a list": {"parts": [{"type": ["text"], "text": "hello"}]},
    "a type that is a number": {"parts": [{"type": 5, "text": "hello"}]},
    "an address that is a number": {"parts": [{"type": "image", "url": 5, "data": "x"}]},
    "data that is a number": {"parts": [{"type": "image", "url": "x", "data": 5}]},
    "a media type that is a number": {"parts": [{"type": "image", "url": "x", "media_type": 5}]},
    "metadata that nests": {"metadata": json.loads('{"x":' + "[" * 300 + "]" * 300 + "}")},
    "parts that nest": {
        "parts": [json.loads('{"type":"text","text":"","x":' + "[" * 300 + "]" * 300 + "}")]
    },
    "a number without end": {"metadata": {"n": 10**4000}},
}


@pytest.mark.parametrize("transport", ["supabase"])
@pytest.mark.parametrize("what", UNREADABLE)
async def test_a_member_cannot_store_what_nobody_can_read(
    store, member, members_conversation, what
):
    good = await add(member, members_conversation, {})
    assert good.status_code == 200, good.text

    for batch in ([UNREADABLE[what]], [{}, UNREADABLE[what]]):
        answer = await add(member, members_conversation, *batch)
        assert 400 <= answer.status_code < 500, answer.text

    (message,) = await store.get_messages(members_conversation)
    assert message.text == "hello"
    (conversation,) = await store.query_conversations(include_messages=True)
    assert conversation.message_count == 1
    assert conversation.messages == [message]


@pytest.mark.parametrize("transport", ["supabase"])
@pytest.mark.parametrize("moment", ["infinity", "-infinity", "20000-01-01", "0044-03-15 BC"])
async def test_a_member_cannot_begin_a_conversation_when_there_is_no_such_time(
    store, member, moment
):
    new = {"agent_id": "a", "created_at": moment}
    answer = await member.post("create_conversations", json={"conversations": [new]})
    assert 400 <= answer.status_code < 500, answer.text
    assert await store.query_conversations() == []


async def test_what_a_member_stores_at_the_ends_of_the_calendar_is_read(
    store, member, members_conversation
):
    ends = [datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)]
    answer = await add(
        member, members_conversation, *({"created_at": end.isoformat()} for end in ends)
    )
    assert answer.status_code == 200, answer.text
    assert [m.created_at for m in await store.get_messages(members_conversation)] == ends
    conversation = await store.get_conversation(members_conversation)
    # Not the year 9999: it would be the latest one, and kept, for ever.
    assert conversation.created_at <= conversation.last_message_at < ends[1]


async def test_a_sum_of_costs_may_be_more_than_one_cost(store, member, members_conversation):
    answer = await add(member, members_conversation, {"cost": 9e11}, {"cost": 9e11})
    assert answer.status_code == 200, answer.text
    conversation = await store.get_conversation(members_conversation, include_messages=True)
    assert conversation.cost == Decimal(1_800_000_000_000)
    assert len(conversation.messages) == 2
    (listed,) = await store.query_conversations()
    assert listed.cost == conversation.cost


# -- answers that no database gave -----------------------------------------------------------------

Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serve every request with a handler: `url = await serve(handler)`."""
    async with AsyncExitStack() as started:

        async def start(handler: Callable[[web.Request], Awaitable[web.Response]]) -> str:
            application = web.Application()
            application.router.add_route("*", "/{path:.*}", handler)
            runner = web.AppRunner(application)
            await runner.setup()
            started.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return f"http://127.0.0.1:{runner.addresses[0][1]}"

        yield start


CALLS = {
    "open": lambda store: store.initialize(),
    "read": lambda store: store.query_conversations(),
    "write": lambda store: store.add_message(uuid4(), "user", "hello"),
    "change": lambda store: store.update_conversation(uuid4(), agent_id="agent"),
    "delete": lambda store: store.delete_conversation(uuid4()),
}
HTML = "<html><body>Hello</body></html>"
ANSWERS = [
    (502, "text/html", HTML, UnavailableError, ""),
    (503, "text/plain", "", UnavailableError, ""),
    (429, "application/json", '{"message": "slow down"}', UnavailableError, ""),
    (401, "application/json", '{"message": "Invalid API key"}', AccessDeniedError, "API key"),
    (403, "text/html", HTML, AccessDeniedError, ""),
    (400, "text/html", HTML, PersistenceError, ""),
    (404, "application/json", "[]", PersistenceError, ""),
    (200, "text/html", HTML, PersistenceError, ""),
    (200, "application/json", '{"message": "hello"}', PersistenceError, ""),
    (200, "application/json", "[]", PersistenceError, ""),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("status", "kind", "body", "expected", "told"), ANSWERS)
async def test_an_answer_of_a_gateway_is_an_error_of_ours(
    serve, status, kind, body, expected, told, call
):
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, content_type=kind, text=body)

    async with SupabaseStore(await serve(answer), "sb_secret_x", retry_timeout=0) as store:
        with pytest.raises(PersistenceError) as raised:
            await CALLS[call](store)
    if expected is not PersistenceError:
        assert type(raised.value) is expected
    assert told in str(raised.value)
    assert "<html>" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("status", [429, 502, 503])
async def test_a_gateway_that_comes_back_is_waited_for(stack, tenant, serve, status):
    refused = []

    async def forward(request: web.Request) -> web.Response:
        if len(refused) < 2:
            refused.append(request.path)
            return web.Response(status=status)
        headers = {k: v for k, v in request.headers.items() if k.lower() != "host"}
        async with (
            ClientSession() as session,
            session.request(
                request.method,
                f"{stack.url}{request.path_qs}",
                headers=headers,
                data=await request.read(),
            ) as answer,
        ):
            return web.Response(
                status=answer.status,
                body=await answer.read(),
                content_type=answer.content_type,
            )

    url = await serve(forward)
    settings = {"tenant": tenant, "retry_timeout": 5}
    async with SupabaseStore(url, stack.secret_key, **settings) as store:
        conversation = await store.create_conversation("agent")
        assert len(refused) == 2
        refused.clear()
        message = await store.add_message(conversation.id, "user", "hello")
        assert len(refused) == 2
        assert await store.get_messages(conversation.id) == [message]


# -- a server without the schema -------------------------------------------------------------------


async def test_a_server_on_which_nothing_was_installed_says_what_to_run():
    async with LocalStack(migrate=False, postgres_settings={"fsync": "off"}) as bare:
        config = PersistenceConfig(connection_string=bare.database_url)
        with pytest.raises(SchemaMissingError, match="haive migrate"):
            async with PostgresStore(config):
                pass


# -- plans -----------------------------------------------------------------------------------------


def indexes(plan: dict) -> set[str]:
    names = {plan["Index Name"]} if "Index Name" in plan else set()
    return names.union(*(indexes(child) for child in plan.get("Plans", ())))


@pytest.mark.parametrize("key", ["tags", "any_tags", "participants"])
async def test_a_label_that_all_conversations_have_is_not_looked_up_for_one_user(
    stack, database, connect, key
):
    # As service_role: under row level security no index serves labels at all.
    superuser = httpx.URL(stack.admin_url).copy_with(path=httpx.URL(database).path)
    connection = await connect(dsn=str(superuser))
    await connection.execute(
        "insert into haive.conversations (tenant_id, id, agent_id, user_id, tags, participants)"
        " select 'default', gen_random_uuid(), 'a', case when n <= 25 then 'ada' else 'u' || n end,"
        " array['t', 't' || n], array['t', 't' || n] from generate_series(1, 20000) as n"
    )
    # Of an index whose new entries still stand in a list the planner does not think much.
    await connection.execute("vacuum (analyze) haive.conversations")
    await connection.execute(
        "load 'auto_explain'; set auto_explain.log_min_duration = 0;"
        "set auto_explain.log_nested_statements = on; set auto_explain.log_format = json;"
        "set client_min_messages = log; set role service_role;"
    )
    plans: list[str] = []
    connection.add_log_listener(lambda _, notice: plans.append(notice.message))

    async def used(filters: dict) -> set[str]:
        plans.clear()
        query = "select haive.query_conversations(filters => $1)"
        found = json.loads(await connection.fetchval(query, json.dumps(filters)))
        assert len(found["conversations"]) == (10 if "user_id" in filters else 1)
        documents = [json.loads(plan[plan.index("{") :]) for plan in plans]
        return set().union(*(indexes(document["Plan"]) for document in documents))

    labels = {"conversations_tags_idx", "conversations_participants_idx"}
    found = await used({"user_id": "ada", key: ["t"]})
    assert "conversations_user_idx" in found
    assert not found & labels
    # And one that a single conversation has is: a plan with these indexes would be seen.
    assert await used({key: ["t30"]}) & labels
    await connection.execute("reset client_min_messages")


# -- values of callers in errors -------------------------------------------------------------------

WRONG = {
    "filters": {"filters": {"created_after": CANARY}},
    "page_after": {"page_after": f"{CANARY}/x"},
    "limit": {"limit": CANARY},
    "min_messages": {"filters": {"min_messages": CANARY}},
}


@pytest.mark.parametrize("argument", WRONG)
async def test_a_value_that_is_refused_is_not_told(store, argument):
    await store.create_conversation("agent")
    with pytest.raises(InvalidInputError) as raised:
        await store.query_conversations(**WRONG[argument])
    told = (str(raised.value), repr(raised.value), *traceback.format_exception(raised.value))
    assert CANARY not in "\n".join(told)


async def test_a_store_opens_on_the_schema_of_its_own_version(store):
    await store.initialize(create_schema=False, run_migrations=False, check_version=True)
