"""The protocol's messages: JSON objects (1.0.0), JSON arrays (2.0.0), and WebSocket frames.

A frame to a client is made once for all that get it: frames of a server are not masked, and the
stack does not compress.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import orjson

_TEXT: Final = 0x81
_BINARY: Final = 0x82
# Binary messages of version 2.0.0: kinds, and how a payload is encoded.
_PUSH: Final = 3
_BROADCAST: Final = 4
_JSON: Final = 1
_PUSH_HEADER: Final = struct.Struct("!BBBBBBB")


class MalformedError(Exception):
    """A frame that is no message of the protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a client has sent."""

    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: dict[str, Any]
    blob: bytes | None = None
    """The payload of a binary broadcast, whose event is in ``payload``."""
    wants_persistence: bool = False
    """Whether a broadcast is to be kept for replay."""


def decode(data: str | bytes, *, arrays: bool) -> Message:
    """Read a frame of a client.

    Args:
        data: A text frame, or a binary one.
        arrays: Whether the client speaks version 2.0.0.

    Raises:
        MalformedError: It is no message.
    """
    if isinstance(data, bytes):
        return _decode_push(data)
    try:
        content = orjson.loads(data)
        if arrays:
            join_ref, ref, topic, event, payload = content
        else:
            join_ref, ref = content.get("join_ref"), content.get("ref")
            topic, event, payload = content["topic"], content["event"], content["payload"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MalformedError from error
    if not (
        isinstance(topic, str)
        and isinstance(event, str)
        and isinstance(payload, dict)
        and isinstance(ref, str | None)
        and isinstance(join_ref, str | None)
    ):
        raise MalformedError
    return Message(join_ref=join_ref, ref=ref, topic=topic, event=event, payload=payload)


def _decode_push(data: bytes) -> Message:
    """Read a broadcast of version 2.0.0, whose payload is JSON or any bytes."""
    try:
        kind, *sizes, encoding = _PUSH_HEADER.unpack_from(data)
        if kind != _PUSH:
            raise MalformedError
        at = _PUSH_HEADER.size
        fields = []
        for size in sizes:
            fields.append(data[at : at + size].decode())
            at += size
        join_ref, ref, topic, event, metadata = fields
        body = data[at:]
        payload: dict[str, Any] = {"type": "broadcast", "event": event}
        wants_persistence = bool(metadata) and "persist" in orjson.loads(metadata)
        if encoding == _JSON:
            payload["payload"] = orjson.loads(body)
    except (struct.error, ValueError, TypeError) as error:
        raise MalformedError from error
    return Message(
        join_ref=join_ref or None,
        ref=ref or None,
        topic=topic,
        event="broadcast",
        payload=payload,
        blob=None if encoding == _JSON else body,
        wants_persistence=wants_persistence,
    )


def encode(
    topic: str,
    event: str,
    payload: object,
    *,
    arrays: bool,
    ref: str | None = None,
    join_ref: str | None = None,
) -> bytes:
    """Return the text frame of a message; ``payload`` may hold ready JSON (`orjson.Fragment`)."""
    content = (
        [join_ref, ref, topic, event, payload]
        if arrays
        else {"ref": ref, "topic": topic, "event": event, "payload": payload}
    )
    return _frame(_TEXT, orjson.dumps(content))


class Outgoing:
    """A message for any number of clients, encoded once for each version that they speak.

    Args:
        topic: The channel's full topic.
        event: The event.
        payload: The payload, which may hold ready JSON.
    """

    __slots__ = ("_frames", "event", "payload", "topic")

    def __init__(self, topic: str, event: str, payload: object) -> None:
        self.topic = topic
        self.event = event
        self.payload = payload
        self._frames: dict[bool, bytes] = {}

    def frame(self, *, arrays: bool) -> bytes | None:
        """Return the frame for a version; None where it cannot carry the message."""
        frame = self._frames.get(arrays)
        if frame is None:
            frame = encode(self.topic, self.event, self.payload, arrays=arrays)
            self._frames[arrays] = frame
        return frame


class OutgoingBlob(Outgoing):
    """A broadcast of bytes, for clients that speak version 2.0.0.

    Args:
        topic: The channel's full topic.
        event: The event that the sender has chosen.
        blob: The bytes.
        meta: What is known about it.
    """

    __slots__ = ("_blob", "_meta", "_user_event")

    def __init__(self, topic: str, event: str, blob: bytes, meta: dict[str, Any] | None) -> None:
        super().__init__(topic, "broadcast", None)
        self._user_event = event
        self._blob = blob
        self._meta = meta

    def frame(self, *, arrays: bool) -> bytes | None:
        """Return the frame for a version; None for 1.0.0, which has no bytes."""
        if not arrays:
            return None
        frame = self._frames.get(arrays)
        if frame is None:
            parts = (
                self.topic.encode(),
                self._user_event.encode(),
                b"" if self._meta is None else orjson.dumps(self._meta),
            )
            if any(len(part) > 255 for part in parts):
                return None
            sizes = [len(part) for part in parts]
            frame = _frame(_BINARY, b"".join((bytes([_BROADCAST, *sizes, 0]), *parts, self._blob)))
            self._frames[arrays] = frame
        return frame


def _frame(kind: int, content: bytes) -> bytes:
    size = len(content)
    if size < 126:
        header = bytes((kind, size))
    elif size < 1 << 16:
        header = struct.pack("!BBH", kind, 126, size)
    else:
        header = struct.pack("!BBQ", kind, 127, size)
    return header + content
