"""`haive sessions` participants, hide and show-message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from haive.core.persistence.cli.output import out, plain, safe_json
from haive.core.persistence.cli.sessions.opening import AsJson, AsUser, Id, find_id, with_manager
from haive.core.persistence.errors import NotFoundError

if TYPE_CHECKING:
    from haive.core.persistence.session import SessionManager

_PERMISSIONS = ("read", "write", "moderate")

Place = Annotated[
    str,
    typer.Argument(
        metavar="MESSAGE",
        help="The message: its id, or its index in the session as `show` prints it.",
        show_default=False,
    ),
]


@with_manager
async def participants(
    manager: SessionManager,
    session_id: Id,
    *,
    set_permissions: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="USER=PERMISSION,…",
            help="Let a user take part, or change what they may do: read, write, moderate. May be"
            " repeated.",
        ),
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="USER", help="Remove a user; may be repeated.")
    ] = None,
    as_user: AsUser = None,
    as_json: AsJson = False,
) -> None:
    """Show who takes part in a session, after adding, changing and removing."""
    wanted = [_pair(text) for text in set_permissions or ()]
    found = await find_id(manager, session_id, as_user)
    for user, permissions in wanted:
        await manager.set_participant(found, user, permissions, as_user=as_user)
    for user in remove or ():
        if user != as_user:
            await manager.remove_participant(found, user, as_user=as_user)
    session = await manager.get_session(found, as_user=as_user)
    staying = session.permissions
    left = as_user if as_user in (remove or ()) else None
    if left is not None:  # at last: from then on they change and see nothing
        await manager.remove_participant(found, left, as_user=as_user)
        staying = {user: may for user, may in staying.items() if user != left}
    if as_json:
        typer.echo(safe_json({"owner": session.user_id, "permissions": staying}))
        return
    if left is not None:
        out.print(f"{plain(left)} has left.", highlight=False)
        return
    if session.user_id is not None:
        out.print(f"{'owner':<21} {plain(session.user_id)}", highlight=False)
    for user, may in session.permissions.items():
        out.print(f"{', '.join(may):<21} {plain(user)}", highlight=False)
    if session.user_id is None and not session.permissions:
        out.print("Nobody.")


def _pair(text: str) -> tuple[str, list[str]]:
    user, _, said = text.rpartition("=")
    permissions = [one.strip() for one in said.split(",")]
    if not user or not set(permissions) <= set(_PERMISSIONS):
        raise typer.BadParameter(
            f"--set: {text!r} is not USER=PERMISSIONS, with read, write or moderate."
        )
    # Everybody reads: who may write is not asked to say so.
    return user, [one for one in _PERMISSIONS if one == "read" or one in permissions]


@with_manager
async def hide(
    manager: SessionManager,
    session_id: Id,
    message: Place,
    *,
    as_user: AsUser = None,
    as_json: AsJson = False,
) -> None:
    """Hide a message of a session from all but its moderators."""
    found = await find_id(manager, session_id, as_user)
    message_id = await _find_message(manager, found, message, as_user)
    changed = await manager.hide_message(found, message_id, as_user=as_user)
    _tell(message_id, "Hidden" if changed else "Hidden already", changed, as_json=as_json)


@with_manager
async def show_message(
    manager: SessionManager,
    session_id: Id,
    message: Place,
    *,
    as_user: AsUser = None,
    as_json: AsJson = False,
) -> None:
    """Show a hidden message again."""
    found = await find_id(manager, session_id, as_user)
    message_id = await _find_message(manager, found, message, as_user)
    changed = await manager.show_message(found, message_id, as_user=as_user)
    _tell(message_id, "Shown again" if changed else "It was not hidden", changed, as_json=as_json)


async def _find_message(
    manager: SessionManager, session_id: UUID, text: str, as_user: str | None
) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        pass
    if not text.isascii() or not text.isdigit():
        raise typer.BadParameter(f"{text!r} is neither a message's id nor its index.")
    index = int(text)
    page = await manager.messages(
        session_id, after=index - 1, before=index + 1, limit=1, hidden=True, as_user=as_user
    )
    if not page:
        raise NotFoundError(
            f"The session has no message {index}.", hint="`haive sessions show` prints indexes."
        )
    return page[0].id


def _tell(message_id: UUID, sentence: str, changed: bool, *, as_json: bool) -> None:  # noqa: FBT001 - a fact
    if as_json:
        typer.echo(safe_json({"id": str(message_id), "changed": changed}))
    else:
        out.print(f"{sentence}: {message_id}", highlight=False)
