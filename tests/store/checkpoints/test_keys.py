"""Keys change while they are used, old ones are dropped, and each tenant has its own."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel

from haive.core.persistence.checkpointer import KeyRing, _rewriting
from haive.core.persistence.checkpointer._engine import Place
from haive.core.persistence.errors import (
    CheckpointKeyError,
    ConflictError,
    ContentTooLargeError,
    CorruptCheckpointError,
    DecryptionError,
    InvalidInputError,
)

OLD, NEW = KeyRing.generate(), KeyRing.generate()
BOTH = f"{NEW},{OLD}"


class Model(BaseModel):
    n: int


@pytest.fixture
def key() -> str:
    return OLD


@pytest.fixture
def key_ids(owner, tenant):
    """The key ids of all rows of the tenant, by table."""

    async def look() -> dict[str, set]:
        found = {}
        for table in ("checkpoints", "branches", "checkpoint_schemas", "checkpoint_writes"):
            rows = await owner.fetch(
                f"select key_id from haive.{table} where tenant_id = $1", tenant
            )
            found[table] = {row["key_id"] for row in rows}
        return found

    return look


async def fill(checkpointer, thread: str = "t") -> dict[UUID, object]:
    states = {}
    for n in range(4):
        state = {"n": n, "text": "x" * 500}
        states[await checkpointer.save(thread, state, {"m": n}, [f"t{n}"])] = state
    branch = await checkpointer.create_branch(list(states)[1], "b", {"why": "x"})
    states[await checkpointer.save(thread, Model(n=9), branch=branch)] = {"n": 9}
    return states


async def test_a_ring_reads_old_and_new_and_writes_with_the_first(new_checkpointer, key_ids):
    states = await fill(new_checkpointer())
    ring = new_checkpointer(encryption_key=BOTH)
    last = await ring.save("t", {"n": 5, "text": "x" * 500})
    states[last] = {"n": 5, "text": "x" * 500}
    for checkpoint_id, state in states.items():
        assert await new_checkpointer(encryption_key=BOTH).restore(checkpoint_id) == state
    assert len((await key_ids())["checkpoints"]) == 2
    with pytest.raises(CheckpointKeyError):
        await new_checkpointer().restore(last)


@pytest.mark.parametrize("wrong", [None, KeyRing.generate()], ids=["none", "another"])
async def test_what_another_key_cannot_find_is_no_answer(new_checkpointer, wrong):
    """Nothing found would be taken for nothing there."""
    checkpointer = new_checkpointer()
    await fill(checkpointer)
    blind = new_checkpointer(encryption_key=wrong)
    for search in (
        {"tags": ["t1"]},
        {"with_state_matching": {"n": 1}},
        {"metadata": {"m": 1}, "branch": "b"},
    ):
        assert await checkpointer.find_checkpoint("t", **search)
        with pytest.raises(CheckpointKeyError):
            await blind.find_checkpoint("t", **search)
    with pytest.raises(CheckpointKeyError):
        await blind.recover("t", "last_tagged", tags=["t1"])
    assert await blind.find_checkpoint("nowhere", tags=["t1"]) is None
    assert await checkpointer.find_checkpoint("t", tags=["t5"]) is None


async def test_no_metadata_in_the_clear_are_kept_of_a_branch_from_what_is_sealed(
    new_checkpointer, owner, tenant
):
    checkpointer = new_checkpointer()
    root = await checkpointer.save("t", {"n": 1})
    plain = new_checkpointer(encryption_key=None)
    with pytest.raises(ConflictError, match=r"is sealed.*encryption_key"):
        await plain.create_branch(root, "told", {"why": "a secret"})
    await plain.create_branch(root, "silent")
    assert [branch.name for branch in await checkpointer.list_branches("t")] == ["main", "silent"]
    await owner.execute(
        """update haive.branches set metadata = '{"a": 1}' where tenant_id = $1 and name = $2""",
        *(tenant, "silent"),
    )
    with pytest.raises(CorruptCheckpointError, match="The metadata of a branch is not sealed"):
        await checkpointer.list_branches("t")


async def test_after_rotation_the_old_key_opens_nothing_and_the_new_one_all(
    new_checkpointer, key_ids
):
    states = await fill(new_checkpointer())
    ring = new_checkpointer(encryption_key=BOTH)
    assert await ring.rotate_keys() == 5
    assert await ring.rotate_keys() == 0
    new_id = (await ring._engine.sealer()).key_id
    ids = await key_ids()
    assert ids["checkpoints"] == ids["checkpoint_schemas"] == {new_id}
    assert ids["branches"] - {None} == {new_id}

    new = new_checkpointer(encryption_key=NEW)
    for n, (checkpoint_id, state) in enumerate(states.items()):
        assert await new.restore(checkpoint_id, validate_schema=True) == state
        row = await new.get(checkpoint_id)
        assert (row.metadata, row.tags) == (({"m": n}, (f"t{n}",)) if n < 4 else ({}, ()))
    found = await new.find_checkpoint("t", tags=["t2"], with_state_matching={"n": 2})
    assert found.id == list(states)[2]
    assert [b.metadata for b in await new.list_branches("t")] == [{}, {"why": "x"}]
    assert [s["n"] async for s in new.replay(next(iter(states)), list(states)[3])] == [0, 1, 2, 3]
    with pytest.raises(CheckpointKeyError):
        await new_checkpointer().restore(next(iter(states)))
    last = await new.save("t", {"n": "after"})
    assert await new_checkpointer(encryption_key=NEW).restore(last) == {"n": "after"}


async def test_rotation_of_one_thread_leaves_the_others(new_checkpointer):
    first = await fill(new_checkpointer(), "t")
    second = await fill(new_checkpointer(), "u")
    assert await new_checkpointer(encryption_key=BOTH).rotate_keys("t") == 5
    for checkpoint_id, state in first.items():
        assert await new_checkpointer(encryption_key=NEW).restore(checkpoint_id) == state
    for checkpoint_id, state in second.items():
        assert await new_checkpointer().restore(checkpoint_id) == state


async def test_a_rotation_without_the_old_key_changes_nothing(new_checkpointer, key_ids):
    states = await fill(new_checkpointer())
    before = await key_ids()
    with pytest.raises(CheckpointKeyError):
        await new_checkpointer(encryption_key=NEW).rotate_keys()
    assert await key_ids() == before
    assert await new_checkpointer().restore(next(iter(states))) == states[next(iter(states))]
    with pytest.raises(InvalidInputError, match="encryption_key"):
        await new_checkpointer(encryption_key=None).rotate_keys()


async def test_keys_are_rotated_while_others_save_and_tag_and_nothing_is_lost(
    open_store, new_checkpointer
):
    writer = new_checkpointer(using=await open_store(), encryption_key=f"{OLD},{NEW}")
    rotator = new_checkpointer(using=await open_store(), encryption_key=BOTH)
    states = await fill(writer)
    rotating = True

    async def write() -> None:
        n = 100
        while rotating:
            n += 1
            states[await writer.save("t", {"n": n, "text": "x" * 500})] = {
                "n": n,
                "text": "x" * 500,
            }
            await writer.tag(list(states)[-1], "late")

    async def rotate() -> None:
        nonlocal rotating
        try:
            for _ in range(3):
                await rotator.rotate_keys("t")
        finally:
            rotating = False

    await asyncio.gather(write(), rotate())
    await rotator.rotate_keys("t")
    new = new_checkpointer(encryption_key=NEW)
    for n, (checkpoint_id, state) in enumerate(states.items()):
        assert await new.restore(checkpoint_id) == state
        if n > 4:
            assert (await new.get(checkpoint_id)).tags == ("late",)
    found = await new.find_checkpoint("t", tags=["late"])
    assert found.id == list(states)[-1]


@pytest.mark.parametrize("parts", range(3))
async def test_a_rotation_that_was_ended_anywhere_leaves_no_schema_behind(
    new_checkpointer, monkeypatch, parts
):
    checkpointer = new_checkpointer()
    saved = await checkpointer.save("t", Model(n=1))
    await checkpointer.create_branch(saved, "b", {"why": "x"})
    ended = new_checkpointer(encryption_key=BOTH)
    rewrite, left = ended._rewriter._rewrite, iter(range(parts))

    async def rewrite_some(*place, **part):
        if next(left, None) is None:
            raise TimeoutError
        return await rewrite(*place, **part)

    monkeypatch.setattr(ended._rewriter, "_rewrite", rewrite_some)
    with suppress(TimeoutError):
        await ended.rotate_keys()
    await new_checkpointer(encryption_key=BOTH).rotate_keys()
    new = new_checkpointer(encryption_key=NEW)
    assert await new.restore(saved, model=Model, validate_schema=True) == Model(n=1)


async def test_a_schema_that_was_left_behind_is_sealed_anew_with_its_checkpoints(
    new_checkpointer, owner, tenant
):
    saved = await new_checkpointer().save("t", Model(n=1))
    schemas = "from haive.checkpoint_schemas where tenant_id = $1"
    before = await owner.fetchrow(f"select payload, key_id {schemas}", tenant)
    ring = new_checkpointer(encryption_key=BOTH)
    assert await ring.rotate_keys() == 1
    await owner.execute(
        "update haive.checkpoint_schemas set payload = $2, key_id = $3 where tenant_id = $1",
        *(tenant, *before),
    )
    assert await ring.rotate_keys() == 0
    new = new_checkpointer(encryption_key=NEW)
    assert await new.restore(saved, model=Model, validate_schema=True) == Model(n=1)


async def test_what_changes_of_an_old_checkpoint_stays_readable_by_its_key(new_checkpointer):
    """A row names one key: what is tagged or pruned under a new one is sealed by the old."""
    ids = [await new_checkpointer().save("t", {"n": n, "x": "x" * 300}) for n in range(5)]
    ring = new_checkpointer(encryption_key=BOTH)
    await ring.tag(ids[1], "a")
    await ring._rewriter.remove("t", "", lambda rows, heads, now: {ids[0], ids[2]})
    for checkpointer in (new_checkpointer(), new_checkpointer(encryption_key=BOTH)):
        assert [(await checkpointer.restore(ids[n]))["n"] for n in (1, 3, 4)] == [1, 3, 4]
        assert [row.tags for row in await checkpointer.get_history("t")] == [(), (), ("a",)]
    assert (await ring.find_checkpoint("t", tags=["a"])).id == ids[1]
    assert await ring.rotate_keys("t") == 3
    new = new_checkpointer(encryption_key=NEW)
    assert [(await new.restore(ids[n]))["n"] for n in (1, 3, 4)] == [1, 3, 4]
    assert (await new.find_checkpoint("t", tags=["a"])).tags == ("a",)


# -- what was saved before there was a key ---------------------------------------------------------


async def test_plain_states_are_refused_until_they_are_sealed_on_purpose(new_checkpointer, key_ids):
    states = await fill(new_checkpointer(encryption_key=None))
    sealed = new_checkpointer()
    with pytest.raises(CorruptCheckpointError, match="seal-plain"):
        await sealed.restore(next(iter(states)))
    assert await sealed.rotate_keys("t") == 0
    with pytest.raises(CorruptCheckpointError):
        await sealed.restore(next(iter(states)))

    assert await sealed.rotate_keys("t", seal_plain=True) == 5
    cold = new_checkpointer()
    for n, (checkpoint_id, state) in enumerate(states.items()):
        assert await cold.restore(checkpoint_id) == state
        row = await cold.get(checkpoint_id)
        assert row.encrypted
        assert (row.metadata, row.tags) == (({"m": n}, (f"t{n}",)) if n < 4 else ({}, ()))
    assert None not in (await key_ids())["checkpoints"]
    found = await cold.find_checkpoint(
        "t", tags=["t2"], with_state_matching={"n": 2}, metadata={"m": 2}
    )
    assert found.id == list(states)[2]
    assert [b.metadata for b in await cold.list_branches("t")] == [{}, {"why": "x"}]
    with pytest.raises(CheckpointKeyError):
        await new_checkpointer(encryption_key=None).restore(next(iter(states)))


async def test_nothing_of_what_is_sealed_on_purpose_stays_in_plain(new_checkpointer, owner, tenant):
    canary = f"canary-{uuid4().hex}"
    plain = new_checkpointer(encryption_key=None)
    saved = await plain.save("t", {"s": canary}, {"m": canary}, [canary])
    await plain.create_branch(saved, "b", {"m": canary})
    await new_checkpointer().rotate_keys(seal_plain=True)
    for table in ("checkpoints", "branches"):
        for row in await owner.fetch(f"select * from haive.{table} where tenant_id = $1", tenant):
            for name, value in row.items():
                data = value if isinstance(value, bytes) else str(value).encode()
                assert canary.encode() not in data, (table, name)


# -- tenants ---------------------------------------------------------------------------------------


async def test_tenants_have_keys_of_their_own(new_checkpointer, open_store, owner, tenant):
    name = f"{tenant}-other"
    await owner.execute("insert into haive.tenants (tenant_id, name) values ($1, $1)", name)
    mine = new_checkpointer()
    other = new_checkpointer(using=await open_store(tenant=name))
    await mine.save("t", {"n": 1})
    await other.save("t", {"n": 1})
    one, two = (await mine._engine.sealer()).keys, (await other._engine.sealer()).keys
    assert one.key_id == two.key_id
    sealed = one.seal(b"x", b"place")
    assert one.open(one.key_id, sealed, b"place") == b"x"
    with pytest.raises(DecryptionError):
        two.open(two.key_id, sealed, b"place")
    assert one.blind("p", b"x") != two.blind("p", b"x")


async def test_a_thread_that_no_key_opens_is_named_and_the_others_are_rotated(new_checkpointer):
    lost = await new_checkpointer(encryption_key=KeyRing.generate()).save("a", {"n": 1})
    saved = await new_checkpointer().save("b", {"n": 2})
    ring = new_checkpointer(encryption_key=BOTH)
    with pytest.raises(CheckpointKeyError, match=r"of 'a' cannot be read") as told:
        await ring.rotate_keys()
    assert "'b'" not in str(told.value)
    assert await new_checkpointer(encryption_key=NEW).restore(saved) == {"n": 2}
    with pytest.raises(CheckpointKeyError) as told:
        await ring.rotate_keys("a")
    assert "'a'" not in str(told.value)
    with pytest.raises(CheckpointKeyError):
        await ring.restore(lost)


# -- writes whose checkpoint is not saved yet, and large threads -----------------------------------


async def put_writes(checkpointer, checkpoint_id: UUID, task_id: UUID) -> None:
    values = {n: ("channel", f"value {n}") for n in range(-1, 3)}
    await checkpointer._engine.put_writes(
        Place(thread_id="t"), checkpoint_id, task_id, "", values, user_id=None
    )


async def written(checkpointer, thread: str) -> list[tuple[UUID, UUID, int, object]]:
    engine = checkpointer._engine
    sealer = await engine.sealer()
    found = await engine.find(thread_id=thread, states=True)
    (row,) = found.checkpoints
    return [
        (write.checkpoint_id, write.task_id, write.idx, engine.open_write(sealer, row, write))
        async for page in checkpointer._rewriter._writes(thread, "")
        for write in page
    ]


async def test_writes_are_rotated_and_copied_before_their_checkpoint_is_saved(new_checkpointer):
    checkpointer = new_checkpointer()
    saved = await checkpointer.save("t", {"n": 1})
    keys = sorted([(saved, uuid4()), (uuid4(), uuid4()), (uuid4(), uuid4())])
    for checkpoint_id, task_id in keys:
        await put_writes(checkpointer, checkpoint_id, task_id)
    expected = [(*key, n, f"value {n}") for key in keys for n in range(-1, 3)]
    assert await written(checkpointer, "t") == expected
    ring = new_checkpointer(encryption_key=BOTH)
    assert await ring.rotate_keys() == 1
    new = new_checkpointer(encryption_key=NEW)
    assert await written(new, "t") == expected
    await new.copy_thread("t", "u")
    assert await written(new, "u") == expected


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
async def test_a_large_thread_is_read_and_rotated_in_parts(new_checkpointer, monkeypatch):
    """Pages end after 32 MiB of states: an answer and an argument of the database are bounded."""
    states = [{"n": n, "data": os.urandom(17 * 1024 * 1024)} for n in range(3)]
    checkpointer = new_checkpointer()
    ids = [await checkpointer.save("t", state) for state in states]
    ring = new_checkpointer(encryption_key=BOTH)
    counts = []
    rewrite = ring._rewriter._rewrite

    async def counted(*place, **parts):
        counts.append(len(parts.get("replace", ())))
        return await rewrite(*place, **parts)

    monkeypatch.setattr(ring._rewriter, "_rewrite", counted)
    assert await ring.rotate_keys() == 3
    assert counts == [2, 1]
    new = new_checkpointer(encryption_key=NEW)
    history = await new.get_history("t", include_state=True, limit=10)
    assert [row.state["n"] for row in history] == [2, 1, 0]
    assert [s async for s in new.replay(ids[0], ids[2])] == states


async def test_a_sealed_thread_too_large_for_one_call_is_told(new_checkpointer, monkeypatch):
    checkpointer = new_checkpointer()
    await fill(checkpointer)
    monkeypatch.setattr(_rewriting, "_LIMIT", 100)
    with pytest.raises(ContentTooLargeError, match="cannot be copied"):
        await checkpointer.copy_thread("t", "u")
    assert [t.thread_id for t in await checkpointer.list_threads()] == ["t"]
