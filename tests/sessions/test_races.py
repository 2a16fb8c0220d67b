"""Many at once: each change happens once and whole, and nobody is told of a deadlock."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from haive.core.persistence.errors import ConflictError, SessionClosedError
from haive.core.persistence.models import NewMessage

WRITERS = 32


@pytest.fixture
async def managers(new_manager, open_store, transport):
    """Managers of several stores, as of several processes."""
    return [new_manager(), *[new_manager(await open_store()) for _ in range(2)]]


def refusals(outcomes, *allowed):
    """The errors among outcomes, all of which are of these classes."""
    errors = [each for each in outcomes if isinstance(each, BaseException)]
    for error in errors:
        if not isinstance(error, allowed):
            raise error
    return errors


# -- merges ----------------------------------------------------------------------------------------


async def test_two_merges_of_the_same_two_are_one_after_the_other(managers, filled, texts):
    primary = await filled("a")
    branch = await managers[0].branch_session(primary.id)
    await managers[0].add_message(primary.id, "user", "b")
    await managers[0].add_message(branch.id, "user", "c")
    merged = await asyncio.gather(
        *(each.merge_sessions(primary.id, branch.id, "append") for each in managers)
    )
    # The second one finds all of it there already: nothing is in the session twice.
    assert await texts(primary) == ["a", "b", "c"]
    records = await managers[0].list_merges(primary.id)
    assert {each.id for each in records} == {each.merge.id for each in merged}
    assert len(records) == len(managers)
    for record in reversed(records):
        await managers[0].undo_merge(primary.id, record.id)
    assert await texts(primary) == ["a", "b"]
    assert (await managers[0].get_session(branch.id)).status == "open"


async def test_merges_against_each_other_end_with_one_of_them(managers, filled, texts):
    for _ in range(4):
        one = await filled("a")
        other = await managers[0].branch_session(one.id)
        await managers[0].add_message(one.id, "user", "b")
        await managers[0].add_message(other.id, "user", "c")
        outcomes = await asyncio.gather(
            *(
                manager.merge_sessions(*pair, "append")
                for manager in managers
                for pair in ((one.id, other.id), (other.id, one.id))
            ),
            return_exceptions=True,
        )
        # What was merged away takes no merges any more.
        refusals(outcomes, SessionClosedError)
        states = {(await managers[0].get_session(each.id)).status for each in (one, other)}
        assert states == {"open", "merged"}
        lines = [await texts(one), await texts(other)]
        assert sorted(max(lines, key=len)) == ["a", "b", "c"]


async def test_a_merge_of_what_others_write_to_has_all_of_it_in_order(managers, filled):
    primary = await filled("root")
    branch = await managers[0].branch_session(primary.id)
    written = {primary.id: [], branch.id: []}
    stop = asyncio.Event()

    async def write(manager, session_id):
        while not stop.is_set():
            text = f"{len(written[session_id])} of {session_id}"
            try:
                await manager.add_message(session_id, "user", text)
            except SessionClosedError:
                return
            written[session_id].append(text)
            await asyncio.sleep(0.05)

    writers = [
        asyncio.create_task(write(manager, each))
        for manager, each in zip(managers[1:], written, strict=True)
    ]
    await asyncio.sleep(0.2)
    # Whoever plans is told that they were overtaken, and plans anew.
    merged = await managers[0].merge_sessions(primary.id, branch.id, "chronological")
    stop.set()
    await asyncio.gather(*writers)
    lines = [message.text for message in await managers[0].messages(primary.id, limit=10_000)]
    for session_id, texts in written.items():
        assert [text for text in lines if text.endswith(str(session_id))] == texts
    assert len(lines) == 1 + sum(map(len, written.values()))
    assert merged.merge.root_count == 1


async def test_undoing_while_others_write_loses_nothing(managers, filled, texts):
    primary, other = await filled("a"), await filled("x", "y")
    for _ in range(4):
        merged = await managers[0].merge_sessions(primary.id, other.id, "intelligent")
        before = len(await texts(primary))

        async def write(n, manager):
            await manager.add_message(primary.id, "assistant", f"during {n}")

        await asyncio.gather(
            managers[1].undo_merge(primary.id, merged.merge.id),
            managers[2].undo_merge(primary.id, merged.merge.id),
            *(write(n, manager) for n, manager in enumerate(managers * 3)),
        )
        now = await texts(primary)
        during = [text for text in now if text.startswith("during")]
        # What it had without the two of the other and the summary, and what was written.
        assert len(now) == before - 3 + 9
        assert now[0] == "a"
        assert set(during[-9:]) == {f"during {n}" for n in range(9)}
        assert "x" not in now


async def test_a_branch_that_begins_while_a_merge_runs_is_of_before_or_after(managers, filled):
    primary, other = await filled("a", "b"), await filled("x")
    before, after = ["a", "b"], ["a", "b", "x"]
    outcomes = await asyncio.gather(
        managers[0].merge_sessions(primary.id, other.id, "append"),
        *(manager.branch_session(primary.id) for manager in managers * 6),
    )
    for branch in outcomes[1:]:
        line = [message.text for message in await managers[0].messages(branch.id)]
        assert line in (before, after)
        assert branch.message_count == len(line)
    # And stays so when the merge is undone.
    await managers[0].undo_merge(primary.id, outcomes[0].merge.id)
    for branch in outcomes[1:]:
        line = [message.text for message in await managers[0].messages(branch.id)]
        assert branch.message_count == len(line)
        assert line in (before, after)


async def test_merges_writes_and_undoings_of_a_few_sessions_never_deadlock(managers, filled):
    sessions = [await filled(f"{n}") for n in range(3)]

    async def act(manager, turn):
        for n in range(4):
            one, other = (sessions[(turn + n + step) % 3].id for step in (0, 1))
            if turn % 2:
                one, other = other, one
            try:
                merged = await manager.merge_sessions(one, other, "append")
                await manager.add_message(one, "user", f"{turn} {n}")
                await manager.undo_merge(one, merged.merge.id)
            except (SessionClosedError, ConflictError):
                pass
            await manager.resume(other)
            with suppress(SessionClosedError):
                await manager.store.add_messages(
                    [
                        NewMessage(conversation_id=each.id, role="user", content="x")
                        for each in sessions
                    ]
                )

    await asyncio.gather(*(act(managers[turn % 3], turn) for turn in range(6)))
    for session in sessions:
        found = await managers[0].get_session(session.id)
        line = await managers[0].messages(session.id, limit=10_000)
        assert [each.index for each in line] == list(range(1, found.message_count + 1))


# -- state -----------------------------------------------------------------------------------------


async def test_of_all_who_expect_a_version_one_wins_each_round(managers, filled):
    session = await filled()
    for number in range(4):
        session = await managers[0].get_session(session.id)

        async def write(writer, expected=session, number=number):
            return await managers[writer % 3].update_state(
                expected.id,
                {"winner": writer, f"round {number}": writer},
                expected=expected if writer % 2 else expected.version,
            )

        outcomes = await asyncio.gather(
            *(write(writer) for writer in range(WRITERS)), return_exceptions=True
        )
        assert len(refusals(outcomes, ConflictError)) == WRITERS - 1
        (won,) = [each for each in outcomes if not isinstance(each, BaseException)]
        now = await managers[0].get_session(session.id)
        assert now.state == won.state
        assert now.state[f"round {number}"] == now.state["winner"]
        assert now.version == won.version > session.version


async def test_without_an_expected_version_every_key_of_everybody_is_kept(managers, filled):
    session = await filled()
    await asyncio.gather(
        *(
            managers[writer % 3].update_state(session.id, {f"{writer}": n})
            for writer in range(WRITERS)
            for n in range(2)
        )
    )
    now = await managers[0].get_session(session.id)
    assert set(now.state) == {f"{writer}" for writer in range(WRITERS)}
    await asyncio.gather(
        *(
            managers[writer % 3].update_state(session.id, {f"{writer}": None})
            for writer in range(0, WRITERS, 2)
        )
    )
    now = await managers[0].get_session(session.id)
    assert set(now.state) == {f"{writer}" for writer in range(1, WRITERS, 2)}


async def test_who_all_continue_a_session_continue_it_in_the_same_one(managers, filled):
    session = await filled("a")
    found = await asyncio.gather(*(managers[n % 3].continue_session(session.id) for n in range(12)))
    assert len({each.id for each in found}) == 1
    assert len(await managers[0].list_sessions()) == 2
