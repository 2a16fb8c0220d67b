"""What channels share: the rooms, the policies, the changes of tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from haive.core.persistence.local.realtime.authorization import Authorization
    from haive.core.persistence.local.realtime.changes import Changes
    from haive.core.persistence.local.realtime.database import Database
    from haive.core.persistence.local.realtime.hub import Hub
    from haive.core.persistence.local.realtime.pace import Pace
    from haive.core.persistence.local.realtime.socket import Socket


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Made once for all sockets."""

    jwt_secret: str
    hub: Hub
    database: Database
    authorization: Authorization
    changes: Changes
    pace: Pace
    streaming: asyncio.Event
    """Set while rows of the database arrive."""
    sockets: set[Socket] = field(default_factory=set)
