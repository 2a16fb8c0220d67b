"""Who belongs to a tenant, who says so, and who is let in by a token."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from haive.core.persistence.errors import (
    AccessDeniedError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PersistenceError,
    TenantMovingError,
)
from haive.core.persistence.multitenancy import Members


@pytest.fixture
async def members(manager, tenant_id):
    """The members of a tenant, as the platform sees them."""
    async with manager.tenant_context(tenant_id) as store:
        yield Members(store)


@pytest.fixture
async def team(members, as_user, tenant_id):
    """What the users of a tenant see, by their role; their ids begin with the tenant's."""
    for role in ("owner", "admin", "member", "reader"):
        await members.add(f"{tenant_id}-{role}", role)
    return {
        role: Members(as_user(f"{tenant_id}-{role}"))
        for role in ("owner", "admin", "member", "reader")
    }


def _roles(found, tenant_id):
    return {one.user_id.removeprefix(f"{tenant_id}-"): one.role for one in found}


async def test_members_are_added_changed_listed_and_removed(members):
    await members.add("ada")
    await members.add("bob", "admin")
    await members.set_role("ada", "reader")
    assert {one.user_id: one.role for one in await members.list()} == {
        "ada": "reader",
        "bob": "admin",
    }
    await members.remove("ada")
    await members.remove("ada")
    assert [one.user_id for one in await members.list()] == ["bob"]


async def test_more_members_than_a_page_are_all_listed(members, tenant_id, stack):
    connection = await asyncpg.connect(stack.database_url)
    await connection.execute(
        "insert into haive.members (tenant_id, user_id)"
        " select $1, 'user ' || n from generate_series(1, 2001) as n",
        tenant_id,
    )
    await connection.close()
    found = await members.list()
    assert len({one.user_id for one in found}) == len(found) == 2001


async def test_administrators_see_all_members_and_others_themselves(team, tenant_id):
    everybody = {"owner": "owner", "admin": "admin", "member": "member", "reader": "reader"}
    for role, seen in team.items():
        expected = everybody if role in {"owner", "admin"} else {role: role}
        assert _roles(await seen.list(), tenant_id) == expected


async def test_a_user_neither_removes_nor_demotes_the_last_owner(team, members, tenant_id):
    owner = f"{tenant_id}-owner"
    with pytest.raises(AccessDeniedError, match="last owner"):
        await team["owner"].remove(owner)
    with pytest.raises(AccessDeniedError, match="last owner"):
        await team["owner"].set_role(owner, "admin")
    await team["owner"].set_role(owner, "owner")  # which takes nothing away
    await members.remove(owner)  # the platform may
    assert "owner" not in _roles(await members.list(), tenant_id).values()


async def test_an_owner_goes_when_there_is_another(team, members, tenant_id):
    await team["owner"].add("second", "owner")
    await team["owner"].remove(f"{tenant_id}-owner")
    assert "second" in {one.user_id for one in await members.list()}


async def test_who_belongs_to_a_tenant_may_leave_it(team, members, tenant_id):
    with pytest.raises(AccessDeniedError):
        await team["member"].remove(f"{tenant_id}-reader")
    with pytest.raises(AccessDeniedError):
        await team["member"].set_role(f"{tenant_id}-member", "admin")
    await team["member"].remove(f"{tenant_id}-member")
    with pytest.raises(AccessDeniedError, match="no member"):
        await team["member"].list()
    with pytest.raises(AccessDeniedError):
        await team["admin"].set_role(f"{tenant_id}-admin", "owner")
    await team["admin"].set_role(f"{tenant_id}-admin", "member")
    assert _roles(await members.list(), tenant_id)["admin"] == "member"
    await team["admin"].remove(f"{tenant_id}-admin")
    with pytest.raises(AccessDeniedError, match="may not write"):
        await team["reader"].remove(f"{tenant_id}-reader")
    assert set(_roles(await members.list(), tenant_id)) == {"owner", "reader"}


async def test_of_owners_who_remove_each_other_at_once_one_stays(members, tenant_id, as_user):
    for _ in range(5):
        names = [f"{tenant_id}-{n}" for n in range(4)]
        for name in names:
            await members.add(name, "owner")
        await asyncio.gather(
            *(
                Members(as_user(name)).set_role(names[place - 1], "member")
                for place, name in enumerate(names)
            ),
            return_exceptions=True,
        )
        roles = [one.role for one in await members.list()]
        assert roles.count("owner") >= 1


@pytest.mark.parametrize(
    ("before", "change"), [("member", "demote"), ("member", "remove"), (None, "demote")]
)
async def test_an_admin_does_not_undo_what_an_owner_is_made_at_that_moment(
    team, members, tenant_id, stack, before, change
):
    bob = f"{tenant_id}-bob"
    if before is not None:
        await members.add(bob, before)
    connection = await asyncpg.connect(stack.database_url)
    async with connection.transaction():
        await connection.execute("select haive.set_member($1, 'owner', $2)", bob, tenant_id)
        admin = team["admin"]
        undoing = asyncio.create_task(
            admin.set_role(bob, "reader") if change == "demote" else admin.remove(bob)
        )
        async with asyncio.timeout(5):
            waits = "select exists (select from pg_locks where not granted)"
            while not await connection.fetchval(waits):  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)
    await connection.close()
    with pytest.raises(AccessDeniedError, match="administrator"):
        await undoing
    assert _roles(await members.list(), tenant_id)["bob"] == "owner"


@pytest.mark.parametrize("wrong", ["", "x" * 201, "nul\0", 5, None])
async def test_what_is_no_user_is_refused_before_it_is_sent(members, wrong):
    with pytest.raises(InvalidInputError):
        await members.add(wrong)


# -- invitations -----------------------------------------------------------------------------------


async def test_an_invitation_makes_its_first_user_a_member(members, as_user, tenant_id):
    made = await members.invite("admin", label="ada@example.org")
    assert made.token
    assert (made.status, made.role, made.label) == ("open", "admin", "ada@example.org")
    assert made.token not in repr(made)
    week = datetime.now(UTC) + timedelta(days=7)
    assert abs(made.expires_at - week) < timedelta(minutes=5)

    ada = f"{tenant_id}-ada"
    accepted = await Members(as_user(ada)).accept(made.token)
    assert (accepted.tenant_id, accepted.role) == (tenant_id, "admin")
    assert [(one.user_id, one.role) for one in await members.list()] == [(ada, "admin")]
    (kept,) = await members.invitations()
    assert (kept.status, kept.accepted_by, kept.token) == ("accepted", ada, None)
    # The answer may have been lost: the same user gets it again.
    assert await Members(as_user(ada)).accept(made.token) == accepted


async def test_the_token_is_stored_nowhere(members, stack):
    made = await members.invite()
    connection = await asyncpg.connect(stack.database_url)
    row = await connection.fetchrow("select * from haive.invitations where id = $1", made.id)
    await connection.close()
    assert made.token not in str(dict(row))
    assert bytes.fromhex(made.token) not in row["token_hash"]


async def test_of_twenty_who_accept_at_once_one_becomes_a_member(members, as_user, tenant_id):
    made = await members.invite()
    users = [Members(as_user(f"{tenant_id}-{n}")) for n in range(20)]
    outcomes = await asyncio.gather(
        *(user.accept(made.token) for user in users), return_exceptions=True
    )
    refused = [one for one in outcomes if isinstance(one, PersistenceError)]
    assert len(refused) == 19
    assert {type(one) for one in refused} == {NotFoundError}
    assert len(await members.list()) == 1


async def test_what_is_not_valid_has_one_answer(members, as_user, tenant_id, stack):
    used, revoked, expired = [await members.invite() for _ in range(3)]
    await Members(as_user(f"{tenant_id}-first")).accept(used.token)
    await members.revoke(revoked.id)
    connection = await asyncpg.connect(stack.database_url)
    await connection.execute(
        "update haive.invitations set expires_at = now() where id = $1", expired.id
    )
    await connection.close()
    late = Members(as_user(f"{tenant_id}-late"))
    answers = set()
    for token in (used.token, revoked.token, expired.token, "0" * 64, "", "x' or true --"):
        with pytest.raises(NotFoundError) as raised:
            await late.accept(token)
        answers.add(str(raised.value))
    assert len(answers) == 1
    assert [one.user_id for one in await members.list()] == [f"{tenant_id}-first"]
    assert sorted(one.status for one in await members.invitations()) == [
        "accepted", "expired", "revoked",
    ]  # fmt: skip


async def test_a_tenant_that_is_named_is_the_only_one_that_is_joined(
    members, as_user, tenant_id, manager, new_id
):
    other = (await manager.create_tenant(new_id())).tenant_id
    made = await members.invite()
    with pytest.raises(NotFoundError):
        await Members(as_user("guest", tenant=other)).accept(made.token)
    await Members(as_user("guest", tenant=tenant_id)).accept(made.token)


@pytest.mark.parametrize("closing", ["suspend_tenant", "delete_tenant"])
async def test_nobody_joins_a_closed_tenant(members, as_user, tenant_id, manager, closing):
    made = await members.invite()
    await getattr(manager, closing)(tenant_id)
    guest = Members(as_user(f"{tenant_id}-guest"))
    with pytest.raises(NotFoundError):
        await guest.accept(made.token)
    await manager.resume_tenant(tenant_id)
    await guest.accept(made.token)


async def test_nobody_joins_a_tenant_that_is_moved_now(members, as_user, tenant_id, stack):
    made = await members.invite()
    connection = await asyncpg.connect(stack.database_url)
    await connection.execute(
        "update haive.tenants set status = 'moving' where tenant_id = $1", tenant_id
    )
    await connection.close()
    with pytest.raises(TenantMovingError):
        await Members(as_user(f"{tenant_id}-guest")).accept(made.token)


async def test_who_is_a_member_already_uses_nothing_up(members, as_user, tenant_id):
    made = await members.invite("owner")
    await members.add(f"{tenant_id}-ada", "reader")
    with pytest.raises(ConflictError):
        await Members(as_user(f"{tenant_id}-ada")).accept(made.token)
    assert [one.role for one in await members.list()] == ["reader"]
    assert [one.status for one in await members.invitations()] == ["open"]


async def test_only_users_accept(members):
    made = await members.invite()
    with pytest.raises(AccessDeniedError):
        await members.accept(made.token)


async def test_administrators_invite_as_far_as_their_role_goes(team, tenant_id):
    for role in ("member", "reader"):
        with pytest.raises(AccessDeniedError):
            await team[role].invite("reader")
        with pytest.raises(AccessDeniedError):
            await team[role].invitations()
    for wanted in ("owner", "admin"):
        with pytest.raises(AccessDeniedError):
            await team["admin"].invite(wanted)
    mine = await team["admin"].invite("member")
    assert mine.created_by == f"{tenant_id}-admin"
    theirs = await team["owner"].invite("owner")
    with pytest.raises(AccessDeniedError):
        await team["admin"].revoke(theirs.id)
    assert (await team["owner"].revoke(theirs.id)).status == "revoked"
    assert (await team["admin"].revoke(mine.id)).status == "revoked"


async def test_what_is_accepted_is_not_taken_back(members, as_user, tenant_id):
    made = await members.invite()
    await Members(as_user(f"{tenant_id}-ada")).accept(made.token)
    with pytest.raises(ConflictError):
        await members.revoke(made.id)


async def test_an_invitation_of_another_tenant_is_not_there(members, manager, new_id):
    other = (await manager.create_tenant(new_id())).tenant_id
    made = await members.invite()
    async with manager.tenant_context(other) as store:
        with pytest.raises(NotFoundError):
            await Members(store).revoke(made.id)
        assert await Members(store).invitations() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"role": "king"},
        {"label": "x" * 201},
        {"label": ""},
        {"label": 5},
        {"expires_in": 3600},
        {"expires_in": timedelta(seconds=-1)},
        {"expires_in": timedelta(days=400)},
    ],
)
async def test_an_invitation_that_means_nothing_is_refused(members, wrong):
    with pytest.raises(InvalidInputError):
        await members.invite(**wrong)
    assert await members.invitations() == []
