"""Checkpoints of a store that seals are sealed with the tenant's keys, without being told."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from haive.core.persistence._keys import KeyRing
from haive.core.persistence.checkpointer import CheckpointConfig, Checkpointer
from haive.core.persistence.encryption import rotate
from haive.core.persistence.errors import (
    CheckpointKeyError,
    CorruptCheckpointError,
    InvalidInputError,
)


class State(BaseModel):
    step: int


async def test_all_of_a_thread_is_sealed_with_the_tenants_key(store, open_store, owner, tenant):
    checkpointer = Checkpointer(store)
    saved = await checkpointer.save("t", State(step=1), {"m": 1}, ["tag"])
    await checkpointer.create_branch(saved, "b", {"why": "x"})
    await checkpointer.save("t", State(step=2), {"m": 2}, branch="b")
    key = (await store._sealer.ready()).keys.key_id
    for table in ("checkpoints", "branches", "checkpoint_schemas"):
        rows = await owner.fetch(f"select * from haive.{table} where tenant_id = $1", tenant)
        sealed = [row for row in rows if table != "branches" or row["name"] == "b"]
        assert sealed
        assert {row["key_id"] for row in sealed} == {key}
    again = Checkpointer(await open_store(), CheckpointConfig(types=(State,)))
    assert (await again.recover("t", branch="b")).state == State(step=2)
    assert (await again.find_checkpoint("t", tags=["tag"])).id == saved
    assert (await again.find_checkpoint("t", with_state_matching={"step": 1})).id == saved


async def test_a_key_of_its_own_goes_before_the_tenants(store):
    config = CheckpointConfig(encryption_key=KeyRing.generate())
    await Checkpointer(store, config).save("t", {"n": 1})
    assert (await Checkpointer(store, config).recover("t")).state == {"n": 1}
    with pytest.raises(CheckpointKeyError):
        await Checkpointer(store).recover("t")


async def test_a_checkpointer_without_keys_stores_nothing_in_the_clear(
    store, open_store, owner, tenant
):
    saved = await Checkpointer(store).save("t", {"n": 1})
    bare = Checkpointer(await open_store(sealed=False))
    for attempt in (
        bare.save("new", {"secret": 1}),
        bare.create_branch(saved, "b", {"secret": 1}),
    ):
        with pytest.raises(InvalidInputError, match="sealed by the client"):
            await attempt
    with pytest.raises(CheckpointKeyError):
        await bare.recover("t")
    count = "select count(*) from haive.checkpoints where tenant_id = $1"
    assert await owner.fetchval(count, tenant) == 1


async def test_states_in_the_clear_are_taken_only_while_that_is_said(open_store, owner, tenant):
    await owner.execute("update haive.tenants set encrypted = false where tenant_id = $1", tenant)
    bare = Checkpointer(await open_store(sealed=False))
    saved = await bare.save("t", {"n": 1}, {"m": 1}, ["tag"])
    await bare.create_branch(saved, "b", {"why": 1})
    patient = Checkpointer(await open_store(allow_plain=True))
    found = await patient.recover("t")
    assert (found.state, found.metadata, found.tags) == ({"n": 1}, {"m": 1}, ("tag",))
    assert {branch.name for branch in await patient.list_branches("t")} == {"main", "b"}
    with pytest.raises(CorruptCheckpointError, match="not sealed"):
        await Checkpointer(await open_store()).recover("t")


async def test_a_checkpointer_goes_on_over_a_rotation(store, keys, owner, tenant):
    checkpointer = Checkpointer(store, CheckpointConfig(types=(State,)))
    first = await checkpointer.save("t", State(step=1), tags=["one"])
    rotated = await rotate(store, store._sealer, keys)
    second = await checkpointer.save("t", State(step=2), parent=first)
    await checkpointer.tag(first, "two")
    await checkpointer.mark_failed(second)
    assert [each.state for each in await checkpointer.get_history(
        "t", include_state=True, include_failed=True
    )] == [State(step=2), State(step=1)]  # fmt: skip
    assert (await checkpointer.find_checkpoint("t", tags=["one", "two"])).id == first
    rows = await owner.fetch("select key_id from haive.checkpoints where tenant_id = $1", tenant)
    assert {row["key_id"] for row in rows} == {rotated.key_id}
    # Both schemas open: the one of before, which was sealed anew, and the one of now.
    for each in (first, second):
        assert (await checkpointer.get(each)).id == each
    schemas = "select key_id from haive.checkpoint_schemas where tenant_id = $1"
    assert {row["key_id"] for row in await owner.fetch(schemas, tenant)} == {rotated.key_id}


async def test_a_schema_that_was_not_stored_before_a_rotation_is_sealed_with_the_new_key(
    store, keys, owner, tenant
):
    checkpointer = Checkpointer(store)
    await checkpointer.save("t", State(step=1))
    await owner.execute("delete from haive.checkpoint_schemas where tenant_id = $1", tenant)
    checkpointer._saver._stored_schemas.clear()
    await rotate(store, store._sealer, keys)
    await checkpointer.save("t", State(step=2))
    rotated = await rotate(store, store._sealer, keys)  # it opens all there is
    schemas = "select key_id from haive.checkpoint_schemas where tenant_id = $1"
    assert [row["key_id"] for row in await owner.fetch(schemas, tenant)] == [rotated.key_id]
