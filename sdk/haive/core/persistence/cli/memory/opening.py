"""What the commands begin with: options that all of them have, and a memory."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

from haive.core.persistence.cli.connection import (
    DatabaseUrl,
    Key,
    Schema,
    Target,
    Tenant,
    Url,
    find_target,
)
from haive.core.persistence.errors import (
    CollectionMismatchError,
    ConfigurationError,
    NotFoundError,
    UnsupportedOperationError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haive.core.persistence.store import Store
    from haive.core.persistence.vector.backends.pgvector import PgvectorBackend
    from haive.core.persistence.vector.config import MemoryConfig
    from haive.core.persistence.vector.memory import VectorMemory

P = ParamSpec("P")

_PANEL = "Collection"
_LOCAL = "minilm-l6-int8-"
_HASHING = "hashing-1-"
# What a collection was made with that no option names.
_OF_COLLECTION = ("metric", "language")


class EmbedderName(StrEnum):
    """What `--embedder` takes."""

    AUTO = "auto"
    NONE = "none"
    LOCAL = "local"
    API = "api"


Collection = Annotated[
    str, typer.Option(help="The collection, as index_name in Python.", rich_help_panel=_PANEL)
]
Environment = Annotated[
    str | None,
    typer.Option(
        help="Which one of that name: production, staging and so on.", rich_help_panel=_PANEL
    ),
]
EmbedderOption = Annotated[
    EmbedderName,
    typer.Option(
        help="What makes vectors; auto is what the collection was made with, and for a new one the"
        " model on this machine, if it is installed.",
        rich_help_panel=_PANEL,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="The API's model, such as text-embedding-3-small. (env: OPENAI_API_KEY,"
        " OPENAI_BASE_URL)",
        rich_help_panel=_PANEL,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
FilterText = Annotated[
    str | None,
    typer.Option(
        "--filter", help='Only what passes, as JSON: {"importance": {"$gte": 0.7}, "kind": "note"}.'
    ),
]
User = Annotated[str | None, typer.Option(help="Only what is about this user.")]


@dataclass(frozen=True)
class Opened:
    """An open store, and the collection that the options name."""

    store: Store
    config: MemoryConfig
    target: Target

    @property
    def collection(self) -> str:
        """The collection's name."""
        return self.config.collection_name

    @asynccontextmanager
    async def memory(self, *, make: bool = False) -> AsyncIterator[VectorMemory]:
        """The memory of the collection, with what its vectors are made with.

        Args:
            make: Whether the collection is made where there is none.

        Raises:
            NotFoundError: There is no such collection.
            CollectionMismatchError: It is made with another model than the options name.
        """
        from haive.core.persistence.vector.memory import VectorMemory  # noqa: PLC0415 - slow

        backend = await self._backend(make=make)
        config = await self._config_of_model()
        memory = VectorMemory(config=config, store=self.store, backend=backend)
        try:
            await memory.__aenter__()
        except CollectionMismatchError:
            config = await self._config_of_collection(config)
            memory = VectorMemory(config=config, store=self.store, backend=backend)
            await memory.__aenter__()
        try:
            yield memory
        finally:
            await memory.aclose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[tuple[VectorMemory, PgvectorBackend]]:
        """The memory of the collection, and what keeps it, for what needs no model."""
        from haive.core.persistence.vector.memory import VectorMemory  # noqa: PLC0415 - slow

        backend = await self._backend(make=True)
        found = await self._described()
        config = self._config_with(found, **_recorded(found))
        async with VectorMemory(config=config, store=self.store, backend=backend) as memory:
            yield memory, backend

    def dsn(self) -> str:
        """A direct connection to the database that the tenant is in.

        Raises:
            UnsupportedOperationError: Only the REST API is known, or the base database.
        """
        from haive.core.persistence.multitenancy._databases import (  # noqa: PLC0415 - slow
            DatabaseTransport,
        )

        transport = self.store._transport
        if isinstance(getattr(transport, "_place", transport), DatabaseTransport):
            raise UnsupportedOperationError(
                "The tenant has a database of its own.",
                hint="Name that one with --database-url.",
            )
        if self.target.database_url is None:
            raise UnsupportedOperationError(
                "Only a direct connection builds indexes.",
                hint="Set DATABASE_URL, or pass --database-url, as the owner of the tables.",
            )
        return self.target.database_url

    async def _backend(self, *, make: bool = False) -> PgvectorBackend:
        """What keeps the collection; it is not opened.

        Raises:
            NotFoundError: There is no such collection, and none is to be made.
        """
        from haive.core.persistence.vector.backends.pgvector import (  # noqa: PLC0415 - slow
            PgvectorBackend,
        )

        if not make:
            await self._described(only_whether=True)
        return PgvectorBackend(self.store)

    async def _described(self, *, only_whether: bool = False) -> dict[str, Any]:
        from pydantic import TypeAdapter  # noqa: PLC0415 - slow

        # Statistics count words; whether it is there is told by asking for no memory.
        function = "get_memories" if only_whether else "memory_stats"
        asked: dict[str, Any] = {"collection": self.collection}
        if only_whether:
            asked["ids"] = []
        returns: TypeAdapter[Any] = TypeAdapter(Any)
        try:
            found = await self.store._transport.call(function, asked, returns, safe=True)
        except NotFoundError as error:
            raise NotFoundError(
                f"There is no collection {self.collection}.",
                hint="`haive memory add` makes it; --collection and --environment name others.",
            ) from error
        return {} if only_whether else dict(found["collection"])

    async def _config_of_model(self) -> MemoryConfig:
        """The settings of the options; how wide a model's vectors are, the collection may know.

        Raises:
            ConfigurationError: The width of a model is needed for a new collection.
        """
        from haive.core.persistence.embedding.openai import (  # noqa: PLC0415 - slow
            KNOWN_DIMENSIONS,
        )

        model = self.config.embedding_model
        if model is None or model in KNOWN_DIMENSIONS:
            return self.config
        try:
            width = (await self._described())["dimensions"]
        except NotFoundError:
            width = None
        if width is None:
            raise ConfigurationError(
                f"How wide the vectors of {model} are is not known.",
                hint="Make the collection in Python, with embedding_dimensions in its config.",
            )
        return self.config.model_copy(update={"embedding_dimensions": width})

    async def _config_of_collection(self, tried: MemoryConfig) -> MemoryConfig:
        """The settings that open a collection which is there; a model that was named stays."""
        found = await self._described()
        if tried.embedding_strategy != "auto" or tried.embedding_model:
            return tried.model_copy(update={name: found[name] for name in _OF_COLLECTION})
        return self._config_with(found, **_settings_of(found))

    def _config_with(self, found: dict[str, Any], **changes: Any) -> MemoryConfig:
        from haive.core.persistence.vector.config import MemoryConfig  # noqa: PLC0415 - slow

        names = {"index_name": self.config.index_name, "environment": self.config.environment}
        same = {name: found[name] for name in _OF_COLLECTION}
        return MemoryConfig(**names, **same, **changes)


def _settings_of(found: dict[str, Any]) -> dict[str, Any]:
    """What makes the vectors of a collection, by the name that is recorded of it."""
    from haive.core.persistence.embedding import HashingEmbedder  # noqa: PLC0415 - slow
    from haive.core.persistence.embedding.openai import KNOWN_DIMENSIONS  # noqa: PLC0415 - slow

    model, width = found["model"], found["dimensions"]
    if model is None:
        return {"embedding_strategy": "none"}
    if model.startswith(_LOCAL):
        return {"embedding_strategy": "local"}
    if model.startswith(_HASHING):
        return {"embedder": HashingEmbedder(width)}
    name = model.removesuffix(f"-{width}")
    # Other models are named alike that no API has, and none may be sent their texts.
    if name in KNOWN_DIMENSIONS:
        return {
            "embedding_strategy": "api", "embedding_model": name, "embedding_dimensions": width,
        }  # fmt: skip
    raise ConfigurationError(
        f"The vectors are those of {model}, which the command line does not know.",
        hint="Name the model with --model where an API has it; else use VectorMemory in Python,"
        " with the embedder that made them.",
    )


class _Absent:
    """Stands for what made the vectors, where only vectors that are there are read."""

    def __init__(self, name: str, dimensions: int) -> None:
        self.name = name
        self.dimensions = dimensions

    async def embed(self, texts: Any) -> Any:
        raise ConfigurationError(f"{self.name} is not opened for reading.")

    async def calibration(self) -> Any:
        raise ConfigurationError(f"{self.name} is not opened for reading.")


def _recorded(found: dict[str, Any]) -> dict[str, Any]:
    if found["model"] is None:
        return {"embedding_strategy": "none"}
    return {"embedder": _Absent(found["model"], found["dimensions"])}


Command = Callable[Concatenate[Opened, P], Coroutine[Any, Any, None]]


def with_memory(command: Command[P]) -> Callable[..., None]:
    """Make a command of a coroutine: it has the options of collection and connection."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        given = {name: options.pop(name) for name in _OPTIONS}
        of_memory = {name: given.pop(name) for name in _OF_MEMORY}
        target = find_target(**given)

        async def within() -> None:
            config = _config(**of_memory)
            async with target.opened() as store:
                await command(Opened(store, config, target), *arguments, **options)

        asyncio.run(within())

    own = inspect.signature(command, eval_str=True)
    _, *parameters = own.parameters.values()
    own = own.replace(parameters=[*parameters, *_OPTIONS.values()], return_annotation=None)
    run.__signature__ = own  # type: ignore[attr-defined]
    run.__annotations__ = {name: one.annotation for name, one in own.parameters.items()}
    return run


def _options(
    *,
    collection: Collection = "haive-memories",
    environment: Environment = None,
    embedder: EmbedderOption = EmbedderName.AUTO,
    model: Model = None,
    database_url: DatabaseUrl = None,
    url: Url = None,
    key: Key = None,
    schema: Schema = None,
    tenant: Tenant = None,
) -> None:
    """The options that every command has."""


_OPTIONS = dict(inspect.signature(_options, eval_str=True).parameters)
_OF_MEMORY = ("collection", "environment", "embedder", "model")


def _config(
    *, collection: str, environment: str | None, embedder: EmbedderName, model: str | None
) -> MemoryConfig:
    from haive.core.persistence.vector.config import MemoryConfig  # noqa: PLC0415 - slow

    return MemoryConfig(
        index_name=collection,
        environment=environment,
        embedding_strategy=embedder.value,
        embedding_model=model,
    )


def parsed_object(option: str, text: str | None) -> dict[str, Any]:
    """A JSON object of an option; an empty one if it is not given."""
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{option} is no JSON object.")
    return value


def filters_of(text: str | None, user: str | None) -> dict[str, Any] | None:
    """The filters of `--filter` and `--user` together; None without both."""
    parts = [] if text is None else [parsed_object("--filter", text)]
    parts += [] if user is None else [{"user_id": user}]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else {"$and": parts}
