"""Sessions with all that a tenant has: sealed, on record, erased, moved, masked and counted."""

from __future__ import annotations

import asyncio
import json
import zipfile
from datetime import UTC, datetime, timedelta

import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore, SupabaseStore
from haive.core.persistence._keys import KeyRing
from haive.core.persistence.audit import AuditLog
from haive.core.persistence.encryption import (
    DataKeys,
    EnvironmentKey,
    FileKeyStore,
    Sealer,
    rotate,
)
from haive.core.persistence.errors import NotFoundError, QuotaExceededError
from haive.core.persistence.multitenancy import (
    IsolationLevel,
    ResourceQuota,
    Subjects,
    TenantConfig,
    TenantManager,
    apply_retention,
)
from haive.core.persistence.privacy import PIIPolicy
from haive.core.persistence.session import SessionConfig, SessionManager

CANARY = "the canary sings"
TABLES = ("conversations", "messages", "sessions", "session_segments", "session_merges", "events")


async def family(manager, say=str, **how):
    """A session with a branch, merged into it, and one that a message was hidden in."""
    root = await manager.create_session(
        "ada", context={"mode": say("root")}, title=say("title"), **how
    )
    for n in range(3):
        await manager.add_message(root.id, "user", say(f"r{n}"))
    branch = await manager.branch_session(root.id, 2, {"why": say("branch")})
    await manager.add_message(branch.id, "assistant", say("b0"))
    deep = await manager.branch_session(branch.id)
    hidden = await manager.add_message(deep.id, "assistant", say("d0"))
    await manager.add_message(deep.id, "assistant", say("d1"))
    await manager.hide_message(deep.id, hidden.id)
    await manager.update_state(root.id, {"step": say("one"), "gone": 1})
    await manager.update_state(root.id, {"gone": None})
    merged = await manager.merge_sessions(root.id, branch.id, "append")
    return merged, branch, deep


_CHANGING = {"idle", "active_at", "expires_at", "tenant_id", "topic"}


async def whole(manager, *sessions):
    """What there is of sessions, without what the clock and the place change."""
    found = []
    for session in sessions:
        now = await manager.get_session(session.id)
        found.append(now.model_dump(exclude=_CHANGING))
        found.append([m.model_dump() for m in await manager.messages(session.id, limit=1000)])
        found.append([m.model_dump() for m in await manager.list_merges(session.id)])
    return found


# -- sealed ----------------------------------------------------------------------------------------


@pytest.fixture
async def sealed(new_tenant, open_store, tmp_path):
    """A manager in a tenant whose content is sealed, and its keys."""
    tenant = await new_tenant(encrypted=True)
    kek = EnvironmentKey(environ={"TENANT_MASTER_KEY": KeyRing.generate()})
    keys = DataKeys(kek, FileKeyStore(tmp_path / "keys"))
    await keys.create(tenant)
    store = await open_store(tenant=tenant)
    store._sealer = Sealer(tenant, keys, max_age=0.2)
    return SessionManager(store), keys, tenant


def sing(text):
    return f"{text}: {CANARY}"


async def test_what_sessions_say_and_know_is_sealed_at_rest_and_read_as_it_was(sealed, owner):
    manager, keys, tenant = sealed
    root, branch, deep = await family(manager, sing, max_messages=9)
    texts = [message.text for message in await manager.messages(root.id)]
    assert texts == [sing(each) for each in ("r0", "r1", "r2", "b0")]
    assert [m.text for m in await manager.messages(deep.id)] == [
        sing(each) for each in ("r0", "r1", "b0", "d1")
    ]
    assert (await manager.get_session(deep.id)).context == {
        "mode": sing("root"),
        "why": sing("branch"),
    }
    assert (await manager.get_session(root.id)).state == {"step": sing("one")}
    await manager.undo_merge(root.id, root.merge.id)
    merged = await manager.merge_sessions(root.id, branch.id, "intelligent", "keep_both")
    assert merged.merge.summary_seq is not None
    successor = await manager.continue_session(deep.id)
    assert successor.context == {"mode": sing("root"), "why": sing("branch")}
    await asyncio.gather(*(manager.update_state(root.id, {f"{n}": sing("s")}) for n in range(32)))
    assert len((await manager.get_session(root.id)).state) == 33
    for table in TABLES:
        seen = await owner.fetch(
            f"select t::text from haive.{table} as t where tenant_id = $1 and t::text ~ 'canary'",
            tenant,
        )
        assert seen == [], table
    for table in ("conversations", "messages"):
        bare = await owner.fetchval(
            f"select count(*) from haive.{table} where tenant_id = $1 and sealed is null", tenant
        )
        assert bare == 0, table

    before = await whole(manager, root, branch, deep, successor)
    rotated = await rotate(manager.store, manager.store._sealer, keys)
    old = await owner.fetchval(
        "select (select count(*) from haive.messages where tenant_id = $1 and sealed_with <> $2)"
        " + (select count(*) from haive.conversations where tenant_id = $1 and sealed_with <> $2)",
        *(tenant, rotated.key_id),
    )
    assert old == 0
    assert await whole(manager, root, branch, deep, successor) == before


class Quoting:
    """A model that says in words of the messages what they contradict each other in."""

    name = "quoting-model"

    async def complete(self, prompt: str, *, system: str = "", max_tokens: int = 512) -> str:
        return json.dumps({"contradict": True, "about": f"whether {CANARY}"})


async def test_what_is_sealed_goes_on_with_what_all_see_who_are_there(sealed):
    manager, _, _ = sealed
    root = await manager.create_collaborative_session(
        ["bob", "eve"], user_id="ada", context={"mode": "root"}
    )
    branches = [
        await manager.branch_session(root.id, branch_context={"own": 1}, user_id=user)
        for user in ("ada", "eve")
    ]
    await manager.remove_participant(branches[0].id, "eve")
    await manager.remove_participant(root.id, "eve")
    found = await manager.get_session(branches[1].id, as_user="eve")
    assert found.context == {"own": 1}
    successors = [await manager.continue_session(branch.id) for branch in branches]
    assert [each.context for each in successors] == [{"mode": "root", "own": 1}, {"own": 1}]


async def test_what_a_model_says_of_sealed_messages_is_not_on_record(sealed, owner):
    manager, _, tenant = sealed
    judged = SessionManager(manager.store, SessionConfig(chat=Quoting()))
    root = await judged.create_session("ada")
    branch = await judged.branch_session(root.id)
    for session, answer in ((root, "Postgres it is."), (branch, "Something like SQLite.")):
        await judged.add_message(session.id, "user", "Which database shall we take?")
        await judged.add_message(session.id, "assistant", answer)
    merged = await judged.merge_sessions(root.id, branch.id, "intelligent")
    (conflict,) = merged.merge.conflicts
    assert (conflict["reason"], conflict["by"]) == ("model", "quoting-model")
    seen = await owner.fetch(
        "select m::text from haive.session_merges as m where tenant_id = $1", tenant
    )
    assert "canary" not in str(seen)


async def test_a_session_in_the_clear_goes_on_sealed_in_a_tenant_that_seals_now(sealed, owner):
    manager, keys, tenant = sealed
    sealer, manager.store._sealer = manager.store._sealer, None
    await owner.execute("update haive.tenants set encrypted = false where tenant_id = $1", tenant)
    root = await manager.create_session("ada", context={"mode": "clear"}, title="t")
    await manager.add_message(root.id, "user", "clear")
    branch = await manager.branch_session(root.id, branch_context={"b": 1})
    await owner.execute("update haive.tenants set encrypted = true where tenant_id = $1", tenant)
    manager.store._sealer = sealer
    await rotate(manager.store, sealer, keys)
    await manager.update_state(root.id, {"s": 1})
    await manager.add_message(branch.id, "user", "sealed")
    successor = await manager.continue_session(branch.id)
    assert successor.context == {"mode": "clear", "b": 1}
    assert [m.text for m in await manager.messages(branch.id)] == ["clear", "sealed"]
    assert (await manager.get_session(root.id)).state == {"s": 1}


# -- on record -------------------------------------------------------------------------------------


async def test_every_operation_is_on_record_and_none_for_when_it_was_active(
    new_tenant, open_store, owner
):
    tenant = await new_tenant(audit="all")
    manager = SessionManager(await open_store(tenant=tenant))

    async def told(doing):
        seq = "select coalesce(max(seq), 0) from haive.audit_log where tenant_id = $1"
        before = await owner.fetchval(seq, tenant)
        answer = await doing
        rows = await owner.fetch(
            "select action, object, row_count from haive.audit_log"
            " where tenant_id = $1 and seq > $2 order by seq",
            *(tenant, before),
        )
        return answer, [f"{row['action']} {row['object']} {row['row_count']}" for row in rows]

    root, log = await told(manager.create_session("ada"))
    assert log == ["insert conversations 1", "insert sessions 1"]
    said, log = await told(manager.add_message(root.id, "user", "x"))
    assert log == ["insert messages 1"]
    _, log = await told(manager.touch(root.id))
    assert log == ["update sessions 1"]
    branch, log = await told(manager.branch_session(root.id))
    assert log == ["insert conversations 1", "insert sessions 1"]
    await manager.add_message(branch.id, "user", "y")
    merged, log = await told(manager.merge_sessions(root.id, branch.id, "append"))
    assert log[0].startswith("read read_merge")
    assert "insert session_merges 1" in log
    assert "insert session_segments 1" in log
    assert log.count("update sessions 1") == 2
    _, log = await told(manager.undo_merge(root.id, merged.merge.id))
    assert "update session_merges 1" in log
    assert log.count("update sessions 1") == 2
    for doing, wanted in (
        (manager.hide_message(root.id, said.id), "update messages 1"),
        (manager.set_participant(root.id, "bob", ["read", "write"]), "update sessions 1"),
        (manager.update_state(root.id, {"a": 1}), "update conversations 1"),
        (manager.close(branch.id), "update sessions 1"),
        (manager.resume(branch.id), "update sessions 1"),
        (manager.continue_session(branch.id), "insert sessions 1"),
        (manager.get_session(root.id), "read get_session 1"),
        (manager.list_sessions("ada"), "read list_sessions 3"),
        (manager.family(root.id), "read session_family 2"),
        (manager.list_merges(root.id), "read list_merges 1"),
        (manager.messages(root.id), "read session_messages 1"),
        (manager.delete_session(branch.id), "delete conversations 1"),
    ):
        _, log = await told(doing)
        assert wanted in log, (wanted, log)
    content = await owner.fetchval(
        "select count(*) from haive.audit_log as a where tenant_id = $1 and a::text ~ '\"[xy]\"'",
        tenant,
    )
    assert content == 0
    assert (await AuditLog(manager.store).verify()).ok


# -- erased and exported, and kept no longer -------------------------------------------------------


async def test_a_service_writes_for_a_user_to_sessions_alone(manager):
    plain = await manager.store.create_conversation("agent", "alice", {"participants": ["bob"]})
    for user in ("mallory", "bob", "alice"):
        with pytest.raises(NotFoundError):
            await manager.add_message(plain.id, "user", "transfer it", as_user=user)
        with pytest.raises(NotFoundError):
            await manager.add_messages(
                plain.id, [{"role": "user", "content": "transfer it"}] * 2, as_user=user
            )
    assert await manager.store.get_messages(plain.id) == []


async def test_what_is_hidden_ends_no_reading_page_by_page(stack, manager, owner, tenant):
    users = [f"{tenant}-{name}" for name in ("ada", "bob")]
    for user in users:
        await manager.store.set_member(user, "member")
    session = await manager.create_collaborative_session(
        users, {users[0]: ["read", "write", "moderate"], users[1]: ["read"]}
    )
    said = [{"role": "user", "content": f"{n}"} for n in range(1_200)]
    messages = await manager.add_messages(session.id, said)
    # One of the first page, all of the second, and the last one.
    hidden = {10, *range(500, 1_000), 1_199}
    await owner.execute(
        "update haive.messages set hidden_at = now() where tenant_id = $1 and id = any($2)",
        *(tenant, [messages[n].id for n in hidden]),
    )
    seen = [f"{n}" for n in range(1_200) if n not in hidden]
    token = stack.mint_user_token(users[1])
    async with SupabaseStore(stack.url, stack.publishable_key, access_token=token) as theirs:
        assert [m.text async for m in theirs.iter_messages(session.id)] == seen
        assert [m.text async for m in theirs.iter_messages(session.id, after=-5)] == seen
        assert [m.text async for m in theirs.iter_messages(session.id, after=1_100)] == seen[-99:]
        assert [m.text for m in await theirs.get_messages(session.id, after=500, limit=500)] == []


async def test_an_erased_user_is_in_no_session_and_what_branched_off_goes_on(
    manager, owner, tenant, tmp_path, filled
):
    theirs = await filled("a1", "a2")
    branch = await manager.branch_session(theirs.id, user_id="bob")
    await manager.add_message(branch.id, "user", "b1")
    shared = await manager.create_collaborative_session(
        ["ada", "cleo"],
        {"ada": ["read", "write", "moderate"], "cleo": ["read", "write"]},
        user_id="bob",
    )
    await manager.add_message(shared.id, "user", "by ada", as_user="ada")
    await manager.add_message(shared.id, "user", "by cleo", as_user="cleo")
    merged = await manager.merge_sessions(shared.id, theirs.id, "append")
    assert merged.message_count == 4

    exported = await Subjects(manager.store).export("ada", tmp_path / "ada.zip")
    assert exported.counts["authorships"] == 1
    with zipfile.ZipFile(exported.path) as packed:
        (line,) = packed.read("authorships.jsonl").splitlines()
    assert json.loads(line)["conversation_id"] == str(shared.id)

    done = await Subjects(manager.store).erase("ada")
    assert done.counts["conversations"] == 1
    assert done.counts["participations"] == 1
    assert done.counts["authorships"] == 1
    for table in TABLES:
        rows = await owner.fetch(
            f"select t::text from haive.{table} as t where tenant_id = $1 and t::text ~ $2",
            *(tenant, r"\mada\M"),
        )
        # What was said is not read through.
        assert [row for row in rows if "by ada" not in row["t"]] == [], table
    with pytest.raises(NotFoundError):
        await manager.get_session(theirs.id)
    # Of what branched off and what it was merged into, others keep what is theirs, in its place.
    assert [(m.index, m.text) for m in await manager.messages(branch.id)] == [(3, "b1")]
    assert (await manager.get_session(branch.id)).message_count == 3
    await manager.add_message(branch.id, "user", "b2")
    assert [(m.index, m.author) for m in await manager.messages(shared.id)] == [
        (1, None),
        (2, "cleo"),
    ]
    now = await manager.get_session(shared.id)
    assert set(now.permissions) == {"cleo"}
    again = await manager.branch_session(branch.id, 4)
    assert (await manager.merge_sessions(shared.id, again.id, "append")).message_count == 4
    undone = await manager.undo_merge(shared.id, (await manager.list_merges(shared.id))[1].id)
    assert (await manager.undo_merge(shared.id, merged.merge.id)).message_count == 2
    assert undone.message_count == 4


async def test_who_watches_is_told_that_a_participant_was_erased(manager, store):
    session = await manager.create_collaborative_session(["ada", "bob"])
    plain = await store.create_conversation("agent", "bob", {"participants": ["ada"]})
    async with (
        manager.watch(session.id) as of_session,
        store.subscribe(f"conversation:{plain.id}") as of_plain,
    ):
        await Subjects(store).erase("ada")
        async with asyncio.timeout(10):
            kinds = [(await anext(aiter(each))).kind for each in (of_session, of_plain)]
    assert kinds == ["participant.changed", "conversation.updated"]
    # As where they are removed, the others meet elsewhere.
    assert (await manager.get_session(session.id)).topic != session.topic


async def test_what_is_kept_no_longer_leaves_branches_with_a_gap(manager, filled, owner, tenant):
    await owner.execute(
        """update haive.tenants set settings = '{"data_retention_days": 30}'"""
        " where tenant_id = $1",
        tenant,
    )
    old = await filled("a", "b")
    branch = await manager.branch_session(old.id)
    await manager.add_message(branch.id, "user", "c")
    await owner.execute(
        "update haive.conversations set last_message_at = $2::timestamptz where id = $1",
        *(old.id, datetime.now(UTC) - timedelta(days=31)),
    )
    done = await apply_retention(manager.store)
    assert done.counts["conversations"] == 1
    assert [(m.index, m.text) for m in await manager.messages(branch.id)] == [(3, "c")]
    assert await owner.fetchval("select count(*) from haive.sessions where id = $1", old.id) == 0


# -- in places of their own ------------------------------------------------------------------------


async def test_sessions_move_with_their_tenant_and_live_in_its_schema(
    stack, open_store, new_tenant
):
    tenants = TenantManager(
        await open_store(tenant=None),
        TenantConfig(
            isolation_level=IsolationLevel.SCHEMA, admin_connection_string=stack.database_url
        ),
    )
    name = f"{await new_tenant()}-moves"
    await tenants.create_tenant(name)
    try:
        async with tenants.tenant_context(name) as inside:
            root, branch, deep = await family(SessionManager(inside))
            before = await whole(SessionManager(inside), root, branch, deep)
        for number, place in enumerate((IsolationLevel.ROW, IsolationLevel.SCHEMA)):
            report = await tenants.move_tenant(name, place)
            assert report.rows["sessions"] == 3
            assert report.rows["session_segments"] == 1 + 2 * number
            assert report.rows["session_merges"] == 1 + number
            async with tenants.tenant_context(name) as inside:
                manager = SessionManager(inside)
                assert await whole(manager, root, branch, deep) == before
                await manager.undo_merge(root.id, root.merge.id)
                root = await manager.merge_sessions(root.id, branch.id, "append")
                await manager.add_message(root.id, "user", "goes on")
                before = await whole(manager, root, branch, deep)
    finally:
        await tenants.delete_tenant(name)
        await tenants.purge_tenant(name)


# -- masked ----------------------------------------------------------------------------------------


async def test_personal_data_is_masked_wherever_a_session_takes_text(
    stack, transport, tenant, owner
):
    email = "canary.sings@example.org"
    policy = PIIPolicy(mode="mask")
    store = (
        PostgresStore(
            PersistenceConfig(connection_string=stack.database_url, tenant=tenant), pii=policy
        )
        if transport == "postgres"
        else SupabaseStore(stack.url, stack.secret_key, tenant=tenant, pii=policy)
    )
    async with store:
        manager = SessionManager(store)

        def say(text):
            return f"{text} {email}"

        root, branch, _ = await family(manager, say)
        await manager.undo_merge(root.id, root.merge.id)
        await manager.merge_sessions(root.id, branch.id, "intelligent", "keep_both")
        await manager.add_messages(root.id, [{"role": "user", "content": email}])
        await manager.add_message(root.id, "user", email, as_user="ada")
        await manager.thread_message("ada", "assistant", "user", email, context={"c": email})
        await manager.continue_session(root.id)
        assert (await manager.messages(root.id, limit=1))[0].text == "r0 [EMAIL_1]"
        assert (await manager.get_session(root.id)).context == {"mode": "root [EMAIL_1]"}
    for table in TABLES:
        seen = await owner.fetchval(
            f"select count(*) from haive.{table} as t where tenant_id = $1 and t::text ~ $2",
            *(tenant, email),
        )
        assert seen == 0, table


# -- counted ---------------------------------------------------------------------------------------


async def test_sessions_count_as_conversations_and_their_bytes_as_storage(open_store, new_tenant):
    tenants = TenantManager(await open_store(tenant=None), TenantConfig())
    name = f"{await new_tenant()}-counted"
    await tenants.create_tenant(name, custom_quota=ResourceQuota(max_conversations=3))
    async with tenants.tenant_context(name) as inside:
        manager = SessionManager(inside)
        session = await manager.create_session("ada", max_messages=2)
        branch = await manager.branch_session(session.id)
        await manager.add_messages(session.id, [{"role": "user", "content": "x" * 1000}] * 2)
        message = await manager.add_message(session.id, "user", "in the successor")
        for doing in (
            manager.create_session("ada"),
            manager.branch_session(branch.id),
            manager.continue_session(branch.id),
        ):
            with pytest.raises(QuotaExceededError) as refused:
                await doing
            assert (refused.value.resource, refused.value.used) == ("conversations", 3)
        # It is open still.
        await manager.add_message(branch.id, "user", "x")
        usage = await tenants.usage(name)
        assert usage.conversations.used == 3
        assert usage.storage.used > 2000
        found = await tenants.reconcile_usage(name)
        assert (found.conversations_drift, found.storage_drift) == (0, 0)
        await manager.delete_session(message.conversation_id)
        assert (await tenants.usage(name)).conversations.used == 2
        await manager.create_session("ada")


async def test_what_is_on_record_of_merges_is_counted_and_limited(open_store, new_tenant, owner):
    tenants = TenantManager(await open_store(tenant=None), TenantConfig())
    name = f"{await new_tenant()}-merging"
    await tenants.create_tenant(name, custom_quota=ResourceQuota(max_storage_gb=1))
    async with tenants.tenant_context(name) as inside:
        manager = SessionManager(inside)
        session = await manager.create_session("ada")
        other = await manager.branch_session(session.id)
        said = [{"role": "user", "content": f"{n}"} for n in range(40)]
        await manager.add_messages(session.id, said)
        await manager.add_messages(other.id, said)

        async def used():
            found = await tenants.reconcile_usage(name)
            assert (found.conversations_drift, found.storage_drift) == (0, 0)
            return (await tenants.usage(name)).storage.used

        before = await used()
        merged = await manager.merge_sessions(session.id, other.id, "primary_wins")
        assert len(merged.merge.dropped) == 40
        once = await used() - before
        assert once > 40 * 100
        await manager.undo_merge(session.id, merged.merge.id)
        undone = await used()
        # As often as they like, until the limit is reached.
        await owner.execute(
            "update haive.tenants set max_storage_bytes = $2 where tenant_id = $1",
            *(name, undone + once + once // 2),
        )
        again = await manager.merge_sessions(session.id, other.id, "primary_wins")
        await manager.undo_merge(session.id, again.merge.id)
        with pytest.raises(QuotaExceededError) as refused:
            await manager.merge_sessions(session.id, other.id, "primary_wins")
        assert refused.value.resource == "storage"
        assert len(await manager.list_merges(session.id)) == 2
        full = await used()
        await manager.delete_session(session.id)
        assert await used() < full - 2 * once
