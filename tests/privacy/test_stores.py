"""A store with a policy: what is written, what is not, and what errors tell."""

from __future__ import annotations

import io
import json
import traceback
from uuid import uuid4

import asyncpg
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore, Store, SupabaseStore
from haive.core.persistence.errors import ConfigurationError, ConflictError, PersonalDataError
from haive.core.persistence.importing.importer import import_file
from haive.core.persistence.integrations.langchain import HaiveVectorStore
from haive.core.persistence.local import LocalStack
from haive.core.persistence.models import ConversationMetadata, NewConversation, NewMessage
from haive.core.persistence.multitenancy import TenantManager
from haive.core.persistence.privacy import PIIPolicy
from haive.core.persistence.vector import MemoryConfig, VectorMemory

# Found as what they are, and in no other test.
CANARIES = [
    "canary.sings@example.org",
    "5105 1051 0510 5100",
    "+33 1 99 00 12 34",
    "DE12500105170648489890",
]
EMAIL = CANARIES[0]
TEXT = f"I am {EMAIL}, card {CANARIES[1]}, {CANARIES[2]}, {CANARIES[3]}."
MASKED = "I am [EMAIL_1], card [CREDIT_CARD_1], [PHONE_1], [IBAN_1]."


async def seen(connection: asyncpg.Connection) -> set[str]:
    """Which canaries stand in any row of any table."""
    tables = await connection.fetch(
        """
        select format('%I.%I', n.nspname, c.relname) as name
        from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p', 'm') and n.nspname in ('haive', 'haive_private', 'vecs')
        """
    )
    found = set()
    for table in tables:
        # Each row is made a text once: other tests leave tables of a hundred megabytes.
        query = f"""
            select distinct c.canary
            from (select t::text as line from {table["name"]} as t offset 0) as r
            join unnest($1::text[]) as c (canary) on strpos(r.line, c.canary) > 0
        """
        found.update(row["canary"] for row in await connection.fetch(query, CANARIES))
    return found


async def write_everywhere(store: Store) -> None:
    """The canaries by every way of writing."""
    about = {"title": TEXT, "context": {"who": [TEXT]}, "settings": {"note": TEXT}, "tags": [EMAIL]}
    first = await store.create_conversation("a", "u", {"title": TEXT, "context": {"k": TEXT}})
    await store.create_conversations(
        [NewConversation(agent_id="a", metadata=ConversationMetadata(**about))]
    )
    await store.update_conversation(first.id, metadata=about)
    await store.add_message(first.id, "user", TEXT, metadata={"deep": [{"er": TEXT}]})
    call = {"type": "tool_call", "id": "1", "name": "pay", "arguments": {"with": TEXT}}
    answer = {"type": "tool_result", "tool_call_id": "1", "content": {"paid": [TEXT]}}
    parts = [{"type": "text", "text": TEXT}, call, answer]
    await store.add_messages(
        [
            NewMessage(conversation_id=first.id, role="assistant", content=parts),
            NewMessage(conversation_id=first.id, role="tool", content="", metadata={"k": TEXT}),
        ]
    )
    record = {
        "agent_id": "a",
        "messages": [{"role": "user", "content": TEXT}, {"role": "assistant", "content": "Well."}],
    }
    report = await import_file(io.BytesIO(json.dumps(record).encode()), store, format="haive")
    assert report.messages == 2


async def forget(connection: asyncpg.Connection) -> None:
    await connection.execute("delete from haive.conversations where tenant_id like 'privacy-%'")
    tables = "select format('vecs.%I', table_name) from haive_private.memory_collections"
    for (name,) in await connection.fetch(tables):
        await connection.execute(f"delete from {name} where tenant_id like 'privacy-%'")


def memory_in(store: Store) -> VectorMemory:
    config = MemoryConfig(index_name="privacy", embedding_strategy="none")
    return VectorMemory(config=config, store=store)


async def remember_everywhere(store: Store) -> None:
    """The canaries by every way of remembering."""
    memory = memory_in(store)
    about = {"who": [TEXT]}
    first = await memory.add(TEXT, about)
    await memory.add_many([f"one {TEXT}", f"two {TEXT}"], about)
    second = await memory.supersede(first, f"three {TEXT}", about)
    await memory.update(second, text=f"four {TEXT}")
    await memory.update(second, metadata={"k": TEXT})
    # Cut after some words: what is found is found in the whole.
    said = {"role": "user", "content": f"{TEXT} " * 9}
    await memory.store_conversation(
        [said, {"role": "assistant", "content": TEXT}], about, chunk_size=16, chunk_overlap=4,
        extract_keywords=True, generate_summary=True,
    )  # fmt: skip
    documents = HaiveVectorStore.from_store(store, config=memory.config)
    await documents.aadd_texts([TEXT], [{"k": TEXT, "text": TEXT}])


async def test_no_table_has_what_was_masked(open_store, connection) -> None:
    await forget(connection)
    store = await open_store(mode="mask")
    await write_everywhere(store)
    assert await seen(connection) == set()
    for conversation in await store.query_conversations():
        assert EMAIL not in conversation.model_dump_json()
        async for message in store.iter_messages(conversation.id):
            assert EMAIL not in message.model_dump_json()


async def test_no_memory_has_what_was_masked(open_store, connection) -> None:
    await forget(connection)
    await remember_everywhere(await open_store(mode="mask"))
    assert await seen(connection) == set()
    await forget(connection)
    await remember_everywhere(await open_store())
    assert await seen(connection) == set(CANARIES)
    await forget(connection)


async def test_a_memory_tells_where_to_look(open_store) -> None:
    memory = memory_in(await open_store(mode="tag"))

    async def tags(memory_id: str) -> list[str]:
        found = await memory.get(memory_id)
        return [tag["field"] for tag in found.metadata.get("pii", [])]

    noted = await memory.add(f"🐈 {EMAIL}", {"k": EMAIL, "pii": "mine"})
    place = {"entity": "EMAIL", "start": 2, "end": 2 + len(EMAIL)}
    assert (await memory.get(noted)).metadata["pii"][0] == {**place, "field": "$.text"}
    assert await tags(noted) == ["$.text", "$.metadata.k"]
    # Tags tell no two memories apart.
    assert await memory.add(f"🐈 {EMAIL}", {"m": EMAIL}) == noted
    assert await tags(noted) == ["$.text", "$.metadata.k", "$.metadata.m"]
    await memory.update(noted, metadata={"k": "harmless"})
    assert await tags(noted) == ["$.text", "$.metadata.m"]
    await memory.update(noted, metadata={"m": None})
    assert await tags(noted) == ["$.text"]
    await memory.update(noted, text="harmless")
    assert await tags(noted) == []
    whole = await memory.store_conversation([{"role": "user", "content": EMAIL}], {"k": EMAIL})
    (turn,) = await memory.provenance(whole)
    assert await tags(turn.id) == ["$.text", "$.metadata.k"]


async def test_a_refused_memory_is_none(open_store, connection) -> None:
    await forget(connection)
    memory = memory_in(await open_store(mode="refuse"))
    noted = await memory.add("harmless")
    writes = {
        "$.text": [
            memory.add(TEXT),
            memory.update(noted, text=TEXT),
            memory.store_conversation([{"role": "user", "content": TEXT}]),
        ],
        "$.metadata.k": [
            memory.add("fine", {"k": EMAIL}),
            memory.update(noted, metadata={"k": EMAIL}),
        ],
    }
    for path, refused in writes.items():
        for write in refused:
            with pytest.raises(PersonalDataError) as caught:
                await write
            assert caught.value.paths == (path,)
    assert await seen(connection) == set()


async def test_the_search_for_canaries_sees_them_where_there_is_no_policy(
    open_store, connection
) -> None:
    """The control of the test above."""
    await forget(connection)
    await write_everywhere(await open_store())
    assert await seen(connection) == set(CANARIES)
    await forget(connection)
    await write_everywhere(await open_store(mode="off"))
    assert await seen(connection) == set(CANARIES)
    await forget(connection)


async def test_what_is_returned_is_what_is_stored(open_store) -> None:
    store = await open_store(mode="mask")
    conversation = await store.create_conversation("a", metadata={"title": TEXT})
    assert conversation.metadata.title == MASKED
    added = await store.add_message(conversation.id, "user", TEXT, metadata={"k": EMAIL})
    assert (added.content, added.metadata) == (MASKED, {"k": "[EMAIL_1]"})
    assert await store.get_messages(conversation.id) == [added]


@pytest.mark.parametrize("mode", ["mask", "tag"])
async def test_a_write_that_is_repeated_stays_one(open_store, mode) -> None:
    store = await open_store(mode=mode)
    conversation = await store.create_conversation(
        "a", id=uuid4(), metadata={"context": {"k": TEXT}}
    )
    again = await store.create_conversation(
        "a", id=conversation.id, metadata={"context": {"k": TEXT}}
    )
    assert again.id == conversation.id
    id_ = uuid4()
    for _ in range(2):
        await store.add_message(conversation.id, "user", TEXT, metadata={"k": TEXT}, id=id_)
        await store.add_messages(
            [NewMessage(conversation_id=conversation.id, role="user", content=TEXT, id=id_,
                        metadata={"k": TEXT})]
        )  # fmt: skip
    assert len(await store.get_messages(conversation.id)) == 1
    with pytest.raises(ConflictError):
        await store.add_message(conversation.id, "user", "other", id=id_)


async def test_a_tag_says_where_to_look(open_store) -> None:
    store = await open_store(mode="tag")
    conversation = await store.create_conversation("a", metadata={"title": f"🐈 {EMAIL}"})
    place = {"entity": "EMAIL", "start": 2, "end": 2 + len(EMAIL)}
    assert conversation.metadata.title == f"🐈 {EMAIL}"
    assert conversation.metadata.context == {"pii": [{**place, "field": "$.title"}]}
    added = await store.add_message(conversation.id, "user", f"🐈 {EMAIL}")
    assert added.metadata == {"pii": [{**place, "field": "$.content"}]}
    (stored,) = await store.get_messages(conversation.id)
    assert stored == added
    assert (await store.add_message(conversation.id, "user", "hello")).metadata == {}


async def test_an_update_keeps_the_tags_of_what_it_does_not_touch(open_store) -> None:
    store = await open_store(mode="tag")
    made = await store.create_conversation("a", metadata={"title": EMAIL, "context": {"k": EMAIL}})

    async def tagged(**changes: object) -> list[str]:
        updated = await store.update_conversation(made.id, metadata=changes)
        return [tag["field"] for tag in updated.metadata.context.get("pii", [])]

    assert await tagged(settings={"n": 1}) == ["$.title", "$.context.k"]
    assert await tagged(title="harmless") == ["$.context.k"]
    assert await tagged(title=EMAIL) == ["$.context.k", "$.title"]
    assert await tagged(context={"other": EMAIL}) == ["$.title", "$.context.other"]
    assert await tagged(title="harmless", context={}) == []
    assert (await store.get_conversation(made.id)).metadata.context == {}


async def test_a_refusal_stores_nothing_and_tells_no_values(open_store, connection) -> None:
    store = await open_store(mode="refuse")
    conversation = await store.create_conversation("a")
    call = {"type": "tool_call", "id": "1", "name": "pay", "arguments": {"with": [EMAIL]}}
    new = {"conversation_id": conversation.id, "role": "user"}
    writes = {
        "$.content": store.add_message(conversation.id, "user", TEXT),
        "$.content[0].arguments.with[0]": store.add_message(conversation.id, "user", [call]),
        "$.metadata.k": store.add_message(conversation.id, "user", "", metadata={"k": EMAIL}),
        "$.metadata.*": store.add_message(conversation.id, "user", "", metadata={EMAIL: 1}),
        "$.metadata.m": store.add_messages(
            [
                NewMessage(**new, content="fine"),
                NewMessage(**new, content="", metadata={"m": EMAIL}),
            ]
        ),
        "$.title": store.create_conversation("a", metadata={"title": TEXT}),
        "$.context.k": store.update_conversation(
            conversation.id, metadata={"context": {"k": EMAIL}}
        ),
    }
    for path, write in writes.items():
        with pytest.raises(PersonalDataError) as caught:
            await write
        assert caught.value.paths == (path,)
        assert "EMAIL" in caught.value.entities
        told = "\n".join((str(caught.value), repr(caught.value.__dict__)))
        told += "".join(traceback.format_exception_only(caught.value))
        assert not [canary for canary in CANARIES if canary in told]
    assert await store.get_messages(conversation.id) == []
    assert len(await store.query_conversations()) == 1


async def test_an_import_counts_what_the_policy_refuses(open_store) -> None:
    store = await open_store(mode="refuse")
    records = [
        {"agent_id": "a", "messages": [{"role": "user", "content": content}]}
        for content in ("fine", TEXT, "fine too")
    ]
    file = io.BytesIO("\n".join(map(json.dumps, records)).encode())
    report = await import_file(file, store, format="haive", source="s")
    assert (report.conversations, report.messages) == (3, 2)
    told = json.dumps(report.to_dict())
    assert "Personal data" in told
    assert not [canary for canary in CANARIES if canary in told]


async def test_tags_of_an_import_are_found_again_as_they_are_stored(open_store) -> None:
    store = await open_store(mode="mask")
    records = [
        {"haive": 1, "agent_id": "a", "id": str(uuid4()), "metadata": about, "messages": []}
        for about in ({"title": "of bob@x.org"}, {"tags": ["bob@x.org"]}, {})
    ]
    data = "\n".join(map(json.dumps, records)).encode()

    async def tagged(*tags: str) -> tuple[int, int, list[list[str]]]:
        report = await import_file(io.BytesIO(data), store, format="haive", tags=tags)
        there = [await store.get_conversation(record["id"]) for record in records]
        found = [one.metadata.tags for one in there]
        return report.conversations, report.tagged_conversations, found

    stored = [["[EMAIL_2]"], ["[EMAIL_1]", "[EMAIL_2]"], ["[EMAIL_1]"]]
    assert await tagged("ann@x.org") == (3, 0, stored)
    assert await tagged("ann@x.org") == (0, 0, stored)
    more = [[*tags, "more"] for tags in stored]
    assert await tagged("ann@x.org", "more") == (0, 3, more)
    assert await tagged("ann@x.org", "more") == (0, 0, more)


async def test_in_a_tenant_the_policy_of_the_base_store_holds(open_store, connection) -> None:
    await forget(connection)
    store = await open_store(mode="mask")
    tenant = store._transport.tenant
    async with TenantManager(store).tenant_context(tenant) as scoped:
        await write_everywhere(scoped)
    assert await seen(connection) == set()


async def test_without_a_policy_a_store_has_no_redactor(open_store) -> None:
    assert (await open_store())._redactor is None
    assert (await open_store(mode="off"))._redactor is None
    assert (await open_store(mode="off", overrides={"SECRET": "mask"}))._redactor is not None


def test_a_store_refuses_a_policy_that_cannot_be_kept(stack: LocalStack) -> None:
    policy = PIIPolicy(overrides={"PERSON": "mask"})
    with pytest.raises(ConfigurationError, match="PERSON"):
        PostgresStore(PersistenceConfig(connection_string=stack.database_url), pii=policy)
    with pytest.raises(ConfigurationError, match="PERSON"):
        SupabaseStore(stack.url, stack.secret_key, pii=policy)
