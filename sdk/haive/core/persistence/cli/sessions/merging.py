"""`haive sessions` merge, undo and merges."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from uuid import UUID  # noqa: TC003 - typer reads the annotations

import typer

from haive.core.persistence.cli.output import count, out, safe_json
from haive.core.persistence.cli.sessions.opening import AsJson, AsUser, Id, find_id, with_manager
from haive.core.persistence.errors import NotFoundError

if TYPE_CHECKING:
    from haive.core.persistence.session import SessionManager


class StrategyName(StrEnum):
    """What `--strategy` takes."""

    APPEND = "append"
    CHRONOLOGICAL = "chronological"
    PRIMARY_WINS = "primary_wins"
    SECONDARY_WINS = "secondary_wins"
    INTELLIGENT = "intelligent"


class ResolutionName(StrEnum):
    """What `--resolution` takes."""

    PRIMARY_WINS = "primary_wins"
    SECONDARY_WINS = "secondary_wins"
    LATEST = "latest"
    KEEP_BOTH = "keep_both"


@with_manager
async def merge(
    manager: SessionManager,
    primary: Annotated[
        str, typer.Argument(metavar="PRIMARY", help="The one that goes on.", show_default=False)
    ],
    secondary: Annotated[
        str,
        typer.Argument(metavar="SECONDARY", help="The one that goes into it.", show_default=False),
    ],
    *,
    strategy: Annotated[
        StrategyName, typer.Option(help="How; docs/sessions.md says what each means.")
    ] = StrategyName.INTELLIGENT,
    resolution: Annotated[
        ResolutionName, typer.Option(help="What stays of answers that contradict each other.")
    ] = ResolutionName.PRIMARY_WINS,
    as_user: AsUser = None,
    as_json: AsJson = False,
) -> None:
    """Merge a session into another one, and show what was left out and why."""
    from haive.core.persistence.cli.sessions import records  # noqa: PLC0415 - slow

    merged = await manager.merge_sessions(
        await find_id(manager, primary, as_user),
        await find_id(manager, secondary, as_user),
        strategy.value,
        resolution.value,
        as_user=as_user,
    )
    assert merged.merge is not None  # merge_sessions says so # noqa: S101 # nosec B101
    if as_json:
        typer.echo(safe_json(merged.model_dump(mode="json")))
        return
    said = await records.texts(manager, merged.merge, as_user)
    records.print_merge(merged.merge, said)
    out.print(
        f"The session has {count(merged.message_count, 'message')} now."
        f" `haive sessions undo {merged.id}` takes it back.",
        highlight=False,
    )


@with_manager
async def undo(
    manager: SessionManager,
    session_id: Id,
    *,
    merge: Annotated[
        UUID | None, typer.Option(help="The merge; the last one that is not undone if not given.")
    ] = None,
    as_user: AsUser = None,
    as_json: AsJson = False,
) -> None:
    """Undo a merge: the session has what it had before, and what was written to it since."""
    found = await find_id(manager, session_id, as_user)
    if merge is None:
        done = [
            one
            for one in await manager.list_merges(found, as_user=as_user)
            if one.undone_at is None
        ]
        if not done:
            raise NotFoundError(
                "The session has no merge to undo.", hint="`haive sessions merges` lists them."
            )
        merge = done[-1].id
    session = await manager.undo_merge(found, merge, as_user=as_user)
    if as_json:
        typer.echo(safe_json(session.model_dump(mode="json")))
    else:
        out.print(
            f"Undone: the session has {count(session.message_count, 'message')} again.",
            highlight=False,
        )


@with_manager
async def merges(
    manager: SessionManager, session_id: Id, *, as_user: AsUser = None, as_json: AsJson = False
) -> None:
    """Show the merges into a session: what came from where, what was left out and why."""
    from haive.core.persistence.cli.sessions import records  # noqa: PLC0415 - slow

    found = await manager.list_merges(await find_id(manager, session_id, as_user), as_user=as_user)
    if as_json:
        typer.echo(safe_json([one.model_dump(mode="json") for one in found]))
        return
    for one in found:
        records.print_merge(one, await records.texts(manager, one, as_user))
    if not found:
        out.print("No merges.")
