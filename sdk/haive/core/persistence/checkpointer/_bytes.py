"""Bytes as the base64 text that they are in JSON."""

from __future__ import annotations

from base64 import b64decode, b64encode


def to_base64(data: bytes) -> str:
    """Base64 as Postgres's ``decode`` reads it."""
    return b64encode(data).decode("ascii")


def from_base64(value: object) -> object:
    """The bytes in base64 text, with the line ends that Postgres puts in."""
    return b64decode(value) if isinstance(value, str) else value
