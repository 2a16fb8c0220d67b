"""What a pass over many threads could not do, told when the pass is over."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from haive.core.persistence.errors import CheckpointError, ConflictError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

# Threads that the message names.
_NAMED = 10


class Failures:
    """The threads that were left: one that is damaged, or in use, shall not stop the others."""

    def __init__(self) -> None:
        self._errors: dict[str, CheckpointError] = {}
        self._busy: dict[str, ConflictError] = {}

    @contextmanager
    def of(self, thread_id: str) -> Iterator[None]:
        """Keep an error of a thread for later; the first of each thread counts.

        A thread that somebody deletes meanwhile has nothing left to be done.
        """
        try:
            yield
        except NotFoundError:
            return
        except CheckpointError as error:
            self._errors.setdefault(thread_id, error)
        except ConflictError as error:
            self._busy.setdefault(thread_id, error)

    def check(self, *, one: bool = False) -> None:
        """Raise what was kept, if there is something.

        Args:
            one: The pass was over one thread that the caller named: its error is told as it is.

        Raises:
            CheckpointError: Threads could not be read, and which; of the class of their errors if
                that is the same for all.
            ConflictError: Threads were changed by others all the time, and which.
        """
        if self._errors:
            errors = list(self._errors.values())
            if one:
                raise errors[0]
            classes = {type(error) for error in errors}
            raise (classes.pop() if len(classes) == 1 else CheckpointError)(
                f"What is stored of {_named(self._errors)} cannot be read, and was left as it is: "
                f"{errors[0]}",
                hint=f"All other threads are done{self._but_busy()}.",
            ) from errors[0]
        if self._busy:
            busy = list(self._busy.values())
            if one:
                raise busy[0]
            raise ConflictError(
                f"Others changed {_named(self._busy)} all the time.",
                hint="All other threads are done; call it again.",
            ) from busy[0]

    def _but_busy(self) -> str:
        return (
            f" but {_named(self._busy)}, which others changed: call it again" if self._busy else ""
        )


def _named(threads: Collection[str]) -> str:
    names = ", ".join(map(repr, list(threads)[:_NAMED]))
    more = len(threads) - _NAMED
    return f"{names} and {more:,} more" if more > 0 else names
