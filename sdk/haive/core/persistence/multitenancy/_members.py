"""Who belongs to a tenant, and who is invited."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal
from uuid import UUID  # noqa: TC003 - pydantic reads the annotations

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from haive.core.persistence._encoding import as_uuid, check_text
from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.multitenancy._arguments import check_name, check_span, check_user

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from haive.core.persistence.store import Role, Store

_ROLES = ("owner", "admin", "member", "reader")
_PAGE_SIZE = 1_000


class Member(BaseModel):
    """A user of a tenant."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    user_id: str
    role: Literal["owner", "admin", "member", "reader"]
    created_at: datetime


class Invitation(BaseModel):
    """Whoever has its token may become a member, once."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    id: UUID
    tenant_id: str
    label: str | None
    """Whom it is for, in the words of who invited."""
    role: Literal["owner", "admin", "member", "reader"]
    status: Literal["open", "accepted", "revoked", "expired"]
    created_by: str | None
    created_at: datetime
    expires_at: datetime
    accepted_at: datetime | None
    accepted_by: str | None
    revoked_at: datetime | None
    token: str | None = Field(default=None, repr=False)
    """Only of one that was just made: it is stored nowhere."""


class Accepted(BaseModel):
    """What a user has become."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    tenant_id: str
    role: Literal["owner", "admin", "member", "reader"]


_MEMBERS = TypeAdapter(list[Member])
_INVITATION = TypeAdapter(Invitation)
_INVITATIONS = TypeAdapter(list[Invitation])
_ACCEPTED = TypeAdapter(Accepted)


class Members:
    """The members of the tenant that a store works in, and the invitations to it.

    An owner sets every role; an admin sets member and reader, and touches neither owners nor
    admins. The last owner stays, unless a trusted store takes them away.

    Args:
        store: Of a tenant context, or any store that is in the tenant.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, user_id: str, role: Role = "member") -> None:
        """Make a user a member; one who is there gets the role.

        Raises:
            AccessDeniedError: The caller may not, or it would take the last owner away.
            SubjectErasedError: The user was erased from the tenant.
        """
        await self.set_role(user_id, role)

    async def set_role(self, user_id: str, role: Role) -> None:
        """Give a user a role.

        Raises:
            AccessDeniedError: The caller may not, or it would take the last owner away.
            SubjectErasedError: The user was erased from the tenant.
        """
        await self._store.set_member(check_user(user_id), _checked(role))

    async def remove(self, user_id: str) -> None:
        """Take a user out of the tenant; what they wrote stays.

        Raises:
            AccessDeniedError: The caller may not, or it is the last owner.
        """
        await self._store.set_member(check_user(user_id), None)

    async def list(self) -> Sequence[Member]:
        """All members by their ids; of who administers nothing, only themself."""
        found: list[Member] = []
        while True:
            page = await self._page(found[-1].user_id if found else "", _PAGE_SIZE)
            found += page
            if len(page) < _PAGE_SIZE:
                return found

    async def _page(self, after: str, size: int) -> Sequence[Member]:
        return await self._store._transport.call(
            "list_members", {"page_size": size, "page_after": after}, _MEMBERS, safe=True
        )

    async def invite(
        self,
        role: Role = "member",
        *,
        label: str | None = None,
        expires_in: timedelta | None = None,
    ) -> Invitation:
        """Invite somebody. Give them the `token`: it is shown this once.

        Args:
            role: What they become.
            label: Whom it is for, such as an address; at most 200 characters.
            expires_in: How long it can be accepted: a week if not given, a year at most.

        Raises:
            AccessDeniedError: The caller may not invite, or not to this role.
            SubjectErasedError: The label is the id of a user who was erased from the tenant.
            InvalidInputError: An argument means nothing.
        """
        if label is not None:
            check_name(label, "label")
        if expires_in is not None:
            check_span(expires_in, "expires_in")
        return await self._store._transport.call(
            "create_invitation",
            {
                "role": _checked(role),
                "label": label,
                "expires_at": None if expires_in is None else datetime.now(UTC) + expires_in,
            },
            _INVITATION,
            safe=False,  # a lost answer has a token that nobody knows
        )

    async def invitations(self) -> Sequence[Invitation]:
        """All invitations, with those that were used, taken back or have expired.

        Raises:
            AccessDeniedError: The caller does not administer the tenant.
        """
        found: list[Invitation] = []
        while True:
            page = await self._store._transport.call(
                "list_invitations",
                {"page_size": _PAGE_SIZE, "page_after": found[-1].id if found else None},
                _INVITATIONS,
                safe=True,
            )
            found += page
            if len(page) < _PAGE_SIZE:
                return found

    async def revoke(self, invitation_id: UUID | str) -> Invitation:
        """Take an invitation back.

        Raises:
            ConflictError: It is accepted already.
            NotFoundError: There is none.
        """
        return await self._store._transport.call(
            "revoke_invitation",
            {"invitation_id": as_uuid(invitation_id, "invitation_id")},
            _INVITATION,
            safe=True,
        )

    async def accept(self, token: str) -> Accepted:
        """Become a member. The store is one with the token of the user who was invited.

        Raises:
            NotFoundError: The invitation was used, taken back, has expired, or never was.
            ConflictError: The user is a member already.
        """
        check_text(token, "token", 1_000)
        return await self._store._transport.call(
            "accept_invitation", {"token": token}, _ACCEPTED, safe=True
        )


def _checked(role: Role) -> Role:
    if role not in _ROLES:
        raise InvalidInputError(f"role is none of {', '.join(_ROLES)}.")
    return role
