"""Which items of two lists are the same: by identity, by content, and last by likeness.

All of it costs about n log n: states grow by their lists.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from math import isqrt
from typing import TYPE_CHECKING

from haive.core.persistence.checkpointer._text import json_text

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from haive.core.persistence.checkpointer._content import Contents

    Pair = tuple[int, int]

# The first of these that a mapping has says which thing it is: the surest first.
_IDENTITY_KEYS = ("id", "tool_call_id", "key", "name")
# Pairs of items that are compared for likeness between two items that are known.
_MOST_CELLS = 2_500
_ALIKE = 0.5
# Characters and items that tell how alike two texts or lists are.
_TELLING = 2_000
# Characters that tell which of two items comes first.
_FIRST = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """Pairs of indexes: of items that kept their order, and of items that did not."""

    kept: list[Pair]
    moved: list[Pair]


def align(before: list[object], after: list[object], contents: Contents) -> Alignment:
    """Pair the items of two lists; what has no pair was removed or added.

    The kept pairs rise in both indexes. Swapped lists give swapped pairs.
    """
    old, new = _tokens(before, after, contents)
    start, ends = _common_ends(old, new)
    kept = [(i, i) for i in range(start)]
    rows, columns = range(start, len(old) - ends), range(start, len(new) - ends)
    moved: list[Pair] = []
    if rows and columns:
        # Ties are resolved in one direction, whichever list is given first.
        flipped = len(rows) + len(columns) > 2 and _is_flipped(
            len(rows) - len(columns), before[start], after[start]
        )
        if flipped:
            sides = _Sides(after, before, new, old, contents)
            found, moved = sides.align(columns, rows)
            kept += [(i, j) for j, i in found]
            moved = [(i, j) for j, i in moved]
        else:
            found, moved = _Sides(before, after, old, new, contents).align(rows, columns)
            kept += found
    kept += [(len(old) - place, len(new) - place) for place in range(ends, 0, -1)]
    return Alignment(kept=kept, moved=moved)


def _is_flipped(longer: int, first: object, other: object) -> bool:
    if longer:
        return longer > 0
    # Bounded: the items of a list in a list in a list are told apart at each depth anew.
    one, two = (json_text(item, limit=_FIRST, sort_keys=True) for item in (first, other))
    return one > two


def _identity(item: object) -> tuple[str, Hashable] | None:
    if isinstance(item, dict):
        for key in _IDENTITY_KEYS:
            value = item.get(key)
            if isinstance(value, str | int) and not isinstance(value, bool):
                return key, value
    return None


def _tokens(
    before: list[object], after: list[object], contents: Contents
) -> tuple[list[int], list[int]]:
    """A number for each item, the same for items that are the same."""
    identities = [[_identity(item) for item in items] for items in (before, after)]
    counts = [Counter(found) for found in identities]
    numbers: dict[Hashable, int] = {}
    tokens: list[list[int]] = []
    for items, found in zip((before, after), identities, strict=True):
        tokens.append([])
        for item, identity in zip(items, found, strict=True):
            # Ids that stand twice in a list identify nothing.
            is_one = identity is not None and all(count[identity] <= 1 for count in counts)
            token = ("is", identity) if is_one else ("has", contents.of(item))
            tokens[-1].append(numbers.setdefault(token, len(numbers)))
    return tokens[0], tokens[1]


def _common_ends(old: list[int], new: list[int]) -> tuple[int, int]:
    shorter = min(len(old), len(new))
    start = 0
    while start < shorter and old[start] == new[start]:
        start += 1
    ends = 0
    while ends < shorter - start and old[-1 - ends] == new[-1 - ends]:
        ends += 1
    return start, ends


class _Sides:
    """Two lists that are being aligned, without their common beginning and end."""

    def __init__(
        self,
        before: list[object],
        after: list[object],
        old: list[int],
        new: list[int],
        contents: Contents,
    ) -> None:
        self._before, self._after = before, after
        self._old, self._new = old, new
        self._contents = contents

    def align(self, rows: range, columns: range) -> tuple[list[Pair], list[Pair]]:
        old, new = self._old, self._new
        in_old = Counter(old[i] for i in rows)
        in_new = Counter(new[j] for j in columns)
        kept = self._in_order(
            [i for i in rows if in_new[old[i]]], [j for j in columns if in_old[new[j]]]
        )
        # An item that stands once on either side has moved; of a value that stands often, nobody
        # knows which one it was.
        held = {i for i, _ in kept}
        places = {new[j]: j for j in columns}
        moved = [
            (i, places[old[i]])
            for i in rows
            if i not in held and in_old[old[i]] == in_new[old[i]] == 1
        ]
        left = held | {i for i, _ in moved}
        right = {j for _, j in kept} | {j for _, j in moved}
        bounds = [(rows.start - 1, columns.start - 1), *kept, (rows.stop, columns.stop)]
        for (i, j), (next_i, next_j) in pairwise(bounds):
            kept += self._alike(
                [row for row in range(i + 1, next_i) if row not in left],
                [column for column in range(j + 1, next_j) if column not in right],
            )
        return sorted(kept), moved

    def _in_order(self, rows: list[int], columns: list[int]) -> list[Pair]:
        """A longest common subsequence; a common one where finding the longest costs too much."""
        old = [self._old[i] for i in rows]
        new = [self._new[j] for j in columns]
        if len(set(old)) < len(old) or len(set(new)) < len(new):
            # At most eight steps an item: the search costs the square of the differences.
            longest = _shortest_edit(old, new, most=8 + isqrt(8 * (len(old) + len(new))))
            if longest is not None:
                return [(rows[x], columns[y]) for x, y in longest]
        in_old, in_new = Counter(old), Counter(new)
        places = {token: y for y, token in enumerate(new)}
        pairs = [
            (x, places[token]) for x, token in enumerate(old) if in_old[token] == in_new[token] == 1
        ]
        rising = _longest_rise([y for _, y in pairs])
        return [(rows[pairs[at][0]], columns[pairs[at][1]]) for at in rising]

    def _alike(self, rows: list[int], columns: list[int]) -> list[Pair]:
        """Pair what has changed inside, of items that lie between the same two."""
        if not rows or not columns:
            return []
        if len(rows) == len(columns) or len(rows) * len(columns) > _MOST_CELLS:
            pairs = zip(rows, columns, strict=False)
            return [(i, j) for i, j in pairs if not self._differ_in_identity(i, j)]
        likeness = [[self._likeness(i, j) for j in columns] for i in rows]
        best = [[0.0] * (len(columns) + 1) for _ in range(len(rows) + 1)]
        for x in range(len(rows) - 1, -1, -1):
            for y in range(len(columns) - 1, -1, -1):
                best[x][y] = max(
                    best[x + 1][y], best[x][y + 1], best[x + 1][y + 1] + likeness[x][y]
                )
        pairs_found: list[Pair] = []
        x = y = 0
        while x < len(rows) and y < len(columns):
            if likeness[x][y] and best[x][y] == best[x + 1][y + 1] + likeness[x][y]:
                pairs_found.append((rows[x], columns[y]))
                x, y = x + 1, y + 1
            elif best[x][y] == best[x + 1][y]:
                x += 1
            else:
                y += 1
        return pairs_found

    def _differ_in_identity(self, i: int, j: int) -> bool:
        one, other = _identity(self._before[i]), _identity(self._after[j])
        return one is not None and other is not None and one[0] == other[0] and one != other

    def _likeness(self, i: int, j: int) -> float:
        """From 0.5 (the half of it is the same) to 1; 0 for less than that."""
        one, other = self._before[i], self._after[j]
        if self._differ_in_identity(i, j):
            return 0.0
        of = self._contents.of
        if of(one) == of(other):
            return 1.0
        if isinstance(one, dict) and isinstance(other, dict):
            common = one.keys() & other.keys()
            # A key with another value is half of the same.
            same = sum(1.0 if of(one[key]) == of(other[key]) else 0.5 for key in common)
            share = same / (len(one) + len(other) - len(common))
        elif isinstance(one, list) and isinstance(other, list):
            share = _overlap(
                [of(item) for item in one[:_TELLING]], [of(i) for i in other[:_TELLING]]
            )
        elif isinstance(one, str) and isinstance(other, str):
            share = _overlap(
                re.findall(r"\w+", one[:_TELLING]), re.findall(r"\w+", other[:_TELLING])
            )
        else:
            return 0.0
        return share if share >= _ALIKE else 0.0


def _overlap(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    common = (Counter(one) & Counter(other)).total()
    return 2 * common / (len(one) + len(other) or 1)


def _longest_rise(values: list[int]) -> list[int]:
    """Indexes of a longest rising subsequence of different numbers."""
    ends: list[int] = []  # the smallest last value of a rise of each length
    last: list[int] = []  # where it stands
    before: list[int] = []
    for at, value in enumerate(values):
        length = bisect_left(ends, value)
        before.append(last[length - 1] if length else -1)
        if length == len(ends):
            ends.append(value)
            last.append(at)
        else:
            ends[length] = value
            last[length] = at
    rise: list[int] = []
    at = last[-1] if last else -1
    while at >= 0:
        rise.append(at)
        at = before[at]
    return rise[::-1]


def _shortest_edit(old: list[int], new: list[int], *, most: int) -> list[Pair] | None:
    """The pairs that a shortest edit keeps, by Myers' algorithm; None beyond ``most`` edits."""
    n, m = len(old), len(new)
    middle = most + 1
    furthest = [0] * (2 * most + 3)  # the furthest row on each diagonal, row minus column
    history: list[list[int]] = []
    for edits in range(min(most, n + m) + 1):
        history.append(furthest[middle - edits - 1 : middle + edits + 2])
        low, high = -edits + 2 * max(0, edits - m), edits - 2 * max(0, edits - n)
        for diagonal in range(low, high + 1, 2):
            here = middle + diagonal
            down = diagonal == -edits or (
                diagonal != edits and furthest[here - 1] < furthest[here + 1]
            )
            x = furthest[here + 1] if down else furthest[here - 1] + 1
            while x < n and x - diagonal < m and old[x] == new[x - diagonal]:
                x += 1
            furthest[here] = x
            if x >= n and x - diagonal >= m:
                return _kept(history, n, m)
    return None


def _kept(history: list[list[int]], x: int, y: int) -> list[Pair]:
    """The way back through the rounds of a search that ended at ``x``, ``y``."""
    pairs: list[Pair] = []
    for edits in range(len(history) - 1, 0, -1):
        furthest, diagonal = history[edits], x - y
        here = edits + 1 + diagonal
        down = diagonal == -edits or (diagonal != edits and furthest[here - 1] < furthest[here + 1])
        start = furthest[here + 1] if down else furthest[here - 1] + 1
        pairs += [(row, row - diagonal) for row in range(x - 1, start - 1, -1)]
        x, y = (start, start - diagonal - 1) if down else (start - 1, start - diagonal)
    pairs += [(row, row) for row in range(x - 1, -1, -1)]
    return pairs[::-1]
