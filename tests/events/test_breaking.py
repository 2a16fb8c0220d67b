"""A subscriber hears of everything once and in order while all around it breaks."""

from __future__ import annotations

import pytest

from haive.core.persistence._postgres_hints import PostgresHints
from haive.core.persistence.bench import chaos
from haive.core.persistence.local import LocalStack


@pytest.mark.parametrize("transport", ["postgres", "supabase"])
async def test_what_was_heard_is_the_log(transport, tmp_path) -> None:
    async with LocalStack(data_dir=tmp_path) as stack:
        outcome = await chaos.run(
            stack, transport, events=1_500, disconnects=40, restarts=1, data_dir=tmp_path
        )
    assert outcome.holds, outcome
    assert outcome.events >= 1_500
    assert (outcome.disconnects >= 40, outcome.restarts) == (True, 1)


async def test_a_subscriber_that_begins_anew_after_a_break_loses_events(stack, monkeypatch) -> None:
    def forget(self: PostgresHints) -> None:
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.hint.__self__._next = None
                listener.hint(0)

    monkeypatch.setattr(PostgresHints, "_hint_all", forget)
    monkeypatch.setattr(chaos, "_PATIENCE", 3.0)
    # On a busy machine all breaks may come when nothing is on its way: then again.
    for _ in range(6):
        outcome = await chaos.run(stack, "postgres", events=1_500, disconnects=40, restarts=0)
        if outcome.missing > 0:
            return
    pytest.fail("nothing was lost")
