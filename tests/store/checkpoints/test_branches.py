"""Branches: named lines from any checkpoint, that copy nothing."""

from __future__ import annotations

from uuid import uuid4

import pytest

from haive.core.persistence.errors import (
    BranchConflict,
    ConflictError,
    InvalidInputError,
    NotFoundError,
)


@pytest.fixture
async def ids(checkpointer):
    return [await checkpointer.save("t", {"n": n, "text": "x" * 300}) for n in range(6)]


async def test_a_branch_begins_at_any_checkpoint_and_stores_nothing_again(
    checkpointer, ids, owner, tenant
):
    query = "select count(*), sum(octet_length(payload)) from haive.checkpoints where tenant_id=$1"
    before = await owner.fetchrow(query, tenant)
    branch_id = await checkpointer.create_branch(ids[2], "b", {"why": ["a", 1]})
    assert await owner.fetchrow(query, tenant) == before
    main, branch = await checkpointer.list_branches("t")
    assert (main.name, main.root_id, main.head_id, main.metadata) == ("main", None, ids[5], {})
    assert (branch.id, branch.name) == (branch_id, "b")
    assert (branch.root_id, branch.head_id) == (ids[2], ids[2])
    assert branch.metadata == {"why": ["a", 1]}
    assert [c.id for c in await checkpointer.get_history("t", branch="b")] == ids[2::-1]


async def test_what_is_saved_to_a_branch_is_seen_on_it_and_not_on_the_other(checkpointer, ids):
    branch = await checkpointer.create_branch(ids[2], "b")
    one = await checkpointer.save("t", {"n": "b1"}, branch="b")
    two = await checkpointer.save("t", {"n": "b2"}, branch=branch)
    three = await checkpointer.save("t", {"n": "b3"}, parent=two)  # its branch is the parent's
    four = await checkpointer.save("t", {"n": "b4"}, branch=str(branch))
    main = await checkpointer.save("t", {"n": "m"})
    line = [four, three, two, one, ids[2], ids[1], ids[0]]
    for name in ("b", branch, str(branch)):
        assert [c.id for c in await checkpointer.get_history("t", branch=name)] == line
    history = await checkpointer.get_history("t", branch="main")
    assert [c.id for c in history] == [main, *ids[::-1]]
    assert len(await checkpointer.get_history("t")) == 11
    assert (await checkpointer.recover("t", branch="b")).state == {"n": "b4"}
    found = await checkpointer.find_checkpoint("t", branch="b", with_state_matching={"n": 5})
    assert found is None
    found = await checkpointer.find_checkpoint("t", branch="b", with_state_matching={"n": 1})
    assert found.id == ids[1]


async def test_branches_of_branches_go_back_through_all_of_them(
    checkpointer, new_checkpointer, ids
):
    line, at = [ids[0], ids[1], ids[2]], ids[2]
    for depth in range(5):
        await checkpointer.create_branch(at, f"b{depth}")
        for n in range(3):
            saved = await checkpointer.save("t", {"n": [depth, n]}, branch=f"b{depth}")
            if n < 2:
                line.append(saved)
        at = line[-1]
    line.append(saved)
    cold = new_checkpointer()
    history = await cold.get_history("t", branch="b4", include_state=True)
    assert [c.id for c in reversed(history)] == line
    assert history[0].state == {"n": [4, 2]}
    assert [row.parent_id for row in history] == [*line[-2::-1], None]


async def test_two_branches_from_one_place_and_one_from_a_branch_without_checkpoints(
    checkpointer, ids
):
    await checkpointer.create_branch(ids[3], "a")
    await checkpointer.create_branch(ids[3], "b")
    one = await checkpointer.save("t", {"n": "a"}, branch="a")
    two = await checkpointer.save("t", {"n": "b"}, branch="b")
    roots = {b.name: b.root_id for b in await checkpointer.list_branches("t")}
    assert roots == {"main": None, "a": ids[3], "b": ids[3]}
    assert [c.id for c in await checkpointer.get_history("t", branch="a", limit=2)] == [one, ids[3]]
    assert [c.id for c in await checkpointer.get_history("t", branch="b", limit=2)] == [two, ids[3]]


async def test_the_head_of_a_branch_is_a_parent_and_nothing_else_of_it_is(checkpointer, ids):
    await checkpointer.create_branch(ids[2], "b")
    with pytest.raises(BranchConflict) as conflict:
        await checkpointer.save("t", {"n": 9}, parent=ids[1], branch="b")
    assert conflict.value.winner == ids[2]
    first = await checkpointer.save("t", {"n": 9}, parent=ids[2], branch="b")
    with pytest.raises(BranchConflict) as conflict:
        await checkpointer.save("t", {"n": 10}, parent=ids[2], branch="b")
    assert conflict.value.winner == first


async def test_a_name_that_is_taken_and_one_that_is_an_id_are_refused(checkpointer, ids):
    await checkpointer.create_branch(ids[2], "b")
    for name in ("b", "main"):
        with pytest.raises(ConflictError, match=name):
            await checkpointer.create_branch(ids[3], name)
    with pytest.raises(ConflictError, match="b already"):
        await checkpointer.save("t", {"n": 9}, parent=ids[1], fork="b")
    for name in (str(uuid4()), uuid4().hex):
        with pytest.raises(InvalidInputError, match="UUID"):
            await checkpointer.create_branch(ids[3], name)
        with pytest.raises(InvalidInputError, match="UUID"):
            await checkpointer.save("t", {"n": 9}, parent=ids[1], fork=name)
    assert len(await checkpointer.list_branches("t")) == 2
    assert len(await checkpointer.get_history("t")) == 6


async def test_an_unknown_branch_or_root_is_not_found(checkpointer, new_checkpointer, ids):
    for branch in ("b", uuid4(), str(uuid4())):
        with pytest.raises(NotFoundError, match="branch"):
            await checkpointer.save("t", {"n": 9}, branch=branch)
        assert await checkpointer.get_history("t", branch=branch) == []
    with pytest.raises(NotFoundError):
        await checkpointer.create_branch(uuid4(), "b")
    with pytest.raises(NotFoundError, match="branch"):
        await new_checkpointer().save("new", {"n": 9}, branch="b")
    assert len(await checkpointer.list_threads()) == 1


async def test_the_id_of_a_branch_is_one_of_its_own_thread(checkpointer, ids):
    branch = await checkpointer.create_branch(ids[2], "b")
    other = await checkpointer.save("u", {"n": 0})
    await checkpointer.create_branch(other, "b")
    with pytest.raises(NotFoundError, match="branch"):
        await checkpointer.save("u", {"n": 1}, branch=branch)
    with pytest.raises(NotFoundError, match="branch"):
        await checkpointer.save("t", {"n": 1}, branch=branch, namespace="sub")
    await checkpointer.save("t", {"n": 1}, branch=branch)


async def test_branches_of_a_namespace_are_its_own(checkpointer, ids):
    inner = await checkpointer.save("t", {"n": 1}, namespace="sub")
    await checkpointer.create_branch(inner, "b", {"in": "sub"})
    await checkpointer.create_branch(ids[0], "b", {"in": ""})
    for namespace, root in (("sub", inner), ("", ids[0])):
        _, branch = await checkpointer.list_branches("t", namespace=namespace)
        assert (branch.root_id, branch.metadata) == (root, {"in": namespace})


async def test_compare_tells_what_a_branch_changed(checkpointer, ids):
    await checkpointer.create_branch(ids[2], "b")
    changed = await checkpointer.save("t", {"n": 2, "text": "y", "new": [1]}, branch="b")
    difference = await checkpointer.compare(ids[2], changed)
    assert {str(change.path) for change in difference.changes} == {"$.text", "$.new"}
    bare = await checkpointer.compare(ids[2], changed, include_details=False)
    assert (bare.changes, bare.summary) == ((), difference.summary)
    same = await checkpointer.compare(changed, changed)
    assert not same
    assert same.changes == ()
    with pytest.raises(NotFoundError):
        await checkpointer.compare(changed, uuid4())
