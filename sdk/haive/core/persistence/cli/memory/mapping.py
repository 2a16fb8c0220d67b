"""`haive memory map`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from haive.core.persistence.cli import export
from haive.core.persistence.cli.memory.opening import (
    FilterText,
    Opened,
    User,
    filters_of,
    with_memory,
)
from haive.core.persistence.cli.output import err, out, plain
from haive.core.persistence.errors import ConfigurationError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from haive.core.persistence.vector.filters import Filter
    from haive.core.persistence.vector.memory import VectorMemory
    from haive.core.persistence.vector.models import Memory

_SEED = 7


@with_memory
async def map_command(
    opened: Opened,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The SVG file; it is replaced.")
    ] = Path("map.svg"),
    as_text: Annotated[
        bool, typer.Option("--text", help="Draw it in the terminal, and write no file.")
    ] = False,
    filter_text: FilterText = None,
    user: User = None,
    groups: Annotated[
        int | None,
        typer.Option(min=1, max=10, help="How many; those told apart best if not given."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=20_000, help="Of more memories, a random choice of so many.")
    ] = 2_000,
    archived: Annotated[
        bool, typer.Option("--archived", help="Archived memories too; else they are passed over.")
    ] = False,
) -> None:
    """Draw what is remembered: what is alike lies together, with the words that tell it apart.

    The picture is an SVG file that a browser shows; over a point it shows the memory.
    """
    from haive.core.persistence.cli.memory._plane import (  # noqa: PLC0415 - slow
        plane_of,
        telling_words,
    )
    from haive.core.persistence.cli.memory.rendering import memories  # noqa: PLC0415 - slow

    where = _where(filters_of(filter_text, user), archived=archived)
    async with opened.reading() as (memory, _):
        model = (await memory._open()).collection.model
        if model is None:
            raise ConfigurationError(
                f"There are no vectors in {opened.collection}: its memories are found by words.",
                hint="A map needs a collection that is made with --embedder local or api.",
            )
        with err.status("Reading…"):
            chosen, vectors, total = await _read(memory, where, limit)
    if not chosen:
        raise NotFoundError(
            "There is nothing to draw.", hint="`haive memory stats` says what there is."
        )
    plane = plane_of(vectors, groups)
    texts = [one.text for one in chosen]
    words = telling_words(texts, plane.groups.tolist(), plane.number)
    number = f"{total:,} memories" if total > len(chosen) else memories(total)
    about = " · ".join([
        number if total == len(chosen) else f"{len(chosen):,} of {number}",
        "1 group" if plane.number == 1 else f"{plane.number} groups",
        f"{plane.share:.0%} of the variance",
        model,
    ])  # fmt: skip
    if as_text:
        from haive.core.persistence.cli.memory._plot import plot  # noqa: PLC0415 - slow

        plot(plane, words, opened.collection, about)
        return
    from haive.core.persistence.cli.memory._picture import picture  # noqa: PLC0415 - slow

    drawn = picture(plane, [_dot(one) for one in chosen], words, opened.collection, about)
    with export.opened(str(output)) as file:
        file.write(drawn.encode())
    # Not behind the picture, where that goes to standard output.
    said = err if str(output) == "-" else out
    said.print(f"{plain(str(output))}: {plain(about)}", highlight=False)


def _where(filters: dict[str, Any] | None, *, archived: bool) -> Filter | None:
    from haive.core.persistence.vector._shelf import both  # noqa: PLC0415 - slow
    from haive.core.persistence.vector.filters import parse  # noqa: PLC0415 - slow

    return both(parse(filters), None if archived else parse({"archived": {"$ne": True}}))


async def _read(
    memory: VectorMemory, where: Filter | None, limit: int
) -> tuple[Sequence[Memory], NDArray[np.float32], int]:
    """Memories and their vectors, of more than ``limit`` a fair choice, and how many there are."""
    import numpy as np  # noqa: PLC0415 - slow

    from haive.core.persistence.vector.models import Memory  # noqa: PLC0415 - slow

    rng = np.random.default_rng(_SEED)
    shelf = await memory._open()
    kept: list[tuple[Memory, Any]] = []
    total = 0
    async for record in shelf.records(where, vectors=True):
        if record.vector is None:
            continue
        total += 1
        place = len(kept) if len(kept) < limit else int(rng.integers(total))
        if place >= limit:
            continue
        one = (Memory.from_metadata(record.id, record.metadata), record.vector)
        kept[place : place + 1] = [one]
    vectors = np.array([vector for _, vector in kept], np.float32)
    return [one for one, _ in kept], vectors, total


def _dot(memory: Memory) -> Any:
    from haive.core.persistence.cli.memory._picture import Dot  # noqa: PLC0415 - slow
    from haive.core.persistence.cli.memory.rendering import time_of  # noqa: PLC0415 - slow

    facts = [memory.speaker or memory.role or memory.user_id or ""]
    facts += [time_of(memory.timestamp)] if memory.timestamp else []
    facts += [memory.kind.value]
    return Dot(
        about=" · ".join(fact for fact in facts if fact),
        text=memory.text,
        importance=memory.importance,
    )
