"""A new key while the tenant works: nobody fails, and it may be killed at any point."""

from __future__ import annotations

import asyncio
import random
from contextlib import contextmanager, suppress

import pytest
from pydantic import BaseModel

from haive.core.persistence._encoding import new_id
from haive.core.persistence.checkpointer import CheckpointConfig, Checkpointer
from haive.core.persistence.encryption import KeyStatus, drop_unused, rotate
from haive.core.persistence.encryption._rotation import _uses
from haive.core.persistence.errors import (
    ConflictError,
    CorruptCheckpointError,
    DecryptionError,
    KeyMissingError,
)
from haive.core.persistence.models import NewConversation, NewMessage

_ROWS, _CONVERSATIONS = 3_000, 30
PLAIN = CheckpointConfig(compression="none")


class State(BaseModel):
    step: int


class KilledError(BaseException):
    """What ends a rotation here and now."""


class Killer:
    """A transport that does not outlive a number of calls, of one function or of all."""

    def __init__(self, transport, calls, of=None):
        self._transport = transport
        self._left = calls
        self._of = of

    def __getattr__(self, name):
        return getattr(self._transport, name)

    async def call(self, function, *arguments, **settings):
        self._left -= self._of in {None, function}
        if self._left < 0:
            raise KilledError
        return await self._transport.call(function, *arguments, **settings)

    async def rows(self, *arguments):
        self._left -= 1
        if self._left < 0:
            raise KilledError
        return await self._transport.rows(*arguments)


async def in_use(store):
    """By table, rows by key."""
    found = {}
    for use in await _uses(store):
        found.setdefault(use.table, {})[use.key_id] = use.rows
    return found


async def fill(store, rows=_ROWS):
    conversations = await store.create_conversations(
        [
            NewConversation(agent_id="a", metadata={"title": f"title {n}", "context": {"n": n}})
            for n in range(_CONVERSATIONS)
        ]
    )
    said = await store.add_messages(
        [
            NewMessage(
                conversation_id=conversations[n % _CONVERSATIONS].id,
                role="user",
                content=f"message {n}" if n % 3 else [{"type": "text", "text": f"part {n}"}],
                metadata={"n": n, "exact": 0.1},
            )
            for n in range(rows)
        ]
    )
    return conversations, said


async def everything(store, conversations):
    return {
        message.id: message
        for conversation in conversations
        for message in await store.get_messages(conversation.id, limit=10_000)
    }


@contextmanager
def dying(store, calls, of=None):
    """The store does not outlive a number of calls."""
    cls, killer = type(store), Killer(store._transport, calls, of)
    store.__class__ = type("Dying", (cls,), {"_transport": property(lambda _: killer)})
    try:
        yield
    finally:
        store.__class__ = cls


class Traffic:
    """Reads and writes of a tenant by others, which must not fail."""

    def __init__(self, reader, writer, conversations, said):
        self._reader = reader
        self._checkpoints = Checkpointer(reader, PLAIN)
        self._writer = writer
        self._conversations = conversations
        self._said = said
        self._chance = random.Random(3)
        self._done = asyncio.Event()
        self.reads = self.writes = 0

    async def __aenter__(self):
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        return self

    async def __aexit__(self, *_):
        self._done.set()
        for task in self._tasks:
            await task

    async def _read(self):
        while not self._done.is_set():
            conversation = self._chance.choice(self._conversations)
            page = await self._reader.get_messages(conversation.id, limit=1_000)
            assert len(page) >= _ROWS // _CONVERSATIONS
            found = await self._reader.get_conversation(conversation.id)
            assert found.metadata.title == conversation.metadata.title
            thread = f"thread {self._chance.randrange(4)}"
            assert (await self._checkpoints.recover(thread)).state["text"] == "state"
            assert await self._checkpoints.find_checkpoint(thread, tags=["tag"])
            self.reads += 1

    async def _write(self):
        while not self._done.is_set():
            key = self._chance.choice(self._conversations).id
            self._said.append(await self._writer.add_message(key, "assistant", f"{self.writes}"))
            await self._writer.update_conversation(key, metadata={"context": {"w": self.writes}})
            self.writes += 1
            await asyncio.sleep(0.005)


async def test_a_rotation_in_use_that_is_killed_again_and_again_ends(
    store, open_store, keys, tenant
):
    conversations, said = await fill(store)
    checkpointer = Checkpointer(store, PLAIN)
    for n in range(20):
        await checkpointer.save(f"thread {n % 4}", {"n": n, "text": "state"}, {"by": "me"}, ["tag"])
    (first,) = [key.key_id for key in await keys.stored(tenant)]
    assert await in_use(store) == {
        "conversations": {first: _CONVERSATIONS},
        "messages": {first: _ROWS},
        "checkpoints": {first: 20},
    }

    async with Traffic(await open_store(), await open_store(), conversations, said) as traffic:
        for calls in (0, 2, 3, 5, 8, 13, 21):
            rotor = await open_store()
            with dying(rotor, calls), pytest.raises(KilledError):
                await rotate(rotor, rotor._sealer, keys, batch=200)
        rotated = await rotate(store, store._sealer, keys, batch=200)
    assert traffic.reads > 5
    assert traffic.writes > 5

    # Not a new one each time: what was begun was finished.
    assert [(key.key_id, key.status) for key in await keys.stored(tenant)] == [
        (first, KeyStatus.RETIRED),
        (rotated.key_id, KeyStatus.ACTIVE),
    ]
    uses = await in_use(store)
    assert {table: set(found) for table, found in uses.items()} == {
        table: {rotated.key_id} for table in ("conversations", "messages", "checkpoints")
    }
    assert uses["messages"][rotated.key_id] == len(said)
    assert await everything(store, conversations) == {message.id: message for message in said}

    assert await drop_unused(store, store._sealer, keys) == [first]
    assert await everything(await open_store(), conversations) == {m.id: m for m in said}
    history = await Checkpointer(await open_store()).get_history("thread 0")
    assert [each.metadata["by"] for each in history] == ["me"] * 5


async def test_a_tenant_that_was_in_the_clear_is_sealed_as_it_is(open_store, owner, tenant):
    await owner.execute("update haive.tenants set encrypted = false where tenant_id = $1", tenant)
    bare = await open_store(sealed=False)
    conversations, said = await fill(bare, 300)
    checkpointer = Checkpointer(bare)
    for n in range(3):
        await checkpointer.save("thread", {"n": n})
    await owner.execute("update haive.tenants set encrypted = true where tenant_id = $1", tenant)
    during = await open_store(allow_plain=True)
    assert await everything(during, conversations) == {message.id: message for message in said}
    assert (await Checkpointer(during).recover("thread")).state == {"n": 2}

    store = await open_store()
    told = []
    rotated = await rotate(
        store, store._sealer, store._sealer.source, batch=50,
        progress=lambda table, count: told.append((table, count)),
    )  # fmt: skip
    assert not rotated.began
    assert (rotated.rows, rotated.checkpoints) == (330, 3)
    assert told[-1] == ("checkpoints", 3)
    assert ("messages", 300) in told
    assert await everything(store, conversations) == {message.id: message for message in said}
    for conversation in conversations:
        assert await store.get_conversation(conversation.id)
    assert (await Checkpointer(store).recover("thread")).state == {"n": 2}
    clear = "select count(*) from haive.messages where tenant_id = $1 and sealed is null"
    assert await owner.fetchval(clear, tenant) == 0


async def test_a_row_that_does_not_open_is_named_and_the_others_are_done(
    store, keys, owner, tenant
):
    _, said = await fill(store, 60)
    damaged = said[7].id
    await owner.execute("update haive.messages set sealed = '' where id = $1", damaged)
    with pytest.raises(DecryptionError, match=f"1 rows do not open.*{damaged}"):
        await rotate(store, store._sealer, keys)
    first, second = [key.key_id for key in await keys.stored(tenant)]
    assert (await in_use(store))["messages"] == {first: 1, second: 59}
    # Its key stays: nothing that is there becomes unreadable.
    assert await drop_unused(store, store._sealer, keys) == []
    # Nor does it keep the others from a new key, and that from the next one.
    with pytest.raises(DecryptionError, match=f"1 rows do not open.*{damaged}"):
        await rotate(store, store._sealer, keys)
    third = (await store._sealer.refresh()).keys.key_id
    assert third not in {first, second}
    assert (await in_use(store))["messages"] == {first: 1, third: 59}
    await owner.execute("delete from haive.messages where id = $1", damaged)
    assert await drop_unused(store, store._sealer, keys) == [first, second]
    assert (await rotate(store, store._sealer, keys)).began


async def test_what_was_left_is_done_though_a_row_does_not_open(
    store, open_store, keys, owner, tenant
):
    _, said = await fill(store, 60)
    damage = "update haive.messages set sealed = '', sealed_with = '00000000' where id = $1"
    await owner.execute(damage, said[7].id)
    rotor = await open_store()
    with dying(rotor, 2, of="reseal_messages"), pytest.raises(KilledError):
        await rotate(rotor, rotor._sealer, keys, batch=10)
    with pytest.raises(DecryptionError, match="1 rows do not open"):
        await rotate(store, store._sealer, keys)
    # The key that was begun, and no other.
    _, second = [key.key_id for key in await keys.stored(tenant)]
    assert (await in_use(store))["messages"] == {"00000000": 1, second: 59}


async def test_a_checkpoint_that_does_not_open_holds_up_nothing_else(store, keys, owner, tenant):
    await fill(store, 10)
    checkpointer = Checkpointer(store)
    await checkpointer.save("damaged", {"n": 1})
    await checkpointer.save("sound", {"n": 2})
    await owner.execute(
        "update haive.checkpoints as c set payload = '' from haive.threads as t"
        " where t.thread_key = c.thread_key and t.tenant_id = $1 and t.thread_id = 'damaged'",
        tenant,
    )
    (first,) = [key.key_id for key in await keys.stored(tenant)]
    for _ in range(2):
        before = (await store._sealer.refresh()).keys.key_id
        with pytest.raises(CorruptCheckpointError, match="'damaged'"):
            await rotate(store, store._sealer, keys)
        active = (await store._sealer.refresh()).keys.key_id
        assert active != before
        uses = await in_use(store)
        assert uses["messages"] == {active: 10}
        assert uses["checkpoints"] == {first: 1, active: 1}


async def test_a_schema_that_no_checkpoint_has_is_sealed_anew(store, keys, owner, tenant):
    checkpointer = Checkpointer(store)
    await checkpointer.save("t", State(step=1))
    await checkpointer.delete_thread("t")
    before = [key.key_id for key in await keys.stored(tenant)]
    for _ in range(2):
        rotated = await rotate(store, store._sealer, keys)
        assert rotated.began
        assert (await in_use(store))["checkpoint_schemas"] == {rotated.key_id: 1}
        assert await drop_unused(store, store._sealer, keys) == before
        before = [rotated.key_id]
    # Who saved it before does not send it again.
    saved = await checkpointer.save("t", State(step=2))
    found = await checkpointer.restore(saved, model=State, validate_schema=True)
    assert found == State(step=2)


async def test_schemas_of_pruned_checkpoints_are_sealed_anew(store, keys):
    checkpointer = Checkpointer(store)
    await checkpointer.save("t", State(step=0))
    await rotate(store, store._sealer, keys)
    keep = CheckpointConfig(max_checkpoints_per_thread=1, keep_minimum=1)
    for step in range(1, 4):
        await checkpointer.save("t", State(step=step))
    await Checkpointer(store, keep).prune("t")
    rotated = await rotate(store, store._sealer, keys)
    assert rotated.began
    # By a hash of the first key, by one of the second.
    assert (await in_use(store))["checkpoint_schemas"] == {rotated.key_id: 2}


@pytest.mark.parametrize("calls", range(3))
async def test_a_rotation_killed_beside_a_schema_is_finished(store, open_store, keys, calls):
    checkpointer = Checkpointer(store)
    saved = await checkpointer.save("t", State(step=1))
    await checkpointer.create_branch(saved, "b", {"why": "x"})
    rotor = await open_store()
    with dying(rotor, calls, of="rewrite_checkpoints"), suppress(KilledError):
        await rotate(rotor, rotor._sealer, keys)
    rotated = await rotate(store, store._sealer, keys)
    uses = await in_use(store)
    assert {table: set(found) for table, found in uses.items()} == {
        table: {rotated.key_id} for table in ("branches", "checkpoints", "checkpoint_schemas")
    }
    assert await drop_unused(store, store._sealer, keys)
    found = await Checkpointer(store).restore(saved, model=State, validate_schema=True)
    assert found == State(step=1)


async def test_a_schema_that_does_not_open_is_named_and_the_others_are_done(
    store, keys, owner, tenant
):
    checkpointer = Checkpointer(store)
    await checkpointer.save("t", State(step=1))
    await owner.execute(
        "insert into haive.checkpoint_schemas (tenant_id, hash, payload, key_id)"
        " values ($1, 'x', '', '00000000')",
        tenant,
    )
    for _ in range(2):
        before = (await store._sealer.refresh()).keys.key_id
        with pytest.raises(DecryptionError, match=r"1 rows do not open.*checkpoint_schemas 78"):
            await rotate(store, store._sealer, keys)
        active = (await store._sealer.refresh()).keys.key_id
        assert active != before
        assert (await in_use(store))["checkpoint_schemas"] == {"00000000": 1, active: 1}


async def test_messages_repeated_after_a_rotation_are_the_same(store, open_store, keys, tenant):
    conversations, _ = await fill(store, 10)
    late = await open_store(max_age=60)
    key, ids = new_id(), [new_id() for _ in range(3)]
    said = await late.add_message(conversations[0].id, "user", "once", id=key, metadata={"a": 1})
    new = [
        NewMessage(conversation_id=conversations[1].id, role="user", content=str(n), id=ids[n])
        for n in range(3)
    ]
    some = await late.add_messages(new[:2])
    await rotate(store, store._sealer, keys)
    for each in (late, store):
        again = await each.add_message(
            conversations[0].id, "user", "once", id=key, metadata={"a": 1}
        )
        assert again == said
        with pytest.raises(ConflictError):
            await each.add_message(conversations[0].id, "user", "twice", id=key)
        assert (await each.add_messages(new))[:2] == some
        other = new[0].model_copy(update={"content": "other"})
        with pytest.raises(ConflictError):
            await each.add_messages([other, new[1]])
    # One of the ten that were there, and the three.
    assert len(await store.get_messages(conversations[1].id)) == 4


async def test_when_a_rotation_has_ended_all_write_with_the_new_key(store, open_store, keys, owner):
    conversations, _ = await fill(store, 5)
    late, done = await open_store(), asyncio.Event()

    async def have_keys_at_hand():
        while not done.is_set():
            await late._sealer.ready()
            await asyncio.sleep(0)

    busy = asyncio.create_task(have_keys_at_hand())
    for _ in range(2):
        rotated = await rotate(store, store._sealer, keys)
        said = await late.add_message(conversations[0].id, "user", "now")
        key = "select sealed_with from haive.messages where id = $1"
        assert await owner.fetchval(key, said.id) == rotated.key_id
    done.set()
    await busy


async def test_what_a_new_key_seals_is_found_by_all_at_once(store, open_store, keys):
    late, done = Checkpointer(await open_store()), asyncio.Event()
    found = 0
    await Checkpointer(store).save("t", {"n": 0})

    async def save_and_find():
        nonlocal found
        while not done.is_set():
            saved = await Checkpointer(store).save("t", {"n": found}, tags=[f"tag {found}"])
            assert (await late.find_checkpoint("t", tags=[f"tag {found}"])).id == saved
            found += 1

    busy = asyncio.create_task(save_and_find())
    for _ in range(2):
        await rotate(store, store._sealer, keys)
    done.set()
    await busy
    assert found > 10


async def test_a_reader_with_old_keys_asks_for_new_ones(store, open_store, keys):
    conversations, said = await fill(store, 10)
    late = await open_store(max_age=3600)
    checkpoints = Checkpointer(late)
    await checkpoints.save("thread", {"n": 1})
    await late.get_messages(conversations[0].id)
    await rotate(store, store._sealer, keys)
    assert await everything(late, conversations) == {message.id: message for message in said}
    assert (await Checkpointer(late).recover("thread")).state == {"n": 1}


@pytest.mark.parametrize("transport", ["postgres"], indirect=True)
async def test_one_rotates_at_a_time(store, open_store, keys):
    await fill(store, 100)
    other = await open_store()
    outcomes = await asyncio.gather(
        *(rotate(each, each._sealer, keys) for each in (store, other)), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ConflictError", "Rotated"]


async def test_what_a_destroyed_key_sealed_is_read_by_nobody(store, open_store, keys, tenant):
    conversations, _ = await fill(store, 10)
    await Checkpointer(store).save("thread", {"n": 1})
    late = await open_store(max_age=3600)
    await late.get_messages(conversations[0].id)
    destroyed = await keys.destroy(tenant)
    assert not destroyed.backups_stay_readable
    await asyncio.sleep(0.25)  # as long as keys are at hand
    for each in (store, await open_store()):
        for attempt in (
            each.get_messages(conversations[0].id),
            each.query_conversations(),
            each.add_message(conversations[0].id, "user", "x"),
            Checkpointer(each).recover("thread"),
            rotate(each, each._sealer, keys),
        ):
            with pytest.raises(DecryptionError) as caught:
                await attempt
            assert not isinstance(caught.value, KeyMissingError)
    # Who has them at hand is told so by the sealer's own time.
    late._sealer.forget()
    with pytest.raises(DecryptionError):
        await late.get_messages(conversations[0].id)


# ── nothing in the clear ─────────────────────────────────────────────────────────────────────


async def leaks(owner, tenant, markers):
    """Tables in which a row of the tenant has a marker, read as text and, of bytes, as Latin-1."""
    tables = await owner.fetch(
        "select c.oid::regclass::text as name from pg_class as c"
        " where c.relnamespace in ('haive'::regnamespace, 'haive_private'::regnamespace)"
        " and c.relkind = 'r'"
    )
    found = {}
    for table in tables:
        columns = await owner.fetch(
            "select quote_ident(attname) as name, atttypid = 'bytea'::regtype or exists ("
            " select from pg_type where oid = atttypid and typbasetype = 'bytea'::regtype) as raw"
            " from pg_attribute where attrelid = $1::text::regclass and attnum > 0"
            " and not attisdropped",
            table["name"],
        )
        if not any(column["name"] == "tenant_id" for column in columns):
            continue
        row = " || ' ' || ".join(
            f"coalesce(encode({column['name']}, 'escape'), '')" if column["raw"]
            else f"coalesce({column['name']}::text, '')"
            for column in columns
        )  # fmt: skip
        texts = await owner.fetch(f"select {row} from {table['name']} where tenant_id = $1", tenant)
        count = sum(any(marker in text[0] for marker in markers) for text in texts)
        if count:
            found[table["name"]] = count
    return found


async def leave_markers(store, markers):
    marker = iter(markers)
    for _ in range(10):
        conversation = await store.create_conversation(
            "agent", "ada",
            {"title": next(marker), "context": {next(marker): next(marker)},
             "settings": {"s": next(marker)}},
        )  # fmt: skip
        await store.add_message(
            conversation.id, "user", next(marker), metadata={next(marker): [next(marker)]}
        )
        await store.add_messages(
            [
                NewMessage(
                    conversation_id=conversation.id,
                    role="tool",
                    content=[
                        {"type": "text", "text": next(marker)},
                        {
                            "type": "tool_result",
                            "tool_call_id": "1",
                            "content": {"x": next(marker)},
                        },
                    ],
                    metadata={"m": next(marker)},
                )
            ]
        )
        await store.update_conversation(conversation.id, metadata={"title": next(marker)})
        checkpointer = Checkpointer(store)
        thread = str(conversation.id)
        saved = await checkpointer.save(
            thread, {"state": next(marker), next(marker): 1}, {"m": next(marker)}, [next(marker)]
        )
        await checkpointer.create_branch(saved, "b", metadata={"b": next(marker)})
        await checkpointer.tag(saved, next(marker))
        await checkpointer.save(
            thread, {"state": [next(marker), next(marker)]}, {"k": next(marker)}
        )


def new_markers():
    return [f"canary{n:03}{random.randrange(10**9)}" for n in range(200)]


async def test_no_marker_is_in_any_row(store, owner, tenant):
    markers = new_markers()
    await leave_markers(store, markers)
    assert await leaks(owner, tenant, markers) == {}


@pytest.mark.parametrize("transport", ["postgres"], indirect=True)
async def test_the_scan_sees_what_a_client_without_keys_would_leave(open_store, owner, tenant):
    body = await owner.fetchval("select pg_get_functiondef('haive_private.check_sealed'::regproc)")
    markers = new_markers()
    bare = await open_store(sealed=False)
    await owner.execute(
        "create or replace function haive_private.check_sealed(p_sealed boolean) returns void"
        " language plpgsql stable set search_path = '' as 'begin end'"
    )
    try:
        await leave_markers(bare, markers)
    finally:
        await owner.execute(body)
    assert (await leaks(owner, tenant, markers)).keys() >= {
        "haive.messages", "haive.conversations", "haive.checkpoints", "haive.branches",
    }  # fmt: skip
