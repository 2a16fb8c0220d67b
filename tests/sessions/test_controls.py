"""The controls: where a safeguard is taken out, what it promises is seen to break."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.errors import (
    AccessDeniedError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    SessionClosedError,
    SessionFullError,
)
from haive.core.persistence.session import SessionConfig, SessionManager


@pytest.fixture
async def manager(database):
    """A manager in a database that only this test has."""
    async with PostgresStore(PersistenceConfig(connection_string=database, pool_size=2)) as store:
        yield SessionManager(store, SessionConfig(default_ttl=None))


async def refused(doing, *errors) -> bool:
    try:
        await doing
    except errors:
        return True
    return False


async def by_a_reader(manager):
    session = await manager.create_collaborative_session(["bob"], {"bob": ["read"]})
    return await refused(
        manager.add_message(session.id, "user", "x", as_user="bob"), AccessDeniedError
    )


async def into_a_closed_one(manager):
    session = await manager.create_session("ada")
    await manager.close(session.id)
    return await refused(manager.store.add_message(session.id, "user", "x"), SessionClosedError)


async def into_a_full_one(manager):
    session = await manager.create_session("ada", max_messages=1)
    await manager.add_message(session.id, "user", "x")
    return await refused(manager.store.add_message(session.id, "user", "x"), SessionFullError)


async def into_a_plain_conversation(manager):
    plain = await manager.store.create_conversation("agent", "ada")
    return await refused(manager.add_message(plain.id, "user", "x", as_user="eve"), NotFoundError)


async def by_a_stranger(manager):
    session = await manager.create_session("ada")
    return await refused(manager.messages(session.id, as_user="eve"), NotFoundError)


async def by_who_left_the_parent(manager):
    parent = await manager.create_collaborative_session(["eve"], user_id="ada", context={"a": 1})
    branch = await manager.branch_session(parent.id)
    await manager.remove_participant(parent.id, "eve")
    return (await manager.get_session(branch.id, as_user="eve")).context == {}


async def by_no_moderator(manager):
    session = await manager.create_collaborative_session(["bob"], {"bob": ["read", "write"]})
    return await refused(
        manager.set_participant(session.id, "eve", ["read"], as_user="bob"), AccessDeniedError
    )


async def _merge(manager, entries, counts):
    one, other, third = [await manager.create_session("ada") for _ in range(3)]
    for each in (one, other, third):
        await manager.add_message(each.id, "user", f"of {each.id}")
    plan = {
        "id": str(uuid4()),
        "strategy": "append",
        "conflict_resolution": "primary_wins",
        "segments": [0, 0],
        "counts": counts,
        "entries": [
            {"conversation_id": str((one, other, third)[which].id), "first_seq": 1, "last_seq": 1}
            for which in entries
        ],
    }
    return await refused(
        manager.store.execute(
            "select haive.merge_sessions($1, $2, $3::jsonb)", one.id, other.id, json.dumps(plan)
        ),
        InvalidInputError,
        ConflictError,
    )


async def with_a_message_of_a_third_one(manager):
    return await _merge(manager, [0, 2], [1, 1])


async def with_a_message_twice(manager):
    return await _merge(manager, [0, 0], [1, 1])


async def for_what_they_were_before(manager):
    return await _merge(manager, [1], [0, 1])


CONTROLS = {
    by_a_reader: (
        "check_session_write", "v_actor is null or v_actor = p_owner", "true or v_actor = p_owner"),
    into_a_closed_one: ("check_session_write", "and s.status = 'open'", ""),
    into_a_full_one: ("check_session_write", "s.max_messages is null or", "true or"),
    into_a_plain_conversation: (
        "append_message", "current_setting('persistence.session', true) <> ''", "false"),
    by_a_stranger: ("enter_session", "and actor <> all(conversation.participants)", "and false"),
    by_who_left_the_parent: ("session_doc", "p_actor is null or", "true or"),
    by_no_moderator: ("enter_session", "p_right = 'moderate' and", "false and"),
    with_a_message_of_a_third_one: (
        "merge_sessions", ") as strange", "limit 0) as strange"),
    with_a_message_twice: ("merge_sessions", "except all select distinct", "except select"),
    for_what_they_were_before: (
        "merge_sessions", "v_plan.counts is distinct from v_counts", "false"),
}  # fmt: skip


@pytest.mark.parametrize("sabotaged", [False, True])
@pytest.mark.parametrize("holds", CONTROLS, ids=lambda each: each.__name__)
async def test_a_write_is_refused_by_the_safeguard_and_by_nothing_else(
    manager, postgres, holds, sabotaged
):
    name, was, becomes = CONTROLS[holds]
    source = await postgres.fetchval(
        "select pg_get_functiondef(oid) from pg_proc"
        " where pronamespace = 'haive_private'::regnamespace and proname = $1",
        name,
    )
    assert was in source
    if sabotaged:
        await postgres.execute("grant create on schema haive_private to haive_writer")
        await postgres.execute(source.replace(was, becomes))
    assert await holds(manager) is not sabotaged
