"""Bounds how deep the JSON of a stream is nested, and how long its numbers are.

The parser keeps the path of where it is, and copies it at each step down: 64 KiB of brackets would
take 10 GB. Of a whole number with more digits than Python takes it makes a crash of the process.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import IO

#: What a line of JSON may have at most, by its own parser.
MAX_DEPTH = 1024

_TOO_MANY_DIGITS = b"0" * 4_301
_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_DIGITS = b"0123456789"
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_TEXT = re.compile(rb'"[^"]*(?:"|\Z)')
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEPS = [0] * 256
for _byte in b"[{":
    _STEPS[_byte] = 1
for _byte in b"]}":
    _STEPS[_byte] = -1


class TooDeepError(Exception):
    """Values are nested deeper than `MAX_DEPTH`."""


class TooLongError(Exception):
    """A number has more than 4,300 digits."""


class Bounded:
    """A stream of JSON that ends with an error where it is nested too deeply or a number too long.

    It looks at whole blocks, which takes a quarter of the time of parsing them.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        #: Whether an object was seen that stands in nothing.
        self.bare = False
        self._depth = 0
        self._in_text = False
        self._held = b""
        self._digits = b""

    def read(self, size: int = -1) -> bytes:
        """Read on.

        Raises:
            TooDeepError: It is nested too deeply.
            TooLongError: A number is too long.
        """
        data = self._stream.read(size)
        text = _ESCAPE.sub(b"", self._held + data)
        # What a backslash at the end escapes comes with the next block.
        self._held = b"\\" if text.endswith(b"\\") else b""
        if self._in_text:
            text = b'"' + text
        self._in_text = text.count(b'"') % 2 == 1
        # What was a number at the end of the last block may go on.
        bare = self._digits + _TEXT.sub(b"", text)
        if _TOO_MANY_DIGITS in bare.translate(_AS_ZEROS):
            raise TooLongError
        self._digits = bare[len(bare.rstrip(_DIGITS)) :]
        brackets = bare.translate(None, _NO_BRACKETS)
        depths = [*accumulate(map(_STEPS.__getitem__, brackets), initial=self._depth)]
        if max(depths) > MAX_DEPTH:
            raise TooDeepError
        if 0 in depths[:-1]:
            self.bare |= (0, ord("{")) in zip(depths, brackets, strict=False)
        self._depth = depths[-1]
        return data
