"""`haive sessions` list, show and tree: nothing is changed."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from haive.core.persistence.cli.output import safe_json
from haive.core.persistence.cli.sessions.opening import AsJson, AsUser, Id, find_id, with_manager

if TYPE_CHECKING:
    from haive.core.persistence.session import Merge, Session, SessionManager

_PAGE = 1_000
# Of sessions that go on in others: so many families are drawn together.
_FAMILIES = 50


class StatusName(StrEnum):
    """What `--status` takes."""

    OPEN = "open"
    CLOSED = "closed"
    EXPIRED = "expired"
    MERGED = "merged"
    CONTINUED = "continued"


@with_manager
async def list_command(
    manager: SessionManager,
    *,
    user: Annotated[str | None, typer.Option(help="Only those that this user owns.")] = None,
    participant: Annotated[
        str | None, typer.Option(help="Only those that this user takes part in.")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent's.")] = None,
    status: Annotated[
        list[StatusName] | None, typer.Option(help="Only those that are so; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    as_user: AsUser = None,
    as_json: AsJson = False,
) -> None:
    """Show sessions, the latest first."""
    from haive.core.persistence.cli.sessions import rendering  # noqa: PLC0415 - slow

    found: list[Session] = []
    page_after = None
    while len(found) <= limit:
        page = await manager.list_sessions(
            user,
            participant=participant,
            agent_id=agent,
            status=[one.value for one in status] if status else None,
            limit=min(limit + 1 - len(found), _PAGE),
            page_after=page_after,
            as_user=as_user,
        )
        found += page
        page_after = page.next_page
        if page_after is None:
            break
    found, more = found[:limit], len(found) > limit
    if as_json:
        typer.echo(safe_json([one.model_dump(mode="json") for one in found]))
    else:
        rendering.print_table(found, more=more)


@with_manager
async def show(
    manager: SessionManager,
    session_id: Id,
    *,
    last: Annotated[
        int, typer.Option(min=0, max=10_000, help="Only the last so many messages; 0 for none.")
    ] = 50,
    hidden: Annotated[
        bool, typer.Option("--hidden", help="With the messages that moderators hid.")
    ] = False,
    as_user: AsUser = None,
    as_json: AsJson = False,
) -> None:
    """Show a session: who takes part, and who said what."""
    from haive.core.persistence.cli.sessions import rendering  # noqa: PLC0415 - slow

    found = await find_id(manager, session_id, as_user)
    session = await manager.get_session(found, as_user=as_user)
    messages = (
        await manager.messages(found, limit=last, last=True, hidden=hidden, as_user=as_user)
        if last
        else []
    )
    if as_json:
        record = session.model_dump(mode="json", exclude={"merge"})
        record["messages"] = [one.model_dump(mode="json") for one in messages]
        typer.echo(safe_json(record))
        return
    rendering.print_session(session)
    for message in messages:
        rendering.print_placed(message, session)


@with_manager
async def tree(
    manager: SessionManager,
    session_id: Id,
    *,
    as_user: AsUser = None,
    as_json: AsJson = False,
) -> None:
    """Draw a session with its branches, its successors, and what was merged."""
    from haive.core.persistence.cli.sessions import drawing  # noqa: PLC0415 - slow

    asked = await find_id(manager, session_id, as_user)
    known = await _relatives(manager, asked, as_user)
    merges: list[Merge] = []
    for primary in sorted({one.merged_into for one in known.values() if one.merged_into}):
        if primary in known:
            merges += await manager.list_merges(primary, as_user=as_user)
    if as_json:
        record = {
            "sessions": [one.model_dump(mode="json", exclude={"merge"}) for one in known.values()],
            "merges": [one.model_dump(mode="json") for one in merges],
        }
        typer.echo(safe_json(record))
    else:
        drawing.draw(list(known.values()), merges, asked)


async def _relatives(
    manager: SessionManager, asked: object, as_user: str | None
) -> dict[object, Session]:
    """The family of a session, with those of what it continues and is continued in."""
    known: dict[object, Session] = {}
    waiting = [asked]
    for _ in range(_FAMILIES):
        if not waiting:
            break
        family = await manager.family(str(waiting.pop()), as_user=as_user)
        known |= {one.id: one for one in family}
        linked = {
            link
            for one in known.values()
            for link in (one.predecessor_id, one.successor_id)
            if link
        }
        waiting = [link for link in linked if link not in known]
    return dict(sorted(known.items(), key=lambda item: str(item[0])))
