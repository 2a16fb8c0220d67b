"""Who may do what in a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.session.session import Permission

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_LONGEST = 200
_DEFAULT = (Permission.READ, Permission.WRITE)


def checked_permissions(
    participants: Sequence[str], permissions: Mapping[str, Iterable[Permission | str]] | None
) -> dict[str, list[Permission]]:
    """What each participant may do, in their order.

    Raises:
        InvalidInputError: Somebody takes part twice, or has permissions and takes no part; a
            permission is unknown, or none of them is to read.
    """
    if isinstance(participants, str) or not all(isinstance(each, str) for each in participants):
        raise InvalidInputError("participants is a list of user ids.")
    if not all(1 <= len(each) <= _LONGEST for each in participants):
        raise InvalidInputError(f"The user_id of a participant has 1 to {_LONGEST} characters.")
    if len(set(participants)) < len(participants):
        twice = sorted({each for each in participants if list(participants).count(each) > 1})
        raise InvalidInputError(f"These participants are named twice: {', '.join(twice)[:200]}.")
    given = dict(permissions or {})
    if strangers := given.keys() - set(participants):
        raise InvalidInputError(
            f"These have permissions and take no part: {', '.join(sorted(strangers))[:200]}.",
            hint="Name them among the participants.",
        )
    return {each: _checked(given.get(each, _DEFAULT)) for each in participants}


def _checked(permissions: Iterable[Permission | str]) -> list[Permission]:
    if isinstance(permissions, str):
        raise InvalidInputError("Permissions are a list.")
    try:
        known = {Permission(each) for each in permissions}
    except ValueError:
        raise InvalidInputError(f"A permission is one of {', '.join(Permission)}.") from None
    if Permission.READ not in known:
        raise InvalidInputError(
            "A participant reads, whatever else they may do.",
            hint='Add "read", or remove the participant.',
        )
    return [each for each in Permission if each in known]


def columns_of(permissions: Mapping[str, Sequence[Permission]]) -> dict[str, Any]:
    """As `create_session` of the database takes them."""
    return {
        "participants": list(permissions),
        "writers": [user for user, may in permissions.items() if Permission.WRITE in may],
        "moderators": [user for user, may in permissions.items() if Permission.MODERATE in may],
    }
