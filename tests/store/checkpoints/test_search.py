"""What is found by tags, times, metadata and parts of the state, in plain and sealed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from enum import Enum

import pytest
from pydantic import BaseModel

from haive.core.persistence.checkpointer import KeyRing
from haive.core.persistence.errors import CheckpointKeyError, InvalidInputError


class Phase(Enum):
    DRAFT = "draft"


class Plan(BaseModel):
    status: str
    phase: Phase = Phase.DRAFT


@pytest.fixture
async def ids(checkpointer):
    return [
        await checkpointer.save(
            "t",
            {
                "status": "done" if n == 4 else "running", "n": n, "half": n / 2, "on": n == 3,
                "none": None, "a key": n, "plan": {"stage": n}, "long": "x" * 300,
            },
            {"node": "a" if n % 2 else "b", "n": n, "deep": {"x": n}, "on": n == 2},
            ["even"] if n % 2 == 0 else ["odd", f"t{n}"],
        )
        for n in range(6)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"status": "running"}, 5),
        ({"status": "done"}, 4),
        ({"n": 2}, 2),
        ({"n": 2.0}, 2),
        ({"half": 1}, 2),
        ({"half": 1.5}, 3),
        ({"on": True}, 3),
        ({"none": None}, 5),
        ({"a key": 1}, 1),
        ({'["a key"]': 1}, 1),
        ({"$.n": 1}, 1),
        ({"n": 3, "status": "running", "on": True}, 3),
        ({"n": 3, "status": "done"}, None),
        ({"n": "2"}, None),
        ({"on": 1}, None),
        ({"status": "runnin"}, None),
        ({"status": None}, None),
        ({"plan.stage": 1}, None),
        ({"nothing": 1}, None),
        ({}, 5),
    ],
    ids=str,
)
async def test_scalars_at_the_top_are_found_exactly(new_checkpointer, ids, wanted, found):
    row = await new_checkpointer().find_checkpoint("t", with_state_matching=wanted)
    assert (row and row.id) == (None if found is None else ids[found])


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"plan.stage": 2}, 0),
        ({"plan": {"stage": 2}}, 0),
        ({"$.plan.stage": 3}, 1),
        ({"plan.steps[1].name": "b"}, 1),
        ({'["a key"]["b.c"]': "x"}, 1),
        ({"plan": {"stage": 3}, "plan.steps[1].name": "b"}, 1),
        ({"status": "new"}, None),
        ({"plan.steps[0].name": "a"}, None),
    ],
    ids=str,
)
async def test_configured_paths_are_found_wherever_they_are(new_checkpointer, wanted, found):
    checkpointer = new_checkpointer(
        search_paths=("plan.stage", "plan.steps[1].name", '["a key"]["b.c"]')
    )
    ids = [
        await checkpointer.save("t", {"status": "new", "plan": {"stage": 2, "steps": []}}),
        await checkpointer.save(
            "t",
            {
                "plan": {"stage": 3, "steps": [{"name": "a"}, {"name": "b"}]},
                "a key": {"b.c": "x"},
            },
        ),
    ]
    row = await new_checkpointer().find_checkpoint("t", with_state_matching=wanted)
    assert (row and row.id) == (None if found is None else ids[found])


async def test_models_are_searched_by_their_fields(checkpointer):
    saved = await checkpointer.save("t", Plan(status="new"))
    for wanted in ({"status": "new"}, {"phase": "draft"}, {"phase": Phase.DRAFT}):
        found = await checkpointer.find_checkpoint("t", with_state_matching=wanted)
        assert found.id == saved


async def test_tags_are_all_there(checkpointer, ids):
    async def found(*tags):
        row = await checkpointer.find_checkpoint("t", tags=tags)
        return row and row.id

    assert await found("even") == ids[4]
    assert await found("odd") == ids[5]
    assert await found("odd", "t3") == ids[3]
    assert await found("even", "odd") is None
    assert await found("ev") is None


async def test_metadata_contains_what_is_asked_for(checkpointer, ids, key):
    async def found(**metadata):
        row = await checkpointer.find_checkpoint("t", metadata=metadata)
        return row and row.id

    assert await found(node="b") == ids[4]
    assert await found(node="a", n=3) == ids[3]
    assert await found(on=True) == ids[2]
    assert await found(node="c") is None
    if key is None:
        assert await found(deep={"x": 1}) == ids[1]
    else:
        with pytest.raises(InvalidInputError, match="sealed metadata"):
            await found(deep={"x": 1})


async def test_times_bound_what_is_found(checkpointer, ids, owner, tenant):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for n, checkpoint_id in enumerate(ids):
        await owner.execute(
            "update haive.checkpoints set created_at = $2 where id = $1",
            *(checkpoint_id, start + timedelta(hours=n)),
        )

    async def found(**bounds):
        row = await checkpointer.find_checkpoint("t", **bounds)
        return row and row.id

    at = start + timedelta(hours=3)
    assert await found(before_timestamp=at) == ids[2]
    assert await found(before_timestamp=at + timedelta(microseconds=1)) == ids[3]
    assert await found(after_timestamp=at) == ids[5]
    assert await found(before_timestamp=at, after_timestamp=at) is None
    assert await found(before_timestamp=start) is None
    assert await found(before_timestamp=at.replace(tzinfo=None)) == ids[2]
    zoned = at.astimezone(datetime.now().astimezone().tzinfo)
    assert await found(before_timestamp=zoned, tags=["odd"]) == ids[1]


async def test_everything_at_once(checkpointer, ids):
    row = await checkpointer.find_checkpoint(
        "t",
        tags=["odd"],
        before_timestamp=datetime.now(UTC) + timedelta(minutes=5),
        with_state_matching={"status": "running", "on": True},
        metadata={"node": "a"},
    )
    assert (row.id, row.state) == (ids[3], None)
    assert row.tags == ("odd", "t3")


async def test_failed_ones_are_found_where_they_are_asked_for(checkpointer, ids):
    await checkpointer.mark_failed(ids[4])
    wanted = {"status": "done"}
    assert await checkpointer.find_checkpoint("t", with_state_matching=wanted) is None
    found = await checkpointer.find_checkpoint("t", with_state_matching=wanted, include_failed=True)
    assert found.id == ids[4]


async def test_without_a_thread_all_of_the_tenant_is_searched_and_no_other(
    checkpointer, new_checkpointer, ids, open_store, owner, tenant
):
    await owner.execute(
        "insert into haive.tenants (tenant_id, name) values ($1, $1)", f"{tenant}-other"
    )
    elsewhere = new_checkpointer(using=await open_store(tenant=f"{tenant}-other"))
    await elsewhere.save("t", {"status": "done", "only": "there"})
    other = await checkpointer.save("u", {"status": "done"})
    found = await checkpointer.find_checkpoint(with_state_matching={"status": "done"})
    assert found.id == other
    assert await checkpointer.find_checkpoint(with_state_matching={"only": "there"}) is None


async def test_what_is_tagged_later_is_found_by_it(checkpointer, ids, new_checkpointer):
    await checkpointer.tag(ids[1], "gold")
    cold = new_checkpointer()
    assert (await cold.find_checkpoint("t", tags=["gold"])).id == ids[1]
    found = await cold.find_checkpoint("t", tags=["gold"], with_state_matching={"n": 1})
    assert found.id == ids[1]
    await checkpointer.untag(ids[1], "gold")
    assert await cold.find_checkpoint("t", tags=["gold"]) is None


@pytest.mark.parametrize("key", [True], indirect=True, ids=["sealed"])
async def test_the_same_value_at_another_path_or_in_another_tenant_has_another_hash(
    checkpointer, new_checkpointer, owner, open_store, tenant
):
    name = f"{tenant}-other"
    await owner.execute("insert into haive.tenants (tenant_id, name) values ($1, $1)", name)
    elsewhere = new_checkpointer(using=await open_store(tenant=name))
    for one in (checkpointer, elsewhere):
        await one.save("t", {"a": "x", "b": "x"}, {"a": "x"}, ["x", "a"])
    rows = await owner.fetch(
        "select search from haive.checkpoints where tenant_id = any($1)", [tenant, name]
    )
    tokens = [token for row in rows for token in json.loads(row["search"])]
    assert len(tokens) == len(set(tokens)) == 10


@pytest.mark.parametrize("key", [True], indirect=True, ids=["sealed"])
async def test_sealed_checkpoints_are_found_by_each_key_of_the_ring(new_checkpointer, key):
    other = KeyRing.generate()
    old = await new_checkpointer().save("t", {"n": 1}, {"m": 1}, ["a"])
    ring = new_checkpointer(encryption_key=f"{other},{key}")
    new = await ring.save("t", {"n": 2}, {"m": 2}, ["b"])
    for n, saved in ((1, old), (2, new)):
        for question in (
            {"with_state_matching": {"n": n}},
            {"metadata": {"m": n}},
            {"tags": ["a" if n == 1 else "b"]},
            {"with_state_matching": {"n": n}, "metadata": {"m": n}},
        ):
            assert (await ring.find_checkpoint("t", **question)).id == saved
    with pytest.raises(CheckpointKeyError):
        await new_checkpointer().find_checkpoint("t", with_state_matching={"n": 2})
