"""Who listens to what: rooms with their channels, and messages to all in one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from haive.core.persistence.local.realtime.presence import Presence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haive.core.persistence.local.realtime.channel import Channel
    from haive.core.persistence.local.realtime.wire import Outgoing


@dataclass(frozen=True, slots=True)
class Address:
    """Private and public channels of one name are two rooms: neither hears the other."""

    name: str
    private: bool


@dataclass(slots=True)
class Room:
    """The channels of one name on all sockets."""

    topic: str
    # A dict, for its order: the first who came is told first.
    channels: dict[Channel, None] = field(default_factory=dict)
    presence: Presence = field(default_factory=Presence)


class Hub:
    """All rooms with somebody in them."""

    def __init__(self) -> None:
        self._rooms: dict[Address, Room] = {}

    def enter(self, channel: Channel) -> Room:
        """Put a channel into its room."""
        room = self._rooms.get(channel.address)
        if room is None:
            room = self._rooms[channel.address] = Room(channel.topic)
        room.channels[channel] = None
        return room

    def leave(self, channel: Channel) -> None:
        """Take a channel out of its room, with what it tracks."""
        room = self._rooms.get(channel.address)
        if room is None or channel not in room.channels:
            return
        del room.channels[channel]
        left = room.presence.untrack(channel)
        if not room.channels:
            del self._rooms[channel.address]
        elif left is not None:
            self.tell_presence(room, left)

    def broadcast(self, address: Address, message: Outgoing, *, but: Channel | None = None) -> None:
        """Send a broadcast to all in a room who may receive broadcasts."""
        room = self._rooms.get(address)
        if room is None:
            return
        for channel in room.channels:
            if channel is not but and channel.hears_broadcasts:
                channel.socket.deliver(message)

    def has(self, address: Address) -> bool:
        """Whether anybody is in a room."""
        return address in self._rooms

    def tell_presence(self, room: Room, message: Outgoing) -> None:
        """Send a difference to all in a room who may receive presences."""
        for channel in room.channels:
            if channel.hears_presence:
                channel.socket.deliver(message)

    def channels(self) -> Iterator[Channel]:
        """All channels of all rooms."""
        for room in self._rooms.values():
            yield from room.channels
