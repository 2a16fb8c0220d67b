"""Restoring: as data or as models, validated, brought up to date, and never imported."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

import pytest
from pydantic import BaseModel, ConfigDict, Field, computed_field, create_model, field_validator

from haive.core.persistence.errors import (
    CorruptCheckpointError,
    InvalidInputError,
    NotFoundError,
    StateMismatchError,
)


class Phase(Enum):
    DRAFT = "draft"
    DONE = "done"


class Step(BaseModel):
    name: str
    cost: int = 0


class Plan(BaseModel):
    model_config = ConfigDict(extra="forbid")
    status: str
    steps: list[Step] = []
    phase: Phase = Phase.DRAFT


@dataclass
class Spot:
    x: int
    next: Spot | None = None


@dataclass(frozen=True)
class Mark:
    n: int


PLAN = Plan(status="new", steps=[Step(name="a", cost=1), Step(name="b")], phase=Phase.DONE)
DATA = {
    "status": "new",
    "steps": [{"name": "a", "cost": 1}, {"name": "b", "cost": 0}],
    "phase": "done",
}


async def test_a_model_asked_for_is_what_comes_back(checkpointer, new_checkpointer):
    saved = await checkpointer.save("t", PLAN)
    for reader in (checkpointer, new_checkpointer(), new_checkpointer(types=(Plan,))):
        for validate in (False, True):
            restored = await reader.restore(saved, model=Plan, validate_schema=validate)
            assert restored == PLAN
            assert type(restored.steps[0]) is Step
    assert await checkpointer.restore(saved) == DATA
    assert await checkpointer.restore(saved, validate_schema=True) == DATA


async def test_plain_data_becomes_a_model_where_it_fits_and_else_the_paths_are_told(checkpointer):
    good = await checkpointer.save("t", DATA)
    assert await checkpointer.restore(good, model=Plan) == PLAN
    bad = await checkpointer.save("t", {"status": 5, "steps": [{"name": "a"}, {"cost": "x"}]})
    with pytest.raises(StateMismatchError) as mismatch:
        await checkpointer.restore(bad, model=Plan)
    assert set(mismatch.value.paths) == {"$.status", "$.steps[1].name", "$.steps[1].cost"}
    assert "$.steps[1].name" in str(mismatch.value)


async def test_a_state_that_fits_its_own_schema_and_not_the_model_of_today_names_the_paths(
    checkpointer,
):
    saved = await checkpointer.save("t", PLAN)

    class Plan2(BaseModel):
        model_config = ConfigDict(extra="forbid")
        status: int
        steps: list[Step]
        phase: Phase
        owner: str

    await checkpointer.restore(saved, validate_schema=True)
    with pytest.raises(StateMismatchError) as mismatch:
        await checkpointer.restore(saved, model=Plan2, validate_schema=True)
    assert set(mismatch.value.paths) == {"$.status", "$.owner"}


async def test_a_class_of_the_allow_list_that_has_drifted_names_the_paths(
    new_checkpointer,
):
    old = create_model("Drifting", __module__=__name__, name=(str, ...), age=(str, "x"))
    new = create_model("Drifting", __module__=__name__, name=(str, ...), age=(int, ...))
    saved = await new_checkpointer(types=(old,)).save("t", old(name="a"))
    with pytest.raises(StateMismatchError) as mismatch:
        await new_checkpointer(types=(new,)).restore(saved)
    assert mismatch.value.paths == ("$.age",)
    assert await new_checkpointer().restore(saved) == {"name": "a", "age": "x"}


async def test_what_no_longer_is_what_its_schema_says_is_noticed_by_validation(
    new_checkpointer, owner, tenant
):
    """A model may lie: what was assigned is not validated."""
    checkpointer = new_checkpointer()
    plan = PLAN.model_copy(deep=True)
    plan.status = 5
    plan.steps[1].name = None
    saved = await checkpointer.save("t", plan)
    assert (await checkpointer.restore(saved))["status"] == 5
    with pytest.raises(StateMismatchError) as mismatch:
        await checkpointer.restore(saved, validate_schema=True)
    assert set(mismatch.value.paths) == {"$.status", "$.steps[1].name"}


async def test_an_error_of_validation_shows_no_value(checkpointer):
    canary = "-".join(("the", "canary"))
    saved = await checkpointer.save("t", {"status": "x", "steps": [{"name": [canary]}]})
    with pytest.raises(StateMismatchError) as mismatch:
        await checkpointer.restore(saved, model=Plan)
    error = mismatch.value
    while error is not None:
        assert canary not in f"{error} {error!r} {error.args}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


async def test_a_schema_is_stored_once_however_many_save_by_it(new_checkpointer, owner, tenant):
    for n in range(3):
        checkpointer = new_checkpointer()
        for thread in ("t", "u"):
            await checkpointer.save(thread, Plan(status=str(n)))
    query = "select count(*) from haive.checkpoint_schemas where tenant_id = $1"
    assert await owner.fetchval(query, tenant) == 1
    hashes = {row.schema_hash for row in await new_checkpointer().get_history("t")}
    assert len(hashes) == 1
    await new_checkpointer().save("t", Step(name="x"))
    assert await owner.fetchval(query, tenant) == 2


async def test_a_missing_schema_is_told_where_validation_was_asked_for(checkpointer, owner, tenant):
    saved = await checkpointer.save("t", PLAN)
    await owner.execute("delete from haive.checkpoint_schemas where tenant_id = $1", tenant)
    with pytest.raises(CorruptCheckpointError, match="schema"):
        await checkpointer.restore(saved, validate_schema=True)
    assert await checkpointer.restore(saved) == DATA


async def test_a_state_of_no_model_passes_validation(checkpointer):
    saved = await checkpointer.save("t", {"n": 1})
    assert await checkpointer.restore(saved, validate_schema=True) == {"n": 1}


async def test_durations_and_computed_fields_pass_validation(new_checkpointer):
    class Timed(BaseModel):
        took: timedelta

        @computed_field
        @property
        def minutes(self) -> float:
            return self.took / timedelta(minutes=1)

    checkpointer = new_checkpointer(types=(Timed,))
    saved = await checkpointer.save("t", Timed(took=timedelta(hours=1)))
    assert (await checkpointer.restore(saved, validate_schema=True)).minutes == 60
    plain = await new_checkpointer().restore(saved, validate_schema=True)
    assert plain == {"took": timedelta(hours=1)}


async def test_aliases_defaults_and_unset_fields_come_back(new_checkpointer):
    class Aliased(BaseModel):
        inner: int = Field(alias="the inner", default=3)
        other: str | None = None

    checkpointer = new_checkpointer(types=(Aliased,))
    state = Aliased(**{"the inner": 5})
    saved = await checkpointer.save("t", state)
    restored = await checkpointer.restore(saved, validate_schema=True)
    assert restored == state
    assert restored.model_fields_set == {"inner"}
    assert (await new_checkpointer().restore(saved, model=Aliased)).inner == 5


class Loud(BaseModel):
    x: str
    n: int = Field(default=0, ge=0)

    @field_validator("x")
    @classmethod
    def _louder(cls, x: str) -> str:
        return x + "!"


@dataclass
class Counted:
    xs: list[int]
    total: int = 0

    def __post_init__(self) -> None:
        self.total += len(self.xs)


async def test_an_object_comes_back_as_it_was_saved_unless_validation_is_asked_for(
    new_checkpointer,
):
    checkpointer = new_checkpointer(types=(Loud, Counted))
    loud = Loud(x="a")
    saved = await checkpointer.save("t", loud)
    assert await checkpointer.restore(saved) == loud
    assert (await checkpointer.recover("t")).state.x == "a!"
    assert (await checkpointer.restore(saved, model=Loud)).x == "a!!"
    assert (await checkpointer.restore(saved, validate_schema=True)).x == "a!!"
    loud.n = -1
    saved = await checkpointer.save("t", loud)
    assert (await checkpointer.restore(saved)).n == -1
    for asked in ({"model": Loud}, {"validate_schema": True}):
        with pytest.raises(StateMismatchError) as mismatch:
            await checkpointer.restore(saved, **asked)
        assert mismatch.value.paths == ("$.n",)
    counted = {"counted": Counted([1, 2]), "loud": [loud]}
    assert await checkpointer.restore(await checkpointer.save("t", counted)) == counted


@pytest.mark.parametrize("leave", [dict, lambda data: data, lambda data: {**data}])
async def test_what_an_upcaster_leaves_as_it_was_comes_back_as_it_was_saved(
    new_checkpointer, leave
):
    checkpointer = new_checkpointer(types=(Loud, Counted), upcaster=leave)
    for state in (Loud(x="a"), Counted([1, 2]), {"deep": [Loud(x="a"), Counted([1])]}):
        assert await checkpointer.restore(await checkpointer.save("t", state)) == state


async def test_what_an_upcaster_changes_is_made_by_its_class(new_checkpointer):
    def upcaster(data):
        data["loud"]["n"] += step
        return data

    checkpointer = new_checkpointer(types=(Loud,), upcaster=upcaster)
    saved = await checkpointer.save("t", {"loud": Loud(x="a")})
    step = 1
    assert (await checkpointer.restore(saved))["loud"].x == "a!!"
    step = -1
    with pytest.raises(StateMismatchError) as mismatch:
        await checkpointer.restore(saved)
    assert mismatch.value.paths == ("$.loud.n",)


# -- old states ------------------------------------------------------------------------------------


async def test_an_upcaster_brings_old_states_up_to_date(checkpointer, new_checkpointer):
    seen = []

    def upcaster(data):
        seen.append(data)
        return {**data, "status": data.get("status") or data["state"]}

    old = await checkpointer.save("t", {"state": "new", "phase": "done"})
    model = await checkpointer.save("t", PLAN)
    up = new_checkpointer(upcaster=upcaster)
    assert await up.restore(old) == {"state": "new", "phase": "done", "status": "new"}
    assert seen == [{"state": "new", "phase": "done"}]
    assert await up.restore(model, model=Plan) == PLAN
    assert seen[1] == DATA
    rows = await up.get_history("t", include_state=True)
    assert rows[1].state["status"] == "new"
    assert (await up.recover("t")).state == DATA
    assert [s["status"] async for s in up.replay(old, model)] == ["new", "new"]


async def test_with_an_upcaster_a_model_of_the_allow_list_comes_back_as_one(new_checkpointer):
    old = create_model("Versioned", __module__=__name__, state=(str, ...))
    new = create_model("Versioned", __module__=__name__, status=(str, ...))
    saved = await new_checkpointer(types=(old,)).save("t", old(state="a"))
    up = new_checkpointer(types=(new,), upcaster=lambda data: {"status": data["state"]})
    assert await up.restore(saved) == new(status="a")
    with pytest.raises(StateMismatchError):
        await new_checkpointer(types=(new,), upcaster=lambda data: data).restore(saved)


async def test_what_an_upcaster_raises_is_the_callers_own(checkpointer, new_checkpointer):
    saved = await checkpointer.save("t", {"n": 1})

    def upcaster(data):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await new_checkpointer(upcaster=upcaster).restore(saved)


def release(**fields: object) -> type[BaseModel]:
    """A class of a program as one of its releases has it."""
    return create_model("Released", __module__=__name__, **fields)


OLD = release(name=(str, ...), age=(str, "x"))
NEW = release(title=(str, ...), age=(int, 0))


def renamed(data):
    """Brings the items of old states up to date: the first in its place, others by new ones."""
    for place, item in enumerate(data.get("items", ())):
        if "name" in item and place == 0:
            item["title"] = item.pop("name")
            item["age"] = 1
        elif "name" in item:
            data["items"][place] = {"title": item["name"]}
    return {**data, "seen": True}


async def test_what_has_drifted_inside_a_state_names_the_paths(new_checkpointer):
    saved = await new_checkpointer(types=(OLD,)).save("t", {"a": [1, OLD(name="x")], "b": 1})
    reader = new_checkpointer(types=(NEW,))
    for call in (
        reader.restore(saved),
        reader.restore(saved, validate_schema=True),
        reader.recover("t"),
        reader.get_history("t", include_state=True),
    ):
        with pytest.raises(StateMismatchError) as mismatch:
            await call
        assert set(mismatch.value.paths) == {"$.a[1].title", "$.a[1].age"}
    assert await new_checkpointer().restore(saved) == {"a": [1, {"name": "x", "age": "x"}], "b": 1}


async def test_an_upcaster_has_objects_as_data_and_what_it_leaves_are_objects_again(
    new_checkpointer,
):
    seen = []

    def upcaster(data):
        seen.append(type(data["step"]))
        assert data["pair"][0] == {"name": "in a pair", "cost": 0}
        return renamed(data)

    old = {
        "items": [OLD(name="a"), OLD(name="b")],
        "step": Step(name="s", cost=2),
        "pair": (Step(name="in a pair"), 5),
        "spot": Spot(1, Spot(2)),
        "phase": Phase.DONE,
        "marks": {Mark(1), Mark(2)},
        "by mark": {Mark(3): frozenset({Mark(4)})},
    }
    saved = await new_checkpointer(types=(OLD, Step, Spot, Phase, Mark)).save("t", old)
    up = new_checkpointer(types=(NEW, Step, Spot, Phase, Mark), upcaster=upcaster)
    assert await up.restore(saved) == {
        **old, "items": [NEW(title="a", age=1), {"title": "b"}], "seen": True,
    }  # fmt: skip
    assert issubclass(seen[0], dict)


async def test_with_an_upcaster_a_dataclass_of_the_allow_list_comes_back_as_one(new_checkpointer):
    saved = await new_checkpointer().save("t", Spot(1, Spot(2)))
    up = new_checkpointer(types=(Spot,), upcaster=lambda data: {**data, "x": 5})
    assert await up.restore(saved) == Spot(5, Spot(2))
    with pytest.raises(StateMismatchError) as mismatch:
        await new_checkpointer(types=(Spot,), upcaster=lambda data: {"y": 5}).restore(saved)
    assert mismatch.value.paths == ("$",)


async def test_what_is_compared_is_what_would_be_restored(new_checkpointer):
    writer = new_checkpointer(types=(OLD,))
    old = await writer.save("t", {"items": [OLD(name="a")]})
    new = await new_checkpointer(types=(NEW,)).save("t", {"items": [NEW(title="a")], "seen": True})
    up = new_checkpointer(types=(NEW,), upcaster=renamed)
    assert [change.path for change in (await up.compare(old, new)).changes] == ["$.items[0].age"]
    # Without one, what is stored is compared, whatever the classes are today.
    differing = {"$.items[0].name", "$.items[0].title", "$.items[0].age", "$.seen"}
    for reader in (new_checkpointer(types=(NEW,)), new_checkpointer()):
        changes = (await reader.compare(old, new)).changes
        assert {change.path for change in changes} == differing


# -- what is never done ----------------------------------------------------------------------------


async def test_a_class_that_is_not_allowed_is_neither_imported_nor_made(
    new_checkpointer, tmp_path, monkeypatch
):
    (tmp_path / "made_for_checkpoints.py").write_text(
        "from pydantic import BaseModel\nclass State(BaseModel):\n    n: int = 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import made_for_checkpoints  # noqa: PLC0415

    saved = await new_checkpointer().save("t", made_for_checkpoints.State())
    monkeypatch.delitem(sys.modules, "made_for_checkpoints")
    before = set(sys.modules)
    assert await new_checkpointer().restore(saved) == {"n": 1}
    assert set(sys.modules) - before == set()


async def test_only_classes_of_data_can_be_allowed(new_checkpointer):
    for cls in (dict, object, type(sys)):
        with pytest.raises(InvalidInputError):
            new_checkpointer(types=(cls,))


async def test_an_unknown_checkpoint_is_not_found(checkpointer, new_checkpointer):
    saved = await checkpointer.save("t", {"n": 1})
    for where in ({"thread_id": "u"}, {"thread_id": "t", "namespace": "sub"}):
        with pytest.raises(NotFoundError, match="of another namespace"):
            await new_checkpointer().restore(saved, **where)
    assert await new_checkpointer().restore(str(saved), thread_id="t") == {"n": 1}
