"""History: newest first, by pages, with as much of each checkpoint as is asked for."""

from __future__ import annotations

import pytest

from haive.core.persistence.checkpointer import RecoveryPolicy
from haive.core.persistence.checkpointer._engine import Engine
from haive.core.persistence.errors import InvalidInputError, NotFoundError


@pytest.fixture
async def ids(checkpointer):
    return [
        await checkpointer.save("t", {"n": n}, {"n": n}, [f"t{n}"], failed=n in {3, 6})
        for n in range(8)
    ]


async def test_history_is_newest_first_without_failed_ones_and_states(checkpointer, ids):
    history = await checkpointer.get_history("t")
    assert [row.id for row in history] == [ids[n] for n in (7, 5, 4, 2, 1, 0)]
    assert [row.seq for row in history] == sorted((row.seq for row in history), reverse=True)
    assert [row.metadata["n"] for row in history] == [7, 5, 4, 2, 1, 0]
    assert [row.tags for row in history[:2]] == [("t7",), ("t5",)]
    assert {row.state for row in history} == {None}


async def test_failed_ones_and_states_come_where_they_are_asked_for(checkpointer, ids):
    history = await checkpointer.get_history("t", include_failed=True, include_state=True)
    assert [row.id for row in reversed(history)] == ids
    assert [row.state for row in reversed(history)] == [{"n": n} for n in range(8)]
    assert [row.failed for row in reversed(history)] == [n in {3, 6} for n in range(8)]


async def test_without_metadata_there_are_neither_metadata_nor_tags(checkpointer, ids):
    history = await checkpointer.get_history("t", include_metadata=False)
    assert [row.id for row in history] == [ids[n] for n in (7, 5, 4, 2, 1, 0)]
    assert all(row.metadata == {} and row.tags == () for row in history)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9])
async def test_pages_are_the_history_in_parts(checkpointer, ids, size):
    read, before = [], None
    while page := await checkpointer.get_history(
        "t", include_failed=True, limit=size, before=before
    ):
        assert len(page) <= size
        read += [row.id for row in page]
        before = page[-1].seq
    assert read == ids[::-1]


async def test_a_page_stays_as_it_is_while_others_save(checkpointer, ids):
    (first, second) = await checkpointer.get_history("t", limit=2)
    await checkpointer.save("t", {"n": "later"})
    (third, _) = await checkpointer.get_history("t", limit=2, before=second.seq)
    assert (first.id, second.id, third.id) == (ids[7], ids[5], ids[4])


async def test_an_unknown_thread_has_no_history(checkpointer):
    assert await checkpointer.get_history("nobody") == []
    assert await checkpointer.list_branches("nobody") == []


async def test_a_checkpoint_that_is_marked_as_failed_leaves_the_history_until_it_is_not(
    checkpointer, ids
):
    await checkpointer.mark_failed(ids[7])
    assert (await checkpointer.get_history("t"))[0].id == ids[5]
    await checkpointer.mark_failed(ids[7], failed=False)
    row = (await checkpointer.get_history("t"))[0]
    assert (row.id, row.metadata, row.tags) == (ids[7], {"n": 7}, ("t7",))


async def test_tags_come_and_go_and_nothing_else_changes(checkpointer, new_checkpointer, ids):
    await checkpointer.tag(ids[2], "a", "b", "a")
    await new_checkpointer().untag(ids[2], "t2", "nothing")
    await checkpointer.tag(ids[2], "b", "c")
    row = await checkpointer.get(ids[2], include_state=True)
    assert (row.tags, row.metadata, row.state) == (("a", "b", "c"), {"n": 2}, {"n": 2})
    assert (await checkpointer.find_checkpoint("t", tags=["c", "a"])).id == ids[2]
    assert await checkpointer.find_checkpoint("t", tags=["t2"]) is None
    await checkpointer.untag(ids[2], "a", "b", "c")
    assert (await checkpointer.get(ids[2])).tags == ()
    assert (await checkpointer.restore(ids[2])) == {"n": 2}


# -- recovery --------------------------------------------------------------------------------------


async def test_each_policy_takes_its_checkpoint(checkpointer, ids):
    async def recovered(policy, **where):
        return await checkpointer.recover("t", policy, **where)

    await checkpointer.mark_failed(ids[7])
    latest = await recovered(RecoveryPolicy.LATEST)
    assert (latest.id, latest.state) == (ids[7], {"n": 7})
    assert (await recovered("latest")).id == ids[7]
    assert (await recovered(RecoveryPolicy.LAST_SUCCESSFUL)).id == ids[5]
    assert (await recovered(RecoveryPolicy.LAST_TAGGED)).id == ids[7]
    assert (await recovered(RecoveryPolicy.LAST_TAGGED, tags=["t1"])).id == ids[1]
    before = await recovered(RecoveryPolicy.BEFORE_FAILURE)
    assert (before.id, before.state) == (ids[2], {"n": 2})
    assert (await recovered(RecoveryPolicy.LAST_READABLE)).id == ids[7]


async def test_last_tagged_passes_over_what_has_no_tag(checkpointer, ids):
    last = await checkpointer.save("t", {"n": 8})
    assert (await checkpointer.recover("t")).id == last
    assert (await checkpointer.recover("t", RecoveryPolicy.LAST_TAGGED)).id == ids[7]


@pytest.mark.parametrize("policy", list(RecoveryPolicy))
async def test_a_policy_that_finds_nothing_says_so(checkpointer, policy):
    with pytest.raises(NotFoundError):
        await checkpointer.recover("t", policy)
    await checkpointer.save("t", {"n": 0}, failed=True)
    if policy in {RecoveryPolicy.LATEST, RecoveryPolicy.LAST_READABLE}:
        assert (await checkpointer.recover("t", policy)).state == {"n": 0}
    else:
        with pytest.raises(NotFoundError):
            await checkpointer.recover("t", policy)


async def test_last_readable_goes_back_behind_what_is_damaged(
    checkpointer, new_checkpointer, ids, owner, tenant
):
    await checkpointer.save("t", {"n": 8})
    rows = [ids[6], ids[7], (await checkpointer.get_history("t"))[0].id]
    await owner.execute(
        "update haive.checkpoints set payload = substr(payload, 1, octet_length(payload) - 1)"
        " where id = any($1)",
        rows,
    )
    # A delta against what is damaged is lost with it.
    found = await new_checkpointer().recover("t", RecoveryPolicy.LAST_READABLE)
    assert (found.id, found.state) == (ids[5], {"n": 5})


# -- replay ----------------------------------------------------------------------------------------


async def test_replay_gives_the_states_in_order_over_branches_and_pages(
    checkpointer, new_checkpointer, key
):
    ids = [await checkpointer.save("t", {"n": n, "text": "x" * 500}) for n in range(60)]
    branch = await checkpointer.create_branch(ids[40], "b")
    for n in range(100, 160):
        last = await checkpointer.save("t", {"n": n, "text": "x" * 500}, branch=branch)
    cold = new_checkpointer()
    assert [s["n"] async for s in cold.replay(ids[3], ids[57])] == list(range(3, 58))
    along = [s["n"] async for s in cold.replay(ids[38], last)]
    assert along == [38, 39, 40, *range(100, 160)]
    assert [s["n"] async for s in cold.replay(last, last)] == [159]


async def test_states_that_are_stored_as_small_deltas_are_not_all_held_at_once(
    new_checkpointer, monkeypatch
):
    """A page is bounded by what its states are, and not only by what is stored of them."""
    writer = new_checkpointer(cache_bytes=1 << 27)
    large = "x" * (12 << 20)
    saved = [await writer.save("t", {"n": n, "large": large}) for n in range(9)]
    reader = new_checkpointer(cache_bytes=0)
    decoded: list[int] = []
    states = Engine.states

    async def noted(engine, found):
        known = await states(engine, found)
        decoded.append(sum(len(state.plain) for state in known.values()))
        return known

    monkeypatch.setattr(Engine, "states", noted)
    replay = reader.replay(saved[0], saved[-1])
    assert (await anext(replay))["n"] == 0
    assert sum(decoded) <= 64 << 20
    assert [state["n"] async for state in replay] == list(range(1, 9))
    assert max(decoded) <= 64 << 20
    decoded.clear()
    history = await reader.get_history("t", include_state=True)
    assert [one.state["n"] for one in history] == list(range(8, -1, -1))
    # What is before the last one of a page is less than the bound.
    assert [size >> 20 for size in decoded] == [72, 36]


async def test_replay_runs_forwards_along_one_branch_only(checkpointer, ids):
    branch = await checkpointer.create_branch(ids[2], "b")
    other = await checkpointer.save("t", {"n": "b"}, branch=branch)
    await checkpointer.save("u", {"n": 0})
    elsewhere = (await checkpointer.get_history("u"))[0].id
    for first, last in ((ids[5], ids[2]), (ids[4], other), (other, ids[7])):
        with pytest.raises(NotFoundError, match="not in the history"):
            [state async for state in checkpointer.replay(first, last)]
    with pytest.raises(NotFoundError):
        [state async for state in checkpointer.replay(elsewhere, ids[2])]


@pytest.mark.parametrize("limit", [0, 1001, -1])
async def test_a_page_of_no_size_is_refused(checkpointer, limit):
    with pytest.raises(InvalidInputError, match="limit"):
        await checkpointer.get_history("t", limit=limit)
