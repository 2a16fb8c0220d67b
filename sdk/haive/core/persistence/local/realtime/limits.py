"""What one server, one socket and one channel may take up: nothing grows without end."""

from __future__ import annotations

from typing import Final

#: Sockets at a time, as in a project of the platform's Pro plan.
SOCKETS: Final = 500
#: Channels of one socket.
CHANNELS: Final = 100
#: Joins of one socket within a second; one more, and the socket is closed.
JOINS_A_SECOND: Final = 100
#: Bindings to changes of tables in one channel.
BINDINGS: Final = 100
#: Bytes of a channel's name; the binary frames of the protocol hold no more.
TOPIC_BYTES: Final = 240
#: Bytes of a broadcast, whichever way it comes; a longer one is not sent.
BROADCAST_BYTES: Final = 3 * 1024 * 1024
#: Bytes of a frame from a client; a longer one closes its socket.
FRAME_BYTES: Final = BROADCAST_BYTES + 64 * 1024
#: Bytes of what one client tracks.
PRESENCE_BYTES: Final = 16 * 1024
#: Bytes that wait for a client to read; with more, its socket is closed (see pace.py).
UNSENT_BYTES: Final = 8 * 1024 * 1024
#: Changes of tables that wait for their subscribers; the log is not read on meanwhile.
CHANGES: Final = 10_000
#: Bytes of a changed row; of a longer one, only the short values are sent.
ROW_BYTES: Final = 1024 * 1024
#: Bytes of one message in the write-ahead log.
LOG_MESSAGE_BYTES: Final = 64 * 1024 * 1024
