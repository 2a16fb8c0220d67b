"""Copies of threads: the same checkpoints under another name, that go their own way."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from haive.core.persistence.errors import (
    ConflictError,
    ConnectionLostError,
    CorruptCheckpointError,
    InvalidInputError,
    NotFoundError,
)


class Model(BaseModel):
    n: int


@pytest.fixture
async def ids(checkpointer):
    """Five checkpoints on main, two on a branch, one on a branch of that."""
    saved = [
        await checkpointer.save("t", {"n": n, "text": "x" * 400}, {"m": n}, [f"t{n}"])
        for n in range(5)
    ]
    await checkpointer.create_branch(saved[2], "b", {"why": "x"})
    saved += [await checkpointer.save("t", {"n": n, "text": "x" * 400}, branch="b") for n in (5, 6)]
    await checkpointer.create_branch(saved[5], "c")
    saved.append(await checkpointer.save("t", Model(n=7), branch="c"))
    await checkpointer.create_branch(saved[1], "bare")
    await checkpointer.mark_failed(saved[3])
    return saved


async def test_a_copy_has_the_same_checkpoints_in_the_same_places(
    checkpointer, new_checkpointer, ids
):
    assert await checkpointer.copy_thread("t", "u") == 8
    cold = new_checkpointer()
    for branch in (None, "main", "b", "c", "bare"):
        histories = [
            await cold.get_history(thread, branch=branch, include_failed=True, include_state=True)
            for thread in ("t", "u")
        ]
        there, copied = (
            [
                (
                    row.id,
                    row.parent_id,
                    row.branch,
                    row.state,
                    row.metadata,
                    row.tags,
                    row.failed,
                    row.created_at,
                    row.size,
                    row.depth,
                    row.schema_hash,
                )
                for row in history
            ]
            for history in histories
        )
        assert there == copied
    branches = [await cold.list_branches(thread) for thread in ("t", "u")]
    there, copied = (
        [(b.name, b.head_id, b.root_id, b.metadata) for b in found] for found in branches
    )
    assert there == copied
    assert not {b.id for b in branches[0]} & {b.id for b in branches[1]}
    assert await cold.restore(ids[7], thread_id="u", validate_schema=True) == {"n": 7}


async def test_where_two_threads_have_it_the_thread_must_be_named(checkpointer, ids):
    await checkpointer.copy_thread("t", "u")
    for call in (
        checkpointer.restore(ids[1]),
        checkpointer.get(ids[1]),
        checkpointer.compare(ids[0], ids[1]),
        checkpointer.tag(ids[1], "x"),
        checkpointer.mark_failed(ids[1]),
        checkpointer.create_branch(ids[1], "x"),
    ):
        with pytest.raises(InvalidInputError, match=r"(?i)several threads"):
            await call
    await checkpointer.tag(ids[1], "x", thread_id="u")
    await checkpointer.mark_failed(ids[1], thread_id="u")
    there = await checkpointer.get(ids[1], thread_id="t")
    copied = await checkpointer.get(ids[1], thread_id="u")
    assert (there.tags, there.failed) == (("t1",), False)
    assert (copied.tags, copied.failed) == (("t1", "x"), True)
    assert (await checkpointer.compare(ids[0], ids[1], thread_id="u")).changed == 1
    states = [s["n"] async for s in checkpointer.replay(ids[0], ids[2], thread_id="u")]
    assert states == [0, 1, 2]


async def test_a_copy_and_its_original_go_their_own_ways(checkpointer, new_checkpointer, ids):
    await checkpointer.copy_thread("t", "u")
    one = await checkpointer.save("t", {"n": "t"})
    two = await new_checkpointer().save("u", {"n": "u"})
    three = await new_checkpointer().save("u", {"n": "b"}, branch="b")
    four = await checkpointer.save("u", {"n": "bare"}, branch="bare")
    parents = [(await checkpointer.get(i)).parent_id for i in (one, two, three, four)]
    assert parents == [ids[4], ids[4], ids[6], ids[1]]
    with pytest.raises(NotFoundError):
        await checkpointer.save("t", {"n": 1}, parent=two)
    await checkpointer.delete_thread("t")
    cold = new_checkpointer()
    assert (await cold.restore(ids[4]))["n"] == 4
    assert len(await cold.get_history("u", include_failed=True)) == 11


async def test_a_copy_of_a_copy_and_of_a_pruned_thread_is_whole(
    checkpointer, new_checkpointer, ids
):
    await new_checkpointer(max_checkpoints_per_thread=3).prune("t")
    rows = {
        row.id: row.state
        for row in await new_checkpointer().get_history(
            "t", include_failed=True, include_state=True
        )
    }
    await checkpointer.copy_thread("t", "u")
    await new_checkpointer().copy_thread("u", "v")
    for branch in ("main", "b", "c", "bare"):
        lines = [
            [row.id for row in await new_checkpointer().get_history(thread, branch=branch)]
            for thread in ("t", "u", "v")
        ]
        assert lines[0] == lines[1] == lines[2] != []
    for checkpoint_id, state in rows.items():
        assert await new_checkpointer().restore(checkpoint_id, thread_id="v") == state


async def test_all_namespaces_are_copied(checkpointer, ids):
    inner = await checkpointer.save("t", {"n": "inner"}, namespace="sub")
    assert await checkpointer.copy_thread("t", "u") == 9
    restored = await checkpointer.restore(inner, thread_id="u", namespace="sub")
    assert restored == {"n": "inner"}


async def test_a_name_that_is_taken_and_a_thread_that_is_not_are_told(
    checkpointer, ids, owner, tenant
):
    await checkpointer.save("t", {"n": "inner"}, namespace="sub")
    await checkpointer.save("u", {"n": 1}, namespace="sub")
    count = "select count(*) from haive.checkpoints where tenant_id = $1"
    before = await owner.fetchval(count, tenant)
    for name in ("u", "t"):
        with pytest.raises(ConflictError, match="already"):
            await checkpointer.copy_thread("t", name)
    with pytest.raises(NotFoundError):
        await checkpointer.copy_thread("nobody", "v")
    assert await owner.fetchval(count, tenant) == before


@pytest.mark.parametrize("key", [True], indirect=True, ids=["sealed"])
async def test_a_sealed_copy_is_sealed_for_its_own_place(
    checkpointer, new_checkpointer, ids, owner, tenant
):
    await checkpointer.copy_thread("t", "u")
    rows = await owner.fetch(
        "select c.payload, c.sealed, t.thread_id from haive.checkpoints as c"
        " join haive.threads as t using (tenant_id, thread_key)"
        " where c.tenant_id = $1 and c.id = $2 order by t.thread_id",
        *(tenant, ids[3]),
    )
    assert rows[0]["payload"] != rows[1]["payload"]
    assert rows[0]["sealed"] != rows[1]["sealed"]
    await owner.execute(
        "update haive.checkpoints as c set payload = $3 from haive.threads as t"
        " where c.tenant_id = $1 and c.id = $2 and t.thread_key = c.thread_key"
        " and t.thread_id = 'u'",
        *(tenant, ids[3], rows[0]["payload"]),
    )
    assert (await new_checkpointer().restore(ids[3], thread_id="t"))["n"] == 3
    with pytest.raises(CorruptCheckpointError):
        await new_checkpointer().restore(ids[3], thread_id="u")


@pytest.fixture
def failing(checkpointer, monkeypatch):
    """Let the copy of a namespace fail: before or after the database has done it."""

    def fail(namespace: str, *, done: bool, meanwhile=None) -> None:
        copy = checkpointer._rewriter.copy

        async def failing(thread_id, part, new_thread_id):
            if part != namespace:
                return await copy(thread_id, part, new_thread_id)
            if done:
                await copy(thread_id, part, new_thread_id)
            if meanwhile is not None:
                await meanwhile()
            raise ConnectionLostError

        monkeypatch.setattr(checkpointer._rewriter, "copy", failing)

    return fail


@pytest.mark.parametrize("done", [False, True], ids=["not done", "answer lost"])
@pytest.mark.parametrize("namespace", ["", "sub"])
async def test_a_copy_that_fails_leaves_nothing_and_may_be_repeated(
    checkpointer, new_checkpointer, ids, failing, namespace, done
):
    await checkpointer.save("t", {"n": "inner"}, namespace="sub")
    failing(namespace, done=done)
    with pytest.raises(ConnectionLostError):
        await checkpointer.copy_thread("t", "u")
    assert [t.thread_id for t in await checkpointer.list_threads()] == ["t"]
    assert await new_checkpointer().copy_thread("t", "u") == 9


async def test_a_copy_that_fails_deletes_nothing_that_others_saved(
    checkpointer, new_checkpointer, ids, failing
):
    await checkpointer.save("t", {"n": "inner"}, namespace="sub")
    failing("sub", done=False, meanwhile=lambda: new_checkpointer().save("u", {"n": "new"}))
    with pytest.raises(ConnectionLostError):
        await checkpointer.copy_thread("t", "u")
    (last,) = await new_checkpointer().get_history("u", limit=1, include_state=True)
    assert last.state == {"n": "new"}
