"""`haive sessions` create, branch, close, resume and delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from haive.core.persistence.cli.conversations import parse_span
from haive.core.persistence.cli.output import count, out, plain, safe_json
from haive.core.persistence.cli.sessions.opening import (
    AsJson,
    AsUser,
    Id,
    Yes,
    find_id,
    parsed_object,
    with_manager,
)

if TYPE_CHECKING:
    from haive.core.persistence.session import Session, SessionManager

Context = Annotated[
    str | None, typer.Option(help='A JSON object, such as {"reason": "another price"}.')
]
Ttl = Annotated[
    str | None,
    typer.Option(
        help="How long it stays open after its last message: 90m, 12h, 7d, or never; 1h if not"
        " given."
    ),
]
MaxMessages = Annotated[
    int | None,
    typer.Option(min=1, help="With so many it goes on in a successor; 1000 if not given."),
]


@with_manager
async def create(
    manager: SessionManager,
    *,
    user: Annotated[str | None, typer.Option(help="Who owns it.")] = None,
    agent: Annotated[str, typer.Option(help="The agent that answers.")] = "assistant",
    title: Annotated[str | None, typer.Option(help="To find it by.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="To find it by; may be repeated.")] = None,
    context: Context = None,
    ttl: Ttl = None,
    max_messages: MaxMessages = None,
    as_json: AsJson = False,
) -> None:
    """Begin a session."""
    made = await manager.create_session(
        user,
        agent,
        parsed_object("--context", context),
        title=title,
        tags=tag or (),
        **_bounds(ttl, max_messages),
    )
    _tell(made, f"Begun: {made.id}", as_json=as_json)


@with_manager
async def branch(
    manager: SessionManager,
    session_id: Id,
    *,
    at: Annotated[
        int | None,
        typer.Option(min=0, help="With so many of its messages; all there are if not given."),
    ] = None,
    context: Context = None,
    user: Annotated[str | None, typer.Option(help="The owner, if not the same.")] = None,
    agent: Annotated[str | None, typer.Option(help="The agent, if not the same.")] = None,
    ttl: Ttl = None,
    max_messages: MaxMessages = None,
    as_json: AsJson = False,
) -> None:
    """Begin a session with the first messages of another one; nothing is copied."""
    parent = await find_id(manager, session_id)
    made = await manager.branch_session(
        parent,
        at,
        parsed_object("--context", context),
        user_id=user,
        agent_id=agent,
        **_bounds(ttl, max_messages),
    )
    shared = count(made.branch_index, "message")
    _tell(made, f"Branched off after {shared}: {made.id}", as_json=as_json)


def _bounds(ttl: str | None, max_messages: int | None) -> dict[str, Any]:
    """What of the two is given; the manager has its own defaults."""
    bounds: dict[str, Any] = {}
    if ttl is not None:
        span = None if ttl == "never" else parse_span(ttl)
        if ttl != "never" and (span is None or span.total_seconds() < 1):
            raise typer.BadParameter(f"--ttl: {ttl!r} is no span (90m, 12h, 7d), nor never.")
        bounds["ttl"] = None if span is None else int(span.total_seconds())
    if max_messages is not None:
        bounds["max_messages"] = max_messages
    return bounds


@with_manager
async def close(
    manager: SessionManager, session_id: Id, *, as_user: AsUser = None, as_json: AsJson = False
) -> None:
    """Let a session take no more messages."""
    found = await find_id(manager, session_id, as_user)
    _tell(await manager.close(found, as_user=as_user), f"Closed: {found}", as_json=as_json)


@with_manager
async def resume(
    manager: SessionManager, session_id: Id, *, as_user: AsUser = None, as_json: AsJson = False
) -> None:
    """Open a session that is closed, expired or merged; its time begins anew."""
    found = await find_id(manager, session_id, as_user)
    _tell(await manager.resume(found, as_user=as_user), f"Open again: {found}", as_json=as_json)


@with_manager
async def delete(
    manager: SessionManager, session_id: Id, *, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Delete a session with its own messages; its branches lose what they share with it."""
    session = await manager.get_session(await find_id(manager, session_id))
    branches = await manager.list_sessions(parent_session_id=session.id, limit=1_000)
    if not yes:
        named = plain(session.title or str(session.id))
        many = "1 branch loses" if len(branches) == 1 else f"{len(branches):,} branches lose"
        lost = f" {many} what is shared with it." if branches else ""
        typer.confirm(f"Delete the session {named}?{lost}", abort=True)
    gone = await manager.delete_session(session.id)
    if as_json:
        typer.echo(safe_json({"id": str(session.id), "messages": gone}))
    else:
        out.print(f"Deleted, with {count(gone, 'message')} of its own.", highlight=False)


def _tell(session: Session, sentence: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(safe_json(session.model_dump(mode="json", exclude={"merge"})))
    else:
        out.print(sentence, highlight=False)
