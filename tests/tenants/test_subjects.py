"""What is held about a user is handed out whole, and erased whole."""

from __future__ import annotations

import asyncio
import hashlib
import json
import stat
import zipfile
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.checkpointer import CheckpointConfig, Checkpointer, KeyRing
from haive.core.persistence.checkpointer._cache import ENTRY_BYTES
from haive.core.persistence.checkpointer._engine import Place
from haive.core.persistence.errors import (
    AccessDeniedError,
    InvalidInputError,
    NotFoundError,
    PersistenceError,
    SubjectErasedError,
)
from haive.core.persistence.multitenancy import Members, Subjects
from haive.core.persistence.vector import MemoryConfig, VectorMemory

KEY = "00" * 32


@pytest.fixture
async def store(manager, tenant_id):
    async with manager.tenant_context(tenant_id) as store:
        yield store


@pytest.fixture
async def owner(stack):
    connection = await asyncpg.connect(stack.database_url)
    yield connection
    await connection.close()


async def _fill(store, user_id, *, conversations=3, messages=4):
    """Give a user conversations, a thread, a membership and a place in another's conversation."""
    made = []
    for n in range(conversations):
        one = await store.create_conversation("agent", user_id, {"title": f"{user_id} {n}"})
        for m in range(messages):
            await store.add_message(one.id, "user", f"{user_id} says {n}.{m}")
        made.append(one.id)
    checkpointer = Checkpointer(store)
    for n in range(3):
        await checkpointer.save(f"{user_id} thread", {"n": n, "who": user_id}, user_id=user_id)
    shared = await store.create_conversation(
        "agent", "somebody", {"title": "shared", "participants": [user_id, "third"]}
    )
    await store.add_message(shared.id, "user", "for all")
    return made, shared.id


def _lines(path, name):
    with zipfile.ZipFile(path) as packed:
        return [json.loads(line) for line in packed.read(f"{name}.jsonl").splitlines()]


# -- export ----------------------------------------------------------------------------------------


async def test_an_export_has_everything_and_counts_it(store, tmp_path):
    made, shared = await _fill(store, "ada")
    await _fill(store, "bob")
    await Members(store).add("ada", "reader")
    path = tmp_path / "ada.zip"

    done = await Subjects(store).export("ada", path)

    assert done.path == path
    assert done.unreadable == 0
    assert done.counts == {
        "conversations": 3, "messages": 12, "threads": 1, "checkpoints": 3, "memberships": 1,
        "invitations": 0, "participations": 1, "authorships": 0, "memories": 0,
        "events": 3 + 12 + 3, "audit": 1,
    }  # fmt: skip
    found = _lines(path, "conversations")
    assert [one["id"] for one in found] == [str(one) for one in made]
    assert [m["content"] for m in found[1]["messages"]] == [f"ada says 1.{n}" for n in range(4)]
    assert [one["state"] for one in _lines(path, "checkpoints")] == [
        {"n": n, "who": "ada"} for n in (2, 1, 0)
    ]
    assert _lines(path, "memberships")[0]["role"] == "reader"
    (place,) = _lines(path, "participations")
    assert (place["id"], place["title"]) == (str(shared), "shared")
    assert "bob" not in path.read_bytes().decode("latin1")


async def test_the_manifest_vouches_for_the_files(store, tmp_path):
    await _fill(store, "ada")
    path = tmp_path / "ada.zip"
    done = await Subjects(store).export("ada", path)
    with zipfile.ZipFile(path) as packed:
        assert packed.testzip() is None
        manifest = json.loads(packed.read("manifest.json"))
        assert packed.namelist()[-1] == "manifest.json"
        for name, about in manifest["files"].items():
            content = packed.read(name)
            assert hashlib.sha256(content).hexdigest() == about["sha256"]
            assert content.count(b"\n") == about["records"]
            assert done.counts[name.removesuffix(".jsonl")] == about["records"]
    assert manifest["user_id"] == "ada"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["ada.zip"]


async def test_sealed_states_are_read_with_their_key_and_told_without(store, tmp_path):
    config = CheckpointConfig(encryption_key=KeyRing.parse(KEY))
    checkpointer = Checkpointer(store, config)
    await checkpointer.save("thread", {"secret": 1}, {"note": "n"}, user_id="ada")
    done = await Subjects(store, checkpointer).export("ada", tmp_path / "with.zip")
    assert done.unreadable == 0
    assert _lines(done.path, "checkpoints")[0]["state"] == {"secret": 1}
    done = await Subjects(store).export("ada", tmp_path / "without.zip")
    assert done.unreadable == 1
    (record,) = _lines(done.path, "checkpoints")
    assert record["state"] is None
    assert record["unreadable"] == "CheckpointKeyError"
    assert record["thread_id"] == "thread"


async def test_numbers_beyond_64_bits_are_in_the_export(store, tmp_path):
    conversation = await store.create_conversation("agent", "ada", {"context": {"n": 10**23}})
    await store.add_message(conversation.id, "user", "Hello", metadata={"n": 10**24})
    config = MemoryConfig(index_name="numbers", embedding_strategy="none")
    memory = VectorMemory(config=config, store=store)
    await memory.add("The account is new.", metadata={"n": 10**25}, user_id="ada")
    done = await Subjects(store).export("ada", tmp_path / "ada.zip")
    (line,) = _lines(done.path, "conversations")
    assert line["metadata"]["context"] == {"n": 10**23}
    assert line["messages"][0]["metadata"] == {"n": 10**24}
    (remembered,) = _lines(done.path, "memories")
    assert remembered["metadata"]["n"] == 10**25


async def test_pending_writes_are_in_the_export(store, tmp_path):
    checkpointer = Checkpointer(store)
    saved = await checkpointer.save("thread", {"n": 1}, user_id="ada")
    await checkpointer._engine.put_writes(
        Place(thread_id="thread"),
        saved,
        uuid4(),
        "",
        {0: ("answer", {"half": "done"})},
        user_id="ada",
    )
    done = await Subjects(store).export("ada", tmp_path / "ada.zip")
    (record,) = _lines(done.path, "checkpoints")
    assert [(w["channel"], w["value"]) for w in record["writes"]] == [("answer", {"half": "done"})]


async def test_users_export_what_is_about_themselves_and_no_other(
    store, tenant_id, as_user, tmp_path
):
    ada, bob = f"{tenant_id}-ada", f"{tenant_id}-bob"
    await _fill(store, ada)
    for user in (ada, bob):
        await Members(store).add(user, "member")
    done = await Subjects(as_user(ada)).export(ada, tmp_path / "own.zip")
    assert done.counts["conversations"] == 3
    assert done.counts["checkpoints"] == 3
    with pytest.raises(AccessDeniedError):
        await Subjects(as_user(bob)).export(ada, tmp_path / "theirs.zip")
    assert [file.name for file in tmp_path.iterdir()] == ["own.zip"]


async def test_a_path_that_cannot_be_written_is_an_error_of_ours(store, tmp_path):
    with pytest.raises(InvalidInputError, match="cannot be written"):
        await Subjects(store).export("ada", tmp_path / "no" / "such" / "folder.zip")


async def test_more_than_a_page_of_events_is_whole(store, owner, tenant_id, tmp_path):
    one = await store.create_conversation("agent", "ada")
    await owner.execute(
        "insert into haive.events (tenant_id, kind, conversation_id)"
        " select $1, 'conversation.updated', $2 from generate_series(1, 2500)",
        *(tenant_id, one.id),
    )
    done = await Subjects(store).export("ada", tmp_path / "ada.zip")
    assert done.counts["events"] == 2501
    assert len({row["id"] for row in _lines(done.path, "events")}) == 2501


# -- erasure ---------------------------------------------------------------------------------------


async def test_an_erased_user_is_in_no_row(store, owner, tenant_id):
    _, shared = await _fill(store, "ada")
    await _fill(store, "bob")
    members = Members(store)
    await members.add("ada")
    await members.invite(label="ada")

    done = await Subjects(store).erase("ada")

    assert done.counts["conversations"] == 3
    assert done.counts["messages"] == 12
    assert done.counts["checkpoints"] == 3
    assert done.counts["threads"] == 1
    assert done.counts["members"] == 1
    assert done.counts["participations"] == 1
    assert done.counts["invitations"] == 1
    assert done.erased_at <= done.finished_at
    for table in await owner.fetch(
        "select oid::regclass::text as name from pg_class"
        " where relnamespace = 'haive'::regnamespace and relkind = 'r'"
        # Who did what stays on record, as it must; what was in it never was.
        " and relname <> 'audit_log'"
    ):
        rows = await owner.fetch(
            f"select t::text from {table['name']} as t where tenant_id = $1 and t::text ~ $2",
            *(tenant_id, r"\mada\M"),  # a word: ids have any three digits in them
        )
        assert rows == [], table["name"]
    # Others keep what is theirs, and the shared conversation goes on without the name.
    assert len(await store.query_conversations("bob")) == 3
    assert (await store.get_conversation(shared)).metadata.participants == ["third"]
    assert len(await store.get_messages(shared)) == 1


async def test_what_was_made_of_a_users_conversations_goes_with_them(
    store, owner, tenant_id, tmp_path
):
    ada = await store.create_conversation("agent", "ada")
    bob = await store.create_conversation("agent", "bob")
    memory = VectorMemory(
        config=MemoryConfig(index_name="subjects", embedding_strategy="none"), store=store
    )
    kept = set()
    for conversation, text in ((ada, "The cat is grey."), (bob, "The dog is old.")):
        await store.add_message(conversation.id, "user", text)
        messages = await store.get_messages(conversation.id)
        # Messages say of which conversation they are, and not whose that is.
        made = [await memory.store_conversation(messages)]
        talk = {"conversation_id": str(conversation.id), "user_id": "carol"}
        made.append(await memory.store_conversation([text], talk))
        if conversation is bob:
            kept |= {each for whole in made for each in (whole, *await _sources(memory, whole))}

    exported = await Subjects(store).export("ada", tmp_path / "ada.zip")
    assert exported.counts["memories"] == 2  # nobody's; what is called carol's is carol's
    assert {row["metadata"]["conversation_id"] for row in _lines(exported.path, "memories")} == {
        str(ada.id)
    }
    done = await Subjects(store).erase("ada")
    assert done.counts["memories"] == 4
    assert "cat" not in " ".join(hit.text for hit in await memory.search("cat dog", top_k=20))
    left = await owner.fetch(
        "select t.id from haive_private.memory_collections as c, lateral"
        " (select id from vecs.subjects where tenant_id = $1) as t where c.name = 'subjects'",
        tenant_id,
    )
    assert {row["id"] for row in left} == kept


async def _sources(memory, whole):
    return [each.id for each in await memory.provenance(whole)]


async def test_whoever_keeps_copies_hears_what_to_drop(store, owner, tenant_id):
    made, shared = await _fill(store, "ada")
    await Subjects(store).erase("ada")
    rows = await owner.fetch(
        "select kind::text, conversation_id from haive.events where tenant_id = $1", tenant_id
    )
    deleted = {row["conversation_id"] for row in rows if row["kind"] == "conversation.deleted"}
    assert deleted == set(made)
    about = [row["kind"] for row in rows if row["conversation_id"] in deleted]
    assert set(about) == {"conversation.deleted"}
    assert "conversation.updated" in {
        row["kind"] for row in rows if row["conversation_id"] == shared
    }


async def test_an_erasure_is_on_record_with_what_it_deleted(store, owner, tenant_id):
    await _fill(store, "ada")
    await Subjects(store).erase("ada")
    rows = await owner.fetch(
        "select action, object, rows, row_count from haive.audit_log where tenant_id = $1"
        " and (action <> 'insert' or object = 'erasures') order by seq",
        tenant_id,
    )
    (mark,) = [row for row in rows if (row["object"], row["action"]) == ("erasures", "insert")]
    hash_of_user = next(iter(json.loads(mark["rows"])))
    assert len(bytes.fromhex(hash_of_user)) == 32
    last = [row for row in rows if row["object"] == "erasures"][-1]
    assert json.loads(last["rows"])[hash_of_user]["messages"] == 12
    deleted = {row["object"]: row["row_count"] for row in rows if row["action"] == "delete"}
    assert deleted["conversations"] == 3
    assert deleted["checkpoints"] == 3


async def test_users_see_of_the_record_what_they_did_themselves(
    store, tenant_id, as_user, tmp_path
):
    ada = f"{tenant_id}-ada"
    await Members(store).add(ada, "member")
    await as_user(ada).create_conversation("agent")
    mine = await Subjects(as_user(ada)).export(ada, tmp_path / "own.zip")
    assert {row["actor"] for row in _lines(mine.path, "audit")} == {ada}
    assert mine.counts["audit"] == 1
    all_of_it = await Subjects(store).export(ada, tmp_path / "all.zip")
    assert [row["object"] for row in _lines(all_of_it.path, "audit")] == [
        "members", "conversations",
    ]  # fmt: skip


async def test_nothing_more_is_stored_about_an_erased_user(store, tenant_id, as_user, owner):
    _, shared = await _fill(store, "ada")
    invitation = await Members(store).invite()
    await Subjects(store).erase("ada")
    checkpointer = Checkpointer(store)
    for late in (
        store.create_conversation("agent", "ada"),
        store.create_conversation("agent", "bob", {"participants": ["x", "ada"]}),
        store.update_conversation(shared, metadata={"participants": ["ada"]}),
        checkpointer.save("ada thread", {"n": 9}, user_id="ada"),
        checkpointer.save("another", {"n": 9}, user_id="ada"),
        Members(store).add("ada", "reader"),
        Members(store).invite(label="ada"),
        Members(as_user("ada", tenant=tenant_id)).accept(invitation.token),
    ):
        with pytest.raises(SubjectErasedError) as raised:
            await late
        assert raised.value.sqlstate == "PT410"
        assert "ada" not in str(raised.value)
    # Nor by who owns the tables.
    with pytest.raises(asyncpg.PostgresError, check=lambda e: e.sqlstate == "PT410"):
        await owner.execute(
            "insert into haive.members (tenant_id, user_id) values ($1, 'ada')", tenant_id
        )
    await store.create_conversation("agent", "adam")
    await store.update_conversation(shared, metadata={"participants": ["third"]})


async def test_the_mark_does_not_say_who(store, owner, tenant_id, manager, new_id):
    await Subjects(store).erase("ada")
    other = (await manager.create_tenant(new_id())).tenant_id
    async with manager.tenant_context(other) as elsewhere:
        await Subjects(elsewhere).erase("ada")
    rows = await owner.fetch(
        "select subject_hash, salt from haive.erasures where tenant_id = any($1::text[])",
        [tenant_id, other],
    )
    (one, salt), (two, other_salt) = rows
    assert one != two
    assert salt != other_salt
    assert len(salt) == 32
    assert hashlib.sha256(b"ada").digest() not in {one, two}


async def test_another_tenant_keeps_the_user(store, manager, new_id):
    await _fill(store, "ada")
    other = (await manager.create_tenant(new_id())).tenant_id
    async with manager.tenant_context(other) as elsewhere:
        await _fill(elsewhere, "ada")
        await Subjects(store).erase("ada")
        assert len(await elsewhere.query_conversations("ada")) == 3
        await elsewhere.create_conversation("agent", "ada")


async def test_an_erasure_that_was_interrupted_goes_on(store, monkeypatch):
    await _fill(store, "ada", conversations=9)
    subjects = Subjects(store)
    calls = 0
    batch = subjects._erase_batch

    async def dying(user_id, size):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise PersistenceError("killed")
        return await batch(user_id, size)

    monkeypatch.setattr(subjects, "_erase_batch", dying)
    with pytest.raises(PersistenceError, match="killed"):
        await subjects.erase("ada", batch=10)
    assert 0 < len(await store.query_conversations("ada")) < 9
    with pytest.raises(SubjectErasedError):
        await store.create_conversation("agent", "ada")
    done = await subjects.erase("ada", batch=10)
    assert done.counts["conversations"] == 9
    assert done.counts["messages"] == 36
    assert await subjects.erase("ada") == done


async def test_states_of_the_user_are_forgotten_in_this_process(store):
    mine, others = Checkpointer(store), Checkpointer(store)
    for checkpointer in (mine, others):
        await checkpointer.save("thread", {"marker": "x" * 1000}, user_id="ada", branch="main")
    await others.save("kept", {"n": 1}, user_id="bob")
    assert mine._engine.cache.size > 1000 + ENTRY_BYTES
    await Subjects(store).erase("ada")
    assert mine._engine.cache.size == 0
    assert 0 < others._engine.cache.size - ENTRY_BYTES < 100
    # And what follows a state that is gone is not saved either.
    with pytest.raises((NotFoundError, SubjectErasedError)):
        await mine.save("thread", {"n": 2}, user_id="ada")


async def test_administrators_erase_as_far_as_their_role_goes(store, tenant_id, as_user):
    members = Members(store)
    for role in ("owner", "admin", "member"):
        await members.add(f"{tenant_id}-{role}", role)

    def subjects(role):
        return Subjects(as_user(f"{tenant_id}-{role}"))

    with pytest.raises(AccessDeniedError):
        await subjects("member").erase(f"{tenant_id}-member")
    with pytest.raises(AccessDeniedError):
        await subjects("admin").erase(f"{tenant_id}-owner")
    with pytest.raises(AccessDeniedError, match="last owner"):
        await subjects("owner").erase(f"{tenant_id}-owner")
    await subjects("admin").erase(f"{tenant_id}-member")
    await subjects("owner").erase(f"{tenant_id}-admin")
    await Subjects(store).erase(f"{tenant_id}-owner")
    assert await members.list() == []


# -- late writers ----------------------------------------------------------------------------------


async def _race(store, user_id, writers):
    """Write as the user all the time while they are erased; return what stayed."""
    stop = asyncio.Event()
    outcomes = []

    async def write(n):
        checkpointer = Checkpointer(store)
        for m in range(10_000):
            if stop.is_set():
                return
            doing = (
                store.create_conversation("agent", user_id, {"participants": [user_id]}),
                store.create_conversation("agent", "bob", {"participants": [user_id]}),
                checkpointer.save(f"{user_id} {n} {m}", {"n": m}, user_id=user_id),
                store.set_member(user_id, "member"),
            )
            for one in doing:
                try:
                    await one
                    outcomes.append("stored")
                except SubjectErasedError:
                    outcomes.append("refused")

    tasks = [asyncio.create_task(write(n)) for n in range(writers)]
    await asyncio.sleep(0.15)
    await Subjects(store).erase(user_id)
    stop.set()
    await asyncio.gather(*tasks)
    assert {"stored", "refused"} == set(outcomes)


_LEFT = """
select (select count(*) from haive.conversations where tenant_id = $1 and user_id = $2)
  + (select count(*) from haive.conversations where tenant_id = $1 and $2 = any(participants))
  + (select count(*) from haive.threads where tenant_id = $1 and user_id = $2)
  + (select count(*) from haive.members where tenant_id = $1 and user_id = $2)
  + (select count(*) from haive.messages where tenant_id = $1 and author = $2)
"""


async def test_writers_who_race_with_an_erasure_leave_nothing(store, owner, tenant_id):
    for n in range(3):
        await _race(store, f"user {n}", writers=6)
        assert await owner.fetchval(_LEFT, tenant_id, f"user {n}") == 0


async def _begin(writer, _):
    document = json.dumps([{"id": str(uuid4()), "agent_id": "a", "user_id": "ada"}])
    await writer.execute("select haive.create_conversations($1)", document)


async def _write(writer, conversation):
    """Add a message as an administrator, who may write to everybody's conversations."""
    claims = json.dumps({"role": "authenticated", "sub": "ada"})
    await writer.execute("select set_config('request.jwt.claims', $1, true)", claims)
    await writer.execute("set local role authenticated")
    message = {"conversation_id": str(conversation), "role": "user", "content": "x"}
    await writer.execute("select haive.add_messages($1)", json.dumps([message]))


@pytest.fixture
async def late(database):
    """Who writes as ada, the store that erases them, a conversation of bob's, and the owner."""
    writer, owner = await asyncpg.connect(database), await asyncpg.connect(database)
    await owner.execute(
        "insert into haive.members (tenant_id, user_id, role) values ('default', 'ada', 'admin')"
    )
    config = PersistenceConfig(connection_string=database, pool_size=2)
    async with PostgresStore(config) as store:
        conversation = await store.create_conversation("agent", "bob")
        yield writer, store, conversation.id, owner
    await writer.close()
    await owner.close()


_WRITES = {_begin: "conversations", _write: "authorships"}


@pytest.mark.parametrize("writes", _WRITES)
async def test_who_looked_before_the_mark_is_waited_for(late, writes):
    """A writer has passed the check and not committed: the erasure comes after it."""
    writer, store, conversation, owner = late
    transaction = writer.transaction()
    await transaction.start()
    await writes(writer, conversation)
    erasing = asyncio.create_task(Subjects(store).erase("ada"))
    await asyncio.sleep(0.3)
    assert not erasing.done()
    await transaction.commit()
    done = await erasing
    assert done.counts[_WRITES[writes]] == 1
    assert await owner.fetchval(_LEFT, "default", "ada") == 0


@pytest.mark.parametrize("writes", _WRITES)
async def test_without_the_lock_of_the_mark_a_writer_gets_past_it(late, writes):
    """The control of the test above: the lock is what it shows."""
    writer, store, conversation, owner = late
    await owner.execute(
        "create or replace function haive_private.refuse_erased(p_tenant text, p_users text[])"
        " returns void language sql set search_path = '' as 'select'"
    )
    transaction = writer.transaction()
    await transaction.start()
    await writes(writer, conversation)
    await Subjects(store).erase("ada")
    await transaction.commit()
    assert await owner.fetchval(_LEFT, "default", "ada") == 1


@pytest.mark.parametrize("writes", _WRITES)
async def test_who_is_a_member_yet_writes_nothing_after_the_mark(late, writes):
    writer, _, conversation, owner = late
    await writer.execute("select haive.erase_user('ada')")  # the mark, and nothing else yet
    assert await owner.fetchval("select count(*) from haive.members") == 1
    with pytest.raises(asyncpg.PostgresError) as refused:
        async with writer.transaction():
            await writes(writer, conversation)
    assert refused.value.sqlstate == "PT410"


async def test_who_is_erased_in_a_transaction_writes_nothing_more_in_it(late):
    writer, _, conversation, _ = late
    transaction = writer.transaction()
    await transaction.start()
    await _write(writer, conversation)
    await writer.execute("reset role")
    await writer.execute("select set_config('request.jwt.claims', '', true)")
    await writer.execute("select haive.erase_user('ada')")
    with pytest.raises(asyncpg.PostgresError, check=lambda e: e.sqlstate == "PT410"):
        await _write(writer, conversation)
    await transaction.rollback()


async def test_an_author_is_refused_in_every_way_to_the_table(late):
    _, store, conversation, owner = late
    message = await store.add_message(conversation, "user", "x")
    await Subjects(store).erase("ada")
    with pytest.raises(asyncpg.PostgresError, check=lambda e: e.sqlstate == "PT410"):
        await owner.execute("update haive.messages set author = 'ada' where id = $1", message.id)
    await owner.execute("update haive.messages set author = 'adam' where id = $1", message.id)


_NAMES = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=40
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(erased=_NAMES, other=_NAMES)
async def test_whatever_a_user_is_called_they_alone_are_erased(client, erased, other):
    transaction = client.transaction()
    await transaction.start()
    try:
        for user in (erased, other):
            await client.execute("select haive.set_member($1, 'member')", user)
        for _ in range(9):
            await client.execute("select haive.erase_user($1)", erased)
        left = await client.fetchval("select haive.list_members()")
        expected = [] if other == erased else [other]
        assert [one["user_id"] for one in json.loads(left)] == expected
    finally:
        await transaction.rollback()
