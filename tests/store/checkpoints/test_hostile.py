"""Rows that somebody else put into the table: a typed error each, and nothing of them is used."""

from __future__ import annotations

import gc
import os
import pickle
import sys
import tempfile
import time
import traceback
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from uuid import UUID, uuid4
from zlib import crc32

import numpy as np  # noqa: F401 - arrays are only made where it is imported
import ormsgpack
import pytest
import zstandard
from pydantic import BaseModel

from haive.core.persistence.checkpointer import KeyRing, _frames, _zstd
from haive.core.persistence.checkpointer._sealing import state_place
from haive.core.persistence.errors import (
    CheckpointError,
    CheckpointKeyError,
    CorruptCheckpointError,
)

# Put together here, so that no line of source that a traceback shows contains it.
CANARY = "-".join(("the", "canary", "sings"))
sealed_only = pytest.mark.parametrize("key", [True], ids=["sealed"], indirect=True)
plain_only = pytest.mark.parametrize("key", [False], ids=["plain"], indirect=True)


@pytest.fixture
async def ids(checkpointer) -> list[UUID]:
    """Four checkpoints, of which the last three are deltas."""
    text = "".join(sha256(bytes([n])).hexdigest() for n in range(15))  # not compressed to nothing
    saved = [
        await checkpointer.save("t", {"n": n, "text": text, "canary": CANARY}, {"m": CANARY}, ["a"])
        for n in range(4)
    ]
    depths = [row.depth for row in await checkpointer.get_history("t")]
    assert depths == [3, 2, 1, 0]
    return saved


@pytest.fixture
def change(owner, tenant):
    """Change columns of a checkpoint: `await change(id, payload=…)`."""

    async def update(checkpoint_id: UUID, **columns: object) -> None:
        sets = ", ".join(f"{name} = ${place}" for place, name in enumerate(columns, 3))
        done = await owner.execute(
            f"update haive.checkpoints set {sets} where tenant_id = $1 and id = $2",
            *(tenant, checkpoint_id, *columns.values()),
        )
        assert done == "UPDATE 1"

    return update


@pytest.fixture
def row_of(owner, tenant):
    async def fetch(checkpoint_id: UUID):
        return await owner.fetchrow(
            "select * from haive.checkpoints where tenant_id = $1 and id = $2",
            *(tenant, checkpoint_id),
        )

    return fetch


@pytest.fixture
def forge(checkpointer, change, row_of):
    """Store a frame as if a checkpointer had: sealed for its place by the right key."""

    async def store(checkpoint_id: UUID, codec: int, packed: bytes, size: int) -> None:
        sealer = await checkpointer._engine.sealer()
        row = await row_of(checkpoint_id)
        place = state_place("t", "", checkpoint_id, row["parent_id"], codec)
        payload = sealer.seal(packed, "state", *place)
        await change(checkpoint_id, payload=payload, codec=codec, size=size)

    return store


@pytest.fixture
def refused(new_checkpointer):
    """Read a checkpoint of thread t in every way, and see each refused: `await refused(id)`.

    A save after a parent opens its frame, and looks at nothing in it: ``opens`` says that it can.
    """

    async def read(
        checkpoint_id: UUID,
        error: type[CheckpointError] = CorruptCheckpointError,
        *,
        opens: bool = False,
        **settings,
    ) -> None:
        async def replayed(checkpointer):
            return [s async for s in checkpointer.replay(checkpoint_id, checkpoint_id)]

        ways = {
            "restore": lambda c: c.restore(checkpoint_id),
            "get": lambda c: c.get(checkpoint_id, include_state=True),
            "history": lambda c: c.get_history("t", include_state=True),
            "replay": replayed,
            "compare": lambda c: c.compare(checkpoint_id, checkpoint_id),
        }
        if not opens:
            ways["save"] = lambda c: c.save("t", {"n": "after"}, parent=checkpoint_id)
        modules = set(sys.modules)
        for way, call in ways.items():
            checkpointer = new_checkpointer(**settings)
            with pytest.raises(CheckpointError) as raised:
                await call(checkpointer)
            assert type(raised.value) is error, way
            told = "".join(traceback.format_exception(raised.value))
            assert CANARY not in told + repr(vars(raised.value))
            assert opens or checkpointer._engine.cache.get("t", "", checkpoint_id) is None
        assert set(sys.modules) == modules

    return read


# -- damaged ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 3], ids=["whole", "delta"])
@pytest.mark.parametrize("cut", [1, 4, 10_000])
async def test_what_is_truncated_is_refused(ids, row_of, change, refused, which, cut):
    payload = (await row_of(ids[which]))["payload"]
    await change(ids[which], payload=payload[:-cut])
    await refused(ids[which])


@pytest.mark.parametrize("which", [0, 3], ids=["whole", "delta"])
async def test_what_is_lengthened_is_refused(ids, row_of, change, refused, which):
    payload = (await row_of(ids[which]))["payload"]
    await change(ids[which], payload=payload + b"\0")
    await refused(ids[which])


@pytest.mark.parametrize("which", [0, 3], ids=["whole", "delta"])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
async def test_a_flipped_bit_is_noticed(ids, row_of, change, refused, which, place):
    payload = bytearray((await row_of(ids[which]))["payload"])
    payload[int(place * (len(payload) - 1))] ^= 0x10
    await change(ids[which], payload=bytes(payload))
    await refused(ids[which])


async def test_every_flipped_bit_of_a_state_is_noticed_or_changes_nothing(
    ids, row_of, new_checkpointer
):
    """Without the database, for there are thousands."""
    checkpointer = new_checkpointer()
    row, parent = await row_of(ids[1]), await row_of(ids[0])
    sealer = await checkpointer._engine.sealer()
    opened = []
    for one in (parent, row):
        place = state_place("t", "", one["id"], one["parent_id"], one["codec"])
        opened.append(sealer.open(one["key_id"], one["payload"], "state", *place))
    before = _frames.decode(parent["codec"], opened[0], None, size=parent["size"])
    after = _frames.decode(row["codec"], opened[1], before, size=row["size"])
    for bit in range(len(opened[1]) * 8):
        packed = bytearray(opened[1])
        packed[bit // 8] ^= 1 << bit % 8
        try:
            decoded = _frames.decode(row["codec"], bytes(packed), before, size=row["size"])
        except CorruptCheckpointError:
            continue
        assert decoded == after


@pytest.mark.parametrize(
    "columns",
    [{"size": 0}, {"size": 5}, {"size": 67108864}, {"codec": 0}, {"codec": 1}],
    ids=str,
)
async def test_a_row_that_says_something_else_of_its_payload_is_refused(
    ids, change, refused, columns
):
    await change(ids[3], **columns)
    await refused(ids[3])


async def test_the_parent_that_is_missing_is_named(ids, owner, refused, new_checkpointer):
    await owner.execute("delete from haive.checkpoints where id = $1", ids[1])
    await refused(ids[3])
    with pytest.raises(CorruptCheckpointError, match=f"parent of checkpoint {ids[2]}"):
        await new_checkpointer().restore(ids[3])
    assert (await new_checkpointer().restore(ids[0]))["n"] == 0


@sealed_only
async def test_the_parent_of_a_checkpoint_is_part_of_it(ids, change, refused):
    await change(ids[3], parent_id=ids[0])
    await refused(ids[3])


@pytest.mark.parametrize("length", [1, 2, 3])
async def test_a_chain_in_a_circle_ends(ids, change, refused, length):
    await change(ids[4 - length], parent_id=ids[3])
    await refused(ids[3])


# -- not sealed, or sealed for something else ------------------------------------------------------


@sealed_only
async def test_what_is_not_sealed_is_refused_where_there_is_a_key(
    ids, change, refused, new_checkpointer
):
    state = ormsgpack.packb([{"n": "forged"}, None])
    plain = crc32(state).to_bytes(4, "big") + state
    await change(
        ids[3], payload=plain, size=len(state), codec=0, depth=0, key_id=None, sealed=None,
        metadata='{"forged": true}', tags=["a"], search='{"$.n": "forged"}',
    )  # fmt: skip
    await refused(ids[3])
    checkpointer = new_checkpointer()
    for call in (
        checkpointer.get(ids[3]),
        checkpointer.get_history("t"),
        checkpointer.get_history("t", include_metadata=False),
        checkpointer.recover("t"),
        checkpointer.tag(ids[3], "b"),
    ):
        with pytest.raises(CorruptCheckpointError):
            await call
    # Nor does a copy make anything better of it.
    await checkpointer.copy_thread("t", "u")
    with pytest.raises(CorruptCheckpointError):
        await checkpointer.restore(ids[3], thread_id="u")
    await checkpointer.delete_thread("u")
    # It is not found, either: what is searched for is a keyed hash.
    assert await checkpointer.find_checkpoint("t", with_state_matching={"n": "forged"}) is None
    # What there was before it is still there.
    assert (await checkpointer.recover("t", "last_readable")).id == ids[2]


@sealed_only
async def test_metadata_that_is_not_sealed_is_not_shown(ids, change, new_checkpointer):
    await change(ids[3], metadata='{"m": "forged"}', tags=["forged"])
    row = await new_checkpointer().get(ids[3])
    assert (row.metadata, row.tags) == ({"m": CANARY}, ("a",))
    await change(ids[3], sealed=None)
    for call in (new_checkpointer().get(ids[3]), new_checkpointer().get_history("t")):
        with pytest.raises(CorruptCheckpointError):
            await call


@sealed_only
@pytest.mark.parametrize("column", ["payload", "sealed"])
@pytest.mark.parametrize("between", ["checkpoints", "threads", "namespaces", "tenants"])
async def test_what_is_sealed_for_one_place_is_refused_at_another(
    ids, row_of, change, new_checkpointer, open_store, owner, column, between, request
):
    """Whoever can write rows cannot pass one state off as another."""
    values = (await row_of(ids[0]), (await row_of(ids[3])))
    if between == "checkpoints":
        other = await new_checkpointer().save("t", {"n": "other"}, {"m": 1}, namespace="x")
        other = ids[0]
    elif between == "threads":
        other = await new_checkpointer().save("u", {"n": "other"}, {"m": 1})
    elif between == "namespaces":
        other = await new_checkpointer().save("t", {"n": "other"}, {"m": 1}, namespace="sub")
    else:
        name = f"{request.getfixturevalue('tenant')}-other"
        await owner.execute("insert into haive.tenants (tenant_id, name) values ($1, $1)", name)
        elsewhere = new_checkpointer(using=await open_store(tenant=name))
        other = await elsewhere.save("t", {"n": "other"}, {"m": 1})
    row = await owner.fetchrow("select * from haive.checkpoints where id = $1", other)
    assert row["key_id"] == values[1]["key_id"]
    # The whole row, its id excepted; and, where it can be, with its id.
    taken = {column: row[column]}
    if column == "payload":
        taken |= {"codec": row["codec"], "size": row["size"]}
    await change(ids[3], **taken)
    checkpointer = new_checkpointer()
    with pytest.raises(CorruptCheckpointError):
        await (checkpointer.restore(ids[3]) if column == "payload" else checkpointer.get(ids[3]))
    if between != "checkpoints":
        await owner.execute("delete from haive.checkpoints where id = $1", other)
        await change(ids[3], id=other, parent_id=row["parent_id"], **taken)
        with pytest.raises(CorruptCheckpointError):
            await (checkpointer.restore(other) if column == "payload" else checkpointer.get(other))


@sealed_only
async def test_the_metadata_of_a_branch_is_sealed_for_it(
    ids, checkpointer, new_checkpointer, owner, tenant
):
    await checkpointer.create_branch(ids[0], "a", {"m": "a"})
    await checkpointer.create_branch(ids[0], "b", {"m": "b"})
    await owner.execute(
        "update haive.branches as b set sealed = a.sealed from haive.branches as a"
        " where b.tenant_id = $1 and a.tenant_id = $1 and a.name = 'a' and b.name = 'b'",
        tenant,
    )
    with pytest.raises(CorruptCheckpointError):
        await new_checkpointer().list_branches("t")
    await owner.execute(
        "update haive.branches set sealed = null, key_id = null, metadata = $2"
        " where tenant_id = $1 and name = 'b'",
        *(tenant, '{"m": "forged"}'),
    )
    with pytest.raises(CorruptCheckpointError, match="not sealed"):
        await new_checkpointer().list_branches("t")


# -- keys ------------------------------------------------------------------------------------------


@sealed_only
async def test_without_the_right_key_nothing_is_opened(ids, refused, new_checkpointer):
    await refused(ids[0], CheckpointKeyError, encryption_key=KeyRing.generate())
    await refused(ids[3], CheckpointKeyError, encryption_key=None)
    for key in (KeyRing.generate(), None):
        other = new_checkpointer(encryption_key=key)
        for call in (other.get(ids[0]), other.get_history("t"), other.recover("t")):
            with pytest.raises(CheckpointKeyError):
                await call
        with pytest.raises(CheckpointKeyError):
            await other.recover("t", "last_readable")


@sealed_only
async def test_a_row_that_names_another_key_of_the_ring_is_refused(
    ids, change, refused, key, new_checkpointer
):
    other = KeyRing.generate()
    ring = f"{key},{other}"
    stranger = new_checkpointer(encryption_key=other)
    await stranger.save("u", {"n": 1})
    other_id = (await stranger._engine.sealer()).key_id
    await change(ids[3], key_id=other_id)
    await refused(ids[3], encryption_key=ring)
    await refused(ids[3], CheckpointKeyError)


# -- payloads that want to do something ------------------------------------------------------------


NEVER_MADE = Path(tempfile.gettempdir()) / f"made-by-a-checkpoint-{uuid4()}"


class Exploit:
    """What a pickle would run."""

    def __reduce__(self):
        return os.system, (f"touch {NEVER_MADE}",)


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Data as a frame of each kind that needs no parent."""
    packed = [_frames.encode(data, None), _frames.encode(data, None, compress=False)]
    return list(dict(packed).items())


PAYLOADS = {
    "a pickle": pickle.dumps(Exploit()),
    "a pickle in a state": ormsgpack.packb([ormsgpack.Ext(99, pickle.dumps(Exploit())), None]),
    "an unknown tag": ormsgpack.packb([ormsgpack.Ext(99, b"x"), None]),
    "an unknown tag before data": ormsgpack.packb([[ormsgpack.Ext(100, b"os:system"), {}], None]),
    "LangGraph's tag": ormsgpack.packb([ormsgpack.Ext(5, b"os:system"), None]),
    "a tag alone": ormsgpack.packb([[1, ormsgpack.Ext(42, b"os:system")], None]),
    "a tag with other data": ormsgpack.packb([[ormsgpack.Ext(42, b"os:system"), 5], None]),
    "an array of objects": ormsgpack.packb([[ormsgpack.Ext(44, b"|O"), [1], b"12345678"], None]),
    "an array that is too short": ormsgpack.packb(
        [[ormsgpack.Ext(44, b"<f8"), [1000000000], b"12345678"], None]
    ),
    "a path out of the zones": ormsgpack.packb(
        [ormsgpack.Ext(2, b"2020-01-01T00:00:00[../../../../etc/passwd]"), None]
    ),
    "JSON": b'{"n": 1}',
    "nothing": b"\xc0",
    "no pair": ormsgpack.packb([1, 2, 3]),
    "two states": ormsgpack.packb([1, None]) * 2,
    "half a state": ormsgpack.packb([{"n": "x" * 100}, None])[:-50],
    "a list of 4 billion": b"\x92\xdd\xff\xff\xff\xff\xc0",
    "a mapping of 4 billion": b"\x92\xdf\xff\xff\xff\xff\xc0",
    "text of 4 GB": b"\x92\xdb\xff\xff\xff\xffx",
    "bytes of 4 GB": b"\x92\xc6\xff\xff\xff\xffx",
    "nested beyond all": b"\x91" * 100_000 + b"\xc0",
}


@pytest.mark.parametrize("what", PAYLOADS)
async def test_a_payload_that_is_no_state_is_refused(ids, forge, refused, what):
    for codec, packed in frames(PAYLOADS[what]):
        await forge(ids[3], codec, packed, len(PAYLOADS[what]))
        await refused(ids[3], opens=True)
    assert not NEVER_MADE.exists()


@pytest.mark.parametrize("tag", [40, 41, 42, 43])
async def test_a_class_that_somebody_names_is_not_imported(
    ids, forge, new_checkpointer, tag, tmp_path, monkeypatch
):
    (tmp_path / "imported_by_a_checkpoint.py").write_text("raise SystemExit\nclass C: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    parts = {
        40: ["red"],
        41: [{"n": 1}],
        42: [{"n": 1}, [], {}],
        43: [{"n": 1}],
    }[tag]
    name = ormsgpack.Ext(tag, b"imported_by_a_checkpoint:C")
    data = ormsgpack.packb([[name, *parts], None])
    codec, packed = _frames.encode(data, None)
    await forge(ids[3], codec, packed, len(data))
    modules = set(sys.modules)
    assert await new_checkpointer().restore(ids[3]) == parts[0]
    assert set(sys.modules) == modules


class Peak:
    """The most memory that the process took while a block ran, over what it had before."""

    def __enter__(self) -> Peak:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        self._before = self._field("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = self._field("VmHWM") - self._before

    @staticmethod
    def _field(name: str) -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split(f"{name}:")[1].split()[0]) * 1024


@lru_cache
def bomb(parent: bytes | None, size: int) -> bytes:
    """A frame of zeros, far smaller than what it holds."""
    dictionary = None if parent is None else _zstd.dictionary(parent)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        3, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=False,
        write_checksum=True, write_dict_id=False, window_log=27,
    )  # fmt: skip
    compressor = zstandard.ZstdCompressor(
        dict_data=dictionary, compression_params=parameters
    ).compressobj()
    chunk = bytes(1 << 20)
    return b"".join([compressor.compress(chunk) for _ in range(size >> 20)] + [compressor.flush()])


@pytest.mark.timed
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("said", [1_000, 1_000_000])
@pytest.mark.parametrize("codec", [_frames.FULL, _frames.DELTA])
async def test_a_bomb_is_refused_in_50_ms_and_32_mb(
    ids, forge, checkpointer, new_checkpointer, codec, said
):
    parent = checkpointer._engine.cache.get("t", "", ids[2]).plain
    packed = bomb(parent if codec == _frames.DELTA else None, 128 << 20)
    assert len(packed) < 50_000
    for payload in (packed, packed[2:], packed[2:100]):
        await forge(ids[3], codec, payload, said)
        took = []
        for _ in range(3):
            reader = new_checkpointer()
            with Peak() as peak:
                start = time.perf_counter()
                with pytest.raises(CorruptCheckpointError):
                    await reader.restore(ids[3])
                took.append(time.perf_counter() - start)
            assert peak.bytes < 32e6
        assert min(took) < 0.05


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_what_says_that_it_is_as_large_as_a_state_may_be_takes_twice_that(
    ids, forge, new_checkpointer
):
    """Nothing tells it from a state of 64 MiB that is as good as empty, before it is unpacked."""
    await forge(ids[3], _frames.FULL, bomb(None, 128 << 20)[2:], 64 << 20)
    with Peak() as peak, pytest.raises(CorruptCheckpointError):
        await new_checkpointer().restore(ids[3])
    assert peak.bytes < 2 * (64 << 20) + 32e6  # the state, and what zstd looks back at


# -- schemas ---------------------------------------------------------------------------------------


class Model(BaseModel):
    n: int = 1


SCHEMAS = {
    "no JSON": b"\xff",
    "a number": b"5",
    "a list": b"[]",
    "an unknown type": b'{"type": "nonsense"}',
    "a type that is a number": b'{"type": 5}',
    "properties that are a number": b'{"properties": 5}',
    "a reference into nothing": b'{"$ref": "#/$defs/nothing"}',
    "a reference to itself": b'{"$ref": "#"}',
    "a file": b'{"$ref": "file:///etc/passwd"}',
    "another server": b'{"$ref": "http://127.0.0.1:9/schema.json"}',
    "no pattern": b'{"properties": {"n": {}}, "patternProperties": {"(": {"type": "null"}}}',
    "nested": b'{"not":' * 5000 + b"{}" + b"}" * 5000,
}


@pytest.mark.parametrize("what", SCHEMAS)
@plain_only
async def test_a_schema_that_is_none_is_refused_and_nothing_is_fetched(
    checkpointer, new_checkpointer, owner, tenant, what, monkeypatch
):
    saved = await checkpointer.save("t", Model())
    assert await new_checkpointer().restore(saved, validate_schema=True) == {"n": 1}
    await owner.execute(
        "update haive.checkpoint_schemas set payload = $2 where tenant_id = $1",
        *(tenant, SCHEMAS[what]),
    )
    opened = []
    monkeypatch.setattr("urllib.request.urlopen", opened.append)
    with pytest.raises(CorruptCheckpointError, match="schema"):
        await new_checkpointer().restore(saved, validate_schema=True)
    assert opened == []
    assert await new_checkpointer().restore(saved) == {"n": 1}


@sealed_only
async def test_a_schema_that_is_not_sealed_is_refused_where_there_is_a_key(
    checkpointer, new_checkpointer, owner, tenant
):
    saved = await checkpointer.save("t", Model())
    assert await new_checkpointer().restore(saved, validate_schema=True) == {"n": 1}
    await owner.execute(
        "update haive.checkpoint_schemas set payload = '{}', key_id = null where tenant_id = $1",
        tenant,
    )
    with pytest.raises(CorruptCheckpointError, match="not sealed"):
        await new_checkpointer().restore(saved, validate_schema=True)
