"""What the statistics of words say, held against a recount."""

from __future__ import annotations

import asyncpg

_KEPT = """
select tenant_id, lexeme, sum(in_text) as in_text, sum(in_all) as in_all
from haive_private.memory_words where collection = $1 group by 1, 2
having sum(in_text) <> 0 or sum(in_all) <> 0 order by 1, 2
"""
_COUNTED = """
select t.tenant_id, u.lexeme collate "C" as lexeme, sum(('A' = any(u.weights))::int) as in_text,
  count(*) as in_all
from vecs."{}" as t cross join unnest(t.words) as u group by 1, 2 order by 1, 2
"""
_KEPT_SIZES = """
select tenant_id, sum(memories) as memories, sum(text_words) as text_words,
  sum(all_words) as all_words
from haive_private.memory_sizes where collection = $1 group by 1
having sum(memories) <> 0 order by 1
"""
_COUNTED_SIZES = """
select t.tenant_id, count(*) as memories, sum(u.in_text) as text_words, sum(u.in_all) as all_words
from vecs."{}" as t cross join lateral (
  select coalesce(sum(cardinality(array_positions(w.weights, 'A'))), 0) as in_text,
    coalesce(sum(cardinality(w.positions)), 0) as in_all
  from unnest(t.words) as w
) as u group by 1 order by 1
"""


async def differences(owner: asyncpg.Connection, name: str) -> list[object]:
    """What is kept and not counted, or counted and not kept."""
    found: list[object] = []
    for kept, counted in ((_KEPT, _COUNTED), (_KEPT_SIZES, _COUNTED_SIZES)):
        ours = [tuple(row) for row in await owner.fetch(kept, name)]
        theirs = [tuple(row) for row in await owner.fetch(counted.format(name))]
        found += set(ours) ^ set(theirs)
    return found
