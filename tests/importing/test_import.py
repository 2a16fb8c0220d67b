from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from uuid import UUID

import pytest

from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.importing import import_file
from haive.core.persistence.multitenancy import Subjects
from haive.core.persistence.session import SessionManager
from haive.core.persistence.supabase import SupabaseStore

_SAID = {"role": "user", "content": "said"}
_ID = UUID("0198c2a4-0000-7000-8000-000000000001")


def _dialogue(key, *texts):
    speakers = ("user", "system")
    turns = [{"speaker": speakers[i % 2], "text": text} for i, text in enumerate(texts)]
    return {"id": key, "services": ["Trains"], "turns": turns}


async def _all(store):
    found = {}
    async for conversation in store.iter_conversations():
        messages = [message async for message in store.iter_messages(conversation.id)]
        found[conversation.metadata.context["source"]["id"]] = (conversation, messages)
    return found


async def _texts(store):
    return {key: [m.text for m in messages] for key, (_, messages) in (await _all(store)).items()}


async def test_a_dialogue_arrives_with_its_roles_tags_and_order(store, lines):
    report = await import_file(
        lines(_dialogue("a", "hello", "hi", "bye")), store, user="ada", tags=["demo"]
    )
    assert (report.conversations, report.messages, report.skipped) == (1, 3, [])
    conversation, messages = (await _all(store))["a"]
    assert conversation.agent_id == "imported"
    assert conversation.user_id == "ada"
    assert conversation.metadata.tags == ["Trains", "demo"]
    assert [(m.seq, m.role, m.content) for m in messages] == [
        (1, "user", "hello"),
        (2, "assistant", "hi"),
        (3, "user", "bye"),
    ]


async def test_importing_twice_makes_no_duplicates(store, lines):
    records = [_dialogue(f"d{n}", "one", "two") for n in range(30)]
    await import_file(lines(*records), store)
    before = await _texts(store)
    again = await import_file(lines(*records, name="copy.jsonl.gz"), store, batch_size=7)
    assert (again.conversations, again.messages) == (0, 0)
    assert (again.conversations_already_there, again.messages_already_there) == (30, 60)
    assert again.usable
    assert await _texts(store) == before


async def test_of_a_source_that_has_grown_only_the_tail_is_added(store, lines):
    await import_file(lines(_dialogue("a", "1", "2"), _dialogue("b", "1")), store)
    grown = await import_file(
        lines(_dialogue("a", "1", "2", "3", "4"), _dialogue("b", "1"), _dialogue("c", "1")), store
    )
    assert (grown.conversations, grown.grown_conversations, grown.messages) == (1, 1, 3)
    assert grown.messages_already_there == 3
    assert await _texts(store) == {"a": ["1", "2", "3", "4"], "b": ["1"], "c": ["1"]}


@pytest.mark.parametrize("said_here", [1, 2, 5])
async def test_what_an_agent_added_here_does_not_hide_what_the_source_added(
    store, lines, said_here
):
    await import_file(lines(_dialogue("a", "1", "2")), store)
    conversation, _ = (await _all(store))["a"]
    for number in range(said_here):
        await store.add_message(conversation.id, "assistant", f"here {number}")
    report = await import_file(lines(_dialogue("a", "1", "2", "3", "4")), store)
    assert report.messages == 2
    here = [f"here {number}" for number in range(said_here)]
    assert await _texts(store) == {"a": ["1", "2", *here, "3", "4"]}


async def test_a_conversation_that_was_changed_at_its_source_is_left_as_it_is(store, lines):
    await import_file(lines(_dialogue("a", "1", "2", "3")), store)
    report = await import_file(lines(_dialogue("a", "1", "other", "3", "4")), store)
    assert [entry.reason for entry in report.skipped] == [
        "changed at its source since it was imported"
    ]
    assert await _texts(store) == {"a": ["1", "2", "3"]}
    assert report.usable, "it is there"


async def test_a_conversation_that_comes_twice_in_a_file_is_one(store, lines):
    file = lines(_dialogue("a", "1"), _dialogue("b", "1"), _dialogue("a", "1", "2"))
    report = await import_file(file, store)
    assert (report.conversations, report.grown_conversations, report.messages) == (2, 1, 3)
    assert await _texts(store) == {"a": ["1", "2"], "b": ["1"]}


async def test_the_same_ids_of_two_named_sources_are_two_conversations(store, lines):
    await import_file(lines(_dialogue("1", "east")), store, source="east")
    report = await import_file(lines(_dialogue("1", "west")), store, source="west")
    assert report.conversations == 1


async def test_lists_without_ids_grow_when_their_source_is_named(store, lines):
    first, second = {"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}
    await import_file(lines([first]), store, source="notes")
    report = await import_file(lines([first, second]), store, source="notes")
    assert (report.conversations, report.grown_conversations, report.messages) == (0, 1, 1)


async def test_one_bad_record_does_not_spoil_the_others(store, lines):
    nul = _dialogue("nul", "fine", "a\0b", "fine too")
    file = lines(_dialogue("a", "1"), b"{broken\n", _dialogue("empty"), nul, {"id": "x"})
    report = await import_file(file, store)
    assert {(e.what, e.reason, e.count, *e.examples) for e in report.skipped} == {
        ("conversation", "not JSON", 1, "line 2"),
        ("conversation", "no messages", 1, "line 3"),
        (
            "message",
            "content contains a NUL character, which Postgres cannot store",
            1,
            "line 4, message 2",
        ),
        ("conversation", "no turns", 1, "line 5"),
    }
    assert await _texts(store) == {"a": ["1"], "nul": ["fine", "fine too"]}


async def test_whole_numbers_keep_all_their_digits(store, lines):
    account = 12345678901234567890123
    call = {"id": "c", "function": {"name": "pay", "arguments": f'{{"account": {account}}}'}}
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "user", "content": "Yes.", "account": account},
    ]
    await import_file(lines({"id": "1", "messages": messages, "limit": -(2**63) - 1}), store)
    ((conversation, (asked, answered)),) = (await _all(store)).values()
    assert conversation.metadata.context["limit"] == -(2**63) - 1
    assert asked.content[0].arguments == {"account": account}
    assert answered.metadata == {"account": account}


_BEYOND = [f"{2**63}", f"{10**30}", "1e400", "-1e400"]


@pytest.mark.parametrize("number", _BEYOND)
@pytest.mark.parametrize("shape", ["[{}, {}]", "[\n{},\n{}\n]", "{}\n{}\n"])
def test_a_number_beyond_64_bits_costs_no_other_message(number, shape):
    turns = '[{"speaker": "user", "text": "x", "n": NUMBER}, {"speaker": "user", "text": "y"}]'
    record = '{"id": "ID", "turns": TURNS}'.replace("TURNS", turns.replace("NUMBER", number))
    content = shape.replace("{}", record.replace("ID", "a"), 1).replace(
        "{}", record.replace("ID", "b"), 1
    )
    report = asyncio.run(import_file(io.BytesIO(content.encode()), None, dry_run=True))
    refused = sum(entry.count for entry in report.skipped)
    assert {entry.what for entry in report.skipped} <= {"message"}
    assert (report.conversations, report.messages + refused) == (2, 4)
    assert refused == (0 if number in _BEYOND[:2] else 2)


@pytest.mark.parametrize("number", ["9" * 5_000, "1e99999999999999999999"])
@pytest.mark.parametrize("where", ["near", "far"])
async def test_a_number_that_no_reader_takes_ends_an_array_in_words(number, where):
    good = json.dumps(_dialogue("a", "x" * (10 if where == "near" else 1 << 16)))
    file = f'[{good}, {{"id": "b", "n": {number}, "turns": []}}, {good}]'.encode()
    report = await import_file(io.BytesIO(file), None, dry_run=True)
    assert [(e.what, e.reason) for e in report.skipped] == [
        ("file", "a number too long to be read from here on")
    ]
    line = f'{good}\n{{"id": "b", "n": {number}, "turns": []}}\n{good}'.encode()
    report = await import_file(io.BytesIO(line), None, dry_run=True)
    assert (report.conversations, [e.what for e in report.skipped]) == (2, ["conversation"])


async def test_numbers_of_an_array_are_those_of_lines(store, lines):
    numbers = [1, -(2**63) - 1, 12345678901234567890123, 1.5, 1e22, 0.1, -0.0]
    messages = [{"role": "user", "content": "x", "n": numbers}]
    records = [{"id": key, "messages": messages} for key in ("a", "b")]
    await import_file(lines(records[0]), store)
    await import_file(lines(records), store)
    (one,), (other,) = [messages for _, messages in (await _all(store)).values()]
    assert one.metadata == other.metadata == {"n": numbers}


async def test_half_a_surrogate_costs_its_message_alone(store, lines):
    report = await import_file(lines(_dialogue("a", "1", "a\ud83d", "3")), store)
    assert [(e.what, e.examples) for e in report.skipped] == [("message", ["line 1, message 2"])]
    assert await _texts(store) == {"a": ["1", "3"]}


async def test_a_cost_beyond_the_bound_skips_its_message_alone(store, lines):
    def message(cost):
        usage = {"input_tokens": 1, "output_tokens": 1, "cost": cost}
        return {"role": "user", "content": "Hello", "token_usage": usage}

    record = {"agent_id": "a", "messages": [message(1e16), message(1.5)]}
    report = await import_file(lines({"haive": 1, **record}), store)
    assert report.messages == 1
    assert [(e.what, e.reason) for e in report.skipped] == [("message", "token_usage is not valid")]


async def test_what_only_the_database_refuses_is_skipped_too(store, lines):
    wide = _dialogue("wide", "1") | {"services": ["x" * 100_000, "y" * 100_001]}
    report = await import_file(lines(_dialogue("a", "1"), wide, _dialogue("b", "1")), store)
    assert [(e.what, e.examples) for e in report.skipped] == [("conversation", ["line 2"])]
    assert await _texts(store) == {"a": ["1"], "b": ["1"]}


async def test_an_import_for_another_user_is_refused_one_by_one(store, lines):
    await import_file(lines(_dialogue("a", "1")), store, user="ada")
    report = await import_file(lines(_dialogue("a", "1"), _dialogue("b", "1")), store, user="bob")
    assert [e.reason for e in report.skipped] == [
        "its id is taken by another agent's, user's or time's"
    ]
    assert report.conversations == 1


async def test_what_was_imported_for_a_user_is_found_again_without_naming_them(store, lines):
    chats = [_dialogue(f"d{n}", "1") for n in range(10)]
    await import_file(lines(*chats), store, user="ada")
    report = await import_file(lines(_dialogue("d0", "1", "2"), *chats[1:]), store)
    assert report.skipped == []
    assert (report.grown_conversations, report.conversations_already_there) == (1, 9)
    assert {found.user_id for found, _ in (await _all(store)).values()} == {"ada"}
    again = await import_file(lines(*chats), store, agent="imported")
    assert (again.skipped, again.conversations_already_there) == ([], 10)


async def test_what_is_somebody_else_s_is_refused_by_itself(
    stack, new_tenant, lines, postgres_of_stack
):
    tenant = await new_tenant()
    await postgres_of_stack.execute(
        "insert into haive.members (tenant_id, user_id) values ($1, 'bob')", tenant
    )
    async with SupabaseStore(stack.url, stack.secret_key, tenant=tenant) as service:
        hers = await service.create_conversation("agent", "ada", {"participants": ["bob"]})
    token = stack.mint_user_token("bob")
    async with SupabaseStore(
        stack.url, stack.publishable_key, access_token=token, tenant=tenant
    ) as his:
        own = {"haive": 1, "agent_id": "agent", "messages": [_SAID]}
        report = await import_file(lines(_ours(hers, "1", user_id=None), own), his)
    assert [(e.reason, e.examples) for e in report.skipped] == [
        ("its id is taken by another agent's, user's or time's", ["line 1"])
    ]
    assert report.messages == 1


def _ours(conversation, *texts, **changes):
    record = {
        "haive": 1,
        "id": str(conversation.id),
        "agent_id": conversation.agent_id,
        "user_id": conversation.user_id,
        "created_at": conversation.created_at.isoformat(),
        "messages": [{"role": "user", "content": text} for text in texts],
    }
    return record | changes


async def test_an_erased_user_keeps_nobody_else_s_conversations(store, lines):
    await Subjects(store).erase("ada")
    file = lines(
        {"haive": 1, "agent_id": "a", "user_id": "ada", "messages": [_SAID]},
        {"haive": 1, "agent_id": "a", "user_id": "bob", "messages": [_SAID]},
    )
    report = await import_file(file, store)
    assert [(e.what, e.reason, e.examples) for e in report.skipped] == [
        ("conversation", "its user was erased", ["line 1"])
    ]
    assert (report.conversations, report.messages) == (1, 1)


async def test_a_session_that_takes_no_more_keeps_no_other_conversation(store, lines):
    sessions = SessionManager(store)
    closed = await sessions.create_session("agent", "ada")
    await sessions.close(closed.id)
    full = await sessions.create_session("agent", "ada", max_messages=1)
    first = await sessions.add_message(full.id, "user", "1")
    report = await import_file(
        lines(
            _ours(closed, "1"),
            _ours(full, messages=[{**_SAID, "id": str(first.id)}, _SAID]),
            {"haive": 1, "agent_id": "a", "messages": [_SAID]},
        ),
        store,
    )
    assert {(e.what, e.reason, *e.examples) for e in report.skipped} == {
        ("message", "its session is closed", "line 1"),
        ("message", "its session is full", "line 2"),
    }
    assert report.messages == 1


async def test_tags_of_the_caller_are_added_to_what_is_there(store, lines):
    file = lines(_dialogue("a", "1"), _dialogue("b", "1"))
    await import_file(file, store, tags=["demo"])
    report = await import_file(file, store, tags=["more", "demo", "more"])
    assert (report.tagged_conversations, report.conversations_already_there) == (2, 2)
    tags = {key: found.metadata.tags for key, (found, _) in (await _all(store)).items()}
    assert tags == {"a": ["Trains", "demo", "more"], "b": ["Trains", "demo", "more"]}
    again = await import_file(file, store, tags=["more"])
    assert again.tagged_conversations == 0


async def test_tags_that_others_add_meanwhile_stay(store, lines, monkeypatch):
    file = lines(_dialogue("a", "1"))
    await import_file(file, store)
    create = store.create_conversations

    async def tagged_by_another(conversations):
        stored = await create(conversations)
        for one in stored:
            await store.update_conversation(one.id, metadata={"tags": [*one.metadata.tags, "vip"]})
        return stored

    monkeypatch.setattr(store, "create_conversations", tagged_by_another)
    report = await import_file(file, store, tags=["demo"])
    ((conversation, _),) = (await _all(store)).values()
    assert conversation.metadata.tags == ["Trains", "vip", "demo"]
    assert report.tagged_conversations == 1


async def test_more_tags_than_a_conversation_may_have_are_refused(store, lines):
    file = lines(_dialogue("a", "1"))
    await import_file(file, store)
    ((conversation, _),) = (await _all(store)).values()
    many = [str(number) for number in range(1000)]
    await store.update_conversation(conversation.id, metadata={"tags": many})
    report = await import_file(file, store, tags=["demo"])
    assert [one.what for one in report.skipped] == ["conversation"]
    assert report.tagged_conversations == 0


async def test_an_empty_conversation_is_new_once(store, lines):
    file = lines({"haive": 1, "id": str(_ID), "agent_id": "a", "messages": []})
    first = await import_file(file, store)
    assert (first.conversations, first.conversations_already_there) == (1, 0)
    again = await import_file(file, store)
    assert (again.conversations, again.conversations_already_there) == (0, 1)


async def test_an_id_that_comes_twice_in_a_conversation_loses_no_message(store, lines):
    chat = _chat("a", "gpt-5", "1", "2", "3")
    for message in chat["messages"]:
        message["id"] = "the same"
    report = await import_file(lines(chat), store)
    assert (report.messages, report.skipped) == (3, [])
    assert await _texts(store) == {"a": ["1", "2", "3"]}
    chat["messages"].append({"role": "user", "content": "4", "id": "another"})
    report = await import_file(lines(chat), store)
    assert (report.messages, report.messages_already_there) == (1, 3)


def _chat(key, model, *texts):
    messages = [{"role": "user", "content": text, "id": f"{key}-{text}"} for text in texts]
    return {"id": key, "model": model, "messages": messages}


@pytest.mark.parametrize("count", [2, 30])
@pytest.mark.parametrize("dated", [True, False])
async def test_a_conversation_grows_by_another_model_and_keeps_its_agent(
    store, lines, count, dated
):
    def chats(model, *texts):
        for number in range(count):
            created = {"created_at": 1_700_000_000 + 60 * number} if dated else {}
            yield _chat(f"{number}", model, *texts) | created

    await import_file(lines(*chats("gpt-4", "1")), store)
    grown = lines(*chats("gpt-5", "1", "2"), _chat("new", "gpt-5", "1"))
    report = await import_file(grown, store)
    assert report.skipped == []
    assert (report.conversations, report.grown_conversations) == (1, count)
    assert report.messages == count + 1
    agents = {key: found.agent_id for key, (found, _) in (await _all(store)).items()}
    assert agents == {str(number): "gpt-4" for number in range(count)} | {"new": "gpt-5"}
    again = await import_file(grown, store)
    assert (again.conversations_already_there, again.messages) == (count + 1, 0)


async def test_another_agent_that_was_asked_for_is_refused(store, lines):
    await import_file(lines(_chat("a", "gpt-4", "1")), store)
    report = await import_file(lines(_chat("a", "gpt-4", "1", "2")), store, agent="support")
    assert [e.reason for e in report.skipped] == [
        "its id is taken by another agent's, user's or time's"
    ]


async def test_looking_for_stored_agents_takes_few_calls(store, lines, monkeypatch):
    def chats(model):
        for number in range(60):
            yield _chat(f"{number}", model, "1") | {"created_at": 1_700_000_000 + 60 * number}

    await import_file(lines(*chats("gpt-4")), store)
    calls = []

    def counted(name):
        call = getattr(store, name)

        async def counting(*arguments, **options):
            calls.append(name)
            return await call(*arguments, **options)

        return counting

    for name in ("create_conversations", "query_conversations", "get_conversation"):
        monkeypatch.setattr(store, name, counted(name))
    report = await import_file(lines(*chats("gpt-5")), store)
    assert report.conversations_already_there == 60
    # Refused, looked for, and begun; then the last messages of what is there.
    assert calls == ["create_conversations", "query_conversations"] * 2


async def test_strict_stops_at_the_first_bad_record_and_keeps_what_stood_before(store, lines):
    file = lines(_dialogue("a", "1"), b"{broken\n", _dialogue("b", "1"))
    with pytest.raises(InvalidInputError, match="line 2: not JSON"):
        await import_file(file, store, strict=True, batch_size=1)
    assert await _texts(store) == {"a": ["1"]}


async def test_strict_writes_what_stands_before_within_a_batch(store, lines):
    file = lines(_dialogue("a", "1"), b"{broken\n", _dialogue("b", "1"))
    with pytest.raises(InvalidInputError, match="line 2: not JSON"):
        await import_file(file, store, strict=True)
    assert await _texts(store) == {"a": ["1"]}


@pytest.mark.parametrize("batch_size", [1, 5_000])
async def test_strict_writes_what_stands_before_a_record_that_the_database_refuses(
    store, lines, batch_size
):
    wide = _dialogue("wide", "1") | {"services": ["x" * 100_000, "y" * 100_001]}
    file = lines(_dialogue("a", "1"), wide, _dialogue("b", "1"))
    with pytest.raises(InvalidInputError, match="line 2: "):
        await import_file(file, store, strict=True, batch_size=batch_size)
    found = await _texts(store)
    assert found.pop("b", ["1"]) == ["1"]
    assert found == {"a": ["1"]}


async def test_a_dry_run_writes_nothing_and_needs_no_store(lines):
    report = await import_file(lines(_dialogue("a", "1", "2")), None, dry_run=True)
    assert (report.conversations, report.messages) == (1, 2)
    with pytest.raises(InvalidInputError):
        await import_file(lines(_dialogue("a", "1")), None)


async def test_a_conversation_longer_than_a_batch_keeps_its_order(store, lines):
    texts = [str(number) for number in range(25)]
    await import_file(lines(_dialogue("long", *texts)), store, batch_size=4)
    assert await _texts(store) == {"long": texts}


async def test_a_conversation_of_many_bytes_keeps_its_order(store, lines):
    texts = [str(number) * (3 << 20) for number in range(8)]
    report = await import_file(lines(_dialogue("heavy", *texts)), store)
    assert (report.messages, report.skipped) == (8, [])
    stored = (await _texts(store))["heavy"]
    assert [text[0] for text in stored] == [text[0] for text in texts]


async def test_progress_is_told_and_ends_at_the_size_of_the_file(store, lines):
    seen = []
    file = lines(*(_dialogue(f"d{n}", "1") for n in range(20)))
    await import_file(
        file, store, batch_size=5, on_progress=lambda report: seen.append(report.messages)
    )
    assert seen[-1] == 20
    assert seen == sorted(seen)
    assert len(seen) >= 4


_PROGRAM = "from haive.core.persistence.cli import main; main()"


async def test_an_import_that_is_killed_half_way_goes_on_when_run_again(
    stack, new_tenant, lines, postgres_of_stack
):
    conversations, each = 1_500, 10
    texts = [str(number) for number in range(each)]
    file = lines(*(_dialogue(f"d{n}", *texts) for n in range(conversations)))
    tenant = await new_tenant()
    command = [sys.executable, "-c", _PROGRAM, "import", str(file), "--json", "--batch-size", "50"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "DATABASE_URL": stack.database_url,
        "HAIVE_TENANT": tenant,
    }

    async def count():
        return await postgres_of_stack.fetchval(
            "select count(*) from haive.messages where tenant_id = $1", tenant
        )

    first = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    while await count() < 1_000:
        assert first.returncode is None, "it ended before it was killed"
        await asyncio.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    await first.wait()
    assert 0 < await count() < conversations * each

    second = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    assert await second.wait() == 0
    stored = await postgres_of_stack.fetch(
        "select conversation_id, array_agg(content::text order by seq) as texts"
        " from haive.messages where tenant_id = $1 group by 1",
        tenant,
    )
    assert len(stored) == conversations
    assert all(row["texts"] == texts for row in stored)
