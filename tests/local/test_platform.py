"""Auth and Storage, by the client that users have."""

from __future__ import annotations

import os
import signal

import httpx
import jwt
import pytest
from supabase import AsyncClientOptions, acreate_client
from supabase_auth.errors import AuthApiError

PASSWORD = "correct-horse-battery"


@pytest.fixture
async def client(stack):
    async with httpx.AsyncClient(timeout=30) as transport:
        options = AsyncClientOptions(httpx_client=transport, auto_refresh_token=False)
        yield await acreate_client(stack.url, stack.publishable_key, options)


@pytest.fixture
async def server(stack):
    async with httpx.AsyncClient(timeout=30) as transport:
        options = AsyncClientOptions(httpx_client=transport, auto_refresh_token=False)
        yield await acreate_client(stack.url, stack.secret_key, options)


async def test_a_user_signs_up_signs_in_and_is_known(client):
    credentials = {"email": "ada@example.com", "password": PASSWORD}
    signed_up = await client.auth.sign_up(credentials)
    signed_in = await client.auth.sign_in_with_password(credentials)
    known = await client.auth.get_user()
    assert signed_up.user.id == signed_in.user.id == known.user.id
    assert known.user.email == "ada@example.com"


async def test_a_wrong_password_is_refused(client):
    await client.auth.sign_up({"email": "bob@example.com", "password": PASSWORD})
    with pytest.raises(AuthApiError):
        await client.auth.sign_in_with_password(
            {"email": "bob@example.com", "password": "wrong-one"}
        )


async def test_an_access_token_carries_the_claims_that_policies_read(stack, client):
    credentials = {
        "email": "kim@example.com",
        "password": PASSWORD,
        "options": {"data": {"nick": "Kim é"}},
    }
    session = (await client.auth.sign_up(credentials)).session
    renewed = (await client.auth.refresh_session()).session
    for token in (session.access_token, renewed.access_token):
        claims = jwt.decode(token, stack.jwt_secret, algorithms=["HS256"], audience="authenticated")
        assert claims["iss"] == f"{stack.url}/auth/v1"
        assert claims["app_metadata"]["provider"] == "email"
        assert claims["user_metadata"]["nick"] == "Kim é"
    assert (await client.auth.get_user(renewed.access_token)).user.email == "kim@example.com"


async def test_the_rest_api_knows_a_signed_in_user(stack, client, postgres, api, eventually):
    await postgres.execute(
        "create or replace function public.me() returns uuid language sql stable"
        " as 'select auth.uid()'"
    )
    session = (
        await client.auth.sign_up({"email": "eve@example.com", "password": PASSWORD})
    ).session
    headers = {
        "apikey": stack.publishable_key,
        "Authorization": f"Bearer {session.access_token}",
    }

    async def me():
        answer = await api.post("/rest/v1/rpc/me", headers=headers)
        return answer.json() if answer.status_code == 200 else None

    assert await eventually(me) == session.user.id


async def test_an_object_is_uploaded_listed_downloaded_signed_and_removed(server):
    await server.storage.create_bucket("notes")
    bucket = server.storage.from_("notes")
    await bucket.upload("deep/down/b.txt", b"hello", {"content-type": "text/plain"})
    assert await bucket.download("deep/down/b.txt") == b"hello"
    await bucket.upload("plain.bin", bytes(range(256)) * 1000)
    names = [item["name"] for item in await bucket.list()]
    assert "plain.bin" in " ".join(names)
    assert await bucket.download("plain.bin") == bytes(range(256)) * 1000
    signed = await bucket.create_signed_url("plain.bin", 60)
    async with httpx.AsyncClient() as anybody:
        assert (await anybody.get(signed["signedURL"])).content == bytes(range(256)) * 1000
    await bucket.remove(["plain.bin"])
    names = [item["name"] for item in await bucket.list()]
    assert "plain.bin" not in " ".join(names)


async def test_a_stranger_cannot_read_a_private_object(server, client):
    await server.storage.create_bucket("private")
    await server.storage.from_("private").upload("x.txt", b"secret")
    with pytest.raises(Exception, match=r"not found|not_found"):
        await client.storage.from_("private").download("x.txt")


async def test_auth_wants_an_api_key(api):
    assert (await api.get("/auth/v1/settings")).status_code == 401


async def test_auth_takes_a_legacy_key_of_this_stack(stack, api):
    key = jwt.encode({"role": "anon"}, stack.jwt_secret)
    headers = {"apikey": key, "Authorization": f"Bearer {key}"}
    assert (await api.get("/auth/v1/settings", headers=headers)).status_code == 200


async def test_nothing_of_auth_is_granted_to_the_api_roles(postgres, client):
    await client.auth.sign_up({"email": "mal@example.com", "password": PASSWORD})
    granted = await postgres.fetch(
        "select grantee, table_name from information_schema.role_table_grants"
        " where table_schema = 'auth' and grantee in ('anon', 'authenticated', 'service_role')"
    )
    assert granted == []


async def test_the_server_is_started_again_after_it_was_killed(
    stack, api, processes_of, eventually
):
    headers = {"apikey": stack.publishable_key}
    assert (await api.get("/auth/v1/settings", headers=headers)).status_code == 200
    (pid,) = processes_of(stack.data_dir).named("deno")
    os.kill(pid, signal.SIGKILL)

    async def again():
        return (await api.get("/auth/v1/settings", headers=headers)).status_code == 200

    await eventually(again)
