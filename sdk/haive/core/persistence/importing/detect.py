"""Tells the format of a file by what it begins with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import ijson  # type: ignore[import-untyped] # it has no types
import orjson

from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.importing.values import line_json

if TYPE_CHECKING:
    from haive.core.persistence.importing.values import Framing

FormatName = Literal["haive", "openai", "chatgpt", "dialogues"]

_LINES_LOOKED_AT = 50
_GOES_ON = (b"{", b"[", b",", b":")
# The parser makes numbers of these, and has limits for them; names that are known have no digits.
_LONG_NUMBER = re.compile(rb"(\d{15})\d+")

_HELP = (
    "Known are: haive (what `haive conversations export` writes), openai (message lists, also one"
    " a line), chatgpt (conversations.json, or the .zip with it) and dialogues (lines of"
    ' {"id", "turns"}). Name one with --format.'
)


def detect(head: bytes, wanted: FormatName | Literal["auto"]) -> tuple[FormatName, Framing]:
    """Return the format of a file and how its records stand in it.

    Raises:
        InvalidInputError: It is none of those that are known.
    """
    if not head.strip():
        raise InvalidInputError("The file is empty.", hint=_HELP)
    framing = _framing(head)
    if wanted != "auto":
        return wanted, framing
    # A first line may be broken: the ones behind it decide then.
    for begin in (head, *head.split(b"\n")[1:_LINES_LOOKED_AT]):
        known = _format_of(begin)
        if known is not None:
            return known, framing
    raise InvalidInputError("The file is in no format that can be imported.", hint=_HELP)


def _framing(head: bytes) -> Framing:
    """Lines hold whole values and are not indented; else an array of records, or one value."""
    if _has_lines(head):
        return "lines"
    array = head.lstrip()
    if array.startswith(b"["):
        is_of_lists = array[1:].lstrip().startswith(b"[")
        if is_of_lists or "role" not in _keys(head):
            return "array"
    return "documents"


def _has_lines(head: bytes) -> bool:
    lines = [line for line in head.split(b"\n") if line.strip()][:_LINES_LOOKED_AT]
    has_begun = False  # a file may also be cut off at its front
    for before, line, after in zip([b"", *lines], lines, [*lines[1:], b""], strict=False):
        if has_begun and line.startswith((b"}", b"]")):
            return False  # the end of a value over several lines
        if not line.startswith((b"{", b"[")):
            continue
        try:
            value = line_json(line)
        except orjson.JSONDecodeError:
            # The last line of the head is cut off: it may be the first of lines, all longer.
            if len(lines) == 1 and line.startswith(b"{"):
                return True
            has_begun = True
            continue
        if not isinstance(value, dict) and not _is_message_list(value):
            continue
        # In an array or object, the line before goes on, and no value follows without a comma.
        if not before.rstrip().endswith(_GOES_ON) or after.startswith((b"{", b"[")):
            return True
    return False


def _is_message_list(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], dict)
        and "role" in value[0]
    )


def _format_of(begin: bytes) -> FormatName | None:
    keys = _keys(begin)
    if "mapping" in keys:
        return "chatgpt"
    if "turns" in keys:
        return "dialogues"
    if "haive" in keys or {"agent_id", "messages"} <= keys:
        return "haive"
    if "messages" in keys or "role" in keys:
        return "openai"
    return None


def _keys(begin: bytes) -> frozenset[str]:
    """The keys of the first object: the value itself, or the first in an array or two."""
    keys = set()
    try:
        depth = 0
        # Not `parse`, which makes a path at each step down: of a head of brackets 10 GB.
        short = _LONG_NUMBER.sub(rb"\1", begin)
        for event, value in ijson.basic_parse(short, multiple_values=True):
            if event == "start_map":
                depth += 1
            elif event == "end_map":
                depth -= 1
                if depth == 0:
                    break
            elif event == "map_key" and depth == 1:
                keys.add(value)
    except (ijson.JSONError, UnicodeDecodeError, RecursionError):
        pass  # the head is cut off somewhere: what was seen is what there is
    return frozenset(keys)
