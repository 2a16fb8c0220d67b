"""`haive bench rotation`, smaller: one that is killed is ended by the next, and nobody notices."""

from __future__ import annotations

import pytest

from haive.core.persistence._sealing import Sealer
from haive.core.persistence.bench import rotation
from haive.core.persistence.bench.server import Server


@pytest.fixture
def server(stack, owner):
    return Server(dsn=stack.database_url, admin_dsn=stack.admin_url, owner=owner, machine={})


async def _counts(server, rows, kills):
    report = await rotation.measure(server, rows=rows, kills=kills, progress=lambda _: None)
    return {row.name: row.value for row in report.rows if row.metric == "count"}


async def test_a_rotation_that_is_killed_is_ended_and_nobody_notices(server):
    counts = await _counts(server, rows=1_000, kills=4)
    assert (counts["rows"], counts["killed"]) == (1_000, 4)
    assert min(counts["reads"], counts["writes"]) > 50
    assert {counts[name] for name in ("reads failed", "writes failed", "lost or changed")} == {0}
    assert counts["on the old key"] == 0


async def test_readers_who_never_ask_for_a_new_key_are_noticed(server, monkeypatch):
    ask = Sealer._ask

    async def ask_once(sealer):
        if sealer._at_hand is None:
            await ask(sealer)
        sealer._until = float("inf")

    monkeypatch.setattr(Sealer, "_ask", ask_once)
    counts = await _counts(server, rows=200, kills=1)
    assert counts["reads failed"] > 0
    assert counts["lost or changed"] > 0
