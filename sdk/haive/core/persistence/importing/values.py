"""JSON values out of a stream, one at a time."""

from __future__ import annotations

import io
import json
import re
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any, Literal

import ijson  # type: ignore[import-untyped] # it has no types
import orjson

from haive.core.persistence.importing.depth import Bounded, TooDeepError, TooLongError
from haive.core.persistence.importing.records import Skipped
from haive.core.persistence.importing.source import DAMAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haive.core.persistence.importing.source import Source

Framing = Literal["lines", "array", "documents"]
"""One value a line; the elements of one array; or values over several lines."""

#: A record is held in memory whole.
MAX_LINE = 256 << 20

Value = tuple[str, Any]
"""Where it stands, and what it is."""

# A whole number beyond 64 bits has 19 digits or more.
_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_MANY_DIGITS = b"0" * 19
# Where orjson stops at half a surrogate, or a number beyond all bounds.
_REFUSED = re.compile(r"\\u|-?\d")
_BLOCK = 1 << 16


def exact_json(text: str | bytes) -> Any:
    """Read JSON with all digits of whole numbers, of which orjson makes floats beyond 64 bits.

    Raises:
        orjson.JSONDecodeError: It is none.
    """
    value = orjson.loads(text)
    data = text.encode() if isinstance(text, str) else text
    if _MANY_DIGITS not in data.translate(_AS_ZEROS):
        return value
    try:
        return json.loads(text)
    except (RecursionError, ValueError):
        return value  # nested too deeply, or thousands of digits: refused for it where it matters


def line_json(line: bytes) -> Any:
    """Read a line as `exact_json` does, half a surrogate and numbers beyond all bounds too.

    These are refused later, where they stand, and cost nothing else of the line.

    Raises:
        orjson.JSONDecodeError: It is none.
    """
    try:
        return exact_json(line)
    except orjson.JSONDecodeError as error:
        if _REFUSED.match(error.doc, error.pos):
            try:
                bounded = Bounded(io.BytesIO(line))
                while bounded.read(_BLOCK):
                    pass
                return json.loads(line.decode(), parse_constant=_refuse)
            except (TooDeepError, TooLongError, RecursionError, ValueError):
                pass
        raise


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def read_values(source: Source, framing: Framing) -> Iterator[Value | Skipped]:
    """Return the records of a file, and what in it is none."""
    number = 0
    try:
        for stream in source.streams():
            values = _lines(stream) if framing == "lines" else _items(stream, framing, number)
            for value in values:
                number += 1
                yield value
    except DAMAGE:
        yield Skipped(what="file", reason="damaged or cut off", place=f"after {number} records")


def _lines(stream: IO[bytes]) -> Iterator[Value | Skipped]:
    number = 0
    while line := stream.readline(MAX_LINE):
        number += 1
        place = f"line {number}"
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            while (rest := stream.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                pass
            yield Skipped(what="conversation", reason="over 256 MiB", place=place)
            continue
        line = line.strip()
        if not line:
            continue
        try:
            yield place, line_json(line)
        except orjson.JSONDecodeError:
            yield Skipped(what="conversation", reason="not JSON", place=place)


def _with_floats(item: Any) -> Any:
    """Make the numbers of an item what they are in a line: the parser makes decimals of them."""
    whole = [item]
    waiting: list[Any] = [whole]
    while waiting:
        outer = waiting.pop()
        for key, inner in outer.items() if isinstance(outer, dict) else enumerate(outer):
            if isinstance(inner, Decimal):
                outer[key] = float(inner)
            elif isinstance(inner, dict | list):
                waiting.append(inner)
    return whole[0]


def _items(stream: IO[bytes], framing: Framing, before: int) -> Iterator[Value | Skipped]:
    number = before
    prefix = "item" if framing == "array" else ""
    bounded = Bounded(stream)
    try:
        # Not with `use_float`, which ends at the first number beyond 64 bits.
        for item in ijson.items(bounded, prefix, multiple_values=True):
            number += 1
            yield f"conversation {number}", _with_floats(item)
        if framing == "array" and bounded.bare:
            # Found by its path, which says nothing of what is elsewhere.
            yield Skipped(
                what="file",
                reason="something stands outside of the array",
                place=f"after conversation {number}",
            )
    except TooDeepError:
        yield Skipped(
            what="file",
            reason="nested too deeply from here on",
            place=f"after conversation {number}",
        )
    except (TooLongError, ArithmeticError):
        yield Skipped(
            what="file",
            reason="a number too long to be read from here on",
            place=f"after conversation {number}",
        )
    except (ijson.JSONError, UnicodeDecodeError, RecursionError):
        # Behind broken JSON there is no telling where the next record begins.
        yield Skipped(
            what="file",
            reason="not JSON from here on, or cut off",
            place=f"after conversation {number}",
        )
