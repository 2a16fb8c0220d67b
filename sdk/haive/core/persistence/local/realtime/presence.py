"""Who is in a room, by the keys that clients go under."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from haive.core.persistence.local.realtime.wire import Outgoing

if TYPE_CHECKING:
    from haive.core.persistence.local.realtime.channel import Channel

Meta = dict[str, Any]


class Presence:
    """What the channels of one room track: one thing each, several under one key."""

    def __init__(self) -> None:
        self._metas: dict[Channel, Meta] = {}

    def state(self) -> dict[str, dict[str, list[Meta]]]:
        """Return all that is tracked, by key."""
        state: dict[str, dict[str, list[Meta]]] = {}
        for channel, meta in self._metas.items():
            state.setdefault(channel.presence_key, {"metas": []})["metas"].append(meta)
        return state

    def track(self, channel: Channel, payload: Meta) -> Outgoing | None:
        """Note what a channel tracks; return the difference, None where there is none."""
        old = self._metas.get(channel)
        meta = {**payload, "phx_ref": secrets.token_urlsafe(9)}
        if old is not None:
            known = {name: old[name] for name in old if name not in {"phx_ref", "phx_ref_prev"}}
            if known == payload:
                return None
            meta["phx_ref_prev"] = old["phx_ref"]
        self._metas[channel] = meta
        return _difference(channel, joined=meta, left=old)

    def untrack(self, channel: Channel) -> Outgoing | None:
        """Forget what a channel tracks; return the difference, None where there is none."""
        old = self._metas.pop(channel, None)
        return None if old is None else _difference(channel, joined=None, left=old)


def _difference(channel: Channel, *, joined: Meta | None, left: Meta | None) -> Outgoing:
    def of(meta: Meta | None) -> dict[str, Any]:
        return {} if meta is None else {channel.presence_key: {"metas": [meta]}}

    payload = {"joins": of(joined), "leaves": of(left)}
    return Outgoing(channel.topic, "presence_diff", payload)
