"""What the commands begin with: the options of the connection, and a manager of tenants."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

from haive.core.persistence.cli.connection import (
    DatabaseUrl,
    Key,
    Schema,
    Url,
    find_target,
    manager_of,
)

if TYPE_CHECKING:
    from haive.core.persistence.multitenancy import TenantManager

P = ParamSpec("P")

TenantId = Annotated[
    str, typer.Argument(metavar="TENANT", help="The tenant's id.", show_default=False)
]
UserId = Annotated[str, typer.Argument(metavar="USER", help="The user's id.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

Command = Callable[Concatenate["TenantManager", P], Coroutine[Any, Any, None]]


def with_manager(command: Command[P]) -> Callable[..., None]:
    """Make a command of a coroutine: it has the options of the connection, and gets a manager."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        target = find_target(**{name: options.pop(name) for name in _OPTIONS})

        async def within() -> None:
            async with target.store() as store:
                await command(manager_of(store), *arguments, **options)

        asyncio.run(within())

    # Not the first parameter, whose type is imported when a command runs.
    names = {**globals(), **inspect.getmodule(command).__dict__, "TenantManager": object}
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
) -> None:
    """The options that every command has."""


_OPTIONS = dict(inspect.signature(_options, eval_str=True).parameters)
