"""What the commands begin with: options that all of them have, keys, and short ids."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
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
from haive.core.persistence.cli.jobs import alone
from haive.core.persistence.errors import (
    CheckpointKeyError,
    ConfigurationError,
    InvalidInputError,
    NotFoundError,
)

if TYPE_CHECKING:
    from haive.core.persistence.checkpointer import Checkpointer, KeyRing, Thread
    from haive.core.persistence.store import Store

P = ParamSpec("P")

_KEY_HINT = "Set CHECKPOINT_KEY, or pass --key-file; several keys are separated by commas."
_THREAD_HINT = "Say with --thread of which one."
# Of a short id: any six digits are one of sixteen million.
_SHORTEST = 4

KeyFile = Annotated[
    Path | None,
    typer.Option(
        help="A file with the encryption keys, the first one seals. (env: CHECKPOINT_KEY)",
        rich_help_panel="Connection",
    ),
]
ThreadId = Annotated[str, typer.Argument(metavar="THREAD", help="The thread.", show_default=False)]
Id = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="The checkpoint: its id, or with --thread how that begins or ends.",
        show_default=False,
    ),
]
OfThread = Annotated[
    str | None, typer.Option("--thread", help="The thread of the checkpoint, for short ids.")
]
Namespace = Annotated[str, typer.Option(help="Which part of the thread: a subgraph's path.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@dataclass(frozen=True)
class Session:
    """An open store, and the keys."""

    store: Store
    ring: KeyRing | None

    def checkpointer(self, **settings: Any) -> Checkpointer:
        """A checkpointer with these settings."""
        from haive.core.persistence.checkpointer import (  # noqa: PLC0415 - slow
            CheckpointConfig,
            Checkpointer,
        )

        return Checkpointer(self.store, CheckpointConfig(encryption_key=self.ring, **settings))

    @asynccontextmanager
    async def alone(self, job: str) -> AsyncIterator[bool]:
        """Whether nobody else does this job in the tenant, for as long as the block runs."""
        async with alone(self.store, job) as is_alone:
            yield is_alone


Command = Callable[Concatenate[Session, P], Coroutine[Any, Any, None]]


def with_session(command: Command[P]) -> Callable[..., None]:
    """Make a command of a coroutine: it has the options of the connection, and gets a session."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        given = {name: options.pop(name) for name in _OPTIONS}
        key_file = given.pop("key_file")
        target = find_target(**given)

        async def within() -> None:
            ring = read_ring(key_file)
            async with target.opened() as store:
                await command(Session(store, ring), *arguments, **options)

        try:
            asyncio.run(within())
        except CheckpointKeyError as error:
            raise CheckpointKeyError(error.message, hint=_KEY_HINT) from error
        except InvalidInputError as error:
            # Of a checkpoint that copies of its thread have, too.
            if "thread_id" not in (error.hint or ""):
                raise
            raise InvalidInputError(error.message, hint=_THREAD_HINT) from error

    own = inspect.signature(command, eval_str=True)
    _, *parameters = own.parameters.values()
    own = own.replace(parameters=[*parameters, *_OPTIONS.values()], return_annotation=None)
    run.__signature__ = own  # type: ignore[attr-defined]
    run.__annotations__ = {name: one.annotation for name, one in own.parameters.items()}
    return run


def _options(
    *,
    key_file: KeyFile = None,
    database_url: DatabaseUrl = None,
    url: Url = None,
    key: Key = None,
    schema: Schema = None,
    tenant: Tenant = None,
) -> None:
    """The options that every command has."""


_OPTIONS = dict(inspect.signature(_options, eval_str=True).parameters)


def read_ring(key_file: Path | None) -> KeyRing | None:
    """The keys of a file, else of the environment: an option would show who lists processes.

    Raises:
        ConfigurationError: The file cannot be read, or what is there is no key.
    """
    text = os.environ.get("CHECKPOINT_KEY", "")
    if key_file is not None:
        try:
            text = ",".join(key_file.read_text("utf-8").split())
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ConfigurationError(f"{key_file} cannot be read: {why}.") from error
        text = ",".join(part for part in text.split(",") if part)
        if not text:
            raise ConfigurationError(
                f"{key_file} is empty.", hint="`haive checkpoints key` makes a key."
            )
    if not text.strip():
        return None
    from haive.core.persistence.checkpointer import KeyRing  # noqa: PLC0415 - slow

    return KeyRing.parse(text)


async def find_thread(checkpointer: Checkpointer, thread_id: str, namespace: str | None) -> Thread:
    """A thread that has this namespace, if one is given.

    Raises:
        NotFoundError: There is none.
    """
    try:
        thread = await checkpointer.get_thread(thread_id)
    except NotFoundError as error:
        raise NotFoundError(
            f"There is no thread {thread_id!r}.", hint="`haive checkpoints threads` lists them."
        ) from error
    if namespace is not None and namespace not in thread.namespaces:
        there = ", ".join(repr(one) for one in thread.namespaces)
        raise NotFoundError(
            f"The thread has no namespace {namespace!r}.", hint=f"--namespace is one of {there}."
        )
    return thread


async def find_id(
    checkpointer: Checkpointer, text: str, thread: str | None, namespace: str
) -> UUID:
    """The id of a checkpoint, which in a thread may be given by how it begins or ends.

    Raises:
        NotFoundError: None begins or ends so.
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
            f"{text!r} is no id of a checkpoint.",
            hint=f"It is a UUID, or at least {_SHORTEST} digits of its beginning or end.",
        )
    if thread is None:
        raise InvalidInputError(f"{text!r} is a short id.", hint=_THREAD_HINT)
    await find_thread(checkpointer, thread, namespace)
    found: list[UUID] = []
    before = None
    while True:
        page = await checkpointer.get_history(
            thread,
            include_failed=True,
            include_metadata=False,
            namespace=namespace,
            limit=1_000,
            before=before,
        )
        found += [
            one.id for one in page if one.id.hex.startswith(digits) or one.id.hex.endswith(digits)
        ]
        if not page:
            break
        before = page[-1].seq
    if not found:
        raise NotFoundError(
            f"No checkpoint of the thread begins or ends with {text!r}.",
            hint="`haive checkpoints list` shows them, failed ones with --failed.",
        )
    if len(found) > 1:
        some = ", ".join(str(one) for one in found[:3]) + (", …" if len(found) > 3 else "")
        raise InvalidInputError(
            f"{len(found)} checkpoints begin or end with {text!r}: {some}.",
            hint="Give more digits; the end of an id is random.",
        )
    return found[0]
