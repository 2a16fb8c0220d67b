"""Bad input: each has its own error, which says what is wrong, and nothing is stored."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import asyncpg
import pytest
from pydantic import TypeAdapter

from haive.core.persistence.errors import (
    AccessDeniedError,
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PersistenceError,
    SessionClosedError,
    UnsupportedOperationError,
)
from haive.core.persistence.session import SessionConfig

TABLES = ("sessions", "session_segments", "session_merges", "conversations", "messages", "events")
NUL = "a\x00b"
SURROGATE = "a\ud800b"
NO_IDS = (5, None, "", "x", b"x", [], {}, NUL)
NO_OBJECTS = (
    5, "x", [1], b"x", {"a": object()}, {"a": NUL}, {NUL: 1}, {"a": SURROGATE},
    {"a": float("nan")}, {"a": float("inf")}, {(1, 2): 3}, {"a": "x" * 1_100_000},
)  # fmt: skip
NO_NUMBERS = (0, -1, 1.5, "5", True, 2**31, float("nan"), [])
NO_NAMES = (5, b"x", [], NUL, SURROGATE, "x" * 201)
_ANYTHING = TypeAdapter(object)


@pytest.fixture
def unchanged(owner, tenant):
    """All that is stored, to compare it."""

    async def look():
        return [
            await owner.fetch(
                f"select * from haive.{table} as t where tenant_id = $1 order by t::text", tenant
            )
            for table in TABLES
        ]

    return look


@pytest.fixture
def call(store, transport):
    """Call a function of the database as the SDK does, whatever the SDK would check."""

    async def run(function, **arguments):
        if transport == "postgres":
            arguments = {
                name: json.dumps(value) if isinstance(value, dict) else value
                for name, value in arguments.items()
            }
        return await store._transport.call(function, arguments, _ANYTHING, safe=False)

    return run


@pytest.fixture
async def session(filled):
    """A session with three messages, of ada, in which bob reads and cleo writes."""
    return await filled("a", "b", "c")


@pytest.fixture
async def shared(manager):
    return await manager.create_collaborative_session(
        ["bob", "cleo"], {"bob": ["read"], "cleo": ["read", "write"]}, user_id="ada"
    )


WRONG = {
    "create user": (
        NO_NAMES,
        lambda m, s, v: m.create_session(v),
        "user_id|name|session contains|23514",
    ),
    "create agent": (
        (*NO_NAMES, ""),
        lambda m, s, v: m.create_session("u", v),
        "agent_id|name|session contains|23514",
    ),
    "create context": (NO_OBJECTS, lambda m, s, v: m.create_session("u", context=v), "context"),
    "create ttl": (NO_NUMBERS, lambda m, s, v: m.create_session("u", ttl=v), "ttl"),
    "create max_messages": (
        NO_NUMBERS,
        lambda m, s, v: m.create_session("u", max_messages=v),
        "max_messages",
    ),
    "create parent": (
        tuple(v for v in NO_IDS if v is not None),
        lambda m, s, v: m.create_session("u", parent_session_id=v),
        "parent_session_id",
    ),
    "create id": (
        tuple(v for v in NO_IDS if v is not None),
        lambda m, s, v: m.create_session("u", id=v),
        "id",
    ),
    "create title": (
        (NUL, SURROGATE, "x" * 10_001),
        lambda m, s, v: m.create_session("u", title=v),
        "title|limit|22|text|argument",
    ),
    "branch": (NO_IDS, lambda m, s, v: m.branch_session(v), "from_session"),
    "branch index": (
        (-1, 4, 10**9, 2**63, 10**30, True, False, "1", 1.0, [1]),
        lambda m, s, v: m.branch_session(s.id, v),
        "index|22003|argument",
    ),
    "branch context": (NO_OBJECTS, lambda m, s, v: m.branch_session(s.id, 1, v), "context"),
    "branch ttl": (NO_NUMBERS, lambda m, s, v: m.branch_session(s.id, ttl=v), "ttl"),
    "update ttl": (NO_NUMBERS, lambda m, s, v: m.update_session(s.id, ttl=v), "ttl"),
    "update max": (NO_NUMBERS, lambda m, s, v: m.update_session(s.id, max_messages=v), "max_mess"),
    "update sync": (
        ("live", None, True, 5),
        lambda m, s, v: m.update_session(s.id, synchronization=v),
        "synchronization",
    ),
    "update nothing": ((None,), lambda m, s, v: m.update_session(s.id), "Nothing"),
    "get": (NO_IDS, lambda m, s, v: m.get_session(v), "session_id"),
    "add": (NO_IDS, lambda m, s, v: m.add_message(v, "user", "x"), "conversation_id|session_id"),
    "add role": (
        ("x", None, 5, NUL),
        lambda m, s, v: m.add_message(s.id, v, "x"),
        "role",
    ),
    "add content": (
        (NUL, SURROGATE, 5, [{"type": "x"}]),
        lambda m, s, v: m.add_message(s.id, "user", v),
        "content|text",
    ),
    "add metadata": (
        (*NO_OBJECTS[:4], *NO_OBJECTS[4:]),
        lambda m, s, v: m.add_message(s.id, "user", "x", metadata=v),
        "metadata",
    ),
    "add many": (
        ([{"role": "user"}], [{"content": "x"}], [{"role": "x", "content": "x"}], [5], ["x"]),
        lambda m, s, v: m.add_messages(s.id, [{"role": "user", "content": "good"}, *v]),
        "role|content|message",
    ),
    "list status": (
        ("x", "", ["open", "gone"], 5, [5]),
        lambda m, s, v: m.list_sessions(status=v),
        "status",
    ),
    "list limit": (
        (0, -1, 1001, "x"),
        lambda m, s, v: m.list_sessions(limit=v),
        "page_size|argument",
    ),
    "list page": (
        ("x", "1", NUL),
        lambda m, s, v: m.list_sessions(page_after=v),
        "page_after|text|22021|22P05",
    ),
    "messages limit": (
        (0, -1, 10_001, "x"),
        lambda m, s, v: m.messages(s.id, limit=v),
        "page_size|argument",
    ),
    "messages after": (
        ("x", 10**30, []),
        lambda m, s, v: m.messages(s.id, after=v),
        "after|argument",
    ),
    "merge strategy": (
        ("x", None, 5, ""),
        lambda m, s, v: m.merge_sessions(s.id, uuid4(), v),
        "merge_strategy",
    ),
    "merge resolution": (
        ("x", None, 5, "both"),
        lambda m, s, v: m.merge_sessions(s.id, uuid4(), "append", v),
        "conflict_resolution",
    ),
    "merge itself": (
        ("append", "intelligent"),
        lambda m, s, v: m.merge_sessions(s.id, s.id, v),
        "itself",
    ),
    "merge primary": (NO_IDS, lambda m, s, v: m.merge_sessions(v, s.id), "primary_session"),
    "merge secondary": (NO_IDS, lambda m, s, v: m.merge_sessions(s.id, v), "secondary_session"),
    "undo": (NO_IDS, lambda m, s, v: m.undo_merge(s.id, v), "merge_id"),
    "state": (NO_OBJECTS, lambda m, s, v: m.update_state(s.id, v), "changes"),
    "state expected": (
        (5, "x", True),
        lambda m, s, v: m.update_state(s.id, {"a": 1}, expected=v),
        "expected",
    ),
    "participants": (
        ("bob", [5], [None], ["bob", "bob"], ["a", "b", "a"]),
        lambda m, s, v: m.create_collaborative_session(v),
        "participants",
    ),
    "participants' names": (
        ([NUL], [SURROGATE], ["x" * 201], [""]),
        lambda m, s, v: m.create_collaborative_session(v),
        "22|23|label|text|argument|participant|session contains",
    ),
    "permissions": (
        (
            {"bob": ["admin"]}, {"bob": ["write"]}, {"bob": []}, {"bob": "read"},
            {"eve": ["read"]}, {"bob": [None]},
        ),
        lambda m, s, v: m.create_collaborative_session(["bob"], v),
        "permission|reads",
    ),
    "synchronization": (
        ("x", None, "realtime"),
        lambda m, s, v: m.create_collaborative_session(["bob"], None, v),
        "synchronization",
    ),
    "set_participant": (
        (["admin"], ["write"], [], "read", [5]),
        lambda m, s, v: m.set_participant(s.id, "bob", v),
        "permission|reads",
    ),
    "set_participant user": (
        (5, None, "", NUL, "x" * 201, "ada"),
        lambda m, s, v: m.set_participant(s.id, v, ["read"]),
        "user_id|owner|text|22",
    ),
    "expire": ((0, -1, 100_001), lambda m, s, v: m.expire_sessions(batch=v), "batch"),
    "hide": (NO_IDS, lambda m, s, v: m.hide_message(s.id, v), "message_id"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
async def test_a_wrong_argument_is_named_and_nothing_changes(manager, session, unchanged, what):
    values, call, named = WRONG[what]
    before = await unchanged()
    for value in values:
        with pytest.raises(InvalidInputError, match=f"(?i){named}"):
            pytest.fail(f"{value!r}: {await call(manager, session, value)}")
    assert await unchanged() == before


async def test_what_is_unknown_is_not_found(manager, session, unchanged, new_tenant, open_store):
    there = await open_store(tenant=await new_tenant())
    foreign = await type(manager)(there).create_session("ada")
    plain = (await manager.store.create_conversation("agent")).id
    before = await unchanged()
    own = (await manager.messages(session.id))[0].id
    for unknown in (uuid4(), foreign.id, plain):
        calls = [
            manager.get_session(unknown),
            manager.messages(unknown),
            manager.branch_session(unknown),
            manager.create_session("ada", parent_session_id=unknown),
            manager.merge_sessions(session.id, unknown),
            manager.merge_sessions(unknown, session.id),
            manager.undo_merge(session.id, unknown),
            manager.undo_merge(unknown, uuid4()),
            manager.list_merges(unknown),
            manager.family(unknown),
            manager.touch(unknown),
            manager.close(unknown),
            manager.resume(unknown),
            manager.continue_session(unknown),
            manager.update_state(unknown, {"a": 1}),
            manager.set_participant(unknown, "bob", ["read"]),
            manager.hide_message(session.id, unknown),
            manager.hide_message(unknown, own),
        ]
        if unknown != plain:
            calls += [manager.add_message(unknown, "user", "x")]
            calls += [manager.add_messages(unknown, [{"role": "user", "content": "x"}])]
        for doing in calls:
            with pytest.raises(NotFoundError):
                pytest.fail(f"{doing}: {await doing}")
    assert await unchanged() == before


async def test_a_message_is_neither_hidden_nor_shown_by_null(manager, owner, tenant):
    session = await manager.create_session("ada")
    said = await manager.add_message(session.id, "user", "x")
    await manager.hide_message(session.id, said.id)
    with pytest.raises(asyncpg.PostgresError) as refused:
        await owner.execute(
            "select haive.hide_message($1, $2, null, tenant => $3)", session.id, said.id, tenant
        )
    assert refused.value.sqlstate == "PT422"
    assert await manager.hide_message(session.id, said.id) is False


async def test_a_session_is_not_its_own_parent(manager, unchanged):
    before = await unchanged()
    again = uuid4()
    with pytest.raises(NotFoundError):
        await manager.create_session("ada", id=again, parent_session_id=again)
    session = await manager.create_session("ada", id=again)
    with pytest.raises(PersistenceError):
        await manager.create_session("ada", id=again, parent_session_id=session.id)
    await manager.delete_session(session.id)
    assert (await unchanged())[:5] == before[:5]


async def test_an_id_that_is_taken_is_a_conflict(manager, session, unchanged, store):
    other = await manager.create_session("ada")
    conversation = await store.create_conversation("assistant", "ada")
    before = await unchanged()
    for doing in (
        manager.create_session("bob", id=session.id),
        manager.create_session("ada", id=conversation.id),
        manager.branch_session(other.id, id=session.id),
        store.create_conversation("assistant", "bob", id=session.id),
    ):
        with pytest.raises(ConflictError):
            await doing
    assert await unchanged() == before
    # The same once more is the same.
    assert (await manager.create_session("ada", id=session.id)).message_count == 3


async def test_an_id_is_repeated_for_the_same_branch_and_the_same_people(manager, session):
    again = uuid4()
    branch = await manager.branch_session(session.id, 1, id=again)
    for index in (1, None):
        assert await same(manager.branch_session(session.id, index, id=again), branch)
    with pytest.raises(ConflictError, match="another"):
        await manager.branch_session(session.id, 2, {"x": 1}, id=again)

    again = uuid4()
    people = {"bob": ["read"], "cleo": ["read", "write", "moderate"]}
    room = await manager.create_collaborative_session(list(people), people, id=again)
    assert await same(manager.create_collaborative_session(list(people), people, id=again), room)
    for other in (
        {"bob": ["read"]},
        people | {"bob": ["read", "write"]},
        people | {"cleo": ["read", "write"]},
    ):
        with pytest.raises(ConflictError, match="another"):
            await manager.create_collaborative_session(list(other), other, id=again)
    # Of those who were set since, a retry knows nothing.
    await manager.set_participant(room.id, "dan", ["read"])
    found = await manager.create_collaborative_session(list(people), people, id=again)
    assert set(found.permissions) == {"bob", "cleo", "dan"}


@pytest.mark.parametrize("after", [-1, -600, 0, 3, 501, 2000])
async def test_messages_after_any_index_come_once(manager, filled, after):
    session = await filled(*(str(n) for n in range(501)))
    found = [each.index async for each in manager.iter_messages(session.id, after=after)]
    assert found == list(range(max(after, 0) + 1, 502))


async def same(doing, session):
    """Whether it answers the session as it was."""
    changing = {"idle"}
    return (await doing).model_dump(exclude=changing) == session.model_dump(exclude=changing)


@pytest.mark.parametrize("length", [1, 2, 3])
async def test_reads_of_a_circle_of_parents_end(manager, filled, owner, tenant, length):
    """As only the owner of the tables can make it."""
    line = [await filled("a", "b", "c")]
    for _ in range(length - 1):
        line.append(await manager.branch_session(line[-1].id))
    await owner.execute(
        "update haive.sessions set parent_id = $3, parent_segment = 0, branch_index = 3"
        " where tenant_id = $1 and id = $2",
        *(tenant, line[0].id, line[-1].id),
    )
    other = await filled("x")
    for session in line:
        found = await manager.get_session(session.id)
        await manager.messages(session.id)
        await manager.messages(session.id, last=True, limit=1)
        assert found.context == {}
        assert {each.id for each in await manager.family(session.id)} == {s.id for s in line}
        await manager._calls.tails(session.id, other.id, None)
        await manager._calls.tails(other.id, session.id, None)
    if length > 1:
        await manager._calls.tails(line[0].id, line[1].id, None)


# -- permissions -----------------------------------------------------------------------------------


async def test_who_reads_does_not_write_and_who_writes_does_not_moderate(
    manager, shared, unchanged, filled
):
    said = await manager.add_message(shared.id, "user", "x", as_user="cleo")
    other = await filled()
    before = await unchanged()
    writing = [
        lambda user: manager.add_message(shared.id, "user", "x", as_user=user),
        lambda user: manager.add_messages(
            shared.id, [{"role": "user", "content": "x"}], as_user=user
        ),
        lambda user: manager.update_state(shared.id, {"a": 1}, as_user=user),
        lambda user: manager.update_session(shared.id, ttl=5, as_user=user),
        lambda user: manager.close(shared.id, as_user=user),
        lambda user: manager.touch(shared.id, as_user=user),
        lambda user: manager.continue_session(shared.id, as_user=user),
        lambda user: manager.merge_sessions(shared.id, other.id, as_user=user),
        lambda user: manager.undo_merge(shared.id, uuid4(), as_user=user),
    ]
    moderating = [
        lambda user: manager.set_participant(shared.id, "eve", ["read"], as_user=user),
        lambda user: manager.set_participant(shared.id, user, ["read", "moderate"], as_user=user),
        lambda user: manager.remove_participant(shared.id, "ada" + user, as_user=user),
        lambda user: manager.hide_message(shared.id, said.id, as_user=user),
        lambda user: manager.messages(shared.id, hidden=True, as_user=user),
    ]
    for user, calls, error in (
        ("bob", writing + moderating, AccessDeniedError),
        ("cleo", moderating, AccessDeniedError),
        ("stranger", writing + moderating, NotFoundError),
        ("", writing + moderating, PersistenceError),
    ):
        for doing in calls:
            if user == "" and doing in writing[:2]:
                continue  # an empty name is nobody's: it is left out
            with pytest.raises(error):
                pytest.fail(f"{user}: {await doing(user)}")
    # Cleo writes to one of the two alone.
    with pytest.raises(NotFoundError):
        await manager.merge_sessions(shared.id, other.id, as_user="cleo")
    assert await unchanged() == before


async def test_a_branch_tells_of_its_parents_what_it_inherits_to_those_who_see_them(
    manager, store, call
):
    root = await manager.create_collaborative_session(
        ["bob", "eve"], user_id="ada", context={"mode": "root"}, title="of ada"
    )
    middle = await manager.branch_session(root.id, branch_context={"step": 1})
    branch = await manager.branch_session(middle.id, user_id="eve", branch_context={"own": 1})
    await manager.set_participant(branch.id, "bob", ["read", "write"])
    await manager.update_state(root.id, {"secret": "state"})
    await store.update_conversation(
        root.id, metadata={"context": {"mode": "new"}, "title": "secret"}
    )
    raw = await call("get_session", session_id=branch.id)
    for parent in raw["inherited"]:
        assert set(parent) == {"id", "metadata", "shared"}
        assert set(parent["metadata"]) == {"context"}
    whole = {"mode": "new", "step": 1, "own": 1}
    await manager.remove_participant(root.id, "eve")
    for user, context in ((None, whole), ("bob", whole), ("eve", {"step": 1, "own": 1})):
        (listed,) = await manager.list_sessions("eve", as_user=user)
        (related,) = [m for m in await manager.family(branch.id, as_user=user) if m.id == branch.id]
        changed = await manager.update_state(branch.id, {"a": 1}, as_user=user)
        touched = await manager.touch(branch.id, as_user=user)
        found = await manager.get_session(branch.id, as_user=user)
        for each in (found, listed, related, changed, touched):
            assert (each.context, each.branch_context) == (context, {"own": 1}), user
    # What is copied is what all see who see the copy, whoever makes it.
    successor = await manager.continue_session(branch.id)
    assert successor.context == {"step": 1, "own": 1}


async def test_a_closed_primary_takes_no_merge_and_a_closed_secondary_goes_into_one(
    manager, filled, unchanged
):
    one, other = await filled("a"), await filled("b")
    await manager.close(one.id)
    before = await unchanged()
    with pytest.raises(SessionClosedError):
        await manager.merge_sessions(one.id, other.id, "append")
    assert await unchanged() == before
    merged = await manager.merge_sessions(other.id, one.id, "append")
    assert merged.message_count == 2
    assert (await manager.undo_merge(other.id, merged.merge.id)).message_count == 1
    assert (await manager.get_session(one.id)).status == "closed"


async def test_what_is_turned_off_is_refused_with_the_way_to_turn_it_on(new_manager, session):
    manager = new_manager(enable_branching=False, enable_merging=False)
    for doing, named in (
        (manager.branch_session(session.id), "enable_branching"),
        (manager.create_session("ada", parent_session_id=session.id), "enable_branching"),
        (manager.merge_sessions(session.id, uuid4()), "enable_merging"),
    ):
        with pytest.raises(UnsupportedOperationError, match=named):
            await doing


@pytest.mark.parametrize(
    "wrong",
    [
        {"default_ttl": 0}, {"default_ttl": -1}, {"default_ttl": 1.5}, {"default_ttl": "x"},
        {"default_ttl": 2**31}, {"max_messages_per_session": 0}, {"threading_strategy": "x"},
        {"topic_similarity_threshold": 1.1}, {"time_gap": float("inf")}, {"nonsense": 1},
        {"max_open_sessions": 0}, {"near_duplicate": 0},
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        SessionConfig(**wrong)


# -- plans that nobody made ------------------------------------------------------------------------


@pytest.fixture
async def pair(manager, filled):
    """Two sessions with two messages each after two that they share, and a third one."""
    primary = await filled("a", "b")
    secondary = await manager.branch_session(primary.id)
    for text in ("c", "d"):
        await manager.add_message(primary.id, "user", text)
        await manager.add_message(secondary.id, "user", text.upper())
    return primary, secondary, await filled("x", "y", "z")


def plan(**changes):
    return {
        "id": str(uuid4()), "strategy": "append", "conflict_resolution": "primary_wins",
        "segments": [0, 0], "counts": [4, 4], "dropped": [], "conflicts": [], "summary": None,
        "summary_of": [], **changes,
    }  # fmt: skip


def places(*ranges):
    return [
        {"conversation_id": str(session.id), "first_seq": first, "last_seq": last}
        for session, first, last in ranges
    ]


BIG = 2**63 - 1
FORGED = {
    "a message twice": (lambda p, s, x: places((p, 3, 4), (s, 1, 2), (p, 3, 3)), InvalidInputError),
    "a range twice": (lambda p, s, x: places((s, 1, 2), (s, 1, 2)), InvalidInputError),
    "ranges that overlap": (lambda p, s, x: places((s, 1, 1), (s, 1, 2)), InvalidInputError),
    "of a third session": (lambda p, s, x: places((p, 3, 4), (x, 1, 2)), InvalidInputError),
    "of nobody": (lambda p, s, x: [
        {"conversation_id": str(uuid4()), "first_seq": 1, "last_seq": 1}], InvalidInputError),
    "of the common beginning": (lambda p, s, x: places((p, 1, 4)), InvalidInputError),
    "beyond the end": (lambda p, s, x: places((s, 1, 3)), InvalidInputError),
    "backwards": (lambda p, s, x: places((p, 4, 3)), InvalidInputError),
    "backwards and far": (
        lambda p, s, x: places((p, 1, 10**12), (p, 10**12, 2)), InvalidInputError),
    "before the first": (lambda p, s, x: places((s, 0, 2)), InvalidInputError),
    "negative": (lambda p, s, x: places((s, -5, -4)), InvalidInputError),
    "too many": (lambda p, s, x: places((s, 1, 10**12)), InvalidInputError),
    "overflow": (lambda p, s, x: places((s, 1, BIG)), InvalidInputError),
    "overflow below": (lambda p, s, x: places((s, -BIG, BIG)), InvalidInputError),
    "overflow in sum": (
        lambda p, s, x: places((s, 1, BIG - 1), (p, 1, BIG - 1)), InvalidInputError),
    "beyond any number": (lambda p, s, x: places((s, 1, 10**30)), InvalidInputError),
    "no numbers": (lambda p, s, x: places((s, "one", None)), InvalidInputError),
    "nulls": (lambda p, s, x: [
        {"conversation_id": None, "first_seq": None, "last_seq": None}], InvalidInputError),
    "no places": (lambda p, s, x: [{}], InvalidInputError),
    "no objects": (lambda p, s, x: [1, "x"], InvalidInputError),
    "no list": (lambda p, s, x: {"a": 1}, InvalidInputError),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
async def test_a_plan_may_only_order_and_leave_out(manager, call, pair, unchanged, what):
    entries, error = FORGED[what]
    primary, secondary, _ = pair
    before = await unchanged()
    with pytest.raises(error):
        await call(
            "merge_sessions",
            primary_id=primary.id,
            secondary_id=secondary.id,
            plan=plan(entries=entries(*pair)),
        )
    assert await unchanged() == before
    merged = await manager.merge_sessions(primary.id, secondary.id, "append")
    assert merged.message_count == 6


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"counts": [3, 4]}, ConflictError),
        ({"counts": [4, 5]}, ConflictError),
        ({"counts": [4]}, ConflictError),
        ({"counts": None}, ConflictError),
        ({"segments": [1, 0]}, ConflictError),
        ({"segments": None}, ConflictError),
        ({"strategy": "x"}, InvalidInputError),
        ({"strategy": None}, InvalidInputError),
        ({"conflict_resolution": "x"}, InvalidInputError),
        ({"id": "x"}, InvalidInputError),
        ({"dropped": [1]}, InvalidInputError),
        ({"dropped": [[{}]]}, InvalidInputError),
        ({"dropped": {"a": 1}}, InvalidInputError),
        ({"conflicts": ["x"]}, InvalidInputError),
        ({"summary_of": [None]}, InvalidInputError),
        ({"dropped": [{"a": "x" * 9_000_000}]}, InvalidInputError),
        ({"summary": {}}, InvalidInputError),
        ({"summary": []}, PersistenceError),
        ({"summary": "x"}, InvalidInputError),
        ({"summary": {"role": "x", "content": "x"}}, InvalidInputError),
    ],
)
async def test_a_plan_that_is_none_is_refused_whole(call, pair, unchanged, changes, error):
    primary, secondary, _ = pair
    before = await unchanged()
    with pytest.raises(error):
        await call(
            "merge_sessions",
            primary_id=primary.id,
            secondary_id=secondary.id,
            plan=plan(entries=places((primary, 3, 4)), **changes),
        )
    assert await unchanged() == before


def left_out(place, **changes):
    return {
        **place, "side": "secondary", "reason": "near_duplicate", "because_of": place,
        "similarity": 0.5, **changes,
    }  # fmt: skip


def conflict(place, **changes):
    return {
        "primary": [place], "secondary": [place], "kept": "both", "reason": "numbers",
        "by": "heuristic", **changes,
    }  # fmt: skip


NO_RECORD = {
    "in words": lambda place: {"dropped": [left_out(place, reason="for it said so")]},
    "of no side": lambda place: {"dropped": [left_out(place, side="x")]},
    "of no message": lambda place: {"dropped": [left_out({})]},
    "because of none": lambda place: {"dropped": [left_out(place, because_of=None)]},
    "because of words": lambda place: {"dropped": [left_out(place, because_of="x")]},
    "as alike as words": lambda place: {"dropped": [left_out(place, similarity="very")]},
    "at no number": lambda place: {"dropped": [left_out({**place, "seq": "x"})]},
    "more than there are": lambda place: {"dropped": [left_out(place)] * 5},
    "a conflict in words": lambda place: {"conflicts": [conflict(place, reason="7 or 8")]},
    "a conflict of a kind": lambda place: {"conflicts": [conflict(place, kept="none")]},
    "a conflict of nobody": lambda place: {"conflicts": [conflict(place, by=None)]},
    "a conflict of no place": lambda place: {"conflicts": [conflict(place, primary=None)]},
    "a conflict of words": lambda place: {"conflicts": [conflict(place, primary=[{"x": "y"}])]},
    "conflicts of more": lambda place: {"conflicts": [conflict(place, primary=[place] * 5)]},
    "more conflicts": lambda place: {
        "conflicts": [conflict(place, primary=[], secondary=[])] * 5},
    "a summary of words": lambda place: {"summary_of": [{"conversation_id": "x", "seq": 1}]},
    "a summary of more": lambda place: {"summary_of": [place] * 5},
}  # fmt: skip


@pytest.mark.parametrize("what", NO_RECORD)
async def test_the_record_of_a_merge_is_of_places_and_known_words(call, pair, unchanged, what):
    primary, secondary, _ = pair
    both = {"primary_id": primary.id, "secondary_id": secondary.id}
    place = {"conversation_id": str(primary.id), "seq": 3}
    before = await unchanged()
    with pytest.raises(InvalidInputError):
        await call("merge_sessions", **both, plan=plan(entries=[], **NO_RECORD[what](place)))
    assert await unchanged() == before


async def test_a_record_has_what_is_known_of_it_and_no_more(call, pair):
    primary, secondary, _ = pair
    place = {"conversation_id": str(primary.id), "seq": 3}
    more = {**place, "note": "the words"}
    merged = await call(
        "merge_sessions",
        primary_id=primary.id,
        secondary_id=secondary.id,
        plan=plan(
            entries=[],
            dropped=[left_out(more, because_of=more, similarity=None)] * 4,
            conflicts=[conflict(more, primary=[more], note="the words")],
            summary_of=[more] * 4,
        ),
    )
    assert merged["dropped"] == [left_out(place, similarity=None)] * 4
    assert merged["conflicts"] == [conflict(place)]
    assert merged["summary_of"] == [place] * 4


async def test_the_same_merge_again_is_the_same_merge(manager, call, pair, texts, filled):
    primary, secondary, third = pair
    asked = plan(entries=places((secondary, 2, 2), (primary, 3, 4)))
    both = {"primary_id": primary.id, "secondary_id": secondary.id}
    first = await call("merge_sessions", **both, plan=asked)
    assert await texts(primary) == ["a", "b", "D", "c", "d"]
    await manager.add_message(primary.id, "user", "e")
    assert await call("merge_sessions", **both, plan=asked) == first
    await manager.close(primary.id)
    assert await call("merge_sessions", **both, plan=asked) == first
    await manager.resume(primary.id)
    assert await texts(primary) == ["a", "b", "D", "c", "d", "e"]
    # The id is taken, for others.
    with pytest.raises(ConflictError):
        await call(
            "merge_sessions",
            primary_id=third.id,
            secondary_id=secondary.id,
            plan=asked | {"segments": [0, 0], "counts": [3, 4], "entries": []},
        )
    assert await texts(third) == ["x", "y", "z"]
    assert UUID(first["id"]) == (await manager.list_merges(primary.id))[0].id


async def test_a_merge_is_undone_where_it_was_made(manager, pair, call):
    primary, secondary, third = pair
    merged = await manager.merge_sessions(primary.id, secondary.id, "append")
    for other in (secondary, third):
        with pytest.raises(NotFoundError):
            await manager.undo_merge(other.id, merged.merge.id)
    assert (await manager.get_session(primary.id)).message_count == 6
