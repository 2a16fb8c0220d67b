"""What a state is searched by: its scalars, and patterns of them."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from haive.core.persistence.checkpointer._paths import child, join, lookup
from haive.core.persistence.checkpointer._view import view
from haive.core.persistence.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Scalar = str | int | float | bool | None

#: Characters of the longest text that is searched for: longer ones are prose and no states.
MAX_SEARCHED_TEXT = 256

_MISSING = object()


def flatten_scalars(tree: object, paths: Sequence[str] | None) -> dict[str, Scalar]:
    """The part of a tree that is searched: scalars by their paths, ``$.status`` and so on.

    What a search cannot be for is left out: text of more than 256 characters, text with a NUL or
    half of a surrogate pair, and numbers that are no finite float.

    Args:
        tree: What `view` returns.
        paths: Where to look; None for the top level of a mapping.

    Raises:
        InvalidInputError: One of the paths is none.
    """
    if paths is None:
        found = (
            {child("$", key): item for key, item in tree.items()} if isinstance(tree, dict) else {}
        )
    else:
        found = {join("$", path): lookup(tree, path, _MISSING) for path in paths}
    return {
        path: value
        for path, value in found.items()
        if value is None or (isinstance(value, str | int | float) and _is_searchable(value))
    }


def matching_terms(pattern: Mapping[str, object]) -> list[tuple[str, Scalar]]:
    """The scalars that a pattern asks for, and where.

    ``{"plan": {"stage": "draft"}}`` and ``{"plan.stage": "draft"}`` are the same. Enums, datetimes
    and the like are taken as `view` shows them.

    Raises:
        InvalidInputError: A value is no exact scalar, or one that is never found.
    """
    terms: list[tuple[str, Scalar]] = []
    todo: list[tuple[str, object]] = [("$", view(pattern))]
    while todo:
        path, value = todo.pop()
        if isinstance(value, dict) and (value or path == "$"):
            todo += [(join(path, key), item) for key, item in reversed(value.items())]
        elif value is None or isinstance(value, str | int | float):
            if value is not None and not _is_searchable(value):
                raise InvalidInputError(
                    f"{path}: this value is never found: searched are finite numbers and text of"
                    f" at most {MAX_SEARCHED_TEXT} valid characters."
                )
            terms.append((path, value))
        else:
            what = "a list" if isinstance(value, list) else "an empty mapping"
            raise InvalidInputError(
                f"{path}: {what} cannot be searched for, only exact scalars can.",
                hint="Give text, a number, a boolean or None, at a path such as plan.stage.",
            )
    return terms


def _is_searchable(value: str | float) -> bool:
    """Whether Postgres can hold it as JSON, and anybody would search for it."""
    if isinstance(value, str):
        return len(value) <= MAX_SEARCHED_TEXT and "\0" not in value and not _has_surrogate(value)
    try:
        return isfinite(value)
    except OverflowError:  # an integer beyond the floats
        return False


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)
