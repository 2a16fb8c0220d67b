"""What a session says is remembered as the session says it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.multitenancy import Subjects
from haive.core.persistence.session import SessionManager
from haive.core.persistence.vector import VectorMemory
from haive.core.persistence.vector.backends.protocol import MemoryBackend

pytestmark = pytest.mark.parametrize("kind", ["pgvector"], indirect=True)
SAID = ["My grinder stops after ten seconds.", "Its motor overheats.", "The burrs are full."]


@pytest.fixture
def manager(backend: MemoryBackend) -> SessionManager:
    return SessionManager(backend._store)


@pytest.fixture
async def memory(make, backend: MemoryBackend) -> AsyncIterator[VectorMemory]:
    async with VectorMemory(config=make().config, store=backend._store) as memory:
        yield memory


async def turns(memory: VectorMemory, whole: str) -> list[tuple[int | None, str]]:
    found = [await memory.get(each) for each in (await memory.get(whole)).sources]
    assert {each.conversation_id for each in found} == {(await memory.get(whole)).conversation_id}
    return [(each.seq, each.text) for each in found]


async def branched(manager: SessionManager) -> tuple[str, str]:
    session = await manager.create_session("ada")
    for text in SAID:
        await manager.add_message(session.id, "user", text)
    branch = await manager.branch_session(session.id, 2)
    await manager.add_message(branch.id, "user", "In the branch it is repaired.")
    return str(session.id), str(branch.id)


async def test_a_branch_and_its_parent_have_memories_of_their_own(memory, manager) -> None:
    parent, branch = await branched(manager)
    of_parent = list(enumerate(SAID, 1))
    of_branch = [*of_parent[:2], (3, "In the branch it is repaired.")]
    for _ in range(2):
        theirs = await memory.store_conversation(branch)
        ours = await memory.store_conversation(parent)
        assert await turns(memory, theirs) == of_branch
        assert await turns(memory, ours) == of_parent
    assert (await memory.stats()).kinds == {"turn": 6, "conversation": 2}


async def test_messages_of_a_branch_are_stored_under_its_name(memory, manager) -> None:
    parent, branch = await branched(manager)
    ours = await memory.store_conversation(parent)
    messages = await manager.messages(branch)
    with pytest.raises(InvalidInputError, match="several conversations"):
        await memory.store_conversation(messages)
    about = {"conversation_id": branch, "user_id": "ada"}
    theirs = await memory.store_conversation(messages, about)
    assert await turns(memory, theirs) == [
        *enumerate(SAID[:2], 1), (3, "In the branch it is repaired."),
    ]  # fmt: skip
    # The last ones alone stand where they stood.
    await memory.store_conversation(await manager.messages(branch, limit=1, last=True), about)
    assert await memory.store_conversation(branch) == theirs
    assert len(await turns(memory, theirs)) == 3
    assert await turns(memory, ours) == list(enumerate(SAID, 1))


async def test_what_moderators_have_hidden_is_not_remembered(memory, manager) -> None:
    room = await manager.create_collaborative_session(["eve"], user_id="ada")
    rude = await manager.add_message(room.id, "user", "The vault opens with swordfish.")
    await manager.add_message(room.id, "user", "Good morning everybody.")
    await manager.hide_message(room.id, rude.id)
    seen = await manager.messages(room.id, hidden=True)
    assert [message.hidden for message in seen] == [True, False]
    for form in (room.id, await memory._store.get_conversation(room.id), seen):
        whole = await memory.store_conversation(form)
        assert await turns(memory, whole) == [(2, "Good morning everybody.")]


async def test_who_wrote_a_message_of_a_session_is_its_speaker(memory, manager) -> None:
    room = await manager.create_collaborative_session(["anna", "bob"])
    await manager.add_message(room.id, "user", "I eat no meat.", as_user="anna")
    named = {"metadata": {"speaker": "Bob B."}, "as_user": "bob"}
    await manager.add_message(room.id, "user", "I eat steak every day.", **named)
    await manager.add_message(room.id, "assistant", "Enjoy your meal.")
    for form in (room.id, await manager.messages(room.id)):
        whole = await memory.get(await memory.store_conversation(form))
        speakers = [(await memory.get(each)).speaker for each in whole.sources]
        assert speakers == ["anna", "Bob B.", None]


async def test_what_an_erased_user_said_to_others_is_forgotten_by_their_name(
    memory, manager
) -> None:
    """What docs/erasure.md says of it."""
    room = await manager.create_collaborative_session(["bob"], user_id="ada")
    await manager.add_message(room.id, "user", "I eat no meat.", as_user="bob")
    await manager.add_message(room.id, "assistant", "Enjoy your meal.")
    whole = await memory.store_conversation(room.id)
    await Subjects(memory._store).erase("bob")
    named = {"$or": [{"speaker": "bob"}, {"writer": "bob"}]}
    forgotten = await memory.forget(filters=named)
    assert (forgotten.counts, forgotten.rebuilt) == ({"turn": 1}, (whole,))
    await memory.store_conversation(room.id)
    assert await turns(memory, whole) == [(1, "I eat no meat."), (2, "Enjoy your meal.")]
    assert (await memory.forget(filters=named)).total == 0


async def test_what_is_added_to_a_branch_follows_what_it_begins_with(memory, manager) -> None:
    _, branch = await branched(manager)
    whole = await memory.store_conversation(branch)
    known = [*enumerate(SAID[:2], 1), (3, "In the branch it is repaired.")]
    added = await manager.add_message(branch, "user", "It runs again.")
    await manager.add_message(branch, "user", "And it is quiet.")
    about = {"user_id": "ada"}
    assert await memory.store_conversation([added], about) == whole
    assert await turns(memory, whole) == [*known, (4, "It runs again.")]
    own = await memory._store.get_messages(branch)
    stored = await memory._store.get_conversation(branch)
    for form in (own, stored, stored.model_copy(update={"messages": own})):
        assert await memory.store_conversation(form, about) == whole
        assert await turns(memory, whole) == [
            *known,
            (4, "It runs again."),
            (5, "And it is quiet."),
        ]
    assert (await memory.stats()).kinds == {"turn": 5, "conversation": 1}


async def test_what_was_hidden_since_it_was_read_is_not_remembered(memory, manager) -> None:
    room = await manager.create_collaborative_session(["eve"], user_id="ada")
    rude = await manager.add_message(room.id, "user", "The vault opens with swordfish.")
    kind = await manager.add_message(room.id, "user", "Good morning everybody.", as_user="eve")
    stored = await memory._store.get_conversation(room.id)
    stored = stored.model_copy(update={"messages": [rude, kind]})
    await manager.hide_message(room.id, rude.id)
    for form in (stored, [rude, kind]):
        whole = await memory.store_conversation(form, {"user_id": "ada"})
        assert await turns(memory, whole) == [(2, "Good morning everybody.")]
        [only] = (await memory.get(whole)).sources
        assert (await memory.get(only)).speaker == "eve"


async def test_what_a_session_has_not_is_stored_as_it_is_given(memory, manager) -> None:
    talk = await memory._store.create_conversation("agent")
    said = await memory._store.add_message(talk.id, "user", SAID[0])
    whole = await memory.store_conversation([said])
    assert await turns(memory, whole) == [(1, SAID[0])]
