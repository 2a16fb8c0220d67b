"""JSON of what is stored, for whoever reads it."""

from __future__ import annotations

import json
from typing import Any

import orjson


def json_bytes(value: object, *, indent: bool = False, sort_keys: bool = False) -> bytes:
    """JSON in UTF-8, for whoever reads what is stored; nothing is checked."""
    option = (orjson.OPT_INDENT_2 if indent else 0) | (orjson.OPT_SORT_KEYS if sort_keys else 0)
    try:
        return orjson.dumps(value, option=option)
    except orjson.JSONEncodeError:
        # Postgres keeps whole numbers beyond 64 bits, and gives 6e23 back as one; and it keeps
        # what is nested deeper than orjson follows.
        return json.dumps(
            value,
            ensure_ascii=False,
            allow_nan=False,
            indent=2 if indent else None,
            separators=(",", ": " if indent else ":"),
            sort_keys=sort_keys,
            default=_as_orjson,
        ).encode()


def _as_orjson(value: object) -> Any:
    """The JSON form of what orjson knows and json does not: UUIDs, times, dataclasses."""
    return orjson.loads(orjson.dumps(value))
