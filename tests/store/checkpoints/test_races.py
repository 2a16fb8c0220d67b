"""Many writers at once: one line a branch, one winner each time, and losers know who won."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg
import httpx
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.checkpointer import CheckpointConfig, Checkpointer
from haive.core.persistence.errors import BranchConflict, ConflictError, NotFoundError

THREADS, WRITERS, ROUNDS = 8, 4, 5


@dataclass
class Told:
    """What the writers were told: saved checkpoints with their parents, and lost races."""

    saved: dict[UUID, UUID | None] = field(default_factory=dict)
    lost: list[tuple[UUID, UUID | None]] = field(default_factory=list)

    async def save(self, checkpointer: Checkpointer, thread: str, parent: UUID, **how) -> UUID:
        state = {"after": str(parent), "by": id(checkpointer), "n": random.random()}
        try:
            saved = await checkpointer.save(thread, state, {"by": 1}, parent=parent, **how)
        except BranchConflict as conflict:
            self.lost.append((parent, conflict.winner))
            raise
        self.saved[saved] = parent
        return saved


async def race(checkpointers: list[Checkpointer], told: Told) -> None:
    """In each round, all writers of a thread save after its head at the same moment."""
    heads = {}
    for number in range(THREADS):
        heads[f"t{number}"] = await checkpointers[0].save(f"t{number}", {"n": -1})
    for _ in range(ROUNDS):
        saves = [
            told.save(checkpointers[writer % len(checkpointers)], thread, head)
            for thread, head in heads.items()
            for writer in range(WRITERS)
        ]
        answers = await asyncio.gather(*saves, return_exceptions=True)
        for error in answers:
            if isinstance(error, BaseException) and not isinstance(error, BranchConflict):
                raise error
        for thread in heads:
            heads[thread] = (await checkpointers[0].get_history(thread, limit=1))[0].id


async def faults(checkpointer: Checkpointer, told: Told) -> set[str]:
    """What is not as it must be after a race; nothing, it should be."""
    found = set()
    children = Counter(parent for parent in told.saved.values())
    if any(count > 1 for count in children.values()):
        found.add("a parent has two winners")
    winners = {parent: child for child, parent in told.saved.items()}
    if any(winners.get(parent) != winner for parent, winner in told.lost):
        found.add("a loser was told another winner")
    if len(told.lost) + len(told.saved) != THREADS * WRITERS * ROUNDS:
        found.add("an answer is missing")
    stored = {}
    for number in range(THREADS):
        history = await checkpointer.get_history(f"t{number}", include_state=True)
        parents = [row.parent_id for row in history]
        if parents != [row.id for row in history[1:]] + [None]:
            found.add("the history of a branch is no line")
        if any(row.state.get("after") not in {str(row.parent_id), None} for row in history):
            found.add("a state is another one's")
        stored |= {row.id: row.parent_id for row in history if row.parent_id is not None}
    if stored != told.saved:
        found.add("what was acknowledged is not what is there")
    return found


@pytest.mark.parametrize("processes", [1, 2])
async def test_of_32_writers_on_8_threads_one_wins_each_time_and_the_others_learn_who(
    open_store, new_checkpointer, processes
):
    checkpointers = [new_checkpointer(using=await open_store()) for _ in range(processes)]
    told = Told()
    await race(checkpointers, told)
    assert await faults(new_checkpointer(), told) == set()
    assert len(told.saved) == THREADS * ROUNDS
    assert len(told.lost) == THREADS * ROUNDS * (WRITERS - 1)


async def test_the_same_check_fails_where_the_database_does_not_compare_the_head(stack, database):
    superuser = str(httpx.URL(stack.admin_url).copy_with(path=httpx.URL(database).path))
    connection = await asyncpg.connect(superuser)
    definition = await connection.fetchval(
        "select pg_get_functiondef(oid) from pg_proc"
        " where proname = 'save_checkpoint' and pronamespace = 'haive_private'::regnamespace"
    )
    comparison = "and b.head_id is not distinct from p_parent_id"
    assert definition.count(comparison) == 1
    await connection.execute(definition.replace(comparison, ""))
    await connection.close()

    told = Told()
    async with PostgresStore(PersistenceConfig(connection_string=database)) as store:
        await race([Checkpointer(store, CheckpointConfig())], told)
        found = await faults(Checkpointer(store, CheckpointConfig()), told)
    assert "a parent has two winners" in found
    assert "the history of a branch is no line" in found


async def test_writers_who_go_on_from_the_winner_lose_nothing(open_store, new_checkpointer):
    checkpointers = [new_checkpointer(using=await open_store()) for _ in range(2)]
    told = Told()
    first = await checkpointers[0].save("t", {"n": -1})

    async def write(writer: int) -> None:
        head, left = first, 3
        while left:
            try:
                head = await told.save(checkpointers[writer % 2], "t", head)
            except BranchConflict as conflict:
                head = conflict.winner
            else:
                left -= 1

    async with asyncio.TaskGroup() as group:
        for writer in range(8):
            group.create_task(write(writer))
    history = await new_checkpointer().get_history("t", include_state=True)
    assert len(history) == 25
    assert [row.parent_id for row in history] == [row.id for row in history[1:]] + [None]
    assert {row.id: row.parent_id for row in history[:-1]} == told.saved
    # Who won was the head then: it lies after the parent that was named.
    place = {row.id: row.seq for row in history}
    assert all(place[winner] > place[parent] for parent, winner in told.lost)


async def test_with_fork_every_writer_saves_and_all_but_one_on_a_branch_of_their_own(
    open_store, new_checkpointer
):
    checkpointers = [new_checkpointer(using=await open_store()) for _ in range(2)]
    told = Told()
    roots = [await checkpointers[0].save(f"t{n}", {"n": -1}) for n in range(THREADS)]
    await asyncio.gather(
        *(
            told.save(checkpointers[writer % 2], f"t{n}", root, fork=f"fork {writer}")
            for n, root in enumerate(roots)
            for writer in range(WRITERS)
        )
    )
    reader = new_checkpointer()
    for n, root in enumerate(roots):
        branches = await reader.list_branches(f"t{n}")
        assert len(branches) == WRITERS
        assert {b.root_id for b in branches} == {None, root}
        for branch in branches:
            history = await reader.get_history(f"t{n}", branch=branch.id, include_state=True)
            assert [row.id for row in history] == [branch.head_id, root]
            assert history[0].parent_id == root
            assert history[0].state["after"] == str(root)
    assert not told.lost


@pytest.mark.parametrize("stores", [1, 2])
async def test_without_a_parent_all_succeed_and_the_line_is_one(
    open_store, new_checkpointer, stores
):
    checkpointers = [new_checkpointer(using=await open_store()) for _ in range(stores)]
    saved = await asyncio.gather(
        *(
            checkpointers[writer % stores].save(f"t{n}", {"n": n, "writer": writer})
            for writer in range(WRITERS)
            for n in range(THREADS)
        )
    )
    assert len(set(saved)) == THREADS * WRITERS
    for n in range(THREADS):
        history = await new_checkpointer().get_history(f"t{n}", include_state=True)
        assert [row.parent_id for row in history] == [row.id for row in history[1:]] + [None]
        assert {row.state["writer"] for row in history} == set(range(WRITERS))


async def test_tags_of_many_are_all_there(open_store, new_checkpointer):
    checkpointers = [new_checkpointer(using=await open_store()) for _ in range(2)]
    saved = await checkpointers[0].save("t", {"n": 1}, {"m": 1})
    await asyncio.gather(*(checkpointers[n % 2].tag(saved, f"tag {n}") for n in range(6)))
    row = await new_checkpointer().get(saved)
    assert set(row.tags) == {f"tag {n}" for n in range(6)}
    assert row.metadata == {"m": 1}


async def test_a_thread_is_copied_whole_while_others_save_to_it(open_store, new_checkpointer):
    writer, copier = [new_checkpointer(using=await open_store()) for _ in range(2)]
    await writer.save("t", {"n": 0})
    copying = asyncio.Event()

    async def write() -> int:
        n = 0
        while not copying.is_set():
            n += 1
            await writer.save("t", {"n": n})
        return n

    async with asyncio.TaskGroup() as group:
        writing = group.create_task(write())
        counts = [await copier.copy_thread("t", f"copy {n}") for n in range(4)]
        copying.set()
    assert counts == sorted(counts)
    assert counts[-1] <= writing.result() + 1
    for n, count in enumerate(counts):
        history = await new_checkpointer().get_history(f"copy {n}", include_state=True, limit=1000)
        assert [row.state["n"] for row in history] == list(range(count))[::-1]


# -- what pruning could take away under somebody's feet --------------------------------------------


@pytest.fixture
async def two_clients(stack, tenant):
    """Two connections as the SDK's, in the test's tenant, to interleave by hand."""
    connections = [await asyncpg.connect(stack.database_url) for _ in range(2)]
    for connection in connections:
        await connection.execute("set role haive_client")
        await connection.execute("select set_config('persistence.tenant', $1, false)", tenant)
    yield connections
    for connection in connections:
        await connection.close()


@pytest.mark.parametrize("transport", ["postgres"])
async def test_a_branch_does_not_begin_at_what_is_being_pruned(new_checkpointer, two_clients):
    pruner, brancher = two_clients
    checkpointer = new_checkpointer(compression="none")  # no delta, so nothing to store anew
    first, _, _ = [await checkpointer.save("t", {"n": n}) for n in range(3)]
    transaction = pruner.transaction()
    await transaction.start()
    rewrite = "select haive.rewrite_checkpoints('t', remove => $1, replace => $2)"
    (second,) = [row for row in await checkpointer.get_history("t") if row.parent_id == first]
    payload = await pruner.fetchval(
        "select encode(payload, 'base64') from haive.checkpoints where id = $1", second.id
    )
    replace = [
        {
            "id": str(second.id), "parent_id": None, "was_parent_id": str(first), "codec": 0,
            "was_key_id": await pruner.fetchval(
                "select key_id from haive.checkpoints where id = $1", second.id
            ),
            "size": second.size, "depth": 0, "payload": payload,
        }
    ]  # fmt: skip
    replace[0]["key_id"] = replace[0]["was_key_id"]
    await pruner.fetchval(rewrite, [first], json.dumps(replace))
    create = asyncio.create_task(brancher.fetchval("select haive.create_branch($1, 'b')", first))
    await asyncio.sleep(0.2)  # it waits for the pruner, or it has done its harm
    await transaction.commit()
    with pytest.raises(asyncpg.PostgresError) as refused:
        await create
    assert refused.value.sqlstate == "PT404"
    assert [b.name for b in await new_checkpointer().list_branches("t")] == ["main"]


@pytest.mark.parametrize("key", [None])
@pytest.mark.parametrize("transport", ["postgres"])
@pytest.mark.parametrize("pruned_first", [False, True])
async def test_writes_to_a_namespace_that_is_pruned_meanwhile_are_kept(
    new_checkpointer, two_clients, owner, tenant, pruned_first
):
    pruner, writer = two_clients
    checkpointer = new_checkpointer()
    only = await checkpointer.save("t", {}, namespace="sub")
    (main,) = await checkpointer.list_branches("t", namespace="sub")
    head = {"branch_id": str(main.id), "was_head_id": str(only), "head_id": None}
    prune = (
        "select haive.rewrite_checkpoints('t', 'sub', array[$1::uuid], branches => $2)",
        *(only, json.dumps([head])),
    )
    written = {"idx": 0, "channel": "c", "size": 0, "codec": 0, "payload": ""}
    put = (
        "select haive.put_checkpoint_writes('t', $1, $1, $2, namespace => 'sub')",
        *(UUID(int=1), json.dumps([written])),
    )
    first, then = [(pruner, prune), (writer, put)][:: 1 if pruned_first else -1]
    async with first[0].transaction():
        await first[0].fetchval(*first[1])
        other = asyncio.create_task(then[0].fetchval(*then[1]))
        for _ in range(500):
            if await owner.fetchval("select exists (select from pg_locks where not granted)"):
                break
            await asyncio.sleep(0.01)
    await other
    there = await owner.fetchval(
        "select t.namespace from haive.threads as t"
        " join haive.checkpoint_writes as w using (tenant_id, thread_key)"
        " where t.tenant_id = $1",
        tenant,
    )
    assert there == "sub"
    told = await owner.fetch(
        "select kind from haive.events where tenant_id = $1 order by xid, id", tenant
    )
    # Nothing was left of the thread, or what is written is.
    assert told[-1]["kind"] == ("thread.deleted" if pruned_first else "checkpoints.pruned")


@pytest.mark.parametrize("transport", ["postgres"])
async def test_what_somebody_else_pruned_does_not_become_a_parent(new_checkpointer, two_clients):
    client, _ = two_clients
    checkpointer = new_checkpointer(compression="none")
    ids = [await checkpointer.save("t", {"n": n}) for n in range(4)]
    row = await client.fetchrow(
        "select encode(payload, 'base64') as payload, size, key_id from haive.checkpoints"
        " where id = $1",
        ids[3],
    )
    replace = {
        "id": str(ids[3]), "was_parent_id": str(ids[2]), "parent_id": str(UUID(int=1)),
        "was_key_id": row["key_id"], "key_id": row["key_id"], "codec": 2, "depth": 1,
        "size": row["size"], "payload": row["payload"],
    }  # fmt: skip
    rewrite = "select haive.rewrite_checkpoints('t', remove => $1, replace => $2)"
    with pytest.raises(asyncpg.PostgresError) as refused:
        await client.fetchval(rewrite, [ids[2]], json.dumps([replace]))
    assert refused.value.sqlstate == "PT409"
    assert [(await new_checkpointer().restore(i))["n"] for i in ids] == [0, 1, 2, 3]


async def test_pruning_branching_and_saving_at_once_leave_every_branch_whole(
    open_store, new_checkpointer
):
    writer, brancher = [new_checkpointer(using=await open_store()) for _ in range(2)]
    pruner = new_checkpointer(using=await open_store(), max_checkpoints_per_thread=5)
    for n in range(10):
        await writer.save("t", {"n": n, "text": "x" * 200})
    made = []

    async def branch() -> None:
        for n in range(12):
            root = random.choice(await brancher.get_history("t")).id
            try:
                made.append(await brancher.create_branch(root, f"b{n}"))
                await brancher.save("t", {"n": f"b{n}", "text": "x" * 200}, branch=f"b{n}")
            except NotFoundError:
                pass  # it was pruned between the two

    async def prune() -> None:
        for _ in range(6):
            with suppress(ConflictError):  # others were faster, ten times
                await pruner.prune("t")
            await asyncio.sleep(0.01)

    async def write() -> None:
        for n in range(10, 30):
            await writer.save("t", {"n": n, "text": "x" * 200})

    await asyncio.gather(branch(), prune(), write())
    reader = new_checkpointer()
    history = await reader.get_history("t", limit=1000)
    there = {row.id for row in history}
    assert all(row.parent_id is None or row.parent_id in there for row in history)
    branches = await reader.list_branches("t")
    assert len(branches) == len(made) + 1
    for one in branches:
        assert one.head_id in there
        line = await reader.get_history("t", branch=one.id, include_state=True)
        assert line[0].id == one.head_id
        assert [row.parent_id for row in line] == [row.id for row in line[1:]] + [None]
        await reader.save("t", {"n": "more"}, branch=one.id)
