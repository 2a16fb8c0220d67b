"""What is saved is there, as it was, and a save that loses leaves nothing."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, create_model

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.checkpointer import (
    CheckpointConfig,
    Checkpointer,
    CheckpointStrategy,
    RecoveryPolicy,
)
from haive.core.persistence.errors import BranchConflict, InvalidInputError, NotFoundError


class Color(Enum):
    RED = "red"


@dataclasses.dataclass
class Step:
    name: str
    done: bool = False


class Plan(BaseModel):
    status: str
    steps: list[Step] = []
    color: Color = Color.RED


STATES = {
    "nothing": None,
    "a number": 5,
    "text": "é\x00\U0001f600",
    "a list": [1, [2, []], {}],
    "a mapping": {"status": "running", "": {"a b": None}, "n": 2**70},
    "keys of all types": {1: "a", (2, 3): "b", None: "c"},
    "data": {
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "cost": Decimal("0.10"),
        "ids": {UUID(int=1), UUID(int=2)},
        "pair": (1, (2, 3)),
        "bytes": b"\x00\xff",
        "for": timedelta(days=1, microseconds=1),
    },
}


@pytest.mark.parametrize("what", STATES)
async def test_a_state_comes_back_as_it_was_and_of_the_same_types(
    checkpointer, new_checkpointer, what
):
    state = STATES[what]
    saved = await checkpointer.save("t", state)
    for reader in (checkpointer, new_checkpointer()):
        restored = await reader.restore(saved)
        assert restored == state
        assert repr(restored) == repr(state) or what == "data"
        assert type(restored) is type(state)


async def test_models_and_dataclasses_come_back_where_they_are_allowed_and_else_as_data(
    checkpointer, new_checkpointer
):
    plan = Plan(status="new", steps=[Step("one", done=True)])
    saved = await checkpointer.save("t", plan)
    data = {"status": "new", "steps": [{"name": "one", "done": True}], "color": "red"}
    assert await checkpointer.restore(saved) == data
    assert await new_checkpointer(types=(Plan, Step, Color)).restore(saved) == plan


@pytest.mark.parametrize("size", [1_000, 300_000, 3_000_000])
async def test_a_state_that_grows_is_stored_as_what_is_new(checkpointer, new_checkpointer, size):
    # Text that is not compressed to nothing, so that a delta is told from a whole state.
    filler = b"".join(uuid4().bytes for _ in range(size // 16)).hex()[:size]
    states = [{"filler": filler, "n": n, "log": list(range(n))} for n in range(4)]
    ids = [await checkpointer.save("t", state) for state in states]
    newest, *_, first = await checkpointer.get_history("t")
    assert first.depth == 0
    assert first.stored_bytes > size // 3
    assert newest.depth > 0 or size == 1_000
    assert newest.stored_bytes < first.stored_bytes
    assert newest.stored_bytes < 700
    cold = new_checkpointer()
    assert [await cold.restore(i) for i in ids] == states


async def test_without_compression_every_state_is_stored_whole(new_checkpointer):
    checkpointer = new_checkpointer(compression="none")
    ids = [await checkpointer.save("t", {"text": "x" * 1000, "n": n}) for n in range(3)]
    for row in await checkpointer.get_history("t"):
        assert row.depth == 0
        assert row.stored_bytes >= row.size > 1000
    assert (await new_checkpointer().restore(ids[1]))["n"] == 1


async def test_a_checkpointer_that_compresses_goes_on_where_another_one_did_not(new_checkpointer):
    bare, zstd = new_checkpointer(compression="none"), new_checkpointer()
    ids = []
    for n, one in enumerate([bare, zstd, bare, zstd]):
        ids.append(await one.save("t", {"text": "x" * 1000, "n": n}))
    assert [(await new_checkpointer().restore(i))["n"] for i in ids] == [0, 1, 2, 3]


async def test_what_the_row_says_of_a_checkpoint_is_so(checkpointer, key):
    before = datetime.now(UTC) - timedelta(seconds=5)
    saved = await checkpointer.save(
        "t", {"a": 1}, {"node": "x", "n": [1]}, ["b", "a", "b"], failed=True
    )
    row = await checkpointer.get(saved, include_state=True)
    assert (row.id, row.thread_id, row.namespace, row.branch) == (saved, "t", "", "main")
    assert (row.parent_id, row.failed, row.depth) == (None, True, 0)
    assert (row.tags, row.metadata) == (("b", "a"), {"node": "x", "n": [1]})
    assert before < row.created_at < before + timedelta(seconds=60)
    assert row.encrypted == (key is not None)
    assert 0 < row.size < 20
    assert row.stored_bytes > 0
    assert row.state == {"a": 1}


async def test_with_a_key_nothing_of_a_state_its_metadata_or_tags_stands_in_any_row(
    checkpointer, owner, tenant, key
):
    canary = "canary-" + uuid4().hex
    saved = await checkpointer.save("t", {"s": canary}, {"m": canary}, [canary])
    await checkpointer.create_branch(saved, "b", {"m": canary})
    await checkpointer.tag(saved, f"{canary}2")
    model = create_model("Secret", text=(str, canary))  # so that its schema has it, too
    await checkpointer.save("t", model())
    found = 0
    for table in ("threads", "branches", "checkpoints", "checkpoint_schemas", "events"):
        for row in await owner.fetch(f"select * from haive.{table} where tenant_id = $1", tenant):
            found += sum(canary.encode() in _bytes(value) for value in row.values())
    assert (found == 0) == (key is not None)


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


# -- who comes after whom --------------------------------------------------------------------------


@pytest.fixture
def calls(store, monkeypatch):
    """The functions that are called, but for the one that a key has to ask its tenant for."""
    made = []
    for name in ("call", "rows"):
        was = getattr(store._transport, name)

        async def noted(function, *arguments, was=was, **named):
            answer = await was(function, *arguments, **named)
            # PostgREST answers in no columns: the function is called after that.
            if function != "current_tenant" and answer is not None:
                made.append(function)
            return answer

        monkeypatch.setattr(store._transport, name, noted)
    return made


async def test_a_save_is_one_call_in_a_new_thread_and_in_one_that_was_read(new_checkpointer, calls):
    await new_checkpointer().save("t", {"n": 0})
    assert calls == ["save_checkpoint"]
    reader = new_checkpointer()
    assert (await reader.recover("t")).state == {"n": 0}
    calls.clear()
    await reader.save("t", {"n": 1})
    assert calls == ["save_checkpoint"]
    calls.clear()
    await new_checkpointer().save("t", {"n": 2})  # knows nothing of it
    assert calls == ["save_checkpoint", "find_checkpoints", "save_checkpoint"]
    assert [c.state["n"] for c in await reader.get_history("t", include_state=True)] == [2, 1, 0]


async def test_a_branch_that_was_recovered_goes_on_from_where_it_began(new_checkpointer, calls):
    first = await new_checkpointer().save("t", {"n": 0})
    await new_checkpointer().save("t", {"n": 1})
    await new_checkpointer().create_branch(first, "b")
    reader = new_checkpointer()
    await reader.recover("t")
    assert (await reader.recover("t", branch="b")).id == first
    calls.clear()
    await reader.save("t", {"n": 2}, branch="b")
    await reader.save("t", {"n": 3})
    assert calls == ["save_checkpoint"] * 2


async def test_a_branch_that_does_not_exist_leaves_what_is_known_of_the_others(
    new_checkpointer, calls
):
    checkpointer = new_checkpointer()
    await checkpointer.save("t", {"n": 0})
    with pytest.raises(NotFoundError):
        await checkpointer.save("t", {"n": 1}, branch="typo")
    calls.clear()
    await checkpointer.save("t", {"n": 1})
    assert calls == ["save_checkpoint"]


async def test_where_nothing_is_remembered_the_head_is_asked_for_first(new_checkpointer, calls):
    checkpointer = new_checkpointer(cache_bytes=0)
    for n in range(2):
        await checkpointer.save("t", {"n": n})
    assert calls == ["find_checkpoints", "save_checkpoint"] * 2


async def test_a_large_state_is_not_sent_to_find_out_whether_its_thread_is_new(
    new_checkpointer, calls
):
    state = {"text": "x" * 300_000}
    await new_checkpointer().save("t", state)
    await new_checkpointer().save("t", {**state, "n": 1})
    assert calls == ["find_checkpoints", "save_checkpoint"] * 2


async def test_without_a_parent_a_save_follows_the_head_whoever_moved_it(new_checkpointer):
    one, two = new_checkpointer(), new_checkpointer()
    ids = [await who.save("t", {"n": n}) for n, who in enumerate([one, two, one, one, two])]
    history = await one.get_history("t")
    assert [row.id for row in reversed(history)] == ids
    assert [row.parent_id for row in reversed(history)] == [None, *ids[:-1]]


async def test_with_a_parent_that_is_not_the_head_nothing_is_saved(checkpointer, owner, tenant):
    first = await checkpointer.save("t", {"n": 0})
    second = await checkpointer.save("t", {"n": 1}, parent=first)
    count = "select count(*) from haive.{} where tenant_id = $1"
    before = [
        await owner.fetchval(count.format(table), tenant) for table in ("checkpoints", "events")
    ]
    for arguments in ({"parent": first}, {"metadata": {"parent_checkpoint": str(first)}}):
        with pytest.raises(BranchConflict, match=str(second)) as conflict:
            await checkpointer.save("t", {"n": 2}, **arguments)
        assert conflict.value.winner == second
    assert before == [
        await owner.fetchval(count.format(table), tenant) for table in ("checkpoints", "events")
    ]


async def test_with_fork_the_loser_begins_a_branch_and_the_winner_does_not(checkpointer):
    first = await checkpointer.save("t", {"n": 0})
    second = await checkpointer.save("t", {"n": 1}, parent=first, fork="mine")
    third = await checkpointer.save("t", {"n": 2}, parent=first, fork="mine")
    assert (await checkpointer.get(second)).branch == "main"
    assert (await checkpointer.get(third)).branch == "mine"
    names = {b.name: (b.root_id, b.head_id) for b in await checkpointer.list_branches("t")}
    assert names == {"main": (None, second), "mine": (first, third)}
    assert [c.id for c in await checkpointer.get_history("t", branch="mine")] == [third, first]


async def test_the_same_parent_named_twice_is_one_and_another_is_refused(checkpointer):
    first = await checkpointer.save("t", {"n": 0})
    twice = {"parent_checkpoint": str(first)}
    second = await checkpointer.save("t", {"n": 1}, twice, parent=first)
    assert (await checkpointer.get(second)).parent_id == first
    with pytest.raises(InvalidInputError, match="different checkpoints"):
        await checkpointer.save("t", {"n": 2}, twice, parent=second)


async def test_namespaces_of_a_thread_have_histories_of_their_own(checkpointer):
    outer = await checkpointer.save("t", {"n": 0})
    inner = await checkpointer.save("t", {"n": 1}, namespace="sub")
    assert [c.id for c in await checkpointer.get_history("t")] == [outer]
    (row,) = await checkpointer.get_history("t", namespace="sub")
    assert (row.id, row.namespace, row.parent_id) == (inner, "sub", None)
    assert await checkpointer.restore(inner) == {"n": 1}
    (thread,) = await checkpointer.list_threads()
    assert (thread.namespaces, thread.checkpoints) == (("", "sub"), 2)
    with pytest.raises(NotFoundError):
        await checkpointer.save("t", {"n": 2}, parent=outer, namespace="sub")


# -- states that are saved already -----------------------------------------------------------------


@pytest.mark.parametrize("strategy", list(CheckpointStrategy))
async def test_a_state_that_is_the_heads_is_saved_again_only_where_the_strategy_says_so(
    new_checkpointer, strategy
):
    checkpointer = new_checkpointer(strategy)
    first = await checkpointer.save("t", {"n": 0})
    skips = strategy in {CheckpointStrategy.ADAPTIVE, CheckpointStrategy.ON_CHANGE}
    assert (await checkpointer.save("t", {"n": 0}) == first) == skips
    assert (await new_checkpointer(strategy).save("t", {"n": 0}) == first) == skips
    head = (await checkpointer.get_history("t"))[0].id
    assert (await checkpointer.save("t", {"n": 0}, parent=head) == head) == skips
    # With anything to say it is saved.
    head = (await checkpointer.get_history("t"))[0].id
    assert await checkpointer.save("t", {"n": 0}, {"why": "asked"}) != head
    assert await checkpointer.save("t", {"n": 0}, tags=["x"]) != head


@pytest.mark.parametrize("read", [True, False], ids=["at hand", "read first"])
@pytest.mark.parametrize("strategy", [CheckpointStrategy.ADAPTIVE, CheckpointStrategy.ON_CHANGE])
async def test_a_state_that_equals_a_failed_head_is_saved_and_only_once(
    new_checkpointer, calls, strategy, read
):
    checkpointer = new_checkpointer(strategy)
    await checkpointer.save("t", {"n": 0})
    failed = await checkpointer.save("t", {"n": 1})
    await checkpointer.mark_failed(failed)
    if not read:
        checkpointer = new_checkpointer(strategy)
        # Else the first save is sent to find out whether the thread is new.
        await checkpointer.create_branch(failed, "b", thread_id="t")
    branch = None if read else "b"
    calls.clear()
    again = await checkpointer.save("t", {"n": 1}, branch=branch)
    assert again != failed
    saving = [name for name in calls if name != "list_branches"]
    assert saving == ["find_checkpoints", "save_checkpoint"]
    good = await checkpointer.recover("t", RecoveryPolicy.LAST_SUCCESSFUL, branch=branch)
    assert (good.id, good.parent_id, good.state) == (again, failed, {"n": 1})
    assert await checkpointer.save("t", {"n": 1}, branch=branch) == again


async def test_a_state_that_equals_a_failed_parent_or_that_of_a_node_is_saved(new_checkpointer):
    checkpointer = new_checkpointer(CheckpointStrategy.ON_CHANGE)
    first = await checkpointer.on_node("t", "ask", {"n": 0})
    await checkpointer.mark_failed(first)
    second = await checkpointer.save("t", {"n": 0}, parent=first)
    assert second != first
    await checkpointer.mark_failed(second)
    third = await checkpointer.on_node("t", "ask", {"n": 0})
    assert third not in {None, first, second}
    assert [one.id for one in await checkpointer.get_history("t")] == [third]


async def test_the_state_of_a_parent_that_others_went_on_from_is_a_conflict(checkpointer):
    first = await checkpointer.save("t", {"n": 0})
    second = await checkpointer.save("t", {"n": 1})
    with pytest.raises(BranchConflict) as conflict:
        await checkpointer.save("t", {"n": 0}, parent=first)
    assert conflict.value.winner == second
    with pytest.raises(NotFoundError, match="nope"):
        await checkpointer.save("t", {"n": 1}, parent=second, branch="nope")
    assert len(await checkpointer.get_history("t")) == 2


async def test_a_state_that_was_the_heads_until_another_process_saved_is_saved_again(
    new_checkpointer,
):
    one, two = new_checkpointer(), new_checkpointer()
    await one.save("t", {"n": 0})
    await two.save("t", {"n": 1})
    await one.save("t", {"n": 0})
    assert (await two.recover("t")).state == {"n": 0}
    assert len(await two.get_history("t")) == 3


# -- threads that are gone -------------------------------------------------------------------------


@pytest.mark.parametrize("state", [{"n": 0}, {"n": 1}], ids=["the same state", "another state"])
async def test_a_thread_that_another_process_deleted_begins_anew(new_checkpointer, state):
    one, two = new_checkpointer(), new_checkpointer()
    first = await one.save("t", {"n": 0})
    assert await two.delete_thread("t") == 1
    with pytest.raises(NotFoundError):
        await one.save("t", {"n": 2}, parent=first)
    saved = await one.save("t", state)
    assert saved != first
    (row,) = await two.get_history("t")
    assert (row.id, row.parent_id) == (saved, None)
    assert await two.restore(saved) == state


async def test_a_deleted_thread_leaves_no_row(checkpointer, owner, tenant):
    first = await checkpointer.save("t", {"n": 0})
    await checkpointer.save("t", {"n": 1}, namespace="sub")
    await checkpointer.create_branch(first, "b")
    await checkpointer.save("u", {"n": 0})
    assert await checkpointer.delete_thread("t") == 2
    assert await checkpointer.delete_thread("t") == 0
    for table, left in (("threads", 1), ("branches", 1), ("checkpoints", 1)):
        query = f"select count(*) from haive.{table} where tenant_id = $1"
        assert await owner.fetchval(query, tenant) == left
    assert [thread.thread_id for thread in await checkpointer.list_threads()] == ["u"]
    with pytest.raises(NotFoundError):
        await checkpointer.restore(first)


async def test_threads_are_listed_by_name_and_by_user(checkpointer):
    for n in range(5):
        await checkpointer.save(f"t{n}", {"n": n}, user_id=f"user{n % 2}")
    page = await checkpointer.list_threads(limit=3)
    page += await checkpointer.list_threads(limit=3, after=page[-1].thread_id)
    assert [thread.thread_id for thread in page] == ["t0", "t1", "t2", "t3", "t4"]
    mine = await checkpointer.list_threads(user_id="user1")
    assert [(thread.thread_id, thread.user_id) for thread in mine] == [
        ("t1", "user1"),
        ("t3", "user1"),
    ]


async def test_a_save_that_is_cancelled_is_saved_whole_or_not_at_all(checkpointer):
    first = await checkpointer.save("t", {"n": -1})
    for n in range(20):
        task = asyncio.create_task(checkpointer.save("t", {"n": n, "text": "x" * 1000}))
        for _ in range(n):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    last = await checkpointer.save("t", {"n": "last"})
    history = await checkpointer.get_history("t", include_state=True)
    assert history[0].id == last
    assert history[-1].id == first
    assert [row.parent_id for row in history] == [row.id for row in history[1:]] + [None]
    assert all(row.state["n"] is not None for row in history)


async def test_whatever_is_saved_is_saved_by_the_same_statement(database, monkeypatch):
    """Else a connection would prepare it first, which is one more round trip."""
    async with PostgresStore(PersistenceConfig(connection_string=database)) as store:
        fetch, statements = store._transport._fetchrow, set()

        async def noted(connection, sql, *arguments):
            statements.add(sql)
            return await fetch(connection, sql, *arguments)

        checkpointer = Checkpointer(store)
        saved = await checkpointer.save("t", {"n": 1})
        monkeypatch.setattr(store._transport, "_fetchrow", noted)
        await checkpointer.save("t", Plan(status="new"), {"a": 1}, ["x"], user_id=None)
        await checkpointer.save("t", [], failed=True)
        await checkpointer.save("t", {"n": 2}, parent=saved, fork="other")
        await checkpointer.save("u", None, user_id="somebody", namespace="part")
        bounded = Checkpointer(store, CheckpointConfig(max_checkpoints_per_thread=5))
        await bounded.save("v", {})
        assert len([sql for sql in statements if "save_checkpoint" in sql]) == 1
        assert len(await checkpointer.get_history("t", include_failed=True)) == 4
