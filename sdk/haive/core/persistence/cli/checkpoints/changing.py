"""`haive checkpoints` branch, tag, untag, fail, copy and delete."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from haive.core.persistence.cli.checkpoints.opening import (
    AsJson,
    Id,
    Namespace,
    OfThread,
    Session,
    ThreadId,
    find_id,
    find_thread,
    with_session,
)
from haive.core.persistence.cli.output import count, harmless, out, plain, safe_json

Tags = Annotated[list[str], typer.Argument(metavar="TAG...", help="Tags.", show_default=False)]


@with_session
async def branch(
    session: Session,
    checkpoint_id: Id,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.", show_default=False)],
    *,
    metadata: Annotated[
        str | None, typer.Option(help='A JSON object, such as {"purpose": "a test"}.')
    ] = None,
    thread: OfThread = None,
    namespace: Namespace = "",
    as_json: AsJson = False,
) -> None:
    """Begin a branch at a checkpoint; nothing is copied."""
    about = _parsed(metadata)
    checkpointer = session.checkpointer()
    root = await find_id(checkpointer, checkpoint_id, thread, namespace)
    branch_id = await checkpointer.create_branch(
        root, name, about, thread_id=thread, namespace=namespace
    )
    if as_json:
        typer.echo(safe_json({"id": str(branch_id), "name": name, "root_id": str(root)}))
    else:
        out.print(f"Branch [bold]{plain(name)}[/] begins at {root}: {branch_id}", highlight=False)


def _parsed(metadata: str | None) -> dict[str, Any] | None:
    try:
        about = None if metadata is None else json.loads(metadata)
    except ValueError:
        about = metadata
    if about is not None and not isinstance(about, dict):
        raise typer.BadParameter("--metadata is no JSON object.")
    return about


@with_session
async def tag(
    session: Session,
    checkpoint_id: Id,
    tags: Tags,
    *,
    thread: OfThread = None,
    namespace: Namespace = "",
) -> None:
    """Add tags to a checkpoint."""
    checkpointer = session.checkpointer()
    found = await find_id(checkpointer, checkpoint_id, thread, namespace)
    await checkpointer.tag(found, *tags, thread_id=thread, namespace=namespace)


@with_session
async def untag(
    session: Session,
    checkpoint_id: Id,
    tags: Tags,
    *,
    thread: OfThread = None,
    namespace: Namespace = "",
) -> None:
    """Take tags off a checkpoint."""
    checkpointer = session.checkpointer()
    found = await find_id(checkpointer, checkpoint_id, thread, namespace)
    await checkpointer.untag(found, *tags, thread_id=thread, namespace=namespace)


@with_session
async def fail(
    session: Session,
    checkpoint_id: Id,
    *,
    undo: Annotated[bool, typer.Option("--undo", help="Take that back.")] = False,
    thread: OfThread = None,
    namespace: Namespace = "",
) -> None:
    """Mark a checkpoint as the state of a failure."""
    checkpointer = session.checkpointer()
    found = await find_id(checkpointer, checkpoint_id, thread, namespace)
    await checkpointer.mark_failed(found, failed=not undo, thread_id=thread, namespace=namespace)


@with_session
async def copy(
    session: Session,
    thread: ThreadId,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its name.", show_default=False)],
) -> None:
    """Copy a thread; the copies have the same ids."""
    copied = await session.checkpointer().copy_thread(thread, new)
    out.print(f"Copied {count(copied, 'checkpoint')} to {plain(new)}.", highlight=False)


@with_session
async def delete(
    session: Session,
    thread: ThreadId,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a thread with all of its checkpoints and branches."""
    checkpointer = session.checkpointer()
    there = await find_thread(checkpointer, thread, None)
    if not yes:
        what = f"{count(there.checkpoints, 'checkpoint')} of the thread {harmless(thread)}"
        typer.confirm(f"Delete {what}?", abort=True)
    gone = await checkpointer.delete_thread(thread)
    out.print(f"Deleted {count(gone, 'checkpoint')}.", highlight=False)
