"""Real graphs over `HaiveSaver`: interrupted, resumed, branched, pruned."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from datetime import timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence._encoding import new_id
from haive.core.persistence.checkpointer import CheckpointConfig, Checkpointer, KeyRing
from haive.core.persistence.errors import InvalidInputError, PersistenceError
from haive.core.persistence.integrations._bridge import Bridge
from haive.core.persistence.integrations.langgraph import HaiveSaver

_SPEC = spec_from_file_location("graphs", Path(__file__).with_name("graphs.py"))
graphs: Any = module_from_spec(_SPEC)
sys.modules["graphs"] = graphs
_SPEC.loader.exec_module(graphs)


def at(thread: str, **more: object) -> dict:
    return {"configurable": {"thread_id": thread, **more}, "recursion_limit": 1000}


ASK = {"messages": [HumanMessage("Refund both.", id="h")], "status": "new"}


@pytest.fixture
async def reader(open_store, key) -> Checkpointer:
    return Checkpointer(await open_store(), CheckpointConfig(encryption_key=key))


async def test_an_interrupted_tool_loop_goes_on_in_another_saver(open_saver) -> None:
    asked = await graphs.refunds().compile(checkpointer=await open_saver()).ainvoke(ASK, at("loop"))
    (question,) = asked["__interrupt__"]
    assert question.value == {"tool": "refund", "args": {"order": 0}}
    other = graphs.refunds().compile(checkpointer=await open_saver())
    asked = await other.ainvoke(Command(resume=True), at("loop"))
    assert asked["__interrupt__"][0].value["args"] == {"order": 1}
    done = (
        await graphs.refunds()
        .compile(checkpointer=await open_saver())
        .ainvoke(Command(resume=False), at("loop"))
    )
    assert done["status"] == "done"
    answers = [m.content for m in done["messages"] if isinstance(m, ToolMessage)]
    assert answers == ["allowed: True", "allowed: False"]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("name", ["steps", "fan_out", "replayed", "nested"])
@pytest.mark.parametrize("key", ["plain"], indirect=True)
@pytest.mark.parametrize("transport", ["postgres"], indirect=True)
async def test_a_graph_does_what_it_does_in_memory(open_saver, name: str, durability: str) -> None:
    async def run(savers: list) -> tuple:
        first, second = (getattr(graphs, name)().compile(checkpointer=saver) for saver in savers)
        await first.ainvoke({"log": [], "until": 12}, at(name), durability=durability)
        if name == "nested":
            await second.ainvoke(Command(resume=3), at(name), durability=durability)
        await second.ainvoke({"log": ["more"], "until": 16}, at(name), durability=durability)
        if name == "nested":
            await first.ainvoke(Command(resume=4), at(name), durability=durability)
        state = await second.aget_state(at(name))
        history = [s async for s in second.aget_state_history(at(name))]
        return state.values, state.next, [(s.values, s.next, s.metadata) for s in history]

    memory = InMemorySaver()
    expected = await run([memory, memory])
    found = await run([await open_saver(), await open_saver()])
    assert found[:2] == expected[:2]
    assert [entry[:2] for entry in found[2]] == [entry[:2] for entry in expected[2]]


async def test_what_a_graph_saved_is_restored_compared_and_branched(
    open_saver, reader: Checkpointer
) -> None:
    saver = await open_saver()
    graph = graphs.refunds().compile(checkpointer=saver)
    await graph.ainvoke(ASK, at("read"))
    for answer in (True, False):
        await graph.ainvoke(Command(resume=answer), at("read"))

    history = await reader.get_history("read")
    assert [c.metadata["step"] for c in history] == list(range(len(history) - 2, -2, -1))
    assert {c.branch for c in history} == {"main"}
    assert all(c.encrypted == (reader.config.encryption_key is not None) for c in history)
    restored = await reader.restore(history[0].id)
    values = (await graph.aget_state(at("read"))).values
    assert {key: restored[key] for key in values} == values
    found = await reader.find_checkpoint("read", with_state_matching={"status": "done"})
    assert found.id == history[0].id
    difference = await reader.compare(history[1].id, history[0].id)
    assert "$.status" in {change.path for change in difference.changes}

    await reader.create_branch(history[3].id, "what-if")
    state = await reader.restore(history[3].id)
    saved = await reader.save("read", {**state, "status": "stopped"}, branch="what-if")
    stopped = await graph.aget_state(at("read"))
    assert stopped.config["configurable"]["checkpoint_id"] == str(saved)
    assert stopped.values["status"] == "stopped"
    assert stopped.values["messages"] == state["messages"]
    onward = await graph.ainvoke({"messages": [HumanMessage("Go on.")]}, at("read"))
    assert len(onward["messages"]) > len(state["messages"])
    assert {c.branch for c in await reader.get_history("read", branch="what-if")} == {
        "main",
        "what-if",
    }


async def test_a_run_from_an_older_checkpoint_is_a_branch(open_saver, reader: Checkpointer) -> None:
    graph = graphs.steps().compile(checkpointer=await open_saver())
    await graph.ainvoke({"log": [], "until": 4}, at("travel"))
    history = [s async for s in graph.aget_state_history(at("travel"))]
    older = next(s for s in history if len(s.values.get("log", ())) == 2)
    config = await graph.aupdate_state(older.config, {"log": ["mine"]})
    again = await graph.ainvoke(None, config)
    assert [line[:6] for line in again["log"]] == ["line 0", "line 1", "mine", "line 3"]
    replay = await graph.ainvoke(None, older.config)
    assert [line[:6] for line in replay["log"]] == ["line 0", "line 1", "line 2", "line 3"]
    branches = await reader.list_branches("travel")
    assert len(branches) == 3
    assert (await graph.aget_state(at("travel"))).values == replay


def read_together(savers: list[HaiveSaver]) -> None:
    """Let none go on from its first read before all have read: they begin from the same state."""
    everybody = asyncio.Barrier(len(savers))

    def patch(saver: HaiveSaver) -> None:
        read = saver.aget_tuple

        async def read_once_together(config: Any) -> Any:
            found = await read(config)
            saver.aget_tuple = read  # type: ignore[method-assign]
            await everybody.wait()
            return found

        saver.aget_tuple = read_once_together  # type: ignore[method-assign]

    for saver in savers:
        patch(saver)


async def test_runs_from_the_same_state_all_end(open_saver, reader: Checkpointer) -> None:
    savers = [await open_saver() for _ in range(3)]
    runs = [graphs.steps().compile(checkpointer=saver) for saver in savers]
    await runs[0].ainvoke({"log": [], "until": 1}, at("both"))
    read_together(savers)
    ends = await asyncio.gather(
        *(run.ainvoke({"log": [f"run {n}"], "until": 12}, at("both")) for n, run in enumerate(runs))
    )
    assert [len(end["log"]) for end in ends] == [12, 12, 12]
    assert sorted(end["log"][1] for end in ends) == ["run 0", "run 1", "run 2"]
    kept = [
        (await reader.restore(branch.head_id))["log"]
        for branch in await reader.list_branches("both")
    ]
    assert sorted(kept) == sorted(end["log"] for end in ends)


async def test_subgraphs_are_replayed_from_where_they_were(open_saver) -> None:
    async def travel(saver: Any) -> list:
        graph = graphs.nested().compile(checkpointer=saver)
        await graph.ainvoke({"log": [], "until": 0}, at("sub"))
        asked = await graph.aget_state(at("sub"), subgraphs=True)
        first = await graph.ainvoke(Command(resume=1), at("sub"))
        again = await graph.ainvoke(None, asked.config)
        second = await graph.ainvoke(Command(resume=2), at("sub"))
        return [asked.tasks[0].state.values, first, again.get("log"), second]

    assert await travel(await open_saver()) == await travel(InMemorySaver())


async def namespaces(reader: Checkpointer, thread: str) -> list[str]:
    """Those of a thread, with the ids of tasks left out."""
    every = (await reader.get_thread(thread)).namespaces
    return sorted(re.sub(r":[^|]+", ":", namespace) for namespace in every)


async def test_pruning_takes_calls_of_subgraphs_with_what_they_were_made_from(
    open_saver, reader: Checkpointer
) -> None:
    saver = await open_saver()
    graph = graphs.calling().compile(checkpointer=saver)
    for number in range(3):
        await graph.ainvoke({"log": [str(number)], "until": 0}, at("calls"))
    calls = ["sub:", "sub:|deep:"]
    assert await namespaces(reader, "calls") == ["", "memory", *["sub:"] * 3, *["sub:|deep:"] * 3]
    before = await graph.aget_state(at("calls"), subgraphs=True)
    await saver.aprune(["calls"])
    assert await namespaces(reader, "calls") == ["", "memory"]
    assert (await graph.aget_state(at("calls"), subgraphs=True)).values == before.values
    await graph.ainvoke({"log": ["on"], "until": 0}, at("calls"))
    assert await namespaces(reader, "calls") == ["", "memory", *calls]


async def test_a_call_that_waits_outlives_a_prune(open_saver, reader: Checkpointer) -> None:
    saver = await open_saver()
    graph = graphs.nested().compile(checkpointer=saver)
    for number in range(2):
        await graph.ainvoke({"log": [], "until": 0}, at("waits"))
        if number == 0:
            await graph.ainvoke(Command(resume=1), at("waits"))
    await saver.aprune(["waits"])
    assert await namespaces(reader, "waits") == ["", "sub:"]
    end = await graph.ainvoke(Command(resume=2), at("waits"))
    assert end["log"][-1] == "asked: 2"


async def test_a_call_that_was_spared_goes_at_a_later_prune_of_a_thread_at_rest(
    open_saver, open_store, key, reader: Checkpointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graphs.nested().compile(checkpointer=await open_saver())
    await graph.ainvoke({"log": [], "until": 0}, at("given up"))
    for number in range(3):
        await reader.save("given up", {"log": [f"other {number}"], "until": 0})
    config = CheckpointConfig(max_checkpoints_per_thread=2, keep_minimum=1, encryption_key=key)
    bounded = Checkpointer(await open_store(), config)
    await bounded.prune("given up")
    assert await namespaces(reader, "given up") == ["", "sub:"]
    monkeypatch.setattr("haive.core.persistence.checkpointer._calls._RUN", timedelta())
    assert (await bounded.prune("given up")).removed
    assert await namespaces(reader, "given up") == [""]


async def test_a_call_that_waits_outlives_what_another_run_prunes_before_its_own_has_saved(
    open_saver, reader: Checkpointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = await open_saver()
    asked, pruned = asyncio.Event(), asyncio.Event()
    put_writes = saver.aput_writes

    async def telling(config: Any, *given: Any) -> None:
        await put_writes(config, *given)
        if config["configurable"]["checkpoint_ns"]:
            asked.set()

    async def working(_: Any) -> dict:
        await pruned.wait()
        return {"log": ["worked"]}

    monkeypatch.setattr(saver, "aput_writes", telling)
    nested = graphs.nested()
    nested.add_node("beside", working)
    nested.add_edge("before", "beside")
    graph = nested.compile(checkpointer=saver)
    begun = graph.ainvoke({"log": [], "until": 0}, at("exit"), durability="exit")
    run = asyncio.create_task(begun)
    await asyncio.wait_for(asked.wait(), 20)
    for number in range(2):
        await reader.save("exit", {"log": [f"other {number}"], "until": 0})
    await saver.aprune(["exit"])
    assert await namespaces(reader, "exit") == ["", "sub:"]
    pruned.set()
    await run
    end = await graph.ainvoke(Command(resume=2), at("exit"))
    assert {"asked: 2", "worked"} <= set(end["log"])


async def test_the_bound_of_a_thread_bounds_calls_of_subgraphs(
    open_saver, reader: Checkpointer
) -> None:
    saver = await open_saver(max_checkpoints_per_thread=4, keep_minimum=1)
    graph = graphs.calling().compile(checkpointer=saver)
    for number in range(8):
        await graph.ainvoke({"log": [str(number)], "until": 0}, at("bounded"))
    assert (await namespaces(reader, "bounded")).count("sub:") <= 2


async def test_a_save_removes_a_few_lost_calls_and_the_next_ones_the_rest(
    open_saver, reader: Checkpointer, round_trips
) -> None:
    saver = await open_saver(max_checkpoints_per_thread=2, keep_minimum=1)
    first = await reader.save("few", {"n": 0})
    for number in range(12):
        made_from = {"parents": {"": str(first)}}
        await reader.save("few", {}, namespace=f"sub:{number}", metadata=made_from)
    counted = round_trips(saver)
    left = []
    for number in range(1, 6):
        counted.clear()
        await saver._graphs._checkpointer.save("few", {"n": number})
        left.append(len(await namespaces(reader, "few")) - 1)
        assert counted["rewrite_checkpoints"] <= 1 + 8
    assert left == [12, 4, 0, 0, 0]


async def test_a_call_is_lost_by_when_it_was_saved_whatever_the_ids_are(
    open_saver, reader: Checkpointer
) -> None:
    saver = await open_saver()
    graph = graphs.calling().compile(checkpointer=saver)
    end = await graph.ainvoke({"log": [], "until": 0}, at("ids"))
    # Of another version, in the same namespace: they sort before those of LangGraph.
    await reader.save("ids", end)
    coming = {"parents": {"": str(new_id())}}
    await reader.save("ids", {}, namespace="sub:coming", metadata=coming)
    await saver.aprune(["ids"])
    assert set((await reader.get_thread("ids")).namespaces) == {"", "memory", "sub:coming"}


async def test_a_call_that_no_key_opens_stays_and_stops_no_prune(
    open_saver, open_store, reader: Checkpointer
) -> None:
    saver = await open_saver()
    graph = graphs.calling().compile(checkpointer=saver)
    await graph.ainvoke({"log": [], "until": 0}, at("keys"))
    others = CheckpointConfig(encryption_key=KeyRing.generate())
    await Checkpointer(await open_store(), others).save("keys", {}, namespace="sub:theirs")
    await graph.ainvoke({"log": ["on"], "until": 0}, at("keys"))
    await saver.aprune(["keys"])
    assert set((await reader.get_thread("keys")).namespaces) == {"", "memory", "sub:theirs"}


async def test_a_prune_without_calls_of_subgraphs_reads_no_more_than_their_names(
    open_saver, round_trips
) -> None:
    graph = graphs.steps().compile(checkpointer=await open_saver())
    await graph.ainvoke({"log": [], "until": 8}, at("trips"))
    saver = await open_saver(max_checkpoints_per_thread=4, keep_minimum=1)
    counted = round_trips(saver)
    assert (await saver._graphs._checkpointer.prune("trips")).removed == 6
    assert counted["list_threads"] == 2
    assert counted["find_checkpoints"] == 2  # those of the thread, and the one that lost its parent
    counted.clear()
    await graphs.steps().compile(checkpointer=saver).ainvoke({"log": [], "until": 12}, at("trips"))
    assert counted["list_threads"] == counted["rewrite_checkpoints"] > 0


# -- channels that are replayed ------------------------------------------------------------------


async def test_pruning_spares_what_a_channel_is_replayed_from(open_saver) -> None:
    graph = graphs.replayed().compile(checkpointer=await open_saver())
    end = await graph.ainvoke({"log": [], "until": 25}, at("replayed"))
    before = [s async for s in graph.aget_state_history(at("replayed"))]
    await (await open_saver()).aprune(["replayed"])
    other = graphs.replayed().compile(checkpointer=await open_saver())
    assert (await other.aget_state(at("replayed"))).values == end
    after = [s async for s in other.aget_state_history(at("replayed"))]
    assert 1 < len(after) < 10 < len(before)
    onward = await other.ainvoke({"log": ["more"], "until": 30}, at("replayed"))
    assert onward["log"] == [*end["log"], "more", *(f"line {n}" for n in range(26, 30))]


async def test_retention_spares_it_too(open_saver, open_store, key) -> None:
    graph = graphs.replayed().compile(checkpointer=await open_saver())
    end = await graph.ainvoke({"log": [], "until": 25}, at("kept"))
    config = CheckpointConfig(encryption_key=key, max_checkpoints_per_thread=2)
    assert (await Checkpointer(await open_store(), config).prune("kept")).removed > 10
    other = graphs.replayed().compile(checkpointer=await open_saver())
    assert (await other.aget_state(at("kept"))).values == end


async def test_a_long_replay_is_a_few_round_trips(open_saver, round_trips) -> None:
    saver = await open_saver()
    graph = graphs.replayed().compile(checkpointer=saver)
    await graph.ainvoke({"log": [], "until": 19}, at("trips"))
    counted = round_trips(saver)
    state = await graph.aget_state(at("trips"))
    assert len(state.values["log"]) == 19
    assert counted == {"find_checkpoints": 2}  # the state, and what it is replayed from


# -- without await -------------------------------------------------------------------------------


async def test_methods_without_await_work_in_other_threads(open_saver) -> None:
    saver = await open_saver()
    graph = graphs.refunds().compile(checkpointer=saver)

    def run() -> list:
        graph.invoke(ASK, at("thread"))
        for answer in (True, False):
            end = graph.invoke(Command(resume=answer), at("thread"))
        assert graph.get_state(at("thread")).values == end
        older = [s for s in graph.get_state_history(at("thread")) if s.next == ("tools",)]
        graph.update_state(older[0].config, {"status": "changed"})
        saver.copy_thread("thread", "copied")
        saver.prune(["copied"])
        assert len(list(saver.list(at("copied", checkpoint_ns="")))) == 1
        saver.delete_for_runs(["nobody"])
        saver.delete_thread("copied")
        assert saver.get_tuple(at("copied")) is None
        return [s.values.get("status") for s in graph.get_state_history(at("thread"), limit=2)]

    assert await asyncio.to_thread(run) == ["changed", "done"]


async def test_on_the_stores_own_loop_they_name_what_to_await(open_saver) -> None:
    saver = await open_saver()
    config = at("loop")
    for call, name in [
        (lambda: saver.get_tuple(config), "aget_tuple"),
        (lambda: saver.put(config, {}, {}, {}), "aput"),
        (lambda: saver.put_writes(config, [], ""), "aput_writes"),
        (lambda: saver.list(config), "alist"),
        (lambda: saver.delete_thread("x"), "adelete_thread"),
        (lambda: saver.delete_for_runs([]), "adelete_for_runs"),
        (lambda: saver.copy_thread("x", "y"), "acopy_thread"),
        (lambda: saver.prune([]), "aprune"),
        (
            lambda: saver.get_delta_channel_history(config=config, channels=[]),
            "aget_delta_channel_history",
        ),
    ]:
        with pytest.raises(PersistenceError, match=f"Await {name} instead"):
            call()


async def test_a_saver_without_a_loop_is_made_otherwise(open_store) -> None:
    store = await open_store()
    with pytest.raises(InvalidInputError, match="from_conn_string"):
        await asyncio.to_thread(HaiveSaver.from_store, store)


@pytest.mark.parametrize("transport", ["postgres"], indirect=True)
async def test_a_plain_script_saves_and_another_one_resumes(
    stack, tenant: str, key: str | None, reader: Checkpointer
) -> None:
    script = """
import json, sys
sys.path.insert(0, sys.argv[1])
import graphs
from langchain_core.messages import HumanMessage
from langgraph.types import Command
from haive.core.persistence.checkpointer import CheckpointConfig
from haive.core.persistence.integrations.langgraph import HaiveSaver
url, settings, key, resume = json.loads(sys.argv[2])
config = CheckpointConfig(encryption_key=key)
with HaiveSaver.from_conn_string(url, config=config, **settings) as saver:
    graph = graphs.refunds().compile(checkpointer=saver)
    given = Command(resume=resume)
    if resume is None:
        given = {"messages": [HumanMessage("Both.")], "status": "new"}
    print(graph.invoke(given, {"configurable": {"thread_id": "script"}})["status"])
"""
    ends = []
    for resume, url, settings in [
        (None, stack.database_url, {"tenant": tenant}),
        (True, stack.url, {"tenant": tenant, "key": stack.secret_key}),
        (False, stack.database_url, {"tenant": tenant, "pool_size": 1}),
    ]:
        done = await asyncio.to_thread(
            subprocess.run,
            [
                *(sys.executable, "-W", "error", "-c", script, str(Path(__file__).parent)),
                json.dumps([url, settings, key, resume]),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        ends.append(done.stdout.strip())
    assert ends == ["working", "working", "done"]
    assert (await reader.get_history("script"))[0].metadata["source"] == "loop"


async def test_a_saver_of_its_own_loop_serves_other_loops_too(stack, tenant: str) -> None:
    def sync_and_async() -> list[str]:
        with HaiveSaver.from_conn_string(stack.database_url, tenant=tenant) as saver:
            graph = graphs.steps().compile(checkpointer=saver)
            asyncio.run(graph.ainvoke({"log": [], "until": 2}, at("own-loop")))
            return graph.invoke({"log": ["x"], "until": 4}, at("own-loop"))["log"]

    assert len(await asyncio.to_thread(sync_and_async)) == 4

    with HaiveSaver.from_conn_string(stack.database_url, tenant=tenant) as saver:
        found = await saver.aget_tuple(at("own-loop"))
        assert found is not None
        assert [e async for e in saver.alist(at("own-loop"), limit=1)] == [found]
    with pytest.raises(PersistenceError, match="closed"):
        await saver.aget_tuple(at("own-loop"))


async def test_a_fork_is_told_to_open_its_own(stack, tenant: str) -> None:
    script = """
import os, sys, warnings
from haive.core.persistence.errors import PersistenceError
from haive.core.persistence.integrations.langgraph import HaiveSaver
warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of a fork beside threads
config = {"configurable": {"thread_id": "fork"}}
with HaiveSaver.from_conn_string(sys.argv[1], tenant=sys.argv[2]) as saver:
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
    try:
        print("child" if child == 0 else "parent", list(saver.list(config)), flush=True)
    except PersistenceError as error:
        print("child" if child == 0 else "parent", error, flush=True)
        os._exit(0)
"""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, stack.database_url, tenant],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "child The store was opened in another process. Open one in each, after the fork.",
        "parent []",
    ]


async def test_from_conn_string_says_what_is_wrong(stack) -> None:
    def enter(url: str, **settings: Any) -> None:
        with HaiveSaver.from_conn_string(url, **settings):
            pass

    with pytest.raises(PersistenceError, match="postgresql://"):
        await asyncio.to_thread(enter, "mysql://x")
    with pytest.raises(PersistenceError, match="is not installed here"):
        await asyncio.to_thread(enter, stack.database_url, schema="nowhere")


async def test_many_threads_share_one_saver(open_saver) -> None:
    saver = await open_saver()
    graph = graphs.steps().compile(checkpointer=saver)

    def run(number: int) -> int:
        return len(graph.invoke({"log": [], "until": 5}, at(f"t{number}"))["log"])

    assert await asyncio.gather(*(asyncio.to_thread(run, n) for n in range(8))) == [5] * 8


def test_a_loop_that_stands_still_is_told(stack) -> None:
    script = """
import asyncio, sys
from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.errors import PersistenceError
from haive.core.persistence.integrations.langgraph import HaiveSaver
config = {"configurable": {"thread_id": "still"}}
loop = asyncio.new_event_loop()
store = PostgresStore(PersistenceConfig(connection_string=sys.argv[1]))
loop.run_until_complete(store.initialize())

async def make():
    return HaiveSaver.from_store(store)

saver = loop.run_until_complete(make())
for call in (
    lambda: saver.get_tuple(config),
    lambda: list(saver.list(config)),
    lambda: asyncio.run(saver.aget_tuple(config)),
):
    try:
        call()
    except PersistenceError as error:
        print(error)
loop.run_until_complete(store.aclose())
loop.close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, stack.database_url],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (said,) = set(done.stdout.splitlines())
    assert said.startswith("The event loop of the store is not running.")


def test_a_loop_that_is_about_to_run_is_waited_for() -> None:
    for call in (
        lambda bridge: bridge.wait("", asyncio.sleep(0, "done")),
        lambda bridge: asyncio.run(bridge.run(asyncio.sleep(0, "done"))),
    ):
        loop = asyncio.new_event_loop()
        bridge = Bridge(loop)
        begins = Timer(0.05, loop.run_forever)
        begins.start()
        try:
            assert call(bridge) == "done"
        finally:
            loop.call_soon_threadsafe(loop.stop)
            begins.join()
            loop.close()


def test_a_store_may_be_closed_while_a_saver_is_left(stack) -> None:
    async def make() -> HaiveSaver:
        config = PersistenceConfig(connection_string=stack.database_url)
        async with PostgresStore(config) as store:
            return HaiveSaver.from_store(store)

    saver = asyncio.run(make())
    with pytest.raises(PersistenceError, match="closed"):
        saver.get_tuple(at("x"))
