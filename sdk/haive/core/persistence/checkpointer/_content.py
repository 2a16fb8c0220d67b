"""Which parts of trees are equal, told in linear time and at any depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

_NAN = ("nan",)


class Contents:
    """Gives equal contents the same mark, so that comparing two trees is comparing two marks.

    1 and 1.0 are equal, 1 and True are not, NaN equals itself, and the order of keys is nothing.
    The trees must outlive this: a container is known by where it lies in memory.
    """

    def __init__(self) -> None:
        self._marks: dict[Hashable, Hashable] = {}
        self._known: dict[int, Hashable] = {}

    def of(self, tree: object) -> Hashable:
        """The mark of a tree that `view` returned."""
        if not isinstance(tree, dict | list):
            return _scalar_mark(tree)
        known = self._known
        todo = [tree]
        while todo:
            node = todo[-1]
            if id(node) in known:
                todo.pop()
                continue
            children = node.values() if isinstance(node, dict) else node
            unknown = [
                child
                for child in children
                if isinstance(child, dict | list) and id(child) not in known
            ]
            if unknown:
                todo += unknown
                continue
            marks = [
                known[id(child)] if isinstance(child, dict | list) else _scalar_mark(child)
                for child in children
            ]
            content: Hashable = (
                frozenset(zip(node, marks, strict=True)) if isinstance(node, dict) else tuple(marks)
            )
            # An object equals nothing but itself: no number of a state can pass for a mark.
            known[id(node)] = self._marks.setdefault(content, object())
            todo.pop()
        return known[id(tree)]


def _scalar_mark(value: object) -> Hashable:
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - NaN
        return _NAN
    return value
