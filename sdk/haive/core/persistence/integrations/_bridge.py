"""The one way from code without ``await`` to the event loop that a store lives in."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from haive.core.persistence.errors import InvalidInputError, PersistenceError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

T = TypeVar("T")

# Seconds until a loop that does not run is taken for one that will not: its thread may just begin.
_PATIENCE = 0.5


class Bridge:
    """Runs coroutines on one event loop, whoever calls.

    Args:
        loop: The loop that the store was opened in.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._process = os.getpid()

    @classmethod
    def here(cls) -> Bridge:
        """A bridge to the loop that is running.

        Raises:
            InvalidInputError: None is.
        """
        try:
            return cls(asyncio.get_running_loop())
        except RuntimeError:
            raise InvalidInputError(
                "No event loop is running.",
                hint="Call from_store where the store was opened; a program without a loop takes"
                " from_conn_string.",
            ) from None

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await a coroutine on the loop of the store, from whichever loop.

        Raises:
            PersistenceError: The loop of the store is closed, or does not run.
        """
        if asyncio.get_running_loop() is self._loop:
            return await work
        try:
            if (turned := self._turned()) is not None:
                with _refusing_what_stands():
                    await asyncio.wait_for(asyncio.wrap_future(turned), _PATIENCE)
        except BaseException:
            work.close()
            raise
        return await asyncio.wrap_future(self._submitted(work))

    def check(self, instead: str) -> None:
        """Refuse to wait where waiting would stop what is waited for.

        Args:
            instead: The name of the method to await.

        Raises:
            PersistenceError: The caller is on the loop of the store.
        """
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            return
        if running is self._loop:
            raise PersistenceError(
                "This would block the event loop that it waits for.",
                hint=f"Await {instead} instead, or call it from another thread.",
            )

    def wait(self, instead: str, work: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine in a thread that does not run the loop of the store.

        Args:
            instead: The name of the method that does the same and is awaited.
            work: What to run.

        Raises:
            PersistenceError: The caller is on the loop of the store, or that is closed or does not
                run.
        """
        try:
            self.check(instead)
            if (turned := self._turned()) is not None:
                with _refusing_what_stands():
                    turned.result(_PATIENCE)
        except BaseException:
            work.close()
            raise
        future = self._submitted(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupt shall not leave it behind
            raise

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop of the store, and do not wait for it.

        Raises:
            PersistenceError: The loop is closed.
        """
        return self._submitted(work)

    def _turned(self) -> Future[None] | None:
        """What is done once the loop runs, where it does not: work is awaited in vain till then."""
        if self._loop.is_running():
            return None
        turned: Future[None] = Future()
        try:
            self._loop.call_soon_threadsafe(_tell, turned)
        except RuntimeError:  # it is closed, as is told to who submits something
            return None
        return turned

    def _submitted(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if os.getpid() != self._process:
            work.close()
            # A fork has no thread that runs the loop: it would wait for ever.
            raise PersistenceError(
                "The store was opened in another process.", hint="Open one in each, after the fork."
            )
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise PersistenceError(
                "The event loop of the store is closed.", hint="Make it anew, over a new store."
            ) from None


def _tell(turned: Future[None]) -> None:
    if turned.set_running_or_notify_cancel():  # else nobody waits for it any more
        turned.set_result(None)


@contextmanager
def _refusing_what_stands() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise PersistenceError(
            "The event loop of the store is not running.",
            hint="Keep it running in a thread of its own, as from_conn_string does.",
        ) from None


@contextmanager
def loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    begun = Event()
    loop.call_soon(begun.set)
    thread = Thread(target=loop.run_forever, name="haive-saver", daemon=True)
    thread.start()
    begun.wait()
    process = os.getpid()
    try:
        yield loop
    finally:
        if os.getpid() == process:  # a fork has no such thread to end
            _end(loop, thread)


def _end(loop: asyncio.AbstractEventLoop, thread: Thread) -> None:
    asyncio.run_coroutine_threadsafe(_wind_up(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def _wind_up() -> None:
    """Cancel what still runs on the loop, and wait for its end."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    loop = asyncio.get_running_loop()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()
