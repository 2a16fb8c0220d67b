"""`haive memory add`."""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID  # noqa: TC003 - typer reads the annotations

import typer

from haive.core.persistence.cli.conversations import parse_span
from haive.core.persistence.cli.memory.opening import (
    AsJson,
    Opened,
    parsed_object,
    with_memory,
)
from haive.core.persistence.cli.output import out, safe_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from haive.core.persistence.vector.memory import VectorMemory

# Lines that are embedded and written at once.
_AT_ONCE = 100


@with_memory
async def add(
    opened: Opened,
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="TEXT", help="What is to be remembered; without it, each line of stdin."
        ),
    ] = None,
    *,
    conversation: Annotated[
        UUID | None, typer.Option(help="Remember this conversation, message by message.")
    ] = None,
    keywords: Annotated[
        bool, typer.Option("--keywords", help="With --conversation: its telling words too.")
    ] = False,
    summary: Annotated[
        bool, typer.Option("--summary", help="With --conversation: a summary of it too.")
    ] = False,
    user: Annotated[str | None, typer.Option(help="Whom it is about.")] = None,
    metadata: Annotated[
        str | None, typer.Option(help='What to keep beside, as JSON: {"topic": "travel"}.')
    ] = None,
    importance: Annotated[
        float | None, typer.Option(min=0, max=1, help="0 to 1; from the text if not given.")
    ] = None,
    ttl: Annotated[str | None, typer.Option(help="Gone after so long: 90m, 12h, 7d.")] = None,
    supersedes: Annotated[
        str | None, typer.Option(metavar="ID", help="The memory that it stands in the place of.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remember a text, a conversation, or the lines of standard input.

    What is remembered already is not written again.
    """
    from haive.core.persistence.cli.memory import rendering  # noqa: PLC0415 - slow

    beside = parsed_object("--metadata", metadata)
    if conversation is None and (keywords or summary):
        raise typer.BadParameter("--keywords and --summary go with --conversation.")
    if conversation is not None:
        if text is not None or ttl is not None or supersedes is not None:
            raise typer.BadParameter("--conversation goes with no TEXT, --ttl or --supersedes.")
        beside |= {} if user is None else {"user_id": user}
        beside |= {} if importance is None else {"importance": importance}
        how = {"metadata": beside, "extract_keywords": keywords, "generate_summary": summary}
        found = await _add_conversation(opened, conversation, how)
        said = f"Remembered, {rendering.memories(found['turns'])}: {found['id']}"
    else:
        how = {"metadata": beside, "user_id": user, "importance": importance, "ttl": _span(ttl)}
        if text is not None:
            found = await _add_text(opened, text, {**how, "supersedes": supersedes})
            said = f"{'Remembered' if found['new'] else 'Known already'}: {found['id']}"
        elif supersedes is not None:
            raise typer.BadParameter("--supersedes goes with a TEXT.")
        elif sys.stdin.isatty():
            raise typer.BadParameter("Say what: a TEXT, --conversation, or lines on stdin.")
        else:
            found = await _add_lines(opened, how)
            known = len(found["ids"]) - found["new"]
            said = f"{rendering.memories(found['new'])} added, {known:,} known already."
    if as_json:
        typer.echo(safe_json(found))
    else:
        out.print(said, highlight=False)


async def _add_conversation(opened: Opened, which: UUID, how: dict[str, Any]) -> dict[str, Any]:
    async with opened.memory(make=True) as memory:
        whole = await memory.store_conversation(which, **how)
        return {"id": whole, "turns": len((await memory.get(whole)).sources)}


async def _add_text(opened: Opened, text: str, how: dict[str, Any]) -> dict[str, Any]:
    async with opened.memory(make=True) as memory:
        began = memory._clock()
        made = await memory.add(text, **how)
        return {"id": made, "new": await _fresh(memory, [made], began) == 1}


async def _add_lines(opened: Opened, how: dict[str, Any]) -> dict[str, Any]:
    ids: list[str] = []
    fresh = 0
    every = _lines()
    async with opened.memory(make=True) as memory:
        while lines := list(islice(every, _AT_ONCE)):
            began = memory._clock()
            these = await memory.add_many(lines, **how)
            fresh += await _fresh(memory, these, began)
            ids += these
    return {"ids": ids, "new": fresh}


def _lines() -> Iterator[str]:
    for line in sys.stdin:
        if line.strip():
            yield line.rstrip("\r\n")


async def _fresh(memory: VectorMemory, ids: Sequence[str], began: datetime) -> int:
    """How many of these were written since then, by the clock that writes them."""
    found = await (await memory._open()).get(ids)
    return sum(one.created_at is not None and one.created_at >= began for one in found.values())


def _span(text: str | None) -> Any:
    if text is None:
        return None
    span = parse_span(text)
    if not span:
        raise typer.BadParameter(f"--ttl: {text!r} is no span (90m, 12h, 7d).")
    return span
