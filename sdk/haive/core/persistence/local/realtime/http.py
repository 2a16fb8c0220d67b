"""Broadcasts over HTTP: `/api/broadcast`, for several or for one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import orjson
from aiohttp import web

from haive.core.persistence.local.realtime import limits
from haive.core.persistence.local.realtime.authorization import BROADCAST
from haive.core.persistence.local.realtime.database import AwayError
from haive.core.persistence.local.realtime.hub import Address
from haive.core.persistence.local.realtime.wire import Outgoing, OutgoingBlob

if TYPE_CHECKING:
    from haive.core.persistence.local.realtime.services import Services
    from haive.core.persistence.local.realtime.tokens import Identity, RefusedError

_ONE = re.compile(r"/api/broadcast/([^/]+)/events/([^/]+)")
_BLOB = "application/octet-stream"


async def broadcast(
    request: web.BaseRequest, path: str, services: Services, who: Identity, headers: str
) -> web.Response | None:
    """Answer a request to send broadcasts; None where its path is none of them.

    Args:
        request: The request.
        path: Its path behind `/realtime/v1`, as it was sent.
        services: What channels share.
        who: Whom its token speaks for.
        headers: Its own headers (`x-…`) as JSON, for policies.

    Raises:
        RefusedError: Postgres is away.
    """
    one = _ONE.fullmatch(path)
    if one is None and path != "/api/broadcast":
        return None
    if request.method != "POST":
        return _answer(405, "Method not allowed")
    body = await _read(request)
    if body is None:
        return _answer(413, "Payload size exceeds the limit")
    sender = _Sender(services, who, headers)
    if one is not None:
        topic, event = map(unquote, one.groups())
        return await _send_one(request, topic, event, body, sender)
    try:
        messages = orjson.loads(body)["messages"]
        ready = [_message(item) for item in messages]
    except (ValueError, KeyError, TypeError):
        return _answer(422, "messages: each has a topic, an event and a payload")
    for address, outgoing in ready:
        # As on the platform, what is not allowed is left out without a word.
        if await sender.may_send(address):
            services.hub.broadcast(address, outgoing)
    await services.pace.keep()
    return web.Response(status=202)


class _Sender:
    """Who sends, and where it may."""

    def __init__(self, services: Services, who: Identity, headers: str) -> None:
        self.hub = services.hub
        self.pace = services.pace
        self._authorization = services.authorization
        self._who = who
        self._headers = headers
        self._allowed: dict[str, bool] = {}

    async def may_send(self, address: Address) -> bool:
        if not address.private:
            return True
        if address.name not in self._allowed:
            self._allowed[address.name] = await self._authorization.may_send(
                self._who, address.name, BROADCAST, self._headers
            )
        return self._allowed[address.name]


async def _send_one(
    request: web.BaseRequest, topic: str, event: str, body: bytes, sender: _Sender
) -> web.Response:
    if any(name.startswith("persist") for name in request.query):
        return _answer(422, "persist is not supported by the local stack: use realtime.send")
    address = Address(topic, private=request.query.get("private") == "true")
    full = f"realtime:{topic}"
    if request.content_type == _BLOB:
        outgoing: Outgoing = OutgoingBlob(full, event, body, None)
    else:
        try:
            outgoing = _outgoing(full, event, orjson.loads(body))
        except (ValueError, TypeError):
            return _answer(400, "The body is not JSON, or nested too deeply")
    if not await sender.may_send(address):
        return _answer(403, "You do not have permissions to write to this Channel topic")
    sender.hub.broadcast(address, outgoing)
    await sender.pace.keep()
    return web.Response(status=202)


def _message(item: dict[str, Any]) -> tuple[Address, Outgoing]:
    topic, event, payload = item["topic"], item["event"], item["payload"]
    if not isinstance(topic, str) or not isinstance(event, str) or not isinstance(payload, dict):
        raise TypeError
    address = Address(topic, private=item.get("private") is True)
    return address, _outgoing(f"realtime:{topic}", event, payload)


def _outgoing(topic: str, event: str, payload: object) -> Outgoing:
    body = {"type": "broadcast", "event": event, "payload": payload}
    return Outgoing(topic, "broadcast", orjson.Fragment(orjson.dumps(body)))


async def _read(request: web.BaseRequest) -> bytes | None:
    """Return the body, or None where it is too large."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > limits.BROADCAST_BYTES:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _answer(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)


def refuse(refused: RefusedError) -> web.Response:
    """Return the answer to a request whose token, or whose database, is no good."""
    return _answer(503 if isinstance(refused, AwayError) else 401, refused.message)
