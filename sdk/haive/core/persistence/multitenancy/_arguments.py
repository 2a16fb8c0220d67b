"""What the parts of tenants ask of their arguments."""

from __future__ import annotations

from haive.core.persistence._encoding import check_text
from haive.core.persistence.errors import InvalidInputError


def check_user(user_id: str) -> str:
    """A user's id, if it is one.

    Raises:
        InvalidInputError: It is not 1 to 200 characters.
    """
    if not 1 <= len(user_id) <= 200:
        raise InvalidInputError("user_id is not 1 to 200 characters.")
    return check_text(user_id, "user_id", 800)
