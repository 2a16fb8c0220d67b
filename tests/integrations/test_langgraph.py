"""What `HaiveSaver` keeps, beyond LangGraph's own suite."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from ipaddress import ip_address, ip_interface, ip_network
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME
from langgraph.store.base import Item
from langgraph.types import Command, Interrupt, Overwrite, Send, TimeoutPolicy
from pydantic import BaseModel, create_model

from haive.core.persistence.checkpointer import CheckpointConfig, Checkpointer
from haive.core.persistence.checkpointer._chains import Known
from haive.core.persistence.checkpointer._documents import Found
from haive.core.persistence.checkpointer._engine import Engine
from haive.core.persistence.errors import (
    AccessDeniedError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    StateError,
    StateMismatchError,
    SubjectErasedError,
)
from haive.core.persistence.integrations.langgraph import HaiveSaver
from haive.core.persistence.multitenancy import Subjects

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=ZoneInfo("Europe/Berlin"))


class Plan(BaseModel):
    goal: str
    steps: list[str] = []


@dataclass
class Note:
    text: str


class Mood(Enum):
    GOOD = "good"


def checkpoint(**values: object) -> Checkpoint:
    return {
        **empty_checkpoint(),
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, 1),
    }


def at(thread: str, checkpoint_id: object = None, namespace: str = "") -> dict:
    configurable = {"thread_id": thread, "checkpoint_ns": namespace}
    if checkpoint_id:
        configurable["checkpoint_id"] = str(checkpoint_id)
    return {"configurable": configurable}


async def put(saver: HaiveSaver, config: dict, metadata: dict | None = None, **values) -> dict:
    new = checkpoint(**values)
    return await saver.aput(config, new, metadata or {"source": "loop", "step": 0}, {})


def id_of(config: dict) -> str:
    return config["configurable"]["checkpoint_id"]


async def listed(saver: HaiveSaver, config: dict | None, **wanted) -> list:
    return [entry async for entry in saver.alist(config, **wanted)]


# -- what comes back -----------------------------------------------------------------------------

VALUES = [
    Send("node", {"a": [HumanMessage("hi", id="1")]}),
    Send("node", 1, timeout=TimeoutPolicy(run_timeout=timedelta(seconds=3))),
    Interrupt(value={"question": "sure?"}, id="abc"),
    Command(update={"a": 1}, goto=("b", Send("c", None)), resume="yes"),
    Overwrite(["x"]),
    Document(page_content="text", metadata={"source": "x"}),
    Item(value={"a": 1}, key="k", namespace=("a", "b"), created_at=NOW, updated_at=NOW),
    AIMessage(
        "",
        tool_calls=[{"name": "look", "args": {"for": "it"}, "id": "1", "type": "tool_call"}],
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    ),
    AIMessageChunk("par"),
    HumanMessage([{"type": "text", "text": "look"}], name="ada"),
    SystemMessage("be brief"),
    ToolMessage("found", tool_call_id="1", artifact={"raw": b"\x00\xff"}),
    RemoveMessage(id="7"),
    {"a", "b"},
    frozenset({1}),
    (1, (2, [3])),
    Decimal("1.10"),
    uuid4(),
    NOW,
    timezone(timedelta(hours=2)),
    ZoneInfo("Europe/Berlin"),
    [
        ip_address("10.0.0.1"),
        ip_address("::1"),
        ip_network("10.0.0.0/8"),
        ip_interface("10.1.1.1/8"),
    ],
    {1: "keys", (2, 3): "of all kinds"},
    1 << 80,
    b"bytes",
    None,
]


async def test_what_langgraph_stores_comes_back_as_what_it_was(open_saver) -> None:
    saver, other = await open_saver(), await open_saver()
    values = {f"channel-{number}": value for number, value in enumerate(VALUES)}
    config = await put(saver, at("types"), **values)
    await saver.aput_writes(config, list(values.items()), str(uuid4()))

    found = await other.aget_tuple(at("types"))

    assert found is not None
    assert found.checkpoint["channel_values"] == values
    assert {channel: value for _, channel, value in found.pending_writes} == values
    for name, value in values.items():
        assert type(found.checkpoint["channel_values"][name]) is type(value)


async def test_all_of_a_checkpoint_and_its_metadata_comes_back(open_saver) -> None:
    saver, other = await open_saver(), await open_saver()
    new: Checkpoint = {
        "v": 4,
        "id": "1f0b2a52-7d3e-6c11-8001-8f2b1a2c3d4e",
        "ts": "2026-01-02T03:04:05.678+00:00",
        "channel_values": {"a": 1, "branch:to:b": None},
        "channel_versions": {"a": 3, "__start__": 2, "branch:to:b": 3},
        "versions_seen": {"__input__": {}, "b": {"branch:to:b": 2}},
        "updated_channels": ["a"],
    }
    metadata = {
        "source": "loop",
        "step": 3,
        "parents": {"": "x"},
        "counters_since_delta_snapshot": {"a": (1, 2)},
        "when": NOW,
        "nested": {"nul": "\0"},
        "float": [1e22, 1e-9, -0.0, 0.1],
        "big": 1 << 70,
        "messages": [HumanMessage("hi", id="1")],
    }
    config = {
        "metadata": {"run_id": "run-1", "nul": "a\0b"},
        "configurable": {**at("all")["configurable"], "user_id": "ada", "__secret": "x"},
    }
    await saver.aput(config, new, metadata, {})

    found = await other.aget_tuple(at("all"))

    assert found.checkpoint == new
    assert found.metadata == {**metadata, "run_id": "run-1", "nul": "ab", "user_id": "ada"}
    assert str(found.metadata["float"]) == str(metadata["float"])
    assert type(found.metadata["counters_since_delta_snapshot"]["a"]) is tuple
    assert found.parent_config is None
    assert found.config == at("all", new["id"])


async def test_objects_of_other_classes_come_back_where_they_are_allowed(open_saver) -> None:
    saver = await open_saver()
    values = {"plan": Plan(goal="x", steps=["y"]), "note": Note("z"), "mood": Mood.GOOD}
    config = await put(saver, at("own"), **values)

    async def read(saver: HaiveSaver) -> dict:
        return (await saver.aget_tuple(config)).checkpoint["channel_values"]

    assert await read(saver) == {
        "plan": {"goal": "x", "steps": ["y"]},
        "note": {"text": "z"},
        "mood": "good",
    }
    assert await read(await open_saver(types=(Plan, Note, Mood))) == values
    names = {(__name__, cls.__name__) for cls in (Plan, Note, Mood)}
    assert (
        await read(saver.with_allowlist({*names, ("os", "system"), ("not.there", "X")})) == values
    )


async def test_what_cannot_be_stored_is_named_and_nothing_is_saved(saver: HaiveSaver) -> None:
    with pytest.raises(StateError) as caught:
        await put(saver, at("bad"), plan={"steps": [1, object()]})
    assert caught.value.path == "$.plan.steps[1]"
    config = await put(saver, at("bad"), plan=1)
    for channel, value, path in (
        ("plan", {"a": object()}, "$.plan.a"),
        ("a plan", object(), '$["a plan"]'),
    ):
        with pytest.raises(StateError) as caught:
            await saver.aput_writes(config, [("n", 1), (channel, value)], str(uuid4()))
        assert caught.value.path == path
        assert path in str(caught.value)
    assert (await saver.aget_tuple(config)).pending_writes == []


async def test_an_upcaster_brings_old_channels_up_to_date(open_saver) -> None:
    config = await put(await open_saver(), at("old"), name="ada")
    saver = await open_saver(upcaster=lambda state: {"names": [state["name"]]})
    found = await saver.aget_tuple(config)
    assert found.checkpoint["channel_values"] == {"names": ["ada"]}


async def test_an_upcaster_has_objects_as_data_but_those_of_langgraph(open_saver) -> None:
    """What it leaves as it was are objects again, in channels of today."""
    old = create_model("Kept", __module__=__name__, name=(str, ...))
    new = create_model("Kept", __module__=__name__, title=(str, ...))
    saver = await open_saver(types=(old, Note))
    values = {"kept": old(name="ada"), "note": Note("x"), "asked": [HumanMessage("Hi", id="1")]}
    config = await put(saver, at("old"), **values, due=[Send("n", Note("y"))])

    def upcaster(state):
        assert state["note"] == {"text": "x"}
        assert state["asked"] == values["asked"]
        state["kept"]["title"] = state["kept"].pop("name")
        return {**state, "added": 1}

    found = await (await open_saver(types=(new, Note), upcaster=upcaster)).aget_tuple(config)
    assert found.checkpoint["channel_values"] == {
        **values, "kept": new(title="ada"), "due": [Send("n", Note("y"))], "added": 1,
    }  # fmt: skip
    with pytest.raises(StateMismatchError) as mismatch:
        await (await open_saver(types=(new, Note))).aget_tuple(config)
    assert mismatch.value.paths == ("$.kept.title",)


async def test_an_upcaster_brings_old_writes_up_to_date(open_saver) -> None:
    """A run that waits for somebody is gone on with by newer code."""
    old = create_model("Wrote", __module__=__name__, name=(str, ...))
    new = create_model("Wrote", __module__=__name__, title=(str, ...))
    saver = await open_saver(types=(old, Note))
    config = await put(saver, at("waiting"), n=1)
    await saver.aput_writes(config, [("made", [old(name="a")]), ("note", Note("x"))], str(uuid4()))

    def upcaster(state):
        for item in state.get("made", ()):
            item["title"] = item.pop("name")
        return state

    found = await (await open_saver(types=(new, Note), upcaster=upcaster)).aget_tuple(config)
    values = {channel: value for _, channel, value in found.pending_writes}
    assert values == {"made": [new(title="a")], "note": Note("x")}
    with pytest.raises(StateMismatchError) as mismatch:
        await (await open_saver(types=(new, Note))).aget_tuple(config)
    assert mismatch.value.paths == ("$.made[0].title",)


async def test_large_states_that_are_listed_or_replayed_are_not_all_held_at_once(
    open_saver, monkeypatch
) -> None:
    saver = await open_saver(cache_bytes=1 << 27)
    config = at("large")
    for n in range(9):
        config = await put(saver, config, n=n, large="x" * (12 << 20))
    decoded: list[int] = []
    states = Engine.states

    async def noted(engine: Engine, found: Found) -> dict[UUID, Known]:
        known = await states(engine, found)
        decoded.append(sum(len(state.plain) for state in known.values()) >> 20)
        return known

    monkeypatch.setattr(Engine, "states", noted)
    numbers = [
        entry.checkpoint["channel_values"]["n"] for entry in await listed(saver, at("large"))
    ]
    assert numbers == list(range(8, -1, -1))
    assert decoded == [72, 36]
    decoded.clear()
    await saver.aget_delta_channel_history(config=config, channels=["none"])
    assert decoded == [72, 24]


# -- pending writes ------------------------------------------------------------------------------


async def test_writes_come_in_the_order_in_which_a_run_applies_them(saver: HaiveSaver) -> None:
    config = await put(saver, at("order"))
    tasks = sorted(str(uuid4()) for _ in range(3))
    await saver.aput_writes(config, [("a", 1), ("b", 2)], tasks[0], "~~2")
    await saver.aput_writes(config, [("a", 3)], tasks[2], "B")
    await saver.aput_writes(config, [("a", 4)], tasks[1], "a")
    await saver.aput_writes(config, [("a", 5)], tasks[1])
    found = await saver.aget_tuple(config)
    # The fifth is the first write of its task once more.
    assert [value for _, _, value in found.pending_writes] == [3, 4, 1, 2]


async def test_the_last_error_and_interrupt_count_and_the_first_of_other_writes(
    saver: HaiveSaver,
) -> None:
    config = await put(saver, at("again"))
    task = str(uuid4())
    await saver.aput_writes(config, [("a", 1), (INTERRUPT, "first"), (INTERRUPT, "second")], task)
    await saver.aput_writes(
        config, [("a", 2), (INTERRUPT, "third"), (ERROR, ValueError("no"))], task
    )
    await saver.aput_writes(config, [(RESUME, ["yes"])], task)
    found = await saver.aget_tuple(config)
    assert sorted(write[1:] for write in found.pending_writes) == sorted([
        ("a", 1),
        (INTERRUPT, "third"),
        (ERROR, "ValueError('no')"),
        (RESUME, ["yes"]),
    ])  # fmt: skip


async def test_writes_may_come_before_the_checkpoint_that_they_follow(saver: HaiveSaver) -> None:
    new = checkpoint(a=1)
    await saver.aput_writes(at("early", new["id"]), [("a", 2)], str(uuid4()))
    assert await saver.aget_tuple(at("early")) is None
    await saver.aput(at("early"), new, {}, {})
    assert [w[2] for w in (await saver.aget_tuple(at("early"))).pending_writes] == [2]


# -- the line of checkpoints ---------------------------------------------------------------------


async def test_each_operation_is_one_round_trip(open_saver, round_trips) -> None:
    saver = await open_saver()
    config = await put(saver, at("trips"), a=0)
    counted = round_trips(saver)
    for step in range(3):
        config = await put(saver, config, a=step)
    assert counted == {"save_checkpoint": 3}
    await saver.aput_writes(config, [("a", 1), ("b", 2)], str(uuid4()))
    assert counted == {"save_checkpoint": 3, "put_checkpoint_writes": 1}
    counted.clear()
    await saver.aget_tuple(config)
    await saver.aget_tuple(at("trips"))
    await saver.aget_delta_channel_history(config=config, channels=["c"])
    assert counted == {"find_checkpoints": 3}
    await saver.aget_delta_channel_history(config=config, channels=[])
    await saver.aput_writes(config, [], str(uuid4()))
    assert counted == {"find_checkpoints": 3}

    cold = await open_saver()
    await cold._graphs.engine.sealer()
    counted = round_trips(cold)
    await cold.aget_tuple(config)
    await put(cold, config, a=9)
    assert counted == {"find_checkpoints": 1, "save_checkpoint": 1}


async def test_after_an_older_checkpoint_a_branch_begins_by_itself(
    open_saver, open_store, key
) -> None:
    saver = await open_saver()
    first = await put(saver, at("fork"), a=1)
    second = await put(saver, first, a=2)
    fork = await put(await open_saver(), first, a=3)
    assert id_of(await _latest(saver, "fork")) == id_of(fork)
    onward = await put(saver, fork, a=4)
    again = await put(saver, second, a=5)

    reader = Checkpointer(await open_store(), CheckpointConfig(encryption_key=key))
    branches = {branch.name: branch for branch in await reader.list_branches("fork")}
    name = f"fork-{id_of(fork)[-12:]}"
    assert branches.keys() == {"main", name}
    assert str(branches["main"].head_id) == id_of(again)
    assert str(branches[name].head_id) == id_of(onward)
    assert str(branches[name].root_id) == id_of(first)
    assert (await saver.aget_tuple(fork)).parent_config == first


async def _latest(saver: HaiveSaver, thread: str) -> dict:
    return (await saver.aget_tuple(at(thread))).config


async def test_two_first_checkpoints_are_two_lines(saver: HaiveSaver) -> None:
    first = await put(saver, at("twice"), a=1)
    second = await put(saver, at("twice"), a=2)
    assert [entry.config for entry in await listed(saver, at("twice"))] == [second, first]
    assert (await saver.aget_tuple(second)).parent_config is None


async def test_many_runs_at_once_lose_nothing(open_saver) -> None:
    savers = [await open_saver() for _ in range(3)]
    root = await put(savers[0], at("race"), a=[])

    async def run(number: int) -> list[str]:
        config, ids = root, []
        for step in range(4):
            config = await put(savers[number % 3], config, a=[number] * (step + 1))
            ids.append(id_of(config))
        return ids

    runs = await asyncio.gather(*(run(number) for number in range(6)))

    reader = await open_saver()
    entries = {id_of(e.config): e for e in await listed(reader, at("race"))}
    assert len(entries) == 25
    for number, ids in enumerate(runs):
        parent = id_of(root)
        for step, checkpoint_id in enumerate(ids):
            entry = entries[checkpoint_id]
            assert entry.checkpoint["channel_values"] == {"a": [number] * (step + 1)}
            assert id_of(entry.parent_config) == parent
            parent = checkpoint_id


async def test_the_same_checkpoint_twice_is_one_and_another_of_its_id_is_refused(
    open_saver,
) -> None:
    saver, other = await open_saver(), await open_saver()
    root = await put(saver, at("same"), a=0)
    new = checkpoint(a=1)
    await saver.aput(root, new, {"step": 1}, {})
    await saver.aput(root, new, {"step": 1}, {})
    await other.aput(root, new, {"step": 2}, {})
    entries = await listed(saver, at("same"))
    assert [entry.metadata["step"] for entry in entries] == [1, 0]
    with pytest.raises(ConflictError, match="another checkpoint of the id"):
        await other.aput(at("same"), new, {"step": 1}, {})
    with pytest.raises(ConflictError, match="another checkpoint of the id"):
        await saver.aput(root, {**new, "channel_values": {"a": 2}}, {"step": 1}, {})


async def test_a_run_goes_on_when_its_parent_is_gone(
    open_saver, caplog: pytest.LogCaptureFixture
) -> None:
    saver, other = await open_saver(), await open_saver()
    config = await put(saver, at("gone"), a=1)
    config = await put(saver, config, a=2)
    await other.adelete_thread("gone")
    with caplog.at_level(logging.WARNING):
        config = await put(saver, config, a=3)
    assert "does not have" in caplog.text
    config = await put(saver, config, a=4)
    entries = await listed(other, at("gone"))
    assert [entry.checkpoint["channel_values"]["a"] for entry in entries] == [4, 3]
    assert entries[1].parent_config is None


async def test_what_a_config_lacks_is_told(saver: HaiveSaver) -> None:
    with pytest.raises(InvalidInputError, match="names no thread"):
        await saver.aget_tuple({"configurable": {}})
    with pytest.raises(InvalidInputError, match="checkpoint_id is no UUID"):
        await saver.aget_tuple(at("x", "nonsense"))
    with pytest.raises(InvalidInputError, match="no checkpoint that the writes follow"):
        await saver.aput_writes(at("x"), [("a", 1)], str(uuid4()))
    with pytest.raises(InvalidInputError, match="task_id is no UUID"):
        await saver.aput_writes(at("x", uuid4()), [("a", 1)], "task")
    with pytest.raises(InvalidInputError, match="list of runs"):
        await saver.adelete_for_runs("run-1")


def of(user: object, thread: str, checkpoint_id: object = None, namespace: str = "") -> dict:
    config = at(thread, checkpoint_id, namespace)
    config["configurable"]["user_id"] = user
    return config


async def test_a_thread_is_the_users_that_the_config_names(saver: HaiveSaver, open_store) -> None:
    checkpointer = Checkpointer(await open_store())
    key = UUID("0197f3a2-0000-7000-8000-000000000000")
    for user, expected in (("ada", "ada"), (7, "7"), (key, str(key)), (None, None)):
        await put(saver, of(user, f"of {user}"), n=1)
        assert (await checkpointer.get_thread(f"of {user}")).user_id == expected


@pytest.mark.parametrize("user", [True, {}, 1.5, "", "x" * 201], ids=range(5))
async def test_a_user_who_cannot_be_one_is_refused(saver: HaiveSaver, user: object) -> None:
    config = of(user, "nobody's")
    with pytest.raises(InvalidInputError, match="user_id"):
        await put(saver, config, n=1)
    with pytest.raises(InvalidInputError, match="user_id"):
        await saver.aget_tuple(config)
    with pytest.raises(InvalidInputError, match="user_id"):
        await listed(saver, config)


async def test_another_users_thread_is_not_read(open_saver, round_trips) -> None:
    saver = await open_saver()
    saved = await put(saver, of("ada", "diary"), n=1)
    await put(saver, of("ada", "diary", namespace="sub"), n=1)
    last = id_of(saved)
    for one in (saver, await open_saver()):
        for config in (
            of("mallory", "diary"),
            of("mallory", "diary", last),
            of("mallory", "diary", namespace="sub"),
            of("mallory", "diary", namespace="not there"),
        ):
            with pytest.raises(AccessDeniedError, match="another user"):
                await one.aget_tuple(config)
            with pytest.raises(AccessDeniedError, match="another user"):
                await listed(one, config)
            with pytest.raises(AccessDeniedError, match="another user"):
                await one.aget_delta_channel_history(config=config, channels=["n"])
    counted = round_trips(saver)
    assert (await saver.aget_tuple(of("ada", "diary"))).checkpoint["channel_values"] == {"n": 1}
    assert counted == {"find_checkpoints": 1}


async def test_lists_of_all_threads_are_those_of_the_user(saver: HaiveSaver) -> None:
    await put(saver, of("ada", "hers"), n=1)
    await put(saver, of("mallory", "his"), n=1)
    await put(saver, at("nobody's"), n=1)

    async def threads(config: dict | None) -> list[str]:
        return [
            entry.config["configurable"]["thread_id"]
            for entry in await listed(saver, config, filter={"step": 0})
        ]

    assert await threads({"configurable": {"user_id": "ada"}}) == ["hers"]
    assert await threads(None) == ["nobody's", "his", "hers"]


async def test_a_thread_begun_for_nobody_becomes_the_users_who_goes_on(
    saver: HaiveSaver, open_store
) -> None:
    checkpointer = Checkpointer(await open_store())
    saved = await put(saver, at("later"), n=1)
    await put(saver, at("later", namespace="sub"), n=1)
    assert await saver.aget_tuple(of("ada", "later")) is not None
    assert (await checkpointer.get_thread("later")).user_id is None
    await put(saver, of("ada", "later", id_of(saved)), n=2)
    assert (await checkpointer.get_thread("later")).user_id == "ada"
    for namespace in ("", "sub"):
        with pytest.raises(AccessDeniedError, match="another user"):
            await put(saver, of("mallory", "later", namespace=namespace), n=3)
    await put(saver, at("later"), n=4)  # a service that names nobody goes on in any thread


async def test_no_thread_becomes_that_of_one_who_was_erased(saver: HaiveSaver) -> None:
    await put(saver, of("ada", "hers"), n=1)
    await put(saver, at("later"), n=1)
    await Subjects(saver._graphs.engine.store).erase("ada")
    with pytest.raises(SubjectErasedError):
        await put(saver, of("ada", "later"), n=2)


# -- lists ---------------------------------------------------------------------------------------


async def test_lists_are_filtered_by_metadata_as_python_compares_it(saver: HaiveSaver) -> None:
    config = at("filter")
    for step in range(4):
        metadata = {"step": step, "tags": ["a"] * step, "even": step % 2 == 0, "parents": {}}
        config = await put(saver, config, {**metadata, **({"user": "x"} if step else {})})

    async def steps(limit: int | None = None, **wanted: object) -> list[int]:
        entries = await listed(saver, at("filter"), filter=wanted, limit=limit)
        return [entry.metadata["step"] for entry in entries]

    assert await steps() == [3, 2, 1, 0]
    assert await steps(even=True) == [2, 0]
    assert await steps(even=True, limit=1) == [2]
    assert await steps(tags=["a"]) == [1]
    assert await steps(user=None) == [0]
    assert await steps(parents={}) == [3, 2, 1, 0]
    assert await steps(step=2.0) == [2]
    assert await steps(limit=0) == []
    assert await steps(step=1, user="y") == []


async def test_without_a_thread_all_of_the_tenant_are_listed(open_saver) -> None:
    saver, other = await open_saver(), await open_saver()
    configs = [
        await put(saver, at("t1"), a=1),
        await put(saver, at("t1", namespace="child:1"), a=2),
        await put(saver, at("t2"), a=3),
    ]
    await saver.aput_writes(configs[1], [("a", 4)], str(uuid4()))
    await saver.acopy_thread("t1", "t3")
    entries = await listed(other, None)
    assert len(entries) == 5
    assert [entry.config for entry in entries[2:]] == configs[::-1]
    both = [e for e in entries if e.config["configurable"]["checkpoint_ns"]]
    assert [[w[2] for w in e.pending_writes] for e in both] == [[4], [4]]
    of_thread = await listed(other, {"configurable": {"thread_id": "t1"}})
    assert [entry.config for entry in of_thread] == [configs[1], configs[0]]
    assert await listed(other, at("t1"), limit=1, filter={"source": "x"}) == []


async def test_before_may_be_a_checkpoint_of_another_namespace(saver: HaiveSaver) -> None:
    inner = await put(saver, at("ns", namespace="sub"), a=1)
    outer = await put(saver, at("ns"), a=2)
    await put(saver, inner, a=3)
    entries = await listed(saver, at("ns", namespace="sub"), before=at("ns", id_of(outer)))
    assert [entry.config for entry in entries] == [inner]


async def test_two_hundred_are_listed_in_four_round_trips(saver: HaiveSaver, round_trips) -> None:
    config = at("long")
    for step in range(200):
        config = await put(saver, config, {"step": step}, a=list(range(step)))
    counted = round_trips(saver)
    entries = await listed(saver, at("long"))
    assert [len(entry.checkpoint["channel_values"]["a"]) for entry in entries] == [
        *range(199, -1, -1)
    ]
    assert counted == {"find_checkpoints": 4}


# -- removing and copying ------------------------------------------------------------------------


async def test_what_stays_when_a_run_is_deleted_is_stored_anew(open_saver) -> None:
    saver = await open_saver()
    config, configs = at("runs"), []
    for step in range(12):
        config = await put(saver, config, {"run_id": f"run-{step // 4}"}, a=list(range(step * 50)))
        configs.append(config)
    fork = await put(saver, configs[5], {"run_id": "run-1"}, a="fork")
    await saver.adelete_for_runs(["run-1", "run-7"])
    for reader in (saver, await open_saver()):
        entries = await listed(reader, at("runs"))
        steps = [len(entry.checkpoint["channel_values"]["a"]) // 50 for entry in entries]
        assert steps == [11, 10, 9, 8, 3, 2, 1, 0]
        assert entries[3].parent_config == configs[3]
        assert await reader.aget_tuple(fork) is None
    # The head of main was not its last one once; now it is deleted, too.
    await saver.adelete_for_runs(["run-2"])
    assert await _latest(saver, "runs") == configs[3]
    onward = await put(saver, configs[3], a="on")
    assert (await saver.aget_tuple(onward)).parent_config == configs[3]
    await saver.adelete_for_runs(["run-0"])
    assert (await saver.aget_tuple(onward)).parent_config is None


async def test_pruning_does_not_need_the_classes_of_a_state(open_saver) -> None:
    old = create_model("Gone", __module__=__name__, name=(str, ...))
    new = create_model("Gone", __module__=__name__, title=(str, ...))
    saver, config = await open_saver(types=(old,)), at("classes")
    for step in range(3):
        replayed = {"counters_since_delta_snapshot": {"log": step}}
        config = await put(saver, config, {"step": step, **replayed}, gone=old(name=str(step)))
    await (await open_saver(types=(new,))).aprune(["classes"])
    (left,) = [found async for found in saver.alist(at("classes"))]
    assert left.checkpoint["channel_values"] == {"gone": old(name="2")}


async def test_pruning_leaves_the_last_one_of_each_namespace(open_saver, open_store, key) -> None:
    saver = await open_saver()
    first = await put(saver, at("prune"), a=1)
    await put(saver, first, a=2)
    fork = await put(saver, first, a=[3] * 1000)
    inner = await put(saver, at("prune", namespace="sub:1"), a=4)
    await saver.aprune(["prune", "not-there"])
    assert {
        id_of(e.config) for e in await listed(saver, {"configurable": {"thread_id": "prune"}})
    } == {
        id_of(fork),
        id_of(inner),
    }
    reader = Checkpointer(await open_store(), CheckpointConfig(encryption_key=key))
    branches = {b.name: b.head_id for b in await reader.list_branches("prune")}
    assert branches == {"main": None, f"fork-{id_of(fork)[-12:]}": UUID(id_of(fork))}
    onward = await put(saver, fork, a=5)
    assert (await (await open_saver()).aget_tuple(onward)).parent_config == fork
    with pytest.raises(InvalidInputError, match="keep_latest and delete"):
        await saver.aprune(["prune"], strategy="keep_some")
    with pytest.raises(InvalidInputError, match="no text"):
        await saver.aprune("prune")


async def test_a_copy_goes_its_own_way(open_saver) -> None:
    saver = await open_saver()
    config = await put(saver, at("source"), a=1)
    await put(saver, config, a=2)
    await saver.acopy_thread("source", "target")
    await put(saver, at("target", id_of(config)), a=3)
    values = [
        [e.checkpoint["channel_values"]["a"] for e in await listed(saver, at(thread))]
        for thread in ("source", "target")
    ]
    assert values == [[2, 1], [3, 2, 1]]
    with pytest.raises(NotFoundError):
        await saver.acopy_thread("not-there", "x")
    with pytest.raises(ConflictError):
        await saver.acopy_thread("source", "target")


async def test_a_thread_stays_within_its_bound(open_saver) -> None:
    saver = await open_saver(max_checkpoints_per_thread=10)
    config = at("bound")
    for step in range(25):
        config = await put(saver, config, a=step)
    entries = await listed(saver, at("bound"))
    assert 9 <= len(entries) <= 10
    assert entries[0].checkpoint["channel_values"] == {"a": 24}


def test_versions_rise_in_the_form_that_they_have() -> None:
    saver = HaiveSaver.__new__(HaiveSaver)
    assert saver.get_next_version(None, None) == 1
    assert saver.get_next_version(7, None) == 8
    text = f"{9:032}.0123456789"
    following = saver.get_next_version(text, None)
    assert following > text
    assert following.startswith(f"{10:032}.")
