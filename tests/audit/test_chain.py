"""The chain: what a superuser does to the log is found, and the first bad row is named."""

from __future__ import annotations

import asyncio
import gzip
import json

import asyncpg
import pytest

from haive.core.persistence import PersistenceConfig, PostgresStore, SupabaseStore
from haive.core.persistence.audit import AuditHead, AuditKey, AuditLog, verify_export
from haive.core.persistence.errors import (
    AccessDeniedError,
    AuditSignatureError,
    ConfigurationError,
    InvalidInputError,
)

# A chain made anew by somebody who knows how: all hashes and the head are right.
_REHASH = """
    do $$
    declare
      v_row haive.audit_log;
      v_hash bytea := '';
    begin
      for v_row in select * from haive.audit_log where tenant_id = '{tenant}' order by seq loop
        v_hash := sha256(v_hash || convert_to(haive_private.audit_entry(v_row), 'UTF8'));
        update haive.audit_log set hash = v_hash
        where tenant_id = '{tenant}' and seq = v_row.seq;
      end loop;
      update haive_private.audit_heads set hash = v_hash where tenant_id = '{tenant}';
    end $$"""
_OF = "where tenant_id = '{tenant}' and seq"
_SHIFT = f"""
    update haive.audit_log set seq = seq + 1000 {_OF} > 4;
    update haive.audit_log set seq = seq - 999 {_OF} > 1000;
    insert into haive.audit_log
    select tenant_id, 5, at, 'mallory', login, role, action, object, rows, row_count, address,
      application, request_id, hash
    from haive.audit_log {_OF} = 4;
    update haive_private.audit_heads set seq = seq + 1 where tenant_id = '{{tenant}}'"""
_CUT = f"delete from haive.audit_log {_OF} > 7"
_EDIT = f"update haive.audit_log set actor = 'mallory' {_OF} = 5"

_SET = "update haive.audit_log set"
_GAP_CLOSED = f"""
    delete from haive.audit_log {_OF} = 5;
    {_SET} seq = seq + 1000 {_OF} > 5;
    {_SET} seq = seq - 1001 {_OF} > 1000"""
_APPENDED = f"""
    insert into haive.audit_log
    select tenant_id, 11, at, actor, login, role, action, object, rows, row_count, address,
      application, request_id, hash
    from haive.audit_log {_OF} = 1"""
_SWAP = f"""
    {_SET} seq = 99 {_OF} = 4;
    {_SET} seq = 4 {_OF} = 6;
    {_SET} seq = 6 {_OF} = 99"""
_CUT_WITH_HEAD = f"""
    {_CUT};
    update haive_private.audit_heads as h set seq = 7, hash = l.hash
    from haive.audit_log as l
    where h.tenant_id = '{{tenant}}' and l.tenant_id = h.tenant_id and l.seq = 7"""
_GONE = """
    delete from haive.audit_log where tenant_id = '{tenant}';
    delete from haive_private.audit_heads where tenant_id = '{tenant}'"""

#: What is done to ten rows, and what is found: the first bad row, why, and whether it takes a head.
_TAMPERING = {
    "an edit": (_EDIT, 5, "changed", False),
    "an edit of a count": (f"{_SET} row_count = 7 {_OF} = 5", 5, "changed", False),
    "an edit of a hash": (f"{_SET} hash = sha256('') {_OF} = 5", 5, "changed", False),
    "an edit of the last row": (f"{_SET} at = now() {_OF} = 10", 10, "changed", False),
    "a deletion": (f"delete from haive.audit_log {_OF} = 5", 5, "missing", False),
    "a deletion of the first row": (f"delete from haive.audit_log {_OF} = 1", 1, "missing", False),
    "a deletion that closes the gap": (_GAP_CLOSED, 5, "changed", False),
    "an insertion": (_SHIFT, 5, "changed", False),
    "an insertion at the end": (_APPENDED, 11, "changed", False),
    "a swap": (_SWAP, 4, "changed", False),
    "a cut tail": (_CUT, 8, "missing", False),
    "a cut tail with its head": (_CUT_WITH_HEAD, 8, "missing", True),
    "a log that is gone with its head": (_GONE, 1, "missing", True),
    "a rewritten whole": (f"{_EDIT}; {_REHASH}", 10, "rewritten", True),
}


@pytest.fixture
async def log(direct, record) -> AuditLog:
    """A log of ten rows."""
    await record.switch("writes")
    conversation = await direct.create_conversation("agent")
    for _ in range(10 - await record.seq()):
        await direct.add_message(conversation.id, "user", "hello")
    assert await record.seq() == 10
    return AuditLog(direct, key=AuditKey(AuditKey.generate()))


@pytest.fixture
async def tamper(superuser, record):
    """Run statements on the log of the tenant with its triggers disabled."""

    async def run(sql: str) -> None:
        async with superuser.transaction():
            await superuser.execute("set local session_replication_role = replica")
            await superuser.execute(sql.replace("{tenant}", record.tenant))

    return run


async def _findings(log: AuditLog, path, head: AuditHead | None):
    """What the database finds, and what is found in an export."""
    await log.export(path)
    return [await log.verify(head), verify_export(path, head, key=log._key)]


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
async def test_an_untouched_chain_holds(log, record, tmp_path, name):
    head = await log.sign_head()
    for found in await _findings(log, tmp_path / name, head):
        assert (found.ok, found.checked, found.seq) == (True, 10, 10)
        assert found.hash == head.hash
        assert found.heads == 1


@pytest.mark.parametrize("what", _TAMPERING)
async def test_tampering_is_found_and_the_first_bad_row_named(log, tamper, tmp_path, what):
    sql, bad_seq, reason, takes_head = _TAMPERING[what]
    head = await log.sign_head()
    await tamper(sql)
    for found in await _findings(log, tmp_path / "log.jsonl", head):
        assert (found.ok, found.bad_seq, found.reason) == (False, bad_seq, reason)
        assert f"row {bad_seq}" in found.finding
    assert (await log.verify()).ok is takes_head


async def test_of_several_heads_the_first_that_fails_narrows_a_rewriting_down(
    log, tamper, direct, record, tmp_path
):
    query = "select seq, encode(hash, 'hex') as hash, at from haive.audit_log where tenant_id = $1"
    rows = await record.owner.fetch(f"{query} order by seq", record.tenant)
    heads = [log._key.sign(AuditHead(tenant=record.tenant, **row)) for row in rows]
    await tamper(f"{_EDIT}; {_REHASH}")
    for found in await _findings(log, tmp_path / "log.jsonl", heads[::3]):
        assert (found.bad_seq, found.reason) == (7, "rewritten")
    for found in await _findings(log, tmp_path / "log.jsonl", heads):
        assert (found.bad_seq, found.reason) == (5, "rewritten")


async def test_a_long_log_is_checked_in_steps(log, tamper, monkeypatch, tmp_path):
    monkeypatch.setattr("haive.core.persistence.audit.log._STEP", 3)
    monkeypatch.setattr("haive.core.persistence.audit.log._PAGE", 3)
    head = await log.sign_head()
    told = []
    found = await log.verify(head, on_progress=told.append)
    assert (found.ok, found.checked, told) == (True, 10, [3, 6, 9, 10])
    assert await log.export(tmp_path / "log.jsonl") == 10
    assert [entry.seq async for entry in log.entries(4)] == [5, 6, 7, 8, 9, 10]
    await tamper(_CUT)
    assert (await log.verify(head)).bad_seq == 8


async def test_a_row_that_changes_between_two_steps_is_found(log, tamper, client, record):
    query = "select haive.verify_audit(max_rows => 5, tenant => $1, after => $2, hash => $3)"
    first = json.loads(await client.fetchval(query, record.tenant, 0, None))
    assert (first["seq"], first["complete"], first["ok"]) == (5, False, True)
    await tamper(f"{_EDIT}; {_REHASH}")
    second = json.loads(await client.fetchval(query, record.tenant, 5, first["hash"]))
    assert (second["ok"], second["bad_seq"], second["reason"]) == (False, 5, "changed")


@pytest.mark.parametrize("packed", [False, True])
async def test_every_line_of_an_export_counts(log, tmp_path, packed):
    path = tmp_path / ("log.jsonl.gz" if packed else "log.jsonl")
    lines = [line async for line in log.lines()]
    head = await log.sign_head()
    pack = gzip.compress if packed else bytes

    def found(changed):
        path.write_bytes(pack(b"".join(changed)))
        one = verify_export(path, head, key=log._key)
        return one.ok, one.bad_seq, one.reason

    assert found(lines) == (True, None, None)
    assert found(lines[:-1]) == (False, 10, "missing")
    assert found([*lines[:3], *lines[4:]]) == (False, 3, "missing")
    assert found([*lines[:3], lines[4], lines[3], *lines[5:]]) == (False, 3, "missing")
    assert found([*lines[:3], lines[2], *lines[3:]]) == (False, 3, "changed")
    assert found([*lines[:3], lines[3].replace(b"insert", b"delete"), *lines[4:]]) == (
        False, 3, "changed",
    )  # fmt: skip
    assert found([*lines[:3], b"{}\n", *lines[4:]]) == (False, 3, "unreadable")
    assert found([*lines[:-1], lines[-1][:-20]]) == (False, 10, "unreadable")
    with pytest.raises(InvalidInputError, match="no export"):
        found(lines[1:])


async def test_an_export_of_another_tenants_rows_is_none_of_this_one(log, tmp_path):
    lines = [line async for line in log.lines()]
    header = json.loads(lines[0])
    path = tmp_path / "log.jsonl"
    path.write_bytes(json.dumps(header | {"tenant": "other"}).encode() + b"\n" + lines[1])
    assert (verify_export(path).bad_seq, verify_export(path).reason) == (1, "changed")


async def test_an_export_goes_on_from_a_row(log, tmp_path):
    head = await log.sign_head()
    assert await log.export(tmp_path / "rest.jsonl", after=6) == 4
    found = verify_export(tmp_path / "rest.jsonl", head, key=log._key)
    assert (found.ok, found.checked, found.seq) == (True, 4, 10)
    with pytest.raises(InvalidInputError, match="no row 11"):
        await log.export(tmp_path / "none.jsonl", after=11)
    with pytest.raises(InvalidInputError, match="cannot be written"):
        await log.export(tmp_path / "no" / "file")


@pytest.mark.parametrize("kind", ["ed25519", "hmac"])
async def test_a_head_that_was_changed_or_signed_by_another_is_refused(log, kind, direct):
    key = AuditKey(AuditKey.generate(kind))
    log = AuditLog(direct, key=key)
    head = await log.sign_head()
    again = AuditHead.model_validate_json(head.model_dump_json())
    assert (await log.verify(again)).ok
    if key.public:
        public = AuditKey(key.public)
        public.check(again)
        assert public.key_id == key.key_id
        with pytest.raises(ConfigurationError):
            public.sign(head)
    for changes in (
        {"seq": 9}, {"hash": "0" * 64}, {"signature": None}, {"signature": "!"}, {"signature": ""},
        {"at": head.at.replace(year=2000)},
    ):  # fmt: skip
        with pytest.raises(AuditSignatureError):
            await log.verify(head.model_copy(update=changes))
    for text in (AuditKey.generate(kind), AuditKey.generate("hmac")):
        with pytest.raises(AuditSignatureError):
            AuditKey(text).check(head)
    with pytest.raises(InvalidInputError, match="tenant"):
        await log.verify(head.model_copy(update={"tenant": "other"}))


@pytest.mark.parametrize("text", ["", "secret", "hmac:", "hmac:c2hvcnQ=", "rsa:" + "A" * 43 + "="])
async def test_what_is_no_key_is_refused_without_being_told(text, monkeypatch, direct):
    with pytest.raises(ConfigurationError) as raised:
        AuditKey(text)
    assert not text or text not in str(raised.value)
    monkeypatch.setenv("HAIVE_AUDIT_KEY", text)
    if text:
        with pytest.raises(ConfigurationError):
            AuditLog(direct)
    else:
        with pytest.raises(ConfigurationError, match="HAIVE_AUDIT_KEY"):
            await AuditLog(direct).sign_head()


async def test_a_key_tells_nothing_of_itself():
    text = AuditKey.generate()
    assert text.partition(":")[2] not in repr(AuditKey(text))


async def test_tail_and_follow(log, direct, record):
    assert [entry.seq for entry in await log.tail(3)] == [8, 9, 10]
    following = log.follow(interval=0.01)
    coming = asyncio.create_task(anext(following))
    await asyncio.sleep(0.05)
    await direct.create_conversation("agent")
    entry = await asyncio.wait_for(coming, 5)
    assert (entry.seq, entry.action, entry.object) == (11, "insert", "conversations")
    await following.aclose()


@pytest.mark.parametrize(
    "statement",
    [
        "update haive.audit_log set actor = 'x'",
        "delete from haive.audit_log",
        "delete from haive.audit_log where false",
        "truncate haive.audit_log",
        "merge into haive.audit_log using (values (1)) as v on true when matched then delete",
    ],
)
@pytest.mark.parametrize("who", ["postgres", "superuser", "haive_writer", "haive_client"])
async def test_the_log_is_only_added_to_even_by_its_owner(
    log, owner, superuser, record, who, statement
):
    before = await record.since()
    connection = superuser if who == "superuser" else owner
    async with connection.transaction():
        if who.startswith("haive"):
            await connection.execute(f"set local role {who}")
        with pytest.raises(asyncpg.PostgresError) as raised:
            async with connection.transaction():
                await connection.execute(statement)
    assert raised.value.sqlstate in {"PT403", "42501"}
    assert await record.since() == before


async def test_32_writers_make_one_chain(log, record, stack):
    config = PersistenceConfig(
        connection_string=stack.database_url, tenant=record.tenant, pool_size=32, max_overflow=0
    )
    async with PostgresStore(config) as store:
        await asyncio.gather(*(_write(store, 8) for _ in range(32)))
    found = await log.verify()
    assert (found.ok, found.checked) == (True, 10 + 32 * 8)
    seqs = [row["seq"] for row in await record.since()]
    assert seqs == [*range(1, len(seqs) + 1)]


# The head is read and written by two statements, and no lock between them.
_FORKING = """
    alter table haive.audit_log drop constraint audit_log_pkey;
    create or replace function haive_private.chain_audit() returns trigger language plpgsql
    security definer set search_path = '' as $$
    declare
      v_row haive.audit_log;
      v_head haive_private.audit_heads;
    begin
      insert into haive_private.audit_heads (tenant_id) values (new.tenant_id)
      on conflict do nothing;
      select * into v_head from haive_private.audit_heads where tenant_id = new.tenant_id;
      perform pg_sleep(0.002);
      v_row := row(
        new.tenant_id, v_head.seq + 1, new.at, new.actor, new.login, new.role, new.action,
        new.object, new.rows, new.row_count, new.address, new.application, new.request_id, null
      );
      v_row.hash := sha256(
        v_head.hash || convert_to(haive_private.audit_entry(v_row), 'UTF8')
      );
      insert into haive.audit_log select v_row.*;
      update haive_private.audit_heads set seq = v_row.seq, hash = v_row.hash
      where tenant_id = new.tenant_id;
      delete from haive_private.audit_queue where ctid = new.ctid;
      return null;
    end $$"""


async def test_without_the_lock_of_the_head_the_chain_forks_and_that_is_found(database, postgres):
    await postgres.execute("update haive.tenants set audit = 'writes'")
    await postgres.execute(_FORKING)
    config = PersistenceConfig(connection_string=database, pool_size=32, max_overflow=0)
    async with PostgresStore(config) as store:
        await asyncio.gather(*(_write(store, 8) for _ in range(32)))
        found = await AuditLog(store).verify()
    assert (found.ok, found.reason) == (False, "changed")


async def _write(store, times: int) -> None:
    """Write so that each call is a transaction of its own."""
    for _ in range(times):
        await store.create_conversation("agent")


async def test_only_administrators_of_a_tenant_read_its_log(stack, record):
    await record.owner.execute(
        "insert into haive.members (tenant_id, user_id, role)"
        " select $1, r, r from unnest(array['owner', 'admin', 'member', 'reader']) as r",
        record.tenant,
    )
    for role in ("owner", "admin", "member", "reader"):
        token = stack.mint_user_token(role)
        async with SupabaseStore(
            stack.url, stack.publishable_key, access_token=token, tenant=record.tenant
        ) as store:
            if role in {"owner", "admin"}:
                assert (await AuditLog(store).verify()).ok
                assert (await AuditLog(store).tail())[-1].object == "members"
                continue
            for call in (AuditLog(store).tail, AuditLog(store).head, AuditLog(store).verify):
                with pytest.raises(AccessDeniedError):
                    await call()
