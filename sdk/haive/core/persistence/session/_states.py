"""The state that the participants of a session share: the settings of its conversation."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from haive.core.persistence._encoding import object_to_json
from haive.core.persistence._sealing import json_of_sealed
from haive.core.persistence.errors import ConflictError, InvalidInputError
from haive.core.persistence.session.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from haive.core.persistence.session._calls import SessionCalls

# How often a change of what is sealed as one begins anew when somebody else was first: of many at
# once one is first each time.
_ATTEMPTS = 100


class StateWriter:
    """Changes the shared state of sessions.

    Args:
        calls: The way to them.
    """

    def __init__(self, calls: SessionCalls) -> None:
        self._calls = calls

    async def update(
        self,
        session_id: UUID | str,
        changes: Mapping[str, Any],
        expected: Session | datetime | None,
        as_user: str | None,
    ) -> Session:
        """Change keys of the state; see `SessionManager.update_state`."""
        object_to_json(changes, "changes")
        redactor = self._calls.store._redactor
        if redactor is not None:
            changes = redactor.conversation({"settings": dict(changes)})["settings"]
        version = expected.version if isinstance(expected, Session) else expected
        if version is not None and not isinstance(version, datetime):
            raise InvalidInputError("expected is a session, or the version of one.")
        if self._calls.store._sealer is None:
            return await self._calls.update_state(
                session_id, {"state": dict(changes)}, version, as_user
            )
        for attempt in range(_ATTEMPTS):
            now = await self._calls.conversation(session_id, as_user)
            state = {**now.metadata.settings, **changes}
            sealed = await self._sealed(
                now.id,
                {
                    "title": now.metadata.title,
                    "context": now.metadata.context,
                    "settings": {key: each for key, each in state.items() if each is not None},
                },
            )
            try:
                return await self._calls.update_state(
                    session_id, sealed, version or now.updated_at, as_user
                )
            except ConflictError:
                if version is not None or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError

    async def _sealed(self, session_id: UUID, fields: Mapping[str, Any]) -> dict[str, str]:
        sealer = self._calls.store._sealer
        assert sealer is not None  # noqa: S101 # nosec B101 - who calls has looked
        keys = await sealer.ready()
        return keys.seal_conversation(session_id, json_of_sealed(fields)).document()
