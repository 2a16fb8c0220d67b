"""LangGraph's store over the memories of a store."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from langgraph.store.base import BaseStore, TTLConfig

from haive.core.persistence.errors import ConfigurationError
from haive.core.persistence.integrations._bridge import Bridge, loop_in_thread
from haive.core.persistence.integrations._items import Items
from haive.core.persistence.integrations._open import opened
from haive.core.persistence.integrations._sweeper import Sweeper, is_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from concurrent.futures import Future

    from langgraph.store.base import IndexConfig, Op, Result

    from haive.core.persistence.store import Store
    from haive.core.persistence.vector import MemoryConfig

_MINUTES = 5.0
# What an item takes.
_LONGEST = 1e9
_TTL = frozenset(TTLConfig.__annotations__)


class HaiveStore(BaseStore):
    """LangGraph's long-term memory, in the tenants, under the policies and quotas of a store.

    Each item is a memory; one that is found by several of its fields has a memory for each. A value
    comes back as the JSON that it was. Items are found by meaning where ``index`` names what makes
    vectors, else by their words. What has expired is not there, swept or not.

    With ``user_id`` every item is that user's: nobody else's store finds it, and it is erased and
    exported with all else of theirs.

    Its methods are those of ``BaseStore``. Those without ``await`` work in any thread except the
    one that runs the event loop of the store.
    """

    supports_ttl = True

    def __init__(self, items: Items, bridge: Bridge, ttl: TTLConfig | None = None) -> None:
        self._items = items
        self._bridge = bridge
        self.ttl_config = _checked(ttl)
        self._sweeper = Sweeper(items.sweep, bridge)

    @classmethod
    def from_store(
        cls,
        store: Store,
        config: MemoryConfig | None = None,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        user_id: str | None = None,
    ) -> Self:
        """Items in the database of an open store; to be called where that was opened.

        Args:
            store: An open `PostgresStore` or `SupabaseStore`.
            config: The collection and how its vectors are indexed; ``langgraph`` if not given.
            index: As LangGraph has it: ``embed`` is LangChain's ``Embeddings``, a function, the
                name of a provider's model, or an `Embedder`; ``dims`` saves a call of it that
                measures how wide its vectors are; ``fields`` are paths to what is found, all if not
                given. Without ``embed`` it is what ``config`` says, and without that items are
                found by their words.
            ttl: As LangGraph has it: ``default_ttl`` in minutes, ``refresh_on_read``, and
                ``sweep_interval_minutes`` for `start_ttl_sweeper`.
            user_id: Whose items; None for those of nobody.

        Raises:
            InvalidInputError: No event loop is running.
            ConfigurationError: The settings contradict each other.
        """
        bridge = Bridge.here()
        return cls(Items(store, config, index, user_id), bridge, ttl)

    @classmethod
    @contextmanager
    def from_conn_string(
        cls,
        url: str,
        config: MemoryConfig | None = None,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        user_id: str | None = None,
        **settings: Any,
    ) -> Iterator[Self]:
        """Items with a store of their own, for a program without an event loop.

        Store and loop run in a thread until the block ends, and so does the sweeper.

        Args:
            url: ``postgresql://…`` of a database, or ``https://…`` of a Supabase project.
            config: As in `from_store`.
            index: As in `from_store`.
            ttl: As in `from_store`.
            user_id: As in `from_store`.
            settings: What `PersistenceConfig` or `SupabaseStore` takes beside: ``schema``,
                ``tenant``, ``key`` …
        """
        with loop_in_thread() as loop:
            bridge = Bridge(loop)
            store = bridge.wait("from_store", opened(url, settings))
            try:
                made = cls(Items(store, config, index, user_id), bridge, ttl)
                try:
                    yield made
                finally:
                    made.stop_ttl_sweeper()
            finally:
                bridge.wait("aclose", store.aclose())

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """What operations give, in their order; a round trip for each kind of them.

        What is read is as it was before anything of the batch is written. Of several puts of one
        item the last one counts. Up to 1,000 puts, of up to 8 MiB, are written all or none; an
        item counts once for each of its texts, of which it has up to 100.

        Raises:
            InvalidNamespaceError: A namespace is none.
            InvalidInputError: Something cannot be stored, or a filter is wrong; nothing was stored.
            ModelError: There are no vectors; nothing was stored.
        """
        return await self._bridge.run(self._items.run(ops))

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """See `abatch`."""
        return self._bridge.wait("abatch", self._items.run(ops))

    # -- expiry ----------------------------------------------------------------------------------

    async def asweep_ttl(self) -> int:
        """Remove the items that have expired, and return how many; 1,000 a round trip."""
        return await self._bridge.run(self._items.sweep())

    def sweep_ttl(self) -> int:
        """See `asweep_ttl`."""
        return self._bridge.wait("asweep_ttl", self._items.sweep())

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> Future[None]:
        """Sweep again and again, until `stop_ttl_sweeper`; it does not wait, in any thread.

        Args:
            sweep_interval_minutes: If not given, that of ``ttl``, and else 5.

        Returns:
            What ends when the sweeper does; the same one where it runs already.

        Raises:
            InvalidInputError: No time is between two sweeps.
        """
        configured = (self.ttl_config or {}).get("sweep_interval_minutes")
        given = configured if sweep_interval_minutes is None else sweep_interval_minutes
        return self._sweeper.start(_MINUTES if given is None else given)

    async def astop_ttl_sweeper(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109
        """Stop the sweeper; a sweep that is under way is broken off.

        Args:
            timeout: Seconds to wait for its end; None for as long as it takes.

        Returns:
            Whether it has ended.
        """
        return await self._bridge.run(self._sweeper.stop(timeout))

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """See `astop_ttl_sweeper`."""
        return self._bridge.wait("astop_ttl_sweeper", self._sweeper.stop(timeout))


def _checked(ttl: TTLConfig | None) -> TTLConfig | None:
    """LangGraph's settings of expiry.

    Raises:
        ConfigurationError: They have something that it does not know, or that means nothing.
    """
    if ttl is None:
        return None
    if unknown := sorted(set(ttl) - _TTL):
        raise ConfigurationError(
            f"ttl has {', '.join(unknown)}.", hint=f"It has {', '.join(sorted(_TTL))}."
        )
    given: Mapping[str, Any] = ttl
    usual, interval = given.get("default_ttl"), given.get("sweep_interval_minutes")
    if usual is not None and (
        isinstance(usual, bool) or not isinstance(usual, int | float) or not 0 <= usual <= _LONGEST
    ):
        raise ConfigurationError("default_ttl in ttl is no number of minutes from 0 to 1e9.")
    if interval is not None and not is_interval(interval):
        raise ConfigurationError("sweep_interval_minutes in ttl is no number above 0.")
    if not isinstance(given.get("refresh_on_read", True), bool):
        raise ConfigurationError("refresh_on_read in ttl is neither True nor False.")
    return ttl
