"""Users with tokens of their own: each has their own threads, and readers only read."""

from __future__ import annotations

from base64 import b64encode

import pytest
from pydantic import BaseModel

from haive.core.persistence import SupabaseStore
from haive.core.persistence._encoding import to_json
from haive.core.persistence.checkpointer import CheckpointConfig, Checkpointer
from haive.core.persistence.checkpointer._documents import REWRITTEN
from haive.core.persistence.errors import AccessDeniedError, CheckpointKeyError, NotFoundError

pytestmark = pytest.mark.parametrize("transport", ["supabase"])
ROLES = ("member", "other", "reader", "admin")


@pytest.fixture
async def users(stack, tenant, owner, key, store):
    """A checkpointer for each user of the tenant, and for one who is nobody there."""
    for name in ROLES:
        role = "member" if name == "other" else name
        await owner.execute(
            "insert into haive.members (tenant_id, user_id, role) values ($1, $2, $3)",
            *(tenant, f"{tenant}-{name}", role),
        )
    stores = {
        name: SupabaseStore(
            stack.url,
            stack.publishable_key,
            tenant=tenant,
            access_token=stack.mint_user_token(f"{tenant}-{name}"),
        )
        for name in (*ROLES, "stranger")
    }
    yield {
        name: Checkpointer(one, CheckpointConfig(encryption_key=key))
        for name, one in stores.items()
    }
    for one in stores.values():
        await one.aclose()


async def test_a_user_does_with_their_own_thread_what_a_service_does(users, checkpointer):
    mine = users["member"]
    ids = [await mine.save("t", {"n": n, "x": "x" * 300}, {"m": n}, ["a"]) for n in range(4)]
    branch = await mine.create_branch(ids[1], "b", {"why": 1})
    on_branch = await mine.save("t", {"n": "b"}, branch=branch)
    await mine.tag(ids[0], "b")
    await mine.mark_failed(ids[2])
    assert (await mine.restore(ids[3]))["n"] == 3
    assert [row.id for row in await mine.get_history("t", branch="main")] == [
        ids[3],
        ids[1],
        ids[0],
    ]
    assert (await mine.find_checkpoint("t", with_state_matching={"n": "b"})).id == on_branch
    assert (await mine.recover("t", branch="b")).state == {"n": "b"}
    assert await mine.copy_thread("t", "copy") == 5
    assert await mine.delete_thread("copy") == 5
    (thread,) = await mine.list_threads()
    assert (thread.thread_id, thread.checkpoints) == ("t", 5)
    # And the service sees whose it is.
    (thread,) = await checkpointer.list_threads()
    assert thread.user_id.endswith("-member")


@pytest.mark.parametrize("who", ["other", "reader", "stranger"])
async def test_nobody_else_sees_or_touches_it(users, who):
    mine, theirs = users["member"], users[who]
    ids = [await mine.save("t", {"n": n}, {"m": n}, ["a"]) for n in range(3)]
    await mine.create_branch(ids[0], "b")
    before = await mine.get_history("t", include_failed=True, include_state=True)

    refused = (NotFoundError, AccessDeniedError)
    for call in (
        lambda: theirs.restore(ids[0]),
        lambda: theirs.get(ids[0]),
        lambda: theirs.compare(ids[0], ids[1]),
        lambda: theirs.recover("t"),
        lambda: theirs.tag(ids[0], "x"),
        lambda: theirs.mark_failed(ids[0]),
        lambda: theirs.create_branch(ids[0], "x"),
        lambda: theirs.copy_thread("t", "copy"),
        lambda: theirs.save("t", {"n": "forged"}),
        lambda: theirs.save("t", {"n": "forged"}, parent=ids[2]),
        lambda: theirs.save("t", {"n": "forged"}, parent=ids[0], fork="x"),
        lambda: theirs.save("t", {"n": "forged"}, branch="b"),
        lambda: theirs.save("mine", {"n": 1}, parent=ids[0]),
    ):
        with pytest.raises(refused):
            await call()
    if who != "stranger":
        assert await theirs.get_history("t") == []
        assert await theirs.list_branches("t") == []
        assert await theirs.list_threads() == []
        assert await theirs.find_checkpoint(with_state_matching={"n": 1}) is None
        if who == "other":
            assert await theirs.delete_thread("t") == 0
    assert await mine.get_history("t", include_failed=True, include_state=True) == before
    assert len(await mine.list_branches("t")) == 2


async def test_a_thread_of_nobodys_is_no_users(users, checkpointer, tenant):
    saved = await checkpointer.save("t", {"n": 1})
    with pytest.raises(NotFoundError):
        await users["member"].restore(saved)
    with pytest.raises(AccessDeniedError):
        await users["member"].save("t", {"n": 2})
    given = await checkpointer.save("u", {"n": 1}, user_id=f"{tenant}-member")
    assert await users["member"].restore(given) == {"n": 1}


async def test_a_service_gives_a_thread_of_nobodys_to_a_user_and_then_to_no_other(
    users, checkpointer, tenant
):
    await checkpointer.save("t", {"n": 1})
    await checkpointer.save("t", {"n": 1}, namespace="sub")
    saved = await checkpointer.save("t", {"n": 2}, user_id=f"{tenant}-member")
    assert await users["member"].restore(saved) == {"n": 2}
    assert len(await users["member"].get_history("t", namespace="sub")) == 1
    with pytest.raises(AccessDeniedError, match="another user's"):
        await checkpointer.save("t", {"n": 3}, user_id=f"{tenant}-other", namespace="sub")


async def test_a_user_cannot_begin_a_thread_for_another(users, tenant):
    with pytest.raises(AccessDeniedError, match="another user's"):
        await users["member"].save("t", {"n": 1}, user_id=f"{tenant}-other")
    assert await users["member"].list_threads() == await users["other"].list_threads() == []


async def test_a_reader_reads_their_own_and_writes_nothing(users, checkpointer, tenant):
    theirs = users["reader"]
    saved = await checkpointer.save("t", {"n": 1}, user_id=f"{tenant}-reader")
    assert await theirs.restore(saved) == {"n": 1}
    assert len(await theirs.get_history("t")) == 1
    for call in (
        lambda: theirs.save("t", {"n": 2}),
        lambda: theirs.save("new", {"n": 2}),
        lambda: theirs.tag(saved, "x"),
        lambda: theirs.mark_failed(saved),
        lambda: theirs.create_branch(saved, "x"),
        lambda: theirs.copy_thread("t", "u"),
        lambda: theirs.delete_thread("t"),
    ):
        with pytest.raises(AccessDeniedError):
            await call()
    (row,) = await checkpointer.get_history("t", include_failed=True)
    assert (row.id, row.tags) == (saved, ())


async def test_an_administrator_sees_and_changes_all_of_the_tenant(users, checkpointer):
    admin = users["admin"]
    saved = await users["member"].save("t", {"n": 1})
    assert await admin.restore(saved) == {"n": 1}
    await admin.save("t", {"n": 2})
    assert (await users["member"].recover("t")).state == {"n": 2}
    assert await admin.delete_thread("t") == 2


@pytest.mark.parametrize("key", [True], indirect=True, ids=["sealed"])
async def test_without_the_tenants_key_a_token_alone_opens_nothing(users):
    saved = await users["member"].save("t", {"n": 1})
    bare = Checkpointer(users["member"]._engine.store, CheckpointConfig())
    with pytest.raises(CheckpointKeyError, match="no key is set"):
        await bare.restore(saved)


async def test_a_thread_of_a_user_is_theirs_in_every_part(users, checkpointer):
    await users["member"].save("t", {"n": 1})
    with pytest.raises(AccessDeniedError, match="another user's"):
        await users["other"].save("t", {"n": 2}, namespace="sub")
    # A service goes on in it, and what it begins there is the user's, too.
    saved = await checkpointer.save("t", {"n": 3}, namespace="sub")
    assert await users["member"].restore(saved) == {"n": 3}


async def test_a_service_that_names_the_user_writes_to_no_thread_of_another(
    users, checkpointer, tenant
):
    await users["other"].save("ticket-9", {"n": 1})
    for namespace in ("", "sub"):
        with pytest.raises(AccessDeniedError, match="another user's"):
            await checkpointer.save(
                "ticket-9", {"secret": 1}, user_id=f"{tenant}-member", namespace=namespace
            )
    assert len(await users["other"].get_history("ticket-9")) == 1


async def test_a_member_replaces_no_schema_of_the_tenant(users, store, tenant, owner, key):
    class Plan(BaseModel):
        stage: str

    saved = await users["member"].save("t", Plan(stage="draft"))
    await users["other"].save("mine", {"n": 1})
    (row,) = await owner.fetch(
        "select hash, payload, key_id from haive.checkpoint_schemas where tenant_id = $1", tenant
    )
    forged = [
        {
            "hash": row["hash"].hex(),
            "was_key_id": row["key_id"],
            "key_id": row["key_id"],
            "payload": b64encode(b'{"type": "array"}').decode(),
        }
    ]
    await users["other"]._engine.call(
        "rewrite_checkpoints",
        {"thread_id": "mine", "schemas": to_json(forged, "schemas")},
        REWRITTEN,
        safe=False,
    )
    assert await users["member"].restore(saved, validate_schema=True) == {"stage": "draft"}
