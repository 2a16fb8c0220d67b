"""Data keys: who wraps them, where they are kept, and what is left when they are destroyed."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence._keys import KeyRing
from haive.core.persistence.encryption import (
    DatabaseKeyStore,
    DataKeys,
    EnvironmentKey,
    FileKeyStore,
    KeyStatus,
    KmsKey,
    StoredKey,
    VaultKey,
)
from haive.core.persistence.errors import (
    ConfigurationError,
    DecryptionError,
    InvalidInputError,
    KeyDestroyedError,
    KeyMissingError,
)

OLD, NEW = KeyRing.generate(), KeyRing.generate()


def environment(*keys: str) -> EnvironmentKey:
    return EnvironmentKey(environ={"TENANT_MASTER_KEY": ",".join(keys)})


# ── wrapping ─────────────────────────────────────────────────────────────────────────────────


async def test_what_was_wrapped_unwraps_for_the_same_tenant_and_key_only():
    kek = environment(OLD)
    data_key = secrets.token_bytes(32)
    wrapped = await kek.wrap("a", "00000001", data_key)
    assert data_key not in wrapped
    assert await kek.unwrap("a", "00000001", wrapped) == data_key
    for tenant, key_id in (("b", "00000001"), ("a", "00000002")):
        with pytest.raises(DecryptionError):
            await kek.unwrap(tenant, key_id, wrapped)
    for place in range(len(wrapped)):
        changed = bytearray(wrapped)
        changed[place] ^= 1
        for forged in (bytes(changed), wrapped[:place]):
            with pytest.raises(DecryptionError):
                await kek.unwrap("a", "00000001", forged)


async def test_the_first_key_wraps_and_all_of_them_unwrap():
    wrapped = await environment(OLD).wrap("a", "00000001", b"k" * 32)
    both = environment(NEW, OLD)
    assert await both.kek_id() == await environment(NEW).kek_id()
    assert await both.unwrap("a", "00000001", wrapped) == b"k" * 32
    with pytest.raises(KeyMissingError, match="wrapped by the key"):
        await environment(NEW).unwrap("a", "00000001", wrapped)


@pytest.mark.parametrize(
    "text",
    ["", "correct horse battery staple", "ab" * 31, OLD + ",", "," + OLD],
    ids=["empty", "words", "short", "nothing after", "nothing before"],
)
def test_a_passphrase_is_no_key_and_is_not_shown(text):
    with pytest.raises(ConfigurationError, match="TENANT_MASTER_KEY is no key") as caught:
        environment(text)
    assert not text or text not in str(caught.value)


def test_a_key_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("TENANT_MASTER_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="TENANT_MASTER_KEY is not set"):
        EnvironmentKey()
    monkeypatch.setenv("TENANT_MASTER_KEY", OLD)
    EnvironmentKey()


@pytest.fixture
async def postgres_store(database):
    config = PersistenceConfig(connection_string=database, pool_size=1)
    async with PostgresStore(config) as store:
        yield store


@pytest.fixture
async def vault(postgres: asyncpg.Connection):
    """Vault with a secret that is not ours; returns what sets ours."""
    # The extension is Supabase's own and not in this server: a view of its name and columns.
    await postgres.execute(
        """
        create schema vault;
        create table vault.secrets (
          id uuid default gen_random_uuid(), name text unique, secret text
        );
        create view vault.decrypted_secrets as
        select id, name, secret, secret as decrypted_secret from vault.secrets;
        insert into vault.secrets (name, secret) values ('other', 'x');
        """
    )

    async def put(*masters: str) -> None:
        await postgres.execute(
            "insert into vault.secrets (name, secret) values ('haive_master_key', $1)"
            " on conflict (name) do update set secret = excluded.secret",
            ",".join(masters),
        )

    return put


async def test_a_key_in_vault_wraps_until_it_is_changed(postgres_store, vault):
    kek = VaultKey(postgres_store)
    with pytest.raises(ConfigurationError, match="no secret haive_master_key"):
        await kek.kek_id()
    await vault(OLD)
    wrapped = await kek.wrap("a", "00000001", b"k" * 32)
    assert await environment(OLD).unwrap("a", "00000001", wrapped) == b"k" * 32
    await vault(NEW, OLD)
    newer = await environment(NEW).wrap("a", "00000001", b"n" * 32)
    assert await kek.unwrap("a", "00000001", newer) == b"n" * 32
    assert await kek.kek_id() == await environment(NEW).kek_id()
    assert await kek.destroy("a") is False


async def test_a_changed_secret_wraps_from_now_on(postgres_store, vault, key_store, tenant_of):
    tenant = await tenant_of("changed")
    store = key_store(postgres_store)
    await vault(OLD)
    keys = DataKeys(VaultKey(postgres_store), store)
    await keys.create(tenant)
    await keys.ring(tenant)
    await vault(NEW, OLD)
    await keys.add_next(tenant)
    assert await keys.rewrap(tenant) == 1
    assert await keys.rewrap(tenant) == 0
    await vault(NEW)
    ids = (await keys.ring(tenant)).for_tenant(tenant).key_ids
    only_new = DataKeys(environment(NEW), store)
    assert (await only_new.ring(tenant)).for_tenant(tenant).key_ids == ids


async def test_a_key_made_while_the_secret_is_changed_is_wrapped_anew(
    postgres_store, vault, key_store, tenant_of
):
    tenant = await tenant_of("meanwhile")
    store = key_store(postgres_store)

    class ChangedMeanwhile(VaultKey):
        calls = 0

        async def _between(self) -> None:
            self.calls += 1
            if self.calls == 2:
                await vault(NEW, OLD)

        async def kek_id(self) -> str:
            await self._between()
            return await super().kek_id()

        async def wrap(self, *key) -> bytes:
            await self._between()
            return await super().wrap(*key)

    await vault(OLD)
    await DataKeys(ChangedMeanwhile(postgres_store), store).create(tenant)
    await DataKeys(VaultKey(postgres_store), store).rewrap(tenant)
    only_new = DataKeys(environment(NEW), store)
    assert (await only_new.ring(tenant)).for_tenant(tenant).key_ids


# ── keeping ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def a_key():
    """Make a key to store: `a_key(1)`."""

    def make(number: int, status: KeyStatus = KeyStatus.ACTIVE) -> StoredKey:
        return StoredKey(
            key_id=f"{number:08x}",
            wrapped=secrets.token_bytes(64),
            kek_id="kek",
            status=status,
            created_at=datetime.now(UTC) + timedelta(microseconds=number),
        )

    return make


async def test_both_places_answer_alike_whatever_is_done(
    database, postgres, postgres_store, tmp_path, a_key
):
    """The same random changes, of which most are refused, on both."""
    chance = random.Random(7)
    stores = [DatabaseKeyStore(postgres_store), FileKeyStore(tmp_path / "keys")]
    for round_ in range(12):
        tenant = f"t{round_}"
        await postgres.execute(
            "insert into haive.tenants (tenant_id, name) values ($1, $1)", tenant
        )
        for step in range(25):
            kind = chance.choice(["put"] * 6 + ["drop", "destroy"])
            number = chance.randrange(4)
            if kind == "put":
                key = a_key(number, chance.choice(list(KeyStatus)[:3]))
                was = chance.choice([None, *list(KeyStatus)[:3]])
                answers = [await store.put(tenant, key, was) for store in stores]
            elif kind == "drop":
                answers = [await store.drop(tenant, f"{number:08x}") for store in stores]
            elif step > 15:
                answers = [await store.destroy(tenant) for store in stores]
            else:
                continue
            assert answers[0] == answers[1], (kind, step)
            found = [
                {
                    key.key_id: (key.wrapped, key.kek_id, key.status)
                    for key in await store.read(tenant)
                }
                for store in stores
            ]
            assert found[0] == found[1]


async def test_of_many_who_begin_at_once_one_makes_the_key(
    postgres_store, postgres, key_store, tenant_of
):
    tenant = await tenant_of("many")
    keys = [DataKeys(environment(OLD), key_store(postgres_store)) for _ in range(8)]
    ids = await asyncio.gather(*(each.create(tenant) for each in keys))
    assert len(set(ids)) == 1
    assert len(await keys[0].stored(tenant)) == 1


@pytest.fixture
def tenant_of(postgres):
    async def make(name: str) -> str:
        await postgres.execute("insert into haive.tenants (tenant_id, name) values ($1, $1)", name)
        return name

    return make


async def test_keys_take_turns(postgres_store, key_store, tenant_of):
    tenant = await tenant_of("turns")
    keys = DataKeys(environment(OLD), key_store(postgres_store))
    with pytest.raises(KeyMissingError, match=r"DataKeys\.create"):
        await keys.ring(tenant)
    first = await keys.create(tenant)
    assert await keys.create(tenant) == first
    second = await keys.add_next(tenant)
    assert await keys.add_next(tenant) == second
    assert (await keys.ring(tenant)).for_tenant(tenant).key_ids == (first, second)
    assert not await keys.drop(tenant, first)
    await keys.activate_next(tenant)
    await keys.activate_next(tenant)
    assert (await keys.ring(tenant)).for_tenant(tenant).key_ids == (second, first)
    assert await keys.drop(tenant, first)
    assert (await keys.ring(tenant)).for_tenant(tenant).key_ids == (second,)


async def test_data_keys_are_wrapped_anew_and_stay_the_same(postgres_store, key_store, tenant_of):
    tenant = await tenant_of("rewrapped")
    store = key_store(postgres_store)
    before = DataKeys(environment(OLD), store)
    await before.create(tenant)
    await before.add_next(tenant)
    ids = (await before.ring(tenant)).for_tenant(tenant).key_ids
    both = DataKeys(environment(NEW, OLD), store)
    assert await both.rewrap(tenant) == 2
    assert await both.rewrap(tenant) == 0
    after = DataKeys(environment(NEW), store)
    assert (await after.ring(tenant)).for_tenant(tenant).key_ids == ids
    with pytest.raises(KeyMissingError):
        await before.ring(tenant)


async def test_another_tenants_wrapped_key_is_refused(postgres_store, key_store, tenant_of):
    one, other = await tenant_of("one"), await tenant_of("other")
    store = key_store(postgres_store)
    kms = KmsKey("kms", wrap=_as_it_is, unwrap=_as_it_is)
    keys = DataKeys(kms, store)
    await keys.create(one)
    await keys.create(other)
    (theirs,), (ours,) = await store.read(other), await store.read(one)
    assert await store.put(one, replace(ours, wrapped=theirs.wrapped), KeyStatus.ACTIVE)
    with pytest.raises(DecryptionError, match="not the one"):
        await keys.ring(one)


async def _as_it_is(_tenant: str, _key_id: str, key: bytes) -> bytes:
    return key


@pytest.mark.parametrize("own", [False, True], ids=["shared", "of each tenant"])
async def test_destroyed_keys_are_gone_for_good(postgres_store, key_store, tenant_of, own):
    tenant = await tenant_of("gone")
    asked = []

    async def destroy(of: str) -> None:
        asked.append(of)

    kek = environment(OLD)
    if own:
        kek = KmsKey("kms", wrap=_as_it_is, unwrap=_as_it_is, destroy=destroy)
    store = key_store(postgres_store)
    keys = DataKeys(kek, store)
    await keys.create(tenant)
    await keys.add_next(tenant)
    wrapped = [key.wrapped for key in await store.read(tenant)]
    destroyed = await keys.destroy(tenant)
    # Only there a backup has the wrapped keys, and what unwraps them lives on.
    in_backups = isinstance(store, DatabaseKeyStore) and not own
    assert (destroyed.keys, destroyed.backups_stay_readable) == (2, in_backups)
    assert asked == ([tenant] if own else [])
    for attempt in (keys.ring(tenant), keys.create(tenant), keys.add_next(tenant)):
        with pytest.raises(KeyDestroyedError):
            await attempt
    assert (await keys.destroy(tenant)).keys == 0
    # Not even whoever kept one puts it back.
    again = replace((await store.read(tenant))[0], wrapped=wrapped[0], status=KeyStatus.ACTIVE)
    assert not await store.put(tenant, again, KeyStatus.DESTROYED)
    assert not await store.put(tenant, replace(again, key_id="0000000f"), None)


async def test_files_of_keys_are_for_their_owner_alone(tmp_path: Path, a_key):
    store = FileKeyStore(tmp_path / "keys")
    assert await store.put("a", a_key(1), None)
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "keys").iterdir()} == {0o600}
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(ConfigurationError, match="Others"):
        FileKeyStore(tmp_path / "open")


@pytest.mark.parametrize("tenant", ["", "../a", "a/b", ".", "A", "a\n", "a" * 64])
async def test_no_tenant_is_a_path(tmp_path: Path, tenant):
    store = FileKeyStore(tmp_path / "keys")
    with pytest.raises(InvalidInputError):
        await store.read(tenant)
    with pytest.raises(InvalidInputError):
        await store.destroy(tenant)


@pytest.mark.parametrize("text", ["", "[", "[{}]", "[1]", '[{"key_id": "x"}]', '{"a": 1}'])
async def test_a_damaged_file_is_named_as_the_cause(tmp_path: Path, text):
    store = FileKeyStore(tmp_path / "keys")
    (tmp_path / "keys" / "a.json").write_text(text)
    with pytest.raises(DecryptionError, match="damaged"):
        await store.read("a")


async def test_a_killed_write_leaves_the_old_file(tmp_path: Path, a_key, monkeypatch):
    store = FileKeyStore(tmp_path / "keys")
    await store.put("a", a_key(1), None)
    before = json.loads((tmp_path / "keys" / "a.json").read_text())

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("haive.core.persistence.encryption._file_keys.os.fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            store._write(tmp_path / "keys" / "a.json", [])
    assert json.loads((tmp_path / "keys" / "a.json").read_text()) == before
    assert await store.put("a", a_key(2, KeyStatus.NEXT), None)
