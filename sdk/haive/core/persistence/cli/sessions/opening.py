"""What the commands begin with: options that all of them have, a manager, and short ids."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec
from uuid import UUID

import typer

from haive.core.persistence.cli.connection import (
    DatabaseUrl,
    Key,
    Schema,
    Tenant,
    Url,
    find_target,
)
from haive.core.persistence.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from haive.core.persistence.session import SessionManager

P = ParamSpec("P")

# Of a short id: any four digits are one of sixty-five thousand.
_SHORTEST = 4
_PAGE = 1_000
# Among how many of the latest sessions a short id is looked for.
_LATEST = 20_000

Id = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="The session: its id, or four digits or more of its beginning or end.",
        show_default=False,
    ),
]
AsUser = Annotated[
    str | None, typer.Option(help="Do it for this user, as far as they may; else for the service.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

Command = Callable[Concatenate["SessionManager", P], Coroutine[Any, Any, None]]


def with_manager(command: Command[P]) -> Callable[..., None]:
    """Make a command of a coroutine: it has the options of the connection, and gets a manager."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        target = find_target(**{name: options.pop(name) for name in _OPTIONS})

        async def within() -> None:
            from haive.core.persistence.session import SessionManager  # noqa: PLC0415 - slow

            async with target.opened() as store:
                await command(SessionManager(store), *arguments, **options)

        asyncio.run(within())

    # Not the first parameter, whose type is imported when a command runs.
    names = {**globals(), **inspect.getmodule(command).__dict__, "SessionManager": object}
    own = inspect.signature(command, eval_str=True, globals=names)
    _, *parameters = own.parameters.values()
    own = own.replace(parameters=[*parameters, *_OPTIONS.values()], return_annotation=None)
    run.__signature__ = own  # type: ignore[attr-defined]
    run.__annotations__ = {name: one.annotation for name, one in own.parameters.items()}
    return run


def _options(
    *,
    database_url: DatabaseUrl = None,
    url: Url = None,
    key: Key = None,
    schema: Schema = None,
    tenant: Tenant = None,
) -> None:
    """The options that every command has."""


_OPTIONS = dict(inspect.signature(_options, eval_str=True).parameters)


async def find_id(manager: SessionManager, text: str, as_user: str | None = None) -> UUID:
    """The id of a session, which may be given by how it begins or ends.

    Raises:
        NotFoundError: None of the latest ones begins or ends so.
        InvalidInputError: Several do, or it is no part of an id.
    """
    digits = text.replace("-", "").lower()
    if len(digits) == 32:
        try:
            return UUID(digits)
        except ValueError:
            pass
    if len(digits) < _SHORTEST or not set(digits) <= set("0123456789abcdef"):
        raise InvalidInputError(
            f"{text!r} is no id of a session.",
            hint=f"It is a UUID, or at least {_SHORTEST} digits of its beginning or end.",
        )
    found: list[UUID] = []
    seen, page_after = 0, None
    while seen < _LATEST:
        page = await manager.list_sessions(limit=_PAGE, page_after=page_after, as_user=as_user)
        seen, page_after = seen + len(page), page.next_page
        found += [
            one.id for one in page if one.id.hex.startswith(digits) or one.id.hex.endswith(digits)
        ]
        if page_after is None:
            break
    if not found:
        raise NotFoundError(
            f"No session begins or ends with {text!r}.",
            hint="`haive sessions list` shows the latest ones.",
        )
    if len(found) > 1:
        some = ", ".join(str(one) for one in found[:3]) + (", …" if len(found) > 3 else "")
        raise InvalidInputError(
            f"{len(found)} sessions begin or end with {text!r}: {some}.",
            hint="Give more digits; the end of an id is random.",
        )
    return found[0]


def parsed_object(option: str, text: str | None) -> dict[str, Any]:
    """A JSON object of an option; an empty one if it is not given."""
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{option} is no JSON object.")
    return value
