"""What commands print with."""

from __future__ import annotations

import json
import re
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from haive.core.persistence._json import json_bytes
from haive.core.persistence.errors import InvalidInputError

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

# A message must not move the cursor, colour the screen or set the terminal's title.
_CONTROLS = dict.fromkeys((*range(32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}")
del _CONTROLS[ord("\n")], _CONTROLS[ord("\t")]
_CONTROLS[ord("\r")] = ""
# Those that JSON leaves as they are, in UTF-8.
_CONTROL_IN_JSON = re.compile(rb"\x7f|\xc2[\x80-\x9f]")


def harmless(text: str) -> str:
    """Text of somebody's, without what would command a terminal."""
    return text.translate(_CONTROLS)


def plain(text: str) -> str:
    """Text of somebody's to stand in rich's markup."""
    return escape(harmless(text))


def safe_json(value: Any) -> str:
    """JSON for people and programs: whatever text is in it, a terminal only shows it.

    Raises:
        InvalidInputError: It holds a number that no reader of JSON takes.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, indent=2, default=str)
    except ValueError:
        raise InvalidInputError(
            "It holds a number of more than 4,300 digits, which is no JSON.",
            hint="Read it with Checkpointer.restore.",
        ) from None
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def print_json(value: Any, *, indent: bool = True) -> None:
    """Print JSON for programs: no colours, no wrapping, and nothing that commands a terminal."""
    text = json_bytes(value, indent=indent)
    typer.echo(_CONTROL_IN_JSON.sub(lambda one: b"\\u%04x" % ord(one[0].decode()), text))


def count(number: int, noun: str) -> str:
    """A number of things: "1 message", "2,000 messages"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
