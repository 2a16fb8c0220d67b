"""`haive checkpoints` threads, list, tree, show, diff and restore: nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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
from haive.core.persistence.cli.export import opened
from haive.core.persistence.cli.groups import EXIT_CODE
from haive.core.persistence.cli.output import out, safe_json
from haive.core.persistence.errors import NotFoundError

if TYPE_CHECKING:
    from haive.core.persistence.checkpointer import Checkpoint, Checkpointer, Thread

_PAGE = 1_000

User = Annotated[str | None, typer.Option(help="Only this user's.")]
OnBranch = Annotated[
    str | None, typer.Option("--branch", help="Only of this branch, with what it goes back to.")
]
Failed = Annotated[bool, typer.Option("--failed", help="Failed ones too.")]


@with_session
async def threads(
    session: Session,
    *,
    user: User = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show the threads, by name, and what their checkpoints come to."""
    from haive.core.persistence.cli.checkpoints import rendering  # noqa: PLC0415 - slow

    checkpointer = session.checkpointer()
    found: list[Thread] = []
    page = None
    while len(found) <= limit and page != []:
        page = await checkpointer.list_threads(
            user_id=user,
            limit=min(limit + 1 - len(found), _PAGE),
            after=found[-1].thread_id if found else None,
        )
        found += page
    found, more = found[:limit], len(found) > limit
    if as_json:
        typer.echo(safe_json([rendering.thread_as_dict(one) for one in found]))
    else:
        rendering.print_threads(found, more=more)


@with_session
async def list_command(
    session: Session,
    thread: ThreadId,
    *,
    branch: OnBranch = None,
    failed: Failed = False,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    namespace: Namespace = "",
    as_json: AsJson = False,
) -> None:
    """Show the checkpoints of a thread, newest first."""
    from haive.core.persistence.cli.checkpoints import rendering  # noqa: PLC0415 - slow

    checkpointer = session.checkpointer()
    found, more = await _history(
        checkpointer, thread, namespace, branch=branch, failed=failed, limit=limit
    )
    if as_json:
        typer.echo(safe_json([rendering.checkpoint_as_dict(one) for one in found]))
    else:
        rendering.print_checkpoints(found, more=more)


@with_session
async def tree(
    session: Session,
    thread: ThreadId,
    *,
    full: Annotated[
        bool, typer.Option("--full", help="Every checkpoint, also where nothing happened.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Of the newest so many.")] = 1_000,
    namespace: Namespace = "",
    as_json: AsJson = False,
) -> None:
    """Draw the branches of a thread, the newest checkpoint on top."""
    from haive.core.persistence.cli.checkpoints import rendering  # noqa: PLC0415 - slow

    checkpointer = session.checkpointer()
    found, more = await _history(checkpointer, thread, namespace, failed=True, limit=limit)
    branches = await checkpointer.list_branches(thread, namespace=namespace)
    if as_json:
        typer.echo(safe_json(rendering.tree_as_dict(found, branches, more=more)))
    else:
        rendering.draw_tree(found, branches, full=full, more=more)


@with_session
async def show(
    session: Session,
    checkpoint_id: Id,
    *,
    state: Annotated[bool, typer.Option("--state", help="The state too, as JSON.")] = False,
    thread: OfThread = None,
    namespace: Namespace = "",
    as_json: AsJson = False,
) -> None:
    """Show what is known of a checkpoint."""
    from haive.core.persistence.checkpointer._view import view  # noqa: PLC0415 - slow
    from haive.core.persistence.cli.checkpoints import rendering  # noqa: PLC0415 - slow

    checkpointer = session.checkpointer()
    found = await checkpointer.get(
        await find_id(checkpointer, checkpoint_id, thread, namespace),
        thread_id=thread,
        namespace=namespace,
        include_state=state,
    )
    if as_json:
        record = rendering.checkpoint_as_dict(found)
        typer.echo(safe_json({**record, "state": view(found.state)} if state else record))
        return
    rendering.print_checkpoint(found)
    if state:
        out.print()
        typer.echo(safe_json(view(found.state)))


@with_session
async def diff(
    session: Session,
    ctx: typer.Context,
    a: Annotated[str, typer.Argument(metavar="A", help="The one before.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="The one after.", show_default=False)],
    *,
    full: Annotated[bool, typer.Option("--full", help="Every change, however many.")] = False,
    exit_code: Annotated[
        bool,
        typer.Option(
            "--exit-code", help="Exit with 1 if they differ, with 2 if something is wrong."
        ),
    ] = False,
    thread: OfThread = None,
    namespace: Namespace = "",
    as_json: AsJson = False,
) -> None:
    """Show what is different in the second of two checkpoints."""
    from haive.core.persistence.cli.checkpoints import rendering  # noqa: PLC0415 - slow

    if exit_code:
        ctx.meta[EXIT_CODE] = 2
    checkpointer = session.checkpointer()
    difference = await checkpointer.compare(
        await find_id(checkpointer, a, thread, namespace),
        await find_id(checkpointer, b, thread, namespace),
        thread_id=thread,
        namespace=namespace,
    )
    if as_json:
        typer.echo(safe_json(difference.as_dict()))
    else:
        difference.render(rendering.wide(), full=full)
    if exit_code and difference:
        raise typer.Exit(1)


@with_session
async def restore(
    session: Session,
    checkpoint_id: Id,
    *,
    output: Annotated[
        str, typer.Option("--output", "-o", help="A file, packed if it ends in .gz; - is stdout.")
    ] = "-",
    validate: Annotated[
        bool,
        typer.Option("--validate", help="Check it against the schema that it was saved with."),
    ] = False,
    thread: OfThread = None,
    namespace: Namespace = "",
) -> None:
    """Write the state of a checkpoint as JSON."""
    from haive.core.persistence.checkpointer._view import view  # noqa: PLC0415 - slow

    checkpointer = session.checkpointer()
    state = await checkpointer.restore(
        await find_id(checkpointer, checkpoint_id, thread, namespace),
        validate_schema=validate,
        thread_id=thread,
        namespace=namespace,
    )
    text = safe_json(view(state))
    with opened(output) as file:
        file.write(f"{text}\n".encode())


async def _history(
    checkpointer: Checkpointer,
    thread: str,
    namespace: str,
    *,
    branch: str | None = None,
    failed: bool,
    limit: int,
) -> tuple[list[Checkpoint], bool]:
    """The newest checkpoints of a thread, and whether there are more.

    Raises:
        NotFoundError: There is no such thread, namespace or branch.
    """
    found: list[Checkpoint] = []
    page = None
    while len(found) <= limit and page != []:
        page = await checkpointer.get_history(
            thread,
            include_failed=failed,
            branch=branch,
            namespace=namespace,
            limit=min(limit + 1 - len(found), _PAGE),
            before=found[-1].seq if found else None,
        )
        found += page
    if not found:
        await find_thread(checkpointer, thread, namespace)
        branches = await checkpointer.list_branches(thread, namespace=namespace)
        names = [one.name for one in branches]
        if branch is not None and branch not in {*names, *(str(one.id) for one in branches)}:
            raise NotFoundError(
                f"The thread has no branch {branch!r}.", hint=f"It has {', '.join(names)}."
            )
    return found[:limit], len(found) > limit
