"""What is sealed comes back as it was, and is nowhere else than where it belongs."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from uuid import uuid4

import pytest

from haive.core.persistence._encoding import new_id
from haive.core.persistence._keys import KeyRing
from haive.core.persistence.errors import (
    ConflictError,
    DecryptionError,
    InvalidInputError,
    KeyMissingError,
    UnsupportedOperationError,
)
from haive.core.persistence.models import NewConversation, NewMessage, TextPart, TokenUsage

METADATA = {
    "title": "Überraschung",
    "tags": ["a"],
    "context": {"deep": [1, 2.5, None, {"x": "y"}]},
    "participants": ["ada"],
    "settings": {"temperature": 0.7},
}
CONTENTS = [
    "",
    "hello",
    "🎈" * 5_000,
    [{"type": "text", "text": "look"}, {"type": "tool_call", "id": "1", "name": "f"}],
    [{"type": "tool_result", "tool_call_id": "1", "content": {"rows": [[1]]}, "extra": 1}],
]


class OneRing:
    """Keys that are in nobody's store."""

    def __init__(self) -> None:
        self._ring = KeyRing(KeyRing.generate())

    async def ring(self, tenant: str) -> KeyRing:
        return self._ring


async def stored(owner, tenant, table="messages"):
    return await owner.fetch(f"select * from haive.{table} where tenant_id = $1", tenant)


async def test_messages_come_back_as_they_were_said(store, owner, tenant):
    conversation = await store.create_conversation("agent")
    usage = TokenUsage(input_tokens=3, output_tokens=4, model="m", cost=Decimal("0.01"))
    said = [
        await store.add_message(
            conversation.id, "user", content, metadata={"n": [n]}, token_usage=usage
        )
        for n, content in enumerate(CONTENTS)
    ]
    assert await store.get_messages(conversation.id) == said
    assert [message async for message in store.iter_messages(conversation.id)] == said
    read = await store.get_conversation(conversation.id, include_messages=True)
    assert (read.messages, read.input_tokens, read.cost) == (said, 15, Decimal("0.05"))
    page = await store.query_conversations(include_messages=True)
    assert page[0].messages == said
    for row in await stored(owner, tenant):
        assert (row["content"], row["parts"], row["metadata"]) == ("", None, "{}")
        assert row["sealed"]
        assert row["sealed_with"]
        assert (row["role"], row["input_tokens"], row["model"]) == ("user", 3, "m")


async def test_many_messages_come_back_as_they_were_said(store):
    conversations = await store.create_conversations([NewConversation(agent_id="a")] * 3)
    new = [
        NewMessage(
            conversation_id=conversations[n % 3].id,
            role="assistant",
            content=[TextPart(text=f"part {n}")] if n % 2 else f"text {n}",
            metadata={"n": n} if n % 5 else {},
        )
        for n in range(700)
    ]
    said = await store.add_messages(new)
    for conversation in conversations:
        wanted = [message for message in said if message.conversation_id == conversation.id]
        assert await store.get_messages(conversation.id, limit=1000) == wanted
    # Each of its callers, when they write at once.
    await asyncio.gather(*(store.add_message(conversations[0].id, "user", "x") for _ in range(50)))


@pytest.mark.parametrize("transport", ["postgres"], indirect=True)
async def test_what_is_copied_in_is_sealed_too(store, owner, tenant):
    conversation = await store.create_conversation("agent")
    new = [
        NewMessage(conversation_id=conversation.id, role="user", content=f"copied {n}")
        for n in range(4_100)
    ]
    said = await store.add_messages(new)
    assert await store.get_messages(conversation.id, after=4_095) == said[4_095:]
    assert {row["content"] for row in await stored(owner, tenant)} == {""}


async def test_conversations_come_back_with_what_they_are_about(store, owner, tenant):
    made = await store.create_conversation("agent", "ada", METADATA)
    bare = await store.create_conversation("agent")
    assert made.metadata.model_dump() == METADATA
    assert await store.get_conversation(made.id) == made
    assert await store.query_conversations(filters={"tags": ["a"]}) == [made]
    assert {each.id async for each in store.iter_conversations()} == {made.id, bare.id}
    for row in await stored(owner, tenant, "conversations"):
        assert (row["title"], row["context"], row["settings"]) == (None, "{}", "{}")
        assert row["sealed"]
    # Beginning again is answered with the same one.
    again = await store.create_conversation("agent", "ada", METADATA, id=made.id)
    assert again == made


async def test_a_part_of_what_is_sealed_as_one_is_changed(store):
    made = await store.create_conversation("agent", "ada", METADATA)
    changed = await store.update_conversation(made.id, metadata={"title": "new", "tags": ["b"]})
    assert changed.metadata.model_dump() == {**METADATA, "title": "new", "tags": ["b"]}
    changed = await store.update_conversation(made.id, agent_id="other", metadata={"context": {}})
    assert (changed.metadata.context, changed.metadata.title) == ({}, "new")
    assert changed.agent_id == "other"
    changed = await store.update_conversation(made.id, metadata={"title": None})
    assert changed.metadata.title is None
    assert changed.metadata.settings == METADATA["settings"]


async def test_changes_of_several_at_once_are_all_there(store, open_store):
    made = await store.create_conversation("agent")
    stores = [store, *[await open_store() for _ in range(2)]]
    changes = [{"title": "t"}, {"context": {"c": 1}}, {"settings": {"s": 1}}]
    await asyncio.gather(
        *(
            each.update_conversation(made.id, metadata=change)
            for each, change in zip(stores, changes, strict=True)
        )
    )
    kept = (await store.get_conversation(made.id)).metadata
    assert (kept.title, kept.context, kept.settings) == ("t", {"c": 1}, {"s": 1})


# ── repeating ────────────────────────────────────────────────────────────────────────────────


async def test_the_same_message_again_is_the_same_message(store, open_store, owner, tenant):
    conversation = await store.create_conversation("agent")
    key = new_id()
    for content in CONTENTS:
        first = await store.add_message(conversation.id, "user", content, metadata={"a": 1}, id=key)
        other = await open_store()
        again = await other.add_message(conversation.id, "user", content, metadata={"a": 1}, id=key)
        assert again == first
        key = new_id()
    new = NewMessage(conversation_id=conversation.id, role="user", content="many", id=key)
    assert await store.add_messages([new, new]) == await store.add_messages([new, new])
    assert len(await stored(owner, tenant)) == len(CONTENTS) + 1


async def test_other_content_at_the_same_id_is_a_conflict(store):
    conversation = await store.create_conversation("agent")
    key = new_id()
    await store.add_message(conversation.id, "user", "one", id=key)
    for content, metadata in (("two", None), ("one", {"a": 1})):
        with pytest.raises(ConflictError):
            await store.add_message(conversation.id, "user", content, metadata=metadata, id=key)
    with pytest.raises(ConflictError):
        await store.add_message(conversation.id, "assistant", "one", id=key)


async def test_what_is_looked_at_to_compare_goes_on_record(store, owner, tenant):
    conversation = await store.create_conversation("agent")
    await owner.execute("update haive.tenants set audit = 'all' where tenant_id = $1", tenant)
    said = await store.add_message(conversation.id, "user", "one")
    with pytest.raises(ConflictError):
        await store.add_message(conversation.id, "user", "two", id=said.id)
    log = await owner.fetch("select * from haive.audit_log where tenant_id = $1", tenant)
    (read,) = [row for row in log if "find_messages" in str(dict(row))]
    assert str(conversation.id) in read["rows"]


async def test_what_is_sealed_counts_as_storage(store, owner, tenant):
    await owner.execute("update haive.tenants set metered = true where tenant_id = $1", tenant)
    conversation = await store.create_conversation("agent", metadata={"title": uuid4().hex * 30})
    await store.add_message(
        conversation.id, "user", uuid4().hex + "".join(map(chr, range(33, 5_000)))
    )
    await store.update_conversation(conversation.id, metadata={"title": "short"})
    weight = await owner.fetchval(
        "select (select sum(octet_length(sealed)) from haive.messages where tenant_id = $1)"
        " + (select sum(octet_length(sealed)) from haive.conversations where tenant_id = $1)",
        tenant,
    )
    async with owner.transaction():
        await owner.execute("select set_config('persistence.tenant', $1, true)", tenant)
        counted = await owner.fetchval("select bytes from haive_private.count_rows($1)", tenant)
    assert weight > 4_000
    assert weight < counted < weight + 1_000
    # What the triggers added up is what a recount finds.
    usage = "select sum(bytes) from haive_private.meters where tenant_id = $1"
    assert await owner.fetchval(usage, tenant) == counted


# ── filters ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["text", "title", "context"])
async def test_what_cannot_be_looked_for_is_refused_and_never_found_empty(store, open_store, name):
    await store.create_conversation("agent", "ada", METADATA)
    wanted = {"deep": []} if name == "context" else "hello"
    with pytest.raises(UnsupportedOperationError, match="agent_id, tags"):
        await store.query_conversations(filters={name: wanted})
    with pytest.raises(InvalidInputError, match="sealed by the client"):
        await (await open_store(sealed=False)).query_conversations(filters={name: wanted})
    assert await store.query_conversations(filters={name: None, "user_id": "ada"})


# ── in the clear ─────────────────────────────────────────────────────────────────────────────


async def test_a_client_without_keys_stores_nothing_in_the_clear(store, open_store, owner, tenant):
    conversation = await store.create_conversation("agent")
    bare = await open_store(sealed=False)
    new = NewMessage(conversation_id=conversation.id, role="user", content="secret")
    attempts = [
        lambda: bare.add_message(conversation.id, "user", "secret"),
        lambda: bare.add_messages([new, new]),
        lambda: bare.add_messages([new] * 4_100),
        lambda: bare.create_conversation("agent", metadata={"title": "secret"}),
        lambda: bare.create_conversation("agent"),
        lambda: bare.update_conversation(conversation.id, metadata={"title": "secret"}),
        lambda: bare.update_conversation(conversation.id, metadata={"context": {"a": "secret"}}),
    ]
    for attempt in attempts:
        with pytest.raises(InvalidInputError, match="sealed by the client"):
            await attempt()
    assert await stored(owner, tenant) == []
    assert len(await stored(owner, tenant, "conversations")) == 1


async def test_a_client_without_keys_is_told_so_when_it_reads(store, open_store):
    conversation = await store.create_conversation("agent", metadata=METADATA)
    await store.add_message(conversation.id, "user", "hello")
    bare = await open_store(sealed=False)
    for reading in (
        bare.get_messages(conversation.id),
        bare.get_conversation(conversation.id),
        bare.query_conversations(),
    ):
        with pytest.raises(KeyMissingError):
            await reading


async def test_other_keys_open_nothing(store, open_store):
    conversation = await store.create_conversation("agent", metadata=METADATA)
    await store.add_message(conversation.id, "user", "hello")
    other = await open_store(source=OneRing())
    for reading in (other.get_messages(conversation.id), other.query_conversations()):
        with pytest.raises(KeyMissingError):
            await reading


async def test_rows_in_the_clear_are_taken_only_while_that_is_said(open_store, owner, tenant):
    await owner.execute("update haive.tenants set encrypted = false where tenant_id = $1", tenant)
    bare = await open_store(sealed=False)
    conversation = await bare.create_conversation("agent", metadata=METADATA)
    await bare.add_message(conversation.id, "user", "hello")
    strict, patient = await open_store(), await open_store(allow_plain=True)
    with pytest.raises(DecryptionError, match="not sealed"):
        await strict.get_messages(conversation.id)
    with pytest.raises(DecryptionError, match="not sealed"):
        await strict.get_conversation(conversation.id)
    assert [m.text for m in await patient.get_messages(conversation.id)] == ["hello"]
    assert (await patient.get_conversation(conversation.id)).metadata.model_dump() == METADATA


# ── tampering ────────────────────────────────────────────────────────────────────────────────


async def two_conversations(store):
    first, second = [
        await store.create_conversation("agent", metadata={"title": name}) for name in "ab"
    ]
    for each in (first, second):
        for n in range(2):
            await store.add_message(each.id, "user", f"{each.metadata.title} {n}")
    return first.id, second.id


MESSAGE_ATTACKS = {
    "a changed byte": "set sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1)",
    "a shorter one": "set sealed = substr(sealed, 1, octet_length(sealed) - 1)",
    "an empty one": "set sealed = ''",
    "another role": "set role = 'system'",
    "another id": "set id = gen_random_uuid()",
    "another key's name": "set sealed_with = '00000000'",
    "a neighbour's content": "set sealed = (select o.sealed from haive.messages as o where"
    " o.conversation_id = m.conversation_id and o.tenant_id = m.tenant_id and o.seq = 2)",
    "in the clear": "set sealed = null, sealed_with = null, content = 'forged'",
}


@pytest.mark.parametrize("attack", MESSAGE_ATTACKS)
async def test_a_message_that_was_touched_does_not_open(store, owner, tenant, attack):
    conversation_id, untouched = await two_conversations(store)
    done = await owner.execute(
        f"update haive.messages as m {MESSAGE_ATTACKS[attack]}"
        " where tenant_id = $1 and conversation_id = $2 and seq = 1",
        *(tenant, conversation_id),
    )
    assert done == "UPDATE 1"
    with pytest.raises(DecryptionError):
        await store.get_messages(conversation_id)
    with pytest.raises(DecryptionError):
        await store.query_conversations(include_messages=True)
    assert len(await store.get_messages(untouched)) == 2


async def test_a_message_in_another_conversation_does_not_open(store, owner, tenant):
    first, second = await two_conversations(store)
    await owner.execute(
        "update haive.messages set conversation_id = $3, seq = 3"
        " where tenant_id = $1 and conversation_id = $2 and seq = 2",
        *(tenant, first, second),
    )
    await owner.execute("update haive.conversations set message_count = 3 where id = $1", second)
    with pytest.raises(DecryptionError):
        await store.get_messages(second)


async def test_a_conversation_in_another_tenant_does_not_open(
    store, open_store, owner, tenant, keys
):
    first, _ = await two_conversations(store)
    other = f"{tenant}-other"
    await owner.execute("insert into haive.tenants (tenant_id, name) values ($1, $1)", other)
    await owner.execute("delete from haive.messages where tenant_id = $1", tenant)
    await owner.execute(
        "update haive.conversations set tenant_id = $2 where tenant_id = $1 and id = $3",
        *(tenant, other, first),
    )

    class SameKeys:
        async def ring(self, _: str) -> KeyRing:
            return await keys.ring(tenant)

    elsewhere = await open_store(within=other, source=SameKeys())
    with pytest.raises(DecryptionError):
        await elsewhere.get_conversation(first)


CONVERSATION_ATTACKS = {
    "a changed byte": "set sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 128)",
    "a neighbour's": "set sealed = (select o.sealed from haive.conversations as o where"
    " o.tenant_id = c.tenant_id and o.id <> c.id)",
    "in the clear": "set sealed = null, sealed_with = null, title = 'forged'",
}


@pytest.mark.parametrize("attack", CONVERSATION_ATTACKS)
async def test_a_conversation_that_was_touched_does_not_open(store, owner, tenant, attack):
    conversation_id, untouched = await two_conversations(store)
    await owner.execute(
        f"update haive.conversations as c {CONVERSATION_ATTACKS[attack]}"
        " where tenant_id = $1 and id = $2",
        *(tenant, conversation_id),
    )
    with pytest.raises(DecryptionError):
        await store.get_conversation(conversation_id)
    assert (await store.get_conversation(untouched)).metadata.title == "b"


@pytest.mark.parametrize("sealed", [True, False])
async def test_what_nobody_could_read_again_is_refused_sealed_or_not(
    open_store, owner, tenant, sealed
):
    await owner.execute("update haive.tenants set encrypted = false where tenant_id = $1", tenant)
    store = await open_store(sealed=sealed)
    conversation = await store.create_conversation("agent")

    def nested(levels: int) -> dict[str, object]:
        value: object = 1
        for _ in range(levels - 1):
            value = [value]
        return {"a": value}

    for fine in (nested(99), {"a": 10**400}, {"a": "[" * 500}, {"a": "9" * 500}):
        said = await store.add_message(conversation.id, "user", "x", metadata=fine)
        assert (await store.get_messages(conversation.id, last=True, limit=1)) == [said]
        await store.update_conversation(conversation.id, metadata={"context": fine})
    for bad in (nested(100), nested(150), {"a": -(10**401)}):
        with pytest.raises(InvalidInputError):
            await store.add_message(conversation.id, "user", "x", metadata=bad)
        with pytest.raises(InvalidInputError):
            await store.update_conversation(conversation.id, metadata={"settings": bad})
        part = {"type": "tool_call", "id": "1", "name": "f", "arguments": bad}
        with pytest.raises(InvalidInputError):
            await store.add_message(conversation.id, "user", [part])


async def test_bounds_are_those_of_content_in_the_clear(store):
    conversation = await store.create_conversation("agent")
    with pytest.raises(InvalidInputError):
        await store.add_message(conversation.id, "user", "x" * (8 * 1024 * 1024 + 1))
    with pytest.raises(InvalidInputError):
        await store.create_conversation("agent", metadata={"context": {"a": float("nan")}})
    with pytest.raises(InvalidInputError):
        await store.update_conversation(conversation.id, metadata={"title": "a\x00b"})
    large = await store.add_message(conversation.id, "user", uuid4().hex * 200_000)
    assert await store.get_messages(conversation.id) == [large]
