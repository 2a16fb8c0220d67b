"""What checkpoints are found by: scalars of their states, in plain or as keyed hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from haive.core.persistence.checkpointer._matching import flatten_scalars
from haive.core.persistence.checkpointer._view import view

if TYPE_CHECKING:
    from haive.core.persistence._keys import TenantKeys

Scalar = str | int | float | bool | None
Terms = dict[str, Scalar]

# Of the scalars at the top: more are a table and no state, and each is an entry of an index.
_MOST_TERMS, _MOST_PATH_CHARACTERS = 1000, 256
#: More than so many terms take as JSON, where each character is four bytes.
MAX_SEARCH_BYTES = 4 * 1024 * 1024

_MISSING = object()
_CONTAINERS = (Mapping, list, tuple, set, frozenset, bytes, BaseModel)


def search_terms(state: object, paths: Sequence[str] | None) -> Terms:
    """The searchable part of a state: scalars by their paths.

    Args:
        state: Any state.
        paths: Which; None takes the scalars at the top, without looking into the rest: the first
            1,000 of those whose keys are not long.
    """
    if paths is not None:
        return flatten_scalars(view(state), paths)
    found = flatten_scalars(view(shallow(state, containers=False)), None)
    short = ((path, term) for path, term in found.items() if len(path) <= _MOST_PATH_CHARACTERS)
    return dict(islice(short, _MOST_TERMS))


def shallow(state: object, *, containers: bool) -> dict[Any, Any]:
    """The top of a state: of a mapping, a dataclass or a model, its items.

    Args:
        state: Any state.
        containers: With the values that hold others, which may be megabytes.
    """
    items: Mapping[Any, Any]
    if isinstance(state, Mapping):
        items = state
    elif is_dataclass(state) and not isinstance(state, type):
        # A field that the constructor does not take can be unset.
        found = ((field.name, getattr(state, field.name, _MISSING)) for field in fields(state))
        items = {name: value for name, value in found if value is not _MISSING}
    elif isinstance(state, BaseModel):
        items = dict(state)
    else:
        return {}
    return {
        key: value
        for key, value in items.items()
        if containers or not isinstance(value, _CONTAINERS)
    }


def blind_terms(keys: TenantKeys, kind: str, terms: Mapping[str, object]) -> list[list[str]]:
    """Keyed hashes of terms, for each key of the ring: its own, the writing one first."""
    each = [keys.blinds(f"{kind}:{path}", _canonical(value)) for path, value in terms.items()]
    return [list(column) for column in zip(*each, strict=True)]


def _canonical(value: object) -> bytes:
    # 1 and 1.0 are one number, as they are in jsonb.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=True, sort_keys=True, default=str).encode()
