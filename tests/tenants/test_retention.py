"""What a tenant does not keep any longer goes, and nothing else."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from haive.core.persistence.checkpointer import Checkpointer
from haive.core.persistence.errors import AccessDeniedError, ConflictError, NotFoundError
from haive.core.persistence.models import NewMessage
from haive.core.persistence.multitenancy import Members, apply_retention
from haive.core.persistence.vector import MemoryConfig, VectorMemory

DAYS = 30


@pytest.fixture
async def keeping(manager, new_id):
    """A tenant that keeps everything for thirty days."""
    made = await manager.create_tenant(new_id(), settings={"data_retention_days": DAYS})
    return made.tenant_id


@pytest.fixture
async def store(manager, keeping):
    async with manager.tenant_context(keeping) as store:
        yield store


@pytest.fixture
async def owner(stack):
    connection = await asyncpg.connect(stack.database_url)
    yield connection
    await connection.close()


def _ago(days):
    return datetime.now(UTC) - timedelta(days=days)


async def _conversation(store, days, messages=2):
    made = await store.create_conversation("agent", created_at=_ago(days))
    for n in range(messages):
        await store.add_message(made.id, "user", f"{n}", created_at=_ago(days))
    return made.id


async def _age(owner, tenant_id, thread_id, days):
    """Make a thread as old as that, with all that is in it."""
    await owner.execute(
        "with old as ("
        "update haive.threads set created_at = $3 where tenant_id = $1 and thread_id = $2"
        " returning thread_key)"
        " update haive.branches as b set updated_at = $3 from old"
        " where b.tenant_id = $1 and b.thread_key = old.thread_key",
        *(tenant_id, thread_id, _ago(days)),
    )


async def test_conversations_go_by_their_last_message(store):
    old = [await _conversation(store, DAYS + 1) for _ in range(3)]
    empty = await _conversation(store, DAYS + 1, messages=0)
    kept = await _conversation(store, DAYS - 1)
    continued = await _conversation(store, DAYS + 1)
    await store.add_message(continued, "user", "still here")

    done = await apply_retention(store)

    assert done.counts["conversations"] == 4
    assert done.counts["messages"] == 6
    assert abs(done.before - _ago(DAYS)) < timedelta(minutes=5)
    assert {one.id async for one in store.iter_conversations()} == {kept, continued}
    assert len(await store.get_messages(continued)) == 3
    for gone in (*old, empty):
        with pytest.raises(NotFoundError):
            await store.get_conversation(gone)


async def test_a_date_to_come_keeps_nothing_longer(store):
    later = datetime(9999, 12, 1, tzinfo=UTC)
    one, two, three, four = [
        (await store.create_conversation("agent", created_at=_ago(1))).id for _ in range(4)
    ]
    begun = await store.create_conversation("agent", created_at=later)

    def said(conversation_id):
        return NewMessage(
            conversation_id=conversation_id, role="user", content="x", created_at=later
        )

    message = await store.add_message(one, "user", "x", created_at=later)
    await store.add_messages([said(two)] * 2)
    await store.add_messages([said(three), said(four)])
    assert (message.created_at, begun.created_at) == (later, later)
    now = datetime.now(UTC) + timedelta(minutes=1)
    async for conversation in store.iter_conversations():
        assert max(conversation.last_message_at, conversation.updated_at) < now
        assert conversation.last_message_at > _ago(1) + timedelta(minutes=1)


async def test_threads_go_whole_and_not_while_one_part_has_something_newer(store, owner, keeping):
    checkpointer = Checkpointer(store)
    for thread in ("old", "half", "new"):
        for namespace in ("", "child"):
            for n in range(3):
                await checkpointer.save(thread, {"n": n}, namespace=namespace)
    for thread in ("old", "half"):
        await _age(owner, keeping, thread, DAYS + 1)
    last = await checkpointer.save("half", {"n": "new"}, namespace="child")

    done = await apply_retention(store)

    assert done.counts["threads"] == 2
    assert done.counts["checkpoints"] == 6
    assert done.counts["branches"] == 2
    found = {thread.thread_id: thread.checkpoints for thread in await checkpointer.list_threads()}
    assert found == {"half": 7, "new": 6}
    # What stays is whole: its oldest states are read still.
    history = await checkpointer.get_history("half", namespace="child", include_state=True)
    assert [one.state["n"] for one in history] == ["new", 2, 1, 0]
    assert history[0].id == last


async def test_events_and_ended_invitations_go_by_their_own_age(store, owner, keeping):
    await _conversation(store, 0)
    await Members(store).invite()
    ended = await Members(store).invite()
    await owner.execute(
        "update haive.events set created_at = $2 where tenant_id = $1", keeping, _ago(DAYS + 1)
    )
    await owner.execute(
        "update haive.invitations set revoked_at = $2 where id = $1", ended.id, _ago(DAYS + 1)
    )
    done = await apply_retention(store)
    assert done.counts["events"] == 3
    assert done.counts["invitations"] == 1
    assert len(await Members(store).invitations()) == 1


async def test_batches_come_to_the_same(store):
    for _ in range(7):
        await _conversation(store, DAYS + 1, messages=3)
    kept = await _conversation(store, 1)
    done = await apply_retention(store, batch=5)
    assert done.counts["conversations"] == 7
    assert done.counts["messages"] == 21
    assert [one.id async for one in store.iter_conversations()] == [kept]


async def _blocked(owner):
    """Until somebody waits for a row."""
    waiting = "select count(*) from pg_locks where not granted and locktype <> 'relation'"
    for _ in range(500):
        if await owner.fetchval(waiting):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits")


async def test_a_conversation_that_somebody_goes_on_with_meanwhile_stays(store, owner, keeping):
    conversation_id = await _conversation(store, DAYS + 1)
    async with owner.transaction():
        await owner.execute(
            "select haive_private.append_message($1, $2, gen_random_uuid(), 'user', 'late')",
            *(keeping, conversation_id),
        )
        job = asyncio.create_task(apply_retention(store))
        await _blocked(owner)
    done = await job
    assert "conversations" not in done.counts
    assert [m.seq for m in await store.get_messages(conversation_id)] == [1, 2, 3]


async def test_a_thread_that_somebody_goes_on_with_meanwhile_stays(store, owner, keeping):
    checkpointer = Checkpointer(store)
    parent = await checkpointer.save("thread", {"n": 1})
    await _age(owner, keeping, "thread", DAYS + 1)
    async with owner.transaction():
        await owner.execute(
            "select haive.save_checkpoint('thread', gen_random_uuid(), '', 0, parent_id => $2,"
            " tenant => $1)",
            *(keeping, parent),
        )
        job = asyncio.create_task(apply_retention(store))
        await _blocked(owner)
    done = await job
    assert "threads" not in done.counts
    assert (await checkpointer.get_thread("thread")).checkpoints == 2


async def test_a_tenant_without_the_setting_keeps_everything(manager, tenant_id):
    async with manager.tenant_context(tenant_id) as store:
        await _conversation(store, 10_000)
        done = await apply_retention(store)
        assert done.before is None
        assert done.counts == {}
        assert len(await store.query_conversations()) == 1


async def test_another_tenant_keeps_what_it_has(manager, store, new_id):
    other = (await manager.create_tenant(new_id(), settings={"data_retention_days": 1})).tenant_id
    async with manager.tenant_context(other) as theirs:
        await _conversation(theirs, DAYS + 1)
        await apply_retention(store)
        assert len(await theirs.query_conversations()) == 1


async def test_a_member_does_not_apply_it_and_an_admin_does(store, keeping, as_user):
    members = Members(store)
    await members.add(f"{keeping}-admin", "admin")
    await members.add(f"{keeping}-member", "member")
    await _conversation(store, DAYS + 1)
    with pytest.raises(AccessDeniedError):
        await apply_retention(as_user(f"{keeping}-member"))
    done = await apply_retention(as_user(f"{keeping}-admin"))
    assert done.counts["conversations"] == 1


# The REST API has no session that could hold a lock.
@pytest.mark.parametrize("base_store", ["postgres"], indirect=True)
async def test_one_does_it_at_a_time(store):
    transport = store._transport
    async with transport.alone(f"{transport.schema} {transport.tenant} retention"):
        with pytest.raises(ConflictError):
            await apply_retention(store)


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("archive", [False, True])
async def test_what_was_changed_lately_lasts_with_what_it_is_of(
    store, owner, keeping, archive, levels
):
    at = _ago(DAYS + 30)
    config = MemoryConfig(index_name="kept", embedding_strategy="none")
    memory = VectorMemory(config=config, store=store, clock=lambda: at)
    ids = await memory.add_many(["Anna has four dogs.", "Anna likes tea."], importance=0.3)
    (top,) = (
        await memory.consolidate_memories(
            consolidation_strategy="summarize", archive_originals=archive
        )
    ).created
    await memory.add("Anna lives in Rome.")
    if levels == 2:
        below, top = top, await memory.add("Anna, in short.")
        table = await owner.fetchval(
            "select table_name from haive_private.memory_collections where name = 'kept'"
        )
        await owner.execute(
            f"update vecs.{table} set metadata = metadata || jsonb_build_object("
            " 'kind', 'summary', 'sources', jsonb_build_array($3::text))"
            " where tenant_id = $1 and id = $2",
            *(keeping, top, below),
        )
    at = datetime.now(UTC)
    await memory.update(top, metadata={"seen": True})

    done = await apply_retention(store)

    assert done.counts["memories"] == 1
    assert (await memory.get(top)).metadata["seen"] is True
    assert {each.id for each in await memory.provenance(top)} == {*ids}


async def test_a_talk_that_goes_on_keeps_its_summary_and_its_turns(store):
    at = _ago(DAYS + 30)
    config = MemoryConfig(index_name="kept", embedding_strategy="none")
    memory = VectorMemory(config=config, store=store, clock=lambda: at)
    talk = [{"role": "user", "content": "Anna has four dogs and a garden in Rome."}]
    named = {"conversation_id": "c"}
    whole = await memory.store_conversation(talk, named, generate_summary=True)
    begun = at
    at = datetime.now(UTC)
    # Nothing new: nobody has said anything since.
    await memory.store_conversation(talk, named, generate_summary=True)
    assert (await memory.get(whole)).renewed_at is None
    talk.append({"role": "user", "content": "Anna likes green tea."})
    await memory.store_conversation(talk, named, generate_summary=True)

    assert "memories" not in (await apply_retention(store)).counts
    kept = await memory.get(whole)
    assert (kept.created_at, kept.renewed_at) == (begun, at)
    assert len(await memory.provenance(whole)) == 2


async def test_a_memory_stays_with_what_somebody_says_of_it_meanwhile(store, owner, keeping):
    config = MemoryConfig(index_name="kept", embedding_strategy="none")
    memory = VectorMemory(config=config, store=store, clock=lambda: _ago(DAYS + 30))
    ids = await memory.add_many(["Anna has four dogs.", "Anna likes tea."], importance=0.3)
    (top,) = (await memory.consolidate_memories(consolidation_strategy="summarize")).created
    table = await owner.fetchval(
        "select table_name from haive_private.memory_collections where name = 'kept'"
    )
    async with owner.transaction():
        await owner.execute(
            f"update vecs.{table} set metadata = metadata || jsonb_build_object("
            " 'renewed_at', haive_private.time_text(now())) where tenant_id = $1 and id = $2",
            *(keeping, top),
        )
        job = asyncio.create_task(apply_retention(store))
        await _blocked(owner)
    assert "memories" not in (await job).counts
    assert {each.id for each in await memory.provenance(top)} == {*ids}


async def test_memories_go_by_when_they_were_last_said_or_changed(store):
    at = _ago(DAYS + 30)

    def memory_of(**settings):
        config = MemoryConfig(index_name="kept", embedding_strategy="none", **settings)
        return VectorMemory(config=config, store=store, clock=lambda: at)

    memory, every = memory_of(), memory_of(near_duplicate=None)
    facts = ["Anna is allergic to shrimp.", "Anna lives in Rome.", "Anna has four dogs."]
    ids = await memory.add_many(facts, user_id="u")
    twice = ["Anna drives a red car.", "Anna likes green tea."] * 2
    await every.add_many(twice, user_id="v", importance=0.3)
    merged = await every.consolidate_memories(
        consolidation_strategy="dedupe", filters={"user_id": "v"}
    )
    assert len(merged.created) == 2
    at = datetime.now(UTC)
    assert await memory.add(facts[0], user_id="u") == ids[0]
    await memory.update(ids[1], metadata={"seen": True})
    again = await memory.add(twice[0], user_id="v")
    assert again in merged.created

    done = await apply_retention(store)

    # One that was merged, its two and the other note: what was merged lasts with what it is of.
    assert done.counts["memories"] == 4
    assert {hit.id for hit in await memory.search("Anna")} == {*ids[:2], again}
    assert len(await memory.provenance(again)) == 2
    at += timedelta(days=DAYS)
    assert await memory.add(facts[0], user_id="u") == ids[0]
    assert (await memory.get(ids[0])).renewed_at == at
