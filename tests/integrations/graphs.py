"""Graphs that the tests run: no model is asked, the answers are scripted."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langgraph.channels import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Send, interrupt


class Talk(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    status: str


def agent(state: Talk) -> dict[str, Any]:
    """Ask for the tool until it has answered twice."""
    answers = sum(isinstance(message, ToolMessage) for message in state["messages"])
    if answers == 2:
        return {"messages": [AIMessage("Done.", id=f"ai-{answers}")], "status": "done"}
    call = {"name": "refund", "args": {"order": answers}, "id": f"call-{answers}"}
    message = AIMessage("", tool_calls=[call], id=f"ai-{answers}-{len(state['messages'])}")
    return {"messages": [message], "status": "working"}


def tools(state: Talk) -> dict[str, Any]:
    (call,) = state["messages"][-1].tool_calls
    allowed = interrupt({"tool": call["name"], "args": call["args"]})
    return {"messages": [ToolMessage(f"allowed: {allowed}", tool_call_id=call["id"])]}


def refunds() -> StateGraph:
    """An agent with a tool loop that a human has to allow each time."""
    graph = StateGraph(Talk)
    graph.add_node("agent", agent)
    graph.add_node("tools", tools)
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", lambda s: "tools" if s["status"] == "working" else END)
    graph.add_edge("tools", "agent")
    return graph


class Count(TypedDict):
    log: Annotated[list[str], operator.add]
    until: int


def steps() -> StateGraph:
    """Write a line, until there are enough."""
    graph = StateGraph(Count)
    graph.add_node("write", lambda s: {"log": [f"line {len(s['log'])} " + "x" * 200]})
    graph.add_edge(START, "write")
    graph.add_conditional_edges("write", lambda s: "write" if len(s["log"]) < s["until"] else END)
    return graph


def fan_out() -> StateGraph:
    """Tasks side by side, by Send."""
    graph = StateGraph(Count)
    graph.add_node("plan", lambda s: {"log": ["plan"]})
    graph.add_node("work", lambda s: {"log": [f"work {s['n']}"]})
    graph.add_edge(START, "plan")
    graph.add_conditional_edges(
        "plan", lambda s: [Send("work", {"n": n}) for n in range(s["until"])]
    )
    graph.add_edge("work", END)
    return graph


def _extended(state: list[str], writes: list[list[str]]) -> list[str]:
    return [*state, *(line for write in writes for line in write)]


class Replayed(TypedDict):
    log: Annotated[list[str], DeltaChannel(_extended, snapshot_frequency=7)]
    until: int


def replayed() -> StateGraph:
    """`steps`, with a channel that is not stored each time."""
    graph = StateGraph(Replayed)
    graph.add_node("write", lambda s: {"log": [f"line {len(s['log'])}"]})
    graph.add_edge(START, "write")
    graph.add_conditional_edges("write", lambda s: "write" if len(s["log"]) < s["until"] else END)
    return graph


def nested() -> StateGraph:
    """A graph within a graph, which asks."""
    inner = StateGraph(Count)
    inner.add_node("note", lambda s: {"log": ["inner"]})
    inner.add_node("ask", lambda s: {"log": [f"asked: {interrupt('how many?')}"]})
    inner.add_edge(START, "note")
    inner.add_edge("note", "ask")
    inner.add_edge("ask", END)
    graph = StateGraph(Count)
    graph.add_node("before", lambda s: {"log": ["before"]})
    graph.add_node("sub", inner.compile())
    graph.add_edge(START, "before")
    graph.add_edge("before", "sub")
    graph.add_edge("sub", END)
    return graph


def calling() -> StateGraph:
    """A graph that calls two others: one begins anew each time, the other remembers."""
    innermost = StateGraph(Count)
    innermost.add_node("note", lambda _: {"log": ["innermost"]})
    innermost.add_edge(START, "note")
    inner = StateGraph(Count)
    inner.add_node("deep", innermost.compile())
    inner.add_edge(START, "deep")
    memory = StateGraph(Count)
    memory.add_node("note", lambda _: {"log": ["remembered"]})
    memory.add_edge(START, "note")
    graph = StateGraph(Count)
    graph.add_node("sub", inner.compile())
    graph.add_node("memory", memory.compile(checkpointer=True))
    graph.add_edge(START, "sub")
    graph.add_edge("sub", "memory")
    return graph
