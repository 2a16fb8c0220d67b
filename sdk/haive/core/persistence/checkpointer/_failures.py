"""What a pass over many threads could not read, told when the pass is over."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from haive.core.persistence.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Threads that the message names.
_NAMED = 10


class Failures:
    """The threads that could not be read: one that is damaged shall not stop the others."""

    def __init__(self) -> None:
        self._errors: dict[str, CheckpointError] = {}

    @contextmanager
    def of(self, thread_id: str) -> Iterator[None]:
        """Keep an error of checkpoints of a thread for later; the first of each thread counts."""
        try:
            yield
        except CheckpointError as error:
            self._errors.setdefault(thread_id, error)

    def check(self, *, one: bool = False) -> None:
        """Raise what was kept, if there is something.

        Args:
            one: The pass was over one thread that the caller named: its error is told as it is.

        Raises:
            CheckpointError: Threads could not be read, and which; of the class of their errors if
                that is the same for all.
        """
        if not self._errors:
            return
        errors = list(self._errors.values())
        if one:
            raise errors[0]
        names = ", ".join(map(repr, list(self._errors)[:_NAMED]))
        more = f" and {len(errors) - _NAMED:,} more" if len(errors) > _NAMED else ""
        classes = {type(error) for error in errors}
        raise (classes.pop() if len(classes) == 1 else CheckpointError)(
            f"What is stored of {names}{more} cannot be read, and was left as it is: {errors[0]}",
            hint="All other threads are done.",
        ) from errors[0]
