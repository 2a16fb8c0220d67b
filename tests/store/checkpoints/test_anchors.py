"""States that are stored against one further back: they save bytes, and are safe as all others."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
import zstandard

from haive.core.persistence.checkpointer import Checkpointer, KeyRing, _frames, _zstd
from haive.core.persistence.checkpointer._chains import MAX_DELTAS, MAX_DEPTH
from haive.core.persistence.checkpointer._documents import SAVED as _SAVED
from haive.core.persistence.checkpointer._sealing import state_place
from haive.core.persistence.errors import (
    CheckpointKeyError,
    ConflictError,
    CorruptCheckpointError,
    InvalidInputError,
    NotFoundError,
)

# Enough for three anchors after the first, whole state.
COUNT = 3 * (MAX_DELTAS + 1) + 5
sealed_only = pytest.mark.parametrize("key", [True], ids=["sealed"], indirect=True)
plain_only = pytest.mark.parametrize("key", [False], ids=["plain"], indirect=True)


def state(n: int) -> dict[str, object]:
    return {"n": n, "log": [f"step {k}: {k * 7919 % 1_000_003}" for k in range(n + 20)]}


@pytest.fixture
def rows(owner, tenant):
    async def fetch(thread: str = "t") -> list:
        return await owner.fetch(
            "select c.* from haive.checkpoints as c join haive.threads as t"
            " on t.tenant_id = c.tenant_id and t.thread_key = c.thread_key"
            " where c.tenant_id = $1 and t.thread_id = $2 order by c.seq",
            *(tenant, thread),
        )

    return fetch


@pytest.fixture
def change(owner, tenant):
    async def update(checkpoint_id: UUID, **columns: object) -> None:
        sets = ", ".join(f"{name} = ${place}" for place, name in enumerate(columns, 3))
        done = await owner.execute(
            f"update haive.checkpoints set {sets} where tenant_id = $1 and id = $2",
            *(tenant, checkpoint_id, *columns.values()),
        )
        assert done == "UPDATE 1"

    return update


@pytest.fixture
async def ids(checkpointer) -> list[UUID]:
    return [await checkpointer.save("t", state(n)) for n in range(COUNT)]


def anchors(stored: list) -> list:
    return [row for row in stored if row["codec"] == _frames.BASED]


async def all_restore(checkpointer: Checkpointer, ids: list[UUID], thread: str = "t") -> None:
    for n, checkpoint_id in enumerate(ids):
        if checkpoint_id is not None:
            assert await checkpointer.restore(checkpoint_id, thread_id=thread) == state(n)


# -- what is stored --------------------------------------------------------------------------------


async def test_each_anchor_is_stored_against_the_one_before(ids, rows, new_checkpointer):
    stored = await rows()
    assert [row["codec"] for row in stored].count(_frames.DELTA) == COUNT - 4
    whole, *based = [row for row in stored if row["codec"] != _frames.DELTA]
    assert whole["id"] == ids[0]
    assert [row["base_id"] for row in based] == [whole["id"], *[row["id"] for row in based[:-1]]]
    assert [row["depth"] for row in based] == [1, 2, 3]
    assert all(row["base_id"] is None for row in stored if row not in based)
    await all_restore(new_checkpointer(), ids)
    history = await new_checkpointer().get_history("t", limit=COUNT, include_state=True)
    assert [row.state for row in history] == [state(n) for n in reversed(range(COUNT))]
    assert history[0].depth == stored[-1]["depth"] <= MAX_DEPTH


async def test_a_process_that_knows_nothing_goes_on_from_the_last_anchor(new_checkpointer, rows):
    ids = [await new_checkpointer().save("t", state(n)) for n in range(2 * MAX_DELTAS + 5)]
    assert len(anchors(await rows())) == 2
    await all_restore(new_checkpointer(), ids)


async def test_without_compression_nothing_is_stored_against_anything(new_checkpointer, rows):
    plain = new_checkpointer(compression="none")
    for n in range(MAX_DELTAS + 3):
        await plain.save("t", state(n))
    assert {row["codec"] for row in await rows()} == {_frames.PLAIN}


async def test_rows_of_before_there_were_anchors_are_read_and_gone_on_from(
    checkpointer, new_checkpointer, rows, owner, tenant
):
    """One whole state and 32 deltas after it, as they were written then."""
    first = await checkpointer.save("t", state(0))
    (row,) = await rows()
    sealer = await checkpointer._engine.sealer()
    ids, before = [first], checkpointer._engine.pack(state(0))
    for n in range(1, 33):
        new = uuid4()
        plain = checkpointer._engine.pack(state(n))
        code, packed = _frames.encode(plain, before)
        assert code == _frames.DELTA
        parent = ids[-1]
        details = checkpointer._engine.codec.pack({"metadata": {}, "tags": [], "terms": {}})
        await owner.execute(
            "insert into haive.checkpoints (tenant_id, branch_id, thread_key, id, parent_id, size,"
            " codec, depth, key_id, sealed, payload) values ($1, $2, $3, $4, $5, $6, 2, $7, $8, $9,"
            " $10)",
            *(tenant, row["branch_id"], row["thread_key"], new, parent, len(plain), n),
            sealer.key_id,
            sealer.seal(details, "details", "t", "", new.bytes) if sealer.key_id else None,
            sealer.seal(packed, "state", "t", "", new.bytes, parent.bytes, _frames.DELTA),
        )
        await owner.execute(
            "update haive.branches set head_id = $2 where branch_id = $1", row["branch_id"], new
        )
        ids.append(new)
        before = plain
    await all_restore(new_checkpointer(), ids)
    later = new_checkpointer()
    ids += [await later.save("t", state(n)) for n in range(33, 60)]
    based = anchors(await rows())
    assert based[0]["base_id"] == first
    assert based[0]["id"] == ids[33]
    await all_restore(new_checkpointer(), ids)
    await new_checkpointer(max_checkpoints_per_thread=9).prune("t")
    await all_restore(new_checkpointer(), [None] * 51 + ids[51:])


# -- pruning, keys and copies ----------------------------------------------------------------------


async def test_what_is_stored_against_what_goes_is_stored_anew(ids, rows, new_checkpointer):
    middle = anchors(await rows())[1]["id"]
    pruner = new_checkpointer()
    removed, rewritten, _ = await pruner._rewriter.remove("t", "", lambda *_: {middle})
    assert (removed, rewritten) == (1, 2)  # its child, and the anchor after it
    stored = {row["id"]: row for row in await rows()}
    assert all(row["base_id"] is None or row["base_id"] in stored for row in stored.values())
    kept = [checkpoint_id if checkpoint_id != middle else None for checkpoint_id in ids]
    await all_restore(new_checkpointer(), kept)


async def test_an_anchor_whose_parent_goes_keeps_its_base(ids, rows, new_checkpointer):
    last = anchors(await rows())[-1]
    parent = last["parent_id"]
    await new_checkpointer()._rewriter.remove("t", "", lambda *_: {parent})
    stored = {row["id"]: row for row in await rows()}
    after = stored[last["id"]]
    assert (after["codec"], after["base_id"]) == (_frames.BASED, last["base_id"])
    assert after["parent_id"] not in {None, parent}
    await all_restore(new_checkpointer(), [None if i == parent else i for i in ids])


async def test_all_but_the_newest_may_go(ids, rows, new_checkpointer):
    done = await new_checkpointer(max_checkpoints_per_thread=4).prune("t")
    assert done.removed == COUNT - 4
    await all_restore(new_checkpointer(), [None] * (COUNT - 4) + ids[-4:])


async def test_a_save_whose_anchor_was_pruned_meanwhile_is_stored_whole(
    new_checkpointer, rows, monkeypatch
):
    checkpointer, other = new_checkpointer(), new_checkpointer()
    ids = [await checkpointer.save("t", state(n)) for n in range(MAX_DELTAS + 1)]
    await other._rewriter.remove("t", "", lambda *_: {ids[0]})
    ids.append(await checkpointer.save("t", state(MAX_DELTAS + 1)))
    assert (await rows())[-1]["codec"] in {_frames.FULL, _frames.PLAIN}
    await all_restore(new_checkpointer(), [None, *ids[1:]])


async def test_a_copy_is_stored_in_the_same_way(ids, rows, new_checkpointer):
    await new_checkpointer().copy_thread("t", "u")
    assert [(r["codec"], r["base_id"]) for r in await rows("u")] == [
        (r["codec"], r["base_id"]) for r in await rows()
    ]
    await all_restore(new_checkpointer(), ids, "u")
    await new_checkpointer().delete_thread("t")
    await all_restore(new_checkpointer(), ids, "u")


@sealed_only
async def test_keys_are_rotated_through_anchors(ids, key, rows, new_checkpointer):
    ring = f"{KeyRing.generate()},{key}"
    assert await new_checkpointer(encryption_key=ring).rotate_keys("t") == COUNT
    assert len(anchors(await rows())) == 3
    await all_restore(new_checkpointer(encryption_key=ring.partition(",")[0]), ids)
    with pytest.raises(CheckpointKeyError):
        await new_checkpointer().restore(ids[-1])


@sealed_only
async def test_a_rotation_does_not_bring_a_removed_anchor_back(
    ids, key, rows, new_checkpointer, monkeypatch
):
    """What was read before a prune and is written after it is left as the prune stored it."""
    ring = f"{KeyRing.generate()},{key}"
    rotor, pruner = new_checkpointer(encryption_key=ring), new_checkpointer()
    first, second, _ = anchors(await rows())
    rewrite, calls = rotor._rewriter._rewrite, []

    async def late(*arguments, **parts):
        if not calls:
            calls.append(1)
            await pruner._rewriter.remove("t", "", lambda *_: {first["id"]})
        return await rewrite(*arguments, **parts)

    monkeypatch.setattr(rotor._rewriter, "_rewrite", late)
    await rotor.rotate_keys("t")
    stored = {row["id"]: row for row in await rows()}
    assert stored[second["id"]]["base_id"] is None
    assert {row["key_id"] for row in stored.values()} == {(await rows())[-1]["key_id"]}
    kept = [None if i == first["id"] else i for i in ids]
    await all_restore(new_checkpointer(encryption_key=ring), kept)


# -- hostile rows ----------------------------------------------------------------------------------


async def refused(new_checkpointer, checkpoint_id: UUID) -> None:
    for call in (
        lambda c: c.restore(checkpoint_id),
        lambda c: c.get_history("t", include_state=True, limit=COUNT),
        lambda c: c.save("t", {"n": "after"}, parent=checkpoint_id),
    ):
        with pytest.raises(CorruptCheckpointError):
            await call(new_checkpointer())


@pytest.mark.parametrize("what", ["another", "itself", "missing", "none", "child"])
async def test_an_anchor_against_something_else_is_refused(
    ids, rows, change, new_checkpointer, what
):
    one, two, three = (row["id"] for row in anchors(await rows()))
    base = {"another": one, "itself": three, "missing": uuid4(), "none": None, "child": ids[-1]}
    await change(three, base_id=base[what])
    await refused(new_checkpointer, three)
    assert await new_checkpointer().restore(two) == state(ids.index(two))


async def test_an_anchor_of_another_thread_is_none_of_this(
    ids, rows, change, checkpointer, new_checkpointer
):
    other = await checkpointer.save("u", state(COUNT))
    three = anchors(await rows())[-1]["id"]
    await change(three, base_id=other)
    await refused(new_checkpointer, three)


@sealed_only
async def test_what_an_anchor_is_against_is_part_of_its_seal(
    ids, rows, change, checkpointer, new_checkpointer
):
    """The same state under another id would decode: the seal alone tells."""
    _, two, three = anchors(await rows())
    twin = await checkpointer.save("t", state(ids.index(two["id"])), parent=ids[-1], fork="twin")
    await change(three["id"], base_id=twin)
    await refused(new_checkpointer, three["id"])


@pytest.mark.parametrize("codec", [_frames.FULL, _frames.DELTA])
async def test_an_anchor_is_no_frame_of_another_kind(ids, rows, change, new_checkpointer, codec):
    three = anchors(await rows())[-1]["id"]
    await change(three, codec=codec)
    await refused(new_checkpointer, three)


async def test_a_bomb_is_refused(ids, rows, change, checkpointer, new_checkpointer):
    three = anchors(await rows())[-1]
    sealer = await checkpointer._engine.sealer()
    before = checkpointer._engine.pack(state(ids.index(three["base_id"])))
    frame = zstandard.ZstdCompressor(
        dict_data=_zstd.dictionary(before),
        compression_params=zstandard.ZstdCompressionParameters(
            format=zstandard.FORMAT_ZSTD1_MAGICLESS, window_log=20, write_content_size=False,
            write_checksum=True, write_dict_id=False,
        ),
    ).compress(bytes(128 << 20))[2:]  # fmt: skip
    place = ("t", "", three["id"], three["parent_id"], _frames.BASED, three["base_id"])
    await change(three["id"], payload=sealer.seal(frame, "state", *state_place(*place)))
    await refused(new_checkpointer, three["id"])


# -- the database ----------------------------------------------------------------------------------


@plain_only
async def test_the_database_refuses_what_cannot_be_read(checkpointer, ids, key):
    def call(**arguments: object):
        return checkpointer._engine.call(
            "save_checkpoint",
            {"thread_id": "t", "id": uuid4(), "payload": b"x", "size": 1, "codec": 3, **arguments},
            _SAVED,
            safe=True,
        )

    with pytest.raises(NotFoundError):
        await call(parent_id=ids[-1], base_id=uuid4())
    with pytest.raises(NotFoundError):
        await call(parent_id=ids[-1])
    with pytest.raises(InvalidInputError):
        await call(base_id=ids[-1])
    with pytest.raises(InvalidInputError):
        await call(parent_id=ids[-1], base_id=ids[0], codec=4)
    assert len(await checkpointer.get_history("t", limit=1000)) == COUNT


@plain_only
async def test_nothing_is_removed_that_others_are_stored_against(checkpointer, ids, rows):
    with pytest.raises(ConflictError):
        await checkpointer._rewriter._rewrite("t", "", gone=[anchors(await rows())[0]["id"]])
    await all_restore(checkpointer, ids)


async def test_an_anchor_is_saved_by_the_same_statement_as_all_others(
    new_checkpointer, rows, monkeypatch
):
    """Else a connection would prepare it first, which is one more round trip."""
    checkpointer = new_checkpointer()
    await checkpointer.save("t", state(0))
    transport = checkpointer._engine.store._transport
    call, statements = transport.call, []

    async def noted(function: str, arguments: dict, *rest: object, **settings: object):
        statements.append((function, *arguments))
        return await call(function, arguments, *rest, **settings)

    monkeypatch.setattr(transport, "call", noted)
    for n in range(1, MAX_DELTAS + 3):
        await checkpointer.save("t", state(n))
    assert len(anchors(await rows())) == 1
    assert len(statements) == MAX_DELTAS + 2
    assert len(set(statements)) == 1
