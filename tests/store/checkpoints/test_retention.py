"""Pruning: what may go goes, and every survivor is exactly what it was."""

from __future__ import annotations

import asyncio

import pytest

from haive.core.persistence.checkpointer import Pruned
from haive.core.persistence.checkpointer._chains import MAX_DEPTH
from haive.core.persistence.checkpointer._rewriting import Rewriter
from haive.core.persistence.errors import ConflictError, CorruptCheckpointError, NotFoundError


@pytest.fixture
def age(owner, tenant):
    """Make checkpoints older: `await age(ids, days)`."""

    async def update(ids, days: float) -> None:
        await owner.execute(
            "update haive.checkpoints set created_at = now() - $3 * interval '1 day'"
            " where tenant_id = $1 and id = any($2)",
            *(tenant, ids, float(days)),
        )

    return update


@pytest.fixture
def stored(owner, tenant):
    """The rows of a thread, by id."""

    async def look(thread: str = "t") -> dict:
        rows = await owner.fetch(
            "select c.* from haive.checkpoints as c join haive.threads as t"
            " on t.tenant_id = c.tenant_id and t.thread_key = c.thread_key"
            " where c.tenant_id = $1 and t.thread_id = $2 order by c.seq",
            *(tenant, thread),
        )
        return {row["id"]: row for row in rows}

    return look


def state(n: object) -> dict[str, object]:
    return {"n": n, "text": "some text that deltas refer to " * 20, "log": list(range(20))}


async def fill(checkpointer, count: int, thread: str = "t", **how) -> list:
    return [await checkpointer.save(thread, state(n), **how) for n in range(count)]


async def whole(checkpointer, stored, expected: dict) -> None:
    """Every survivor is exact, its parent survives, and no chain is deeper than its row says."""
    rows = await stored()
    assert rows.keys() == expected.keys()
    for checkpoint_id, value in expected.items():
        assert await checkpointer.restore(checkpoint_id) == value
        row, links = rows[checkpoint_id], 0
        assert row["parent_id"] is None or row["parent_id"] in rows
        while row["codec"] >= 2:
            before = row["parent_id"] if row["codec"] == 2 else row["base_id"]
            row, links = rows[before], links + 1
        assert links <= rows[checkpoint_id]["depth"] <= MAX_DEPTH
    assert (await checkpointer.recover("t")).id in expected


async def test_no_more_than_may_stay_and_the_newest_do(new_checkpointer, stored):
    checkpointer = new_checkpointer(max_checkpoints_per_thread=10)
    ids = await fill(checkpointer, 25)
    rows = await stored()
    assert 9 <= len(rows) <= 10
    kept = ids[-len(rows) :]
    await whole(new_checkpointer(), stored, {i: state(ids.index(i)) for i in kept})
    assert [row.id for row in await checkpointer.get_history("t")] == kept[::-1]
    for gone in ids[: -len(rows)]:
        with pytest.raises(NotFoundError):
            await checkpointer.restore(gone)


async def test_a_full_thread_loses_a_tenth_at_once_and_never_more_than_the_minimum_allows(
    new_checkpointer,
):
    for keep, left in ((None, 18), (19, 19), (20, 20)):
        settings = {} if keep is None else {"keep_minimum": keep}
        checkpointer = new_checkpointer(max_checkpoints_per_thread=20, **settings)
        for n in range(21):
            await checkpointer.save(f"keeps {keep}", state(n))
        assert len(await checkpointer.get_history(f"keeps {keep}")) == left


async def test_where_heads_alone_fill_the_bound_a_save_seldom_prunes(new_checkpointer, monkeypatch):
    unbound, checkpointer = new_checkpointer(), new_checkpointer(max_checkpoints_per_thread=5)
    first = await unbound.save("t", state(0))
    for n in range(20):
        await unbound.save("t", state(n), parent=first, fork=f"b{n}")
    prune, calls = Rewriter.prune, []

    async def counted(*arguments, **options):
        calls.append(arguments)
        return await prune(*arguments, **options)

    monkeypatch.setattr(Rewriter, "prune", counted)
    heads = len(await checkpointer.list_branches("t"))
    for n in range(12):
        await checkpointer.save("t", state(100 + n))
        assert len(await checkpointer.get_history("t")) <= (heads + 5) * 1.1
    assert 0 < len(calls) <= 5
    # Once they are gone, the bound holds again.
    await checkpointer.delete_thread("t")
    for n in range(8):
        await checkpointer.save("t", state(n))
        assert len(await checkpointer.get_history("t")) <= 5


async def test_one_may_be_all_that_stays(new_checkpointer, stored):
    checkpointer = new_checkpointer(max_checkpoints_per_thread=1)
    ids = await fill(checkpointer, 5)
    await whole(new_checkpointer(), stored, {ids[-1]: state(4)})
    (row,) = await checkpointer.get_history("t")
    assert (row.parent_id, row.depth) == (None, 0)


async def test_what_is_older_goes_and_the_minimum_stays(new_checkpointer, stored, age):
    ids = await fill(new_checkpointer(), 10)
    await age(ids[:8], 31)
    await age(ids[2:5], 29)
    pruner = new_checkpointer(retention_days=30)
    assert (await pruner.prune("t")).removed == 5
    kept = [2, 3, 4, 8, 9]
    await whole(new_checkpointer(), stored, {ids[n]: state(n) for n in kept})
    assert await pruner.prune("t") == Pruned(threads=0, removed=0, rewritten=0)

    await age(ids, 100)
    few = new_checkpointer(retention_days=30, keep_minimum=3)
    assert (await few.prune("t")).removed == 2
    await whole(new_checkpointer(), stored, {ids[n]: state(n) for n in kept[-3:]})
    assert (await new_checkpointer(retention_days=30, keep_minimum=0).prune("t")).removed == 2
    await whole(new_checkpointer(), stored, {ids[9]: state(9)})  # the head


@pytest.mark.parametrize("keep", [True, False])
async def test_failed_ones_are_kept_apart_or_not(new_checkpointer, stored, age, keep):
    checkpointer = new_checkpointer()
    ids = [await checkpointer.save("t", state(n), failed=n in {1, 4}) for n in range(8)]
    await age(ids, 31)
    pruner = new_checkpointer(retention_days=30, keep_minimum=3, keep_failed_states=keep)
    await pruner.prune("t")
    kept = [1, 4, 5, 6, 7] if keep else [5, 6, 7]
    await whole(new_checkpointer(), stored, {ids[n]: state(n) for n in kept})


@pytest.mark.parametrize("keep", [True, False])
async def test_failed_ones_count_only_where_they_are_not_kept(new_checkpointer, stored, keep):
    checkpointer = new_checkpointer(max_checkpoints_per_thread=5, keep_failed_states=keep)
    for n in range(20):
        await checkpointer.save("t", state(n), {"n": n}, failed=n < 10)
    rows = await stored()
    assert sum(row["failed"] for row in rows.values()) == (10 if keep else 0)
    assert sum(not row["failed"] for row in rows.values()) == 5


async def test_without_a_limit_nothing_goes(checkpointer, stored):
    ids = await fill(checkpointer, 5)
    assert await checkpointer.prune() == Pruned(threads=0, removed=0, rewritten=0)
    await whole(checkpointer, stored, {i: state(n) for n, i in enumerate(ids)})


async def test_branches_whose_roots_go_keep_their_lines(new_checkpointer, stored, age):
    checkpointer = new_checkpointer()
    main = await fill(checkpointer, 8)
    lines = {}
    for root in (0, 3, 5):
        branch = await checkpointer.create_branch(main[root], f"b{root}", {"root": root})
        lines[f"b{root}"] = [
            await checkpointer.save("t", state([root, n]), branch=branch) for n in range(4)
        ]
    bare = await checkpointer.create_branch(main[2], "bare")
    await age([*main[:6], *lines["b0"][:2], *lines["b5"][:1]], 31)
    done = await new_checkpointer(retention_days=30, keep_minimum=1).prune("t")
    assert done.removed == 8  # 2 is the head of a branch
    assert done.rewritten > 0

    reader = new_checkpointer()
    expected = {main[n]: state(n) for n in (2, 6, 7)}
    kept = {"b0": lines["b0"][2:], "b3": lines["b3"], "b5": lines["b5"][1:]}
    for root in (0, 3, 5):
        for n, saved in enumerate(lines[f"b{root}"]):
            if saved in kept[f"b{root}"]:
                expected[saved] = state([root, n])
    await whole(reader, stored, expected)

    async def line(branch):
        return [row.id for row in await reader.get_history("t", branch=branch)]

    assert await line("main") == [main[7], main[6], main[2]]
    assert await line("b0") == kept["b0"][::-1]
    assert await line("b3") == [*kept["b3"][::-1], main[2]]
    assert await line("b5") == [*kept["b5"][::-1], main[2]]
    assert await line(bare) == [main[2]]
    for branch in ("main", "b0", "b3", "b5", "bare"):
        saved = await new_checkpointer().save("t", state(branch), branch=branch)
        assert await reader.restore(saved) == state(branch)
    metadata = {b.name: b.metadata for b in await reader.list_branches("t")}
    assert metadata["b3"] == {"root": 3}


async def test_chains_stay_within_their_depth_however_often_is_pruned(
    new_checkpointer, stored, owner, tenant
):
    """A keyframe whose parent goes stays one: else two chains became one that is too long."""
    checkpointer = new_checkpointer()
    # Each a little different from the one before: delta after delta, up to the longest chain.
    expected = {}
    for n in range(3 * MAX_DEPTH):
        value = {"text": "".join(f"{k * 7919 % 1000003} " for k in range(n, n + 900)), "n": n}
        expected[await checkpointer.save("t", value, failed=n % 7 == 0)] = value
    depths = [row["depth"] for row in (await stored()).values()]
    assert max(depths) > MAX_DEPTH // 2
    ids = list(expected)
    pruner = new_checkpointer()
    for step in (5, 3, 2):
        gone = [i for place, i in enumerate(ids) if place % step == step - 1 and i != ids[-1]]
        await pruner._rewriter.remove("t", "", lambda rows, heads, now, gone=gone: set(gone))
        ids = [i for i in ids if i not in gone]
        await whole(new_checkpointer(), stored, {i: expected[i] for i in ids})


async def test_all_threads_and_namespaces_are_pruned(new_checkpointer, stored):
    checkpointer = new_checkpointer()
    for thread in ("t", "u", "v"):
        await fill(checkpointer, 4, thread)
    await fill(checkpointer, 4, "t", namespace="sub")
    done = await new_checkpointer(max_checkpoints_per_thread=2).prune()
    assert (done.threads, done.removed) == (3, 8)  # of one, both namespaces
    for thread, namespace in (("t", ""), ("t", "sub"), ("u", ""), ("v", "")):
        history = await new_checkpointer().get_history(
            thread, namespace=namespace, include_state=True
        )
        assert [row.state for row in history] == [state(3), state(2)]


async def test_a_call_of_a_subgraph_that_is_pruned_is_not_told_as_a_thread_that_is_gone(
    new_checkpointer, owner, tenant
):
    checkpointer = new_checkpointer(keep_minimum=1)
    first = await checkpointer.save("t", state(0))
    called = {"parents": {"": str(first)}}
    await checkpointer.save("t", state(1), namespace="sub:task", metadata=called)
    await checkpointer.save("t", state(2))
    bounded = new_checkpointer(max_checkpoints_per_thread=1, keep_minimum=1)
    assert await bounded.prune("t") == Pruned(threads=1, removed=2, rewritten=1)
    assert (await checkpointer.get_thread("t")).namespaces == ("",)
    told = await owner.fetch(
        "select e.kind, t.namespace from haive.events as e"
        " left join haive.threads as t using (tenant_id, thread_key)"
        " where e.tenant_id = $1 order by e.xid, e.id",
        tenant,
    )
    # That of the call names what is left: who reads the thread finds no event of what is gone.
    assert [tuple(event) for event in told][-2:] == [("checkpoints.pruned", "")] * 2


async def test_what_is_pruned_by_one_process_is_gone_for_another(new_checkpointer):
    one, two = new_checkpointer(), new_checkpointer(max_checkpoints_per_thread=2)
    ids = await fill(one, 5)
    await two.prune("t")
    for gone in ids[:3]:
        with pytest.raises(NotFoundError):
            await one.restore(gone)
        with pytest.raises(NotFoundError):
            await one.save("t", state("x"), parent=gone, fork="f")
    saved = await one.save("t", state("y"))
    assert (await two.get(saved)).parent_id == ids[4]
    assert await two.restore(saved) == state("y")


async def test_saves_go_on_while_it_is_pruned_and_none_is_lost(
    open_store, new_checkpointer, stored
):
    writers = [
        new_checkpointer(using=await open_store(), max_checkpoints_per_thread=6) for _ in range(2)
    ]
    pruner = new_checkpointer(using=await open_store(), max_checkpoints_per_thread=4)
    saved: dict = {}

    async def write(writer: int) -> None:
        for n in range(25):
            saved[await writers[writer].save("t", state([writer, n]))] = state([writer, n])

    async def prune() -> None:
        while len(saved) < 50:
            await pruner.prune("t")

    await asyncio.gather(write(0), write(1), prune())
    rows = await stored()
    assert len(rows) <= 6
    assert list(saved)[-1] in rows or list(saved)[-2] in rows
    await whole(new_checkpointer(), stored, {i: saved[i] for i in rows})


async def test_what_another_pruned_first_is_not_taken_for_what_has_to_stay(
    new_checkpointer, stored, monkeypatch
):
    writer = new_checkpointer(max_checkpoints_per_thread=6)
    other = new_checkpointer(max_checkpoints_per_thread=4)
    prune = Rewriter.prune

    async def overtaken(self, *arguments, **options):
        if self is writer._rewriter:
            await other.prune("t")
        return await prune(self, *arguments, **options)

    await fill(writer, 6)
    with monkeypatch.context() as patch:
        patch.setattr(Rewriter, "prune", overtaken)
        await fill(writer, 1)
    assert len(await stored()) == 4
    for n in ("a", "b"):
        await new_checkpointer().save("t", state(n))
    assert len(await stored()) == 6
    await writer.save("t", state("one too many"))
    assert len(await stored()) == 6


async def test_a_save_is_told_even_where_what_is_too_much_cannot_be_pruned(
    new_checkpointer, stored, owner
):
    checkpointer = new_checkpointer(max_checkpoints_per_thread=3)
    ids = await fill(checkpointer, 3)
    await owner.execute("update haive.checkpoints set payload = '' where id = $1", ids[0])
    saved = await checkpointer.save("t", state(3))
    assert len(await stored()) == 4
    assert (await checkpointer.get(saved)).parent_id == ids[2]
    with pytest.raises(CorruptCheckpointError):
        await checkpointer.prune("t")
    assert len(await stored()) == 4


async def test_pending_writes_go_with_their_checkpoint(new_checkpointer, owner, tenant):
    ids = await fill(new_checkpointer(), 4)
    for checkpoint_id in (ids[0], ids[3]):
        await owner.execute(
            "insert into haive.checkpoint_writes (tenant_id, thread_key, checkpoint_id, task_id,"
            " idx, channel, size, codec, payload)"
            " select tenant_id, thread_key, $2, gen_random_uuid(), 0, 'c', 1, 0, ''"
            " from haive.threads where tenant_id = $1",
            *(tenant, checkpoint_id),
        )
    await new_checkpointer(max_checkpoints_per_thread=2).prune("t")
    left = await owner.fetch(
        "select checkpoint_id from haive.checkpoint_writes where tenant_id = $1", tenant
    )
    assert [row["checkpoint_id"] for row in left] == [ids[3]]


async def test_the_depth_is_that_of_the_chain_however_long_a_thread_is_pruned(new_checkpointer):
    checkpointer = new_checkpointer(max_checkpoints_per_thread=10)
    for n in range(80):
        await checkpointer.save("t", {"n": n, "text": "x" * 300})
    assert max(row.depth for row in await checkpointer.get_history("t")) <= 32


async def test_a_damaged_thread_is_named_and_the_others_are_pruned(new_checkpointer, owner, tenant):
    ids = await fill(new_checkpointer(), 6, "a")
    await fill(new_checkpointer(), 6, "b")
    await owner.execute(
        "update haive.checkpoints set payload = 'damaged' where tenant_id = $1 and id = any($2)",
        *(tenant, ids),
    )
    pruner = new_checkpointer(max_checkpoints_per_thread=2)
    with pytest.raises(CorruptCheckpointError, match=r"of 'a' cannot be read"):
        await pruner.prune()
    counts = {t.thread_id: t.checkpoints for t in await pruner.list_threads()}
    assert counts == {"a": 6, "b": 2}
    with pytest.raises(CorruptCheckpointError) as told:
        await pruner.prune("a")
    assert "'a'" not in str(told.value)


async def test_a_thread_that_goes_or_changes_meanwhile_stops_no_other(
    new_checkpointer, monkeypatch
):
    for thread in ("a", "b", "c"):
        await fill(new_checkpointer(), 6, thread)
    other = new_checkpointer()
    pruner = new_checkpointer(max_checkpoints_per_thread=2)
    rewrite = Rewriter._rewrite

    async def meanwhile(self, thread_id, namespace, **how):
        if thread_id == "a":
            await other.delete_thread("a")
        if thread_id == "b":
            raise ConflictError("The thread was changed meanwhile.")
        return await rewrite(self, thread_id, namespace, **how)

    monkeypatch.setattr(Rewriter, "_rewrite", meanwhile)
    with pytest.raises(ConflictError, match="changed 'b' all the time"):
        await pruner.prune()
    counts = {t.thread_id: t.checkpoints for t in await pruner.list_threads()}
    assert counts == {"b": 6, "c": 2}

    async def damaged(self, thread_id, namespace, **how):
        if thread_id == "c":
            raise CorruptCheckpointError
        return await meanwhile(self, thread_id, namespace, **how)

    monkeypatch.setattr(Rewriter, "_rewrite", damaged)
    with pytest.raises(CorruptCheckpointError) as told:
        await new_checkpointer(max_checkpoints_per_thread=1).prune()
    assert told.value.hint == (
        "All other threads are done but 'b', which others changed: call it again."
    )
