"""`haive memory forget`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID  # noqa: TC003 - typer reads the annotations

import typer

from haive.core.persistence.cli.jobs import repeat
from haive.core.persistence.cli.memory.opening import (
    AsJson,
    FilterText,
    Opened,
    User,
    Yes,
    filters_of,
    with_memory,
)
from haive.core.persistence.cli.output import out, safe_json

if TYPE_CHECKING:
    from haive.core.persistence.vector.filters import Filter
    from haive.core.persistence.vector.memory import VectorMemory
    from haive.core.persistence.vector.models import ForgetResult


@with_memory
async def forget(
    opened: Opened,
    ids: Annotated[
        list[UUID] | None,
        typer.Argument(metavar="ID", help="Which memories, or --filter or --user."),
    ] = None,
    *,
    filter_text: FilterText = None,
    user: User = None,
    expired: Annotated[
        bool, typer.Option("--expired", help="Whose time is over; nothing is asked.")
    ] = False,
    every: Annotated[
        str | None,
        typer.Option(help="With --expired: again after so long, until stopped: 90m, 1h, 1d."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show how many there are, and forget nothing.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Forget memories for good, with all that was made of them alone.

    What was made of them and of others is made anew of the others.
    """
    from haive.core.persistence.cli.memory import rendering  # noqa: PLC0415 - slow

    filters = filters_of(filter_text, user)
    if [bool(ids), bool(filters), expired].count(True) != 1:
        raise typer.BadParameter("Say which: IDs, or --filter or --user, or --expired.")
    if every is not None and (dry_run or not expired):
        raise typer.BadParameter("--every goes with --expired, and not with --dry-run.")
    if expired:
        await _forget_expired(opened, every, dry_run=dry_run, as_json=as_json)
        return
    chosen = None if filters else [str(one) for one in ids or ()]
    async with opened.memory() as memory:
        kinds = await _kinds(memory, chosen, filters)
        if dry_run or not kinds:
            _say_planned(kinds, dry_run=dry_run, as_json=as_json)
            return
        if not yes:
            typer.confirm(
                f"Forget {rendering.counted(kinds)} of {opened.collection}, and what was made of"
                " them alone?",
                abort=True,
                err=as_json,
            )
        gone = await memory.forget(chosen, filters=filters)
    typer.echo(_told(gone, as_json=as_json))


async def _forget_expired(
    opened: Opened, every: str | None, *, dry_run: bool, as_json: bool
) -> None:
    async with opened.memory() as memory:
        if dry_run:
            from haive.core.persistence.vector._values import time_text  # noqa: PLC0415 - slow

            over = {"expires_at": {"$lte": time_text(memory._clock())}}
            kinds = await _kinds(memory, None, over)
            _say_planned(kinds, dry_run=True, as_json=as_json)
            return

        async def once() -> str:
            return _told(await memory.forget_expired(), as_json=as_json)

        await repeat(once, every)


def _say_planned(kinds: dict[str, int], *, dry_run: bool, as_json: bool) -> None:
    from haive.core.persistence.cli.memory import rendering  # noqa: PLC0415 - slow

    if as_json:
        typer.echo(safe_json({"counts": kinds, "dry_run": dry_run}))
    elif not kinds:
        out.print("There are no such memories.")
    else:
        out.print(
            f"{rendering.counted(kinds)} would go, and what was made of them alone.",
            highlight=False,
        )


def _told(gone: ForgetResult, *, as_json: bool) -> str:
    """What was forgotten, as a sentence or as JSON."""
    from haive.core.persistence.cli.memory import rendering  # noqa: PLC0415 - slow

    if as_json:
        facts = {name: list(getattr(gone, name)) for name in ("forgotten", "removed", "rebuilt")}
        return safe_json({"counts": dict(gone.counts), "dry_run": False, **facts})
    if not gone.total:
        return "There are no such memories."
    anew = (
        f" {rendering.memories(len(gone.rebuilt))} made anew of what is left."
        if gone.rebuilt
        else ""
    )
    return f"Forgotten: {rendering.counted(gone.counts)}.{anew}"


async def _kinds(
    memory: VectorMemory, ids: list[str] | None, filters: dict[str, Any] | None
) -> dict[str, int]:
    """How many memories of each kind are meant."""
    from collections import Counter  # noqa: PLC0415 - with what is slow

    from haive.core.persistence.vector._shelf import both, equals  # noqa: PLC0415 - slow
    from haive.core.persistence.vector.filters import parse  # noqa: PLC0415 - slow
    from haive.core.persistence.vector.models import MemoryKind  # noqa: PLC0415 - slow

    shelf = await memory._open()
    if ids is not None:
        return dict(Counter(one.kind.value for one in (await shelf.get(ids)).values()))
    where: Filter | None = parse(filters)
    counts = {
        kind.value: await shelf.backend.count(both(where, equals(kind=kind.value)))
        for kind in MemoryKind
    }
    return {kind: number for kind, number in counts.items() if number}
