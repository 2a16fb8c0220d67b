"""What is tried again."""

from __future__ import annotations

import pytest

from haive.core.persistence._retry import retrying
from haive.core.persistence.errors import DeadlockError, PersistenceError, UnavailableError


@pytest.mark.parametrize(
    ("error", "safe", "tries"),
    [
        (DeadlockError, True, 2),
        # Postgres has undone all of it.
        (DeadlockError, False, 2),
        (UnavailableError, True, 2),
        (UnavailableError, False, 1),
        (PersistenceError, True, 1),
    ],
)
async def test_what_passes_is_tried_again_if_that_is_safe(
    error: type[PersistenceError], safe: bool, tries: int
) -> None:
    calls = 0

    async def fails_once() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise error("It failed.")
        return "done"

    if tries == 2:
        assert await retrying(fails_once, 5, safe=safe) == "done"
    else:
        with pytest.raises(error):
            await retrying(fails_once, 5, safe=safe)
    assert calls == tries
