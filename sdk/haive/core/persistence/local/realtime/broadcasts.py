"""Rows of realtime.messages on their way to clients."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import orjson

from haive.core.persistence.local.realtime import limits
from haive.core.persistence.local.realtime.hub import Address
from haive.core.persistence.local.realtime.wire import Outgoing, OutgoingBlob

if TYPE_CHECKING:
    from haive.core.persistence.local.realtime.hub import Hub
    from haive.core.persistence.local.realtime.pgoutput import Change, Relation, Value

log = logging.getLogger(__name__)


class Broadcasts:
    """Sends what is inserted into realtime.messages.

    Args:
        hub: The rooms.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._places: dict[Relation, dict[str, int]] = {}

    @staticmethod
    def is_about(relation: Relation) -> bool:
        """Whether a table is one of the partitions of realtime.messages."""
        return relation.schema == "realtime" and relation.table.startswith("messages_")

    def feed(self, change: Change) -> None:
        """Take a row; its payload is passed on as Postgres writes it."""
        if change.kind != "INSERT" or change.new is None:
            return
        places = self._places.get(change.relation)
        if places is None:
            names = change.relation.columns
            places = self._places[change.relation] = {name: at for at, name in enumerate(names)}
        row = change.new
        topic, event, message_id = (_text(row[places[name]]) for name in ("topic", "event", "id"))
        payload, blob = row[places["payload"]], row[places["binary_payload"]]
        body = payload if isinstance(payload, bytes) else blob
        private = row[places["private"]]
        if topic is None or event is None or private is None or not isinstance(body, bytes):
            return  # a row of somebody's own making
        address = Address(topic, private=private == b"t")
        if not self._hub.has(address):
            return
        if len(body) > limits.BROADCAST_BYTES:
            log.warning("a broadcast of %s bytes is too large and was not sent", len(body))
            return
        full = f"realtime:{topic}"
        meta = {"id": message_id}
        if body is blob:
            outgoing: Outgoing = OutgoingBlob(full, event, bytes.fromhex(body[2:].decode()), meta)
        else:
            content = {
                "type": "broadcast",
                "event": event,
                "payload": orjson.Fragment(body),
                "meta": meta,
            }
            outgoing = Outgoing(full, "broadcast", content)
        self._hub.broadcast(address, outgoing)


def _text(value: Value) -> str | None:
    return value.decode() if isinstance(value, bytes) else None
