"""A LangGraph agent that asks before it acts, and goes on in another process.

python examples/02_langgraph.py
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Annotated, Any, TypedDict

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt
from rich.console import Console

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence.checkpointer import Checkpointer
from haive.core.persistence.integrations.langgraph import HaiveSaver
from haive.core.persistence.local import LocalStack

THREAD = {"configurable": {"thread_id": "order-17"}}

console = Console()


class State(TypedDict):
    """What the agent knows."""

    messages: Annotated[list[AnyMessage], add_messages]
    status: str


@tool
def look_up(order: int) -> str:
    """Look an order up."""
    return f"Order {order}: 2 cups, one broken."


@tool
def refund(order: int, amount: str) -> str:
    """Pay money back, if a human allows it."""
    allowed = interrupt({"question": f"Refund {amount} for order {order}?"})
    return f"{amount} refunded." if allowed else "Refused."


TOOLS = {"look_up": look_up, "refund": refund}


def scripted_model(turn: int) -> GenericFakeChatModel:
    """A model without a model: the answer to the conversation so far."""
    answers = [
        AIMessage("", tool_calls=[{"name": "look_up", "args": {"order": 17}, "id": "1"}]),
        AIMessage(
            "",
            tool_calls=[{"name": "refund", "args": {"order": 17, "amount": "9 €"}, "id": "2"}],
        ),
        AIMessage("I have refunded the broken cup."),
    ]
    return GenericFakeChatModel(messages=iter(answers[turn:]))


def agent(state: State) -> dict[str, Any]:
    """Ask the model."""
    turn = sum(isinstance(message, AIMessage) for message in state["messages"])
    answer = scripted_model(turn).invoke(state["messages"])
    return {"messages": [answer], "status": "acting" if answer.tool_calls else "done"}


def act(state: State) -> dict[str, Any]:
    """Call the tools that the model asked for."""
    return {
        "messages": [
            ToolMessage(TOOLS[call["name"]].invoke(call["args"]), tool_call_id=call["id"])
            for call in state["messages"][-1].tool_calls
        ]
    }


def build() -> StateGraph[State]:
    """Model and tools in turn, until the model has nothing more to ask for."""
    graph = StateGraph(State)
    graph.add_node("agent", agent)
    graph.add_node("act", act)
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", lambda s: "act" if s["status"] == "acting" else END)
    graph.add_edge("act", "agent")
    return graph


def resume(url: str) -> None:
    """What the other process does: no event loop, no memory of the first."""
    with HaiveSaver.from_conn_string(url) as saver:
        graph = build().compile(checkpointer=saver)
        waiting = graph.get_state(THREAD)
        console.print(f"  another process finds it waiting at {waiting.next}, and allows it")
        end = graph.invoke(Command(resume=True), THREAD)
        for message in end["messages"][-2:]:
            console.print(f"  {message.type}: {message.content}")


async def main() -> None:
    """Begin here, resume there, and look back."""
    async with (
        LocalStack() as stack,
        PostgresStore(PersistenceConfig(connection_string=stack.database_url)) as store,
    ):
        graph = build().compile(checkpointer=HaiveSaver.from_store(store))
        asked = await graph.ainvoke(
            {"messages": [HumanMessage("One of my cups is broken.")], "status": "new"}, THREAD
        )
        question = asked["__interrupt__"][0].value["question"]
        console.print(f"The agent asks: {question}")

        await asyncio.to_thread(
            subprocess.run,
            [sys.executable, __file__, "resume"],
            env={**os.environ, "DATABASE_URL": stack.database_url},
            check=True,
        )

        state = await graph.aget_state(THREAD)
        console.print(f"Back here the status is {state.values['status']!r}.\n")

        checkpointer = Checkpointer(store)
        history = await checkpointer.get_history("order-17")
        console.print(f"{len(history)} checkpoints; what the last step changed:")
        console.print((await checkpointer.compare(history[1].id, history[0].id)).summary)
        before = next(c for c in history if c.metadata["step"] == 1)
        fork = await graph.aupdate_state(
            {"configurable": {"thread_id": "order-17", "checkpoint_id": str(before.id)}},
            {"status": "escalated"},
        )
        restored = await checkpointer.restore(fork["configurable"]["checkpoint_id"])
        names = [branch.name for branch in await checkpointer.list_branches("order-17")]
        console.print(f"A change of the past is a branch: {names}, {restored['status']!r} there")


if __name__ == "__main__":
    if sys.argv[1:] == ["resume"]:
        resume(os.environ["DATABASE_URL"])
    else:
        asyncio.run(main())
