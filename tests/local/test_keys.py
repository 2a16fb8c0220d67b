from __future__ import annotations

import time

import asyncpg
import jwt
import pytest

SCHEMA = """
create function public.who() returns json language sql stable as $$
  select json_build_object('role', current_user, 'uid', auth.uid(), 'email', auth.email(),
    'auth_role', auth.role(), 'org', auth.jwt() -> 'app_metadata' ->> 'org')
$$;
"""


@pytest.fixture(scope="module", autouse=True)
async def _who(stack):
    connection = await asyncpg.connect(stack.database_url)
    await connection.execute(SCHEMA)
    await connection.close()


@pytest.fixture
def ask(stack, api, eventually):
    async def call(key=None, token=None, *, user_agent="tests", scheme="Bearer"):
        headers = {"User-Agent": user_agent}
        if key is not None:
            headers["apikey"] = key
        if token is not None:
            headers["Authorization"] = f"{scheme} {token}"
        last = None

        async def known():
            nonlocal last
            last = await api.post("/rest/v1/rpc/who", headers=headers)
            return last.status_code != 404  # the schema cache has seen it

        await eventually(known)
        return last

    return call


USER = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


async def test_the_publishable_key_is_anon(stack, ask):
    assert (await ask(stack.publishable_key)).json()["role"] == "anon"


async def test_the_secret_key_is_service_role(stack, ask):
    assert (await ask(stack.secret_key)).json()["role"] == "service_role"


async def test_a_bearer_equal_to_the_key_is_the_key(stack, ask):
    answer = await ask(stack.secret_key, stack.secret_key)
    assert answer.json()["role"] == "service_role"


async def test_a_users_token_decides_who_calls(stack, ask):
    token = stack.mint_user_token(USER, email="a@example.com", app_metadata={"org": "acme"})
    answer = (await ask(stack.publishable_key, token)).json()
    assert answer == {
        "role": "authenticated",
        "uid": USER,
        "email": "a@example.com",
        "auth_role": "authenticated",
        "org": "acme",
    }


async def test_a_users_token_outranks_the_secret_key(stack, ask):
    answer = await ask(stack.secret_key, stack.mint_user_token(USER))
    assert answer.json()["role"] == "authenticated"


async def test_no_key_is_refused_as_hosted_does(ask):
    answer = await ask()
    assert answer.status_code == 401
    assert answer.json()["message"] == "No API key found in request"


async def test_a_token_without_a_key_is_refused(stack, ask):
    assert (await ask(None, stack.mint_user_token(USER))).status_code == 401


@pytest.mark.parametrize("key", ["sb_secret_wrong", "sb_publishable_", "é", "a.b.c"])
async def test_a_wrong_key_is_refused(ask, key):
    assert (await ask(key.encode())).status_code == 401


async def test_an_opaque_bearer_that_is_not_the_key_is_refused(stack, ask):
    assert (await ask(stack.publishable_key, stack.secret_key)).status_code == 401
    assert (await ask(stack.publishable_key, "sb_secret_wrong")).status_code == 401


async def test_the_key_may_come_in_the_query_and_goes_no_further(stack, api, ask):
    await ask(stack.publishable_key)
    answer = await api.get(f"/rest/v1/rpc/who?apikey={stack.publishable_key}")
    assert answer.json()["role"] == "anon"


async def test_a_secret_key_in_a_browser_is_refused(stack, ask):
    browser = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36"
    answer = await ask(stack.secret_key, user_agent=browser)
    assert answer.status_code == 401
    assert "secret API key in browser" in answer.json()["message"]
    assert (await ask(stack.publishable_key, user_agent=browser)).status_code == 200


async def test_an_expired_token_is_refused(stack, ask):
    answer = await ask(
        stack.publishable_key, stack.mint_user_token(USER, exp=int(time.time()) - 90)
    )
    assert answer.status_code == 401
    assert answer.json()["code"] in {"PGRST301", "PGRST303"}


@pytest.mark.parametrize(
    "role", ["postgres", "supabase_admin", "authenticator", "supabase_auth_admin"]
)
async def test_no_token_makes_anybody_more_than_the_api_roles(stack, ask, role):
    answer = await ask(stack.publishable_key, stack.mint_user_token(USER, role=role))
    assert answer.status_code in {401, 403}


async def test_a_token_of_another_secret_is_refused(stack, ask):
    forged = jwt.encode({"role": "service_role"}, "x" * 64, algorithm="HS256")
    assert (await ask(stack.publishable_key, forged)).status_code == 401
    assert (await ask(forged)).status_code == 401


async def test_an_unsigned_token_is_refused(stack, ask):
    unsigned = jwt.encode({"role": "service_role"}, None, algorithm="none")
    assert (await ask(stack.publishable_key, unsigned)).status_code == 401
    assert (await ask(unsigned)).status_code == 401


@pytest.mark.parametrize("role", ["anon", "service_role"])
async def test_a_legacy_jwt_key_of_this_stack_is_accepted(stack, ask, role):
    key = jwt.encode({"role": role, "exp": int(time.time()) + 60}, stack.jwt_secret)
    assert (await ask(key)).json()["role"] == role
    assert (await ask(key, key)).json()["role"] == role


async def test_a_users_token_is_no_api_key(stack, ask):
    assert (await ask(stack.mint_user_token(USER))).status_code == 401


async def test_each_minted_token_is_an_hour_long_unless_claimed(stack):
    claims = jwt.decode(
        stack.mint_user_token(USER),
        stack.jwt_secret,
        algorithms=["HS256"],
        audience="authenticated",
    )
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["sub"] == USER
