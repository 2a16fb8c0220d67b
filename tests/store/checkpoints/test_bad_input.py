"""Bad input: an error that says what is wrong, and nothing is stored."""

from __future__ import annotations

import io
import traceback
from datetime import datetime
from uuid import uuid4

import pytest

from haive.core.persistence.checkpointer import (
    CheckpointConfig,
    KeyRing,
    RecoveryPolicy,
)
from haive.core.persistence.errors import (
    ConfigurationError,
    ContentTooLargeError,
    InvalidInputError,
    NotFoundError,
    StateError,
)

LONG = "x" * 201
NUL = "a\x00b"
SURROGATE = "a\ud800b"
NO_NAMES = (5, None, "", b"x", [], {}, LONG, NUL, SURROGATE)
NO_IDS = (5, None, "", "x", b"x", [], {}, NUL)
NO_MAPPINGS = (5, "x", [1], b"x", {1, 2})
NO_OBJECTS = (
    {"a": object()}, {"a": NUL}, {"a": SURROGATE}, {"a": float("nan")}, {(1, 2): 3},
    {"a": "x" * 1_100_000},
)  # fmt: skip
NO_TAGS = (5, "x", b"x", [1], [""], [None], [[]], [LONG], [NUL], [SURROGATE])


@pytest.fixture
async def saved(checkpointer):
    return await checkpointer.save("t", {"n": 1}, {"m": 1}, ["a"])


@pytest.fixture
def unchanged(owner, tenant):
    """Everything that is stored, to compare it."""

    async def look() -> list[object]:
        tables = ("threads", "branches", "checkpoints", "checkpoint_schemas", "events")
        return [
            await owner.fetch(
                f"select * from haive.{table} where tenant_id = $1 order by 1, 2", tenant
            )
            for table in tables
        ]

    return look


async def every(cp):
    """Read a generator to its end."""
    return [state async for state in cp]


WRONG = {
    "save thread_id": (NO_NAMES, lambda c, s, v: c.save(v, {}), "thread_id"),
    "save namespace": (
        (5, None, b"x", NUL, SURROGATE, "x" * 1001),
        lambda c, s, v: c.save("t", {}, namespace=v),
        "namespace",
    ),
    "save metadata": (NO_MAPPINGS, lambda c, s, v: c.save("t", {}, v), "metadata"),
    "save metadata of": (NO_OBJECTS, lambda c, s, v: c.save("t", {}, v), "metadata"),
    "save tags": (NO_TAGS, lambda c, s, v: c.save("t", {}, tags=v), "tag"),
    "save many tags": (
        ([str(n) for n in range(1001)],),
        lambda c, s, v: c.save("t", {}, tags=v),
        "1,001 tags",
    ),
    "save parent": (
        (5, "", "x", b"x", [], NUL),
        lambda c, s, v: c.save("t", {}, parent=v),
        "parent",
    ),
    "save parent_checkpoint": (
        (5, "", "x", [], NUL),
        lambda c, s, v: c.save("t", {}, {"parent_checkpoint": v}),
        "parent",
    ),
    "save branch": (
        tuple(v for v in NO_NAMES if v is not None),
        lambda c, s, v: c.save("t", {}, branch=v),
        "branch",
    ),
    "save fork": (
        tuple(v for v in NO_NAMES if v is not None),
        lambda c, s, v: c.save("t", {}, parent=s, fork=v),
        "fork",
    ),
    "save failed": ((5, "yes"), lambda c, s, v: c.save("t", {}, failed=v), "failed"),
    "save user_id": (
        tuple(v for v in NO_NAMES if v is not None),
        lambda c, s, v: c.save("new", {}, user_id=v),
        "user_id",
    ),
    "on_node metadata": (NO_MAPPINGS, lambda c, s, v: c.on_node("t", "n", {}, metadata=v), "meta"),
    "on_node thread_id": (NO_NAMES, lambda c, s, v: c.on_node(v, "n", {}), "thread_id"),
    "history thread_id": (NO_NAMES, lambda c, s, v: c.get_history(v), "thread_id"),
    "history limit": (
        ("x", 1.5, [], 10**30, True, 0, 1001),
        lambda c, s, v: c.get_history("t", limit=v),
        "^limit",
    ),
    "history before": (
        ("x", 1.5, [], 10**30),
        lambda c, s, v: c.get_history("t", before=v),
        "^before is",
    ),
    "history branch": (
        (5, b"x", [1], NUL, LONG),
        lambda c, s, v: c.get_history("t", branch=v),
        "branch",
    ),
    "history namespace": ((5, None), lambda c, s, v: c.get_history("t", namespace=v), "namespace"),
    "find before": (
        (5, "x", "2020-01-01", b"x"),
        lambda c, s, v: c.find_checkpoint("t", before_timestamp=v),
        "before_timestamp",
    ),
    "find after": ((5, "x"), lambda c, s, v: c.find_checkpoint("t", after_timestamp=v), "after"),
    "find tags": (NO_TAGS, lambda c, s, v: c.find_checkpoint("t", tags=v), "tag"),
    "find state": (
        NO_MAPPINGS,
        lambda c, s, v: c.find_checkpoint("t", with_state_matching=v),
        "with_state_matching",
    ),
    "find state of": (
        ({"a": [1]}, {"a": NUL}, {"a": SURROGATE}, {"a": float("nan")}, {"a": "x" * 257}),
        lambda c, s, v: c.find_checkpoint("t", with_state_matching=v),
        r"\$\.a",
    ),
    "find metadata": (
        NO_MAPPINGS,
        lambda c, s, v: c.find_checkpoint("t", metadata=v),
        "metadata",
    ),
    "find branch": (
        ("main",),
        lambda c, s, v: c.find_checkpoint(branch=v),
        "name the thread",
    ),
    "get": (NO_IDS, lambda c, s, v: c.get(v), "checkpoint_id"),
    "get thread_id": (
        (5, b"x", "", NUL, LONG),
        lambda c, s, v: c.get(s, thread_id=v),
        "thread_id",
    ),
    "restore": (NO_IDS, lambda c, s, v: c.restore(v), "checkpoint_id"),
    "restore model": ((5, "x", dict, object()), lambda c, s, v: c.restore(s, model=v), "model"),
    "recover policy": ((5, None, "x", []), lambda c, s, v: c.recover("t", v), "latest"),
    "recover thread_id": (NO_NAMES, lambda c, s, v: c.recover(v), "thread_id"),
    "recover tags": (NO_TAGS, lambda c, s, v: c.recover("t", "last_tagged", tags=v), "tag"),
    "recover tags of others": (
        tuple(policy for policy in RecoveryPolicy if policy != "last_tagged"),
        lambda c, s, v: c.recover("t", v, tags=["a"]),
        "looks at no tags",
    ),
    "replay from": (NO_IDS, lambda c, s, v: every(c.replay(v, s)), "checkpoint_id"),
    "replay to": (NO_IDS, lambda c, s, v: every(c.replay(s, v)), "checkpoint_id"),
    "mark_failed": (NO_IDS, lambda c, s, v: c.mark_failed(v), "checkpoint_id"),
    "mark_failed failed": ((5, "x"), lambda c, s, v: c.mark_failed(s, failed=v), "failed"),
    "tag": (NO_IDS, lambda c, s, v: c.tag(v, "x"), "checkpoint_id"),
    "tag with too many": (
        ([str(n) for n in range(1000)], [f"{n:03}{'x' * 197}" for n in range(1000)]),
        lambda c, s, v: c.tag(s, *v),
        "1,001 tags|1,000 tags|200,001 bytes",
    ),
    "save tags of many bytes": (
        ([f"{n:03}{'é' * 197}" for n in range(600)],),
        lambda c, s, v: c.save("t", {}, tags=v),
        "238,200 bytes",
    ),
    "tag tags": ((5, None, "", LONG, NUL), lambda c, s, v: c.tag(s, v), "tag"),
    "untag tags": ((5, None, "", LONG, NUL), lambda c, s, v: c.untag(s, v), "tag"),
    "create_branch": (NO_IDS, lambda c, s, v: c.create_branch(v, "b"), "checkpoint"),
    "create_branch name": (NO_NAMES, lambda c, s, v: c.create_branch(s, v), "branch_name"),
    "create_branch metadata": (
        (*(m for m in NO_MAPPINGS if m), *NO_OBJECTS),
        lambda c, s, v: c.create_branch(s, "b", v),
        "metadata",
    ),
    "list_branches": (NO_NAMES, lambda c, s, v: c.list_branches(v), "thread_id"),
    "compare a": (NO_IDS, lambda c, s, v: c.compare(v, s), "checkpoint_id"),
    "compare b": (NO_IDS, lambda c, s, v: c.compare(s, v), "checkpoint_id"),
    "list_threads limit": (
        ("x", 1.5, 0, 1001),
        lambda c, s, v: c.list_threads(limit=v),
        "^limit",
    ),
    "list_threads after": (
        tuple(v for v in NO_NAMES if v is not None),
        lambda c, s, v: c.list_threads(after=v),
        "^after",
    ),
    "list_threads user_id": ((5, NUL), lambda c, s, v: c.list_threads(user_id=v), "user_id"),
    "delete_thread": (NO_NAMES, lambda c, s, v: c.delete_thread(v), "thread_id"),
    "copy_thread": (NO_NAMES, lambda c, s, v: c.copy_thread(v, "n"), "thread_id"),
    "copy_thread to": (NO_NAMES, lambda c, s, v: c.copy_thread("t", v), "new_thread_id"),
    "prune": ((5, "", b"x", NUL, LONG), lambda c, s, v: c.prune(v), "thread_id"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_wrong_argument_is_named_and_nothing_changes(checkpointer, saved, unchanged, what):
    values, call, named = WRONG[what]
    before = await unchanged()
    for value in values:
        with pytest.raises(InvalidInputError, match=f"(?i){named}") as raised:
            await call(checkpointer, saved, value)
        assert raised.value.sqlstate in {None, "PT422"}, value
    assert await unchanged() == before


# -- states ----------------------------------------------------------------------------------------


class Custom:
    """Something that cannot be stored."""

    def __repr__(self) -> str:
        return "the canary"


def cyclic() -> dict[str, object]:
    state: dict[str, object] = {"a": {"b": []}}
    state["a"]["b"].append(state)
    return state


def nested(levels: int) -> list[object]:
    state: list[object] = []
    for _ in range(levels):
        state = [state]
    return state


STATES = {
    "an object": (lambda: {"a": [1, {"the key": Custom()}]}, '$.a[1]["the key"]'),
    "a function": (lambda: {"f": print}, "$.f"),
    "a class": (lambda: [int], "$[0]"),
    "a generator": (lambda: {"g": (n for n in ())}, "$.g"),
    "a file": (lambda: {"x": {"y": io.StringIO()}}, "$.x.y"),
    "half a pair": (lambda: {"t": ["a", SURROGATE]}, "$.t[1]"),
    "a cycle": (cyclic, "$.a.b[0]"),
    "nesting": (lambda: nested(10_000), "$"),
}


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("what", STATES)
async def test_a_state_that_cannot_be_stored_names_the_place_and_not_the_value(
    checkpointer, saved, unchanged, what
):
    make, path = STATES[what]
    before = await unchanged()
    for save in (
        lambda: checkpointer.save("t", make()),
        lambda: checkpointer.save("new", make()),
        lambda: checkpointer.on_node("t", "n", make()),
    ):
        with pytest.raises(StateError) as raised:
            await save()
        assert raised.value.path.startswith(path)
        if what != "nesting":
            assert raised.value.path == path
            assert path in str(raised.value)
        assert "the canary" not in "".join(traceback.format_exception(raised.value))
    assert await unchanged() == before
    # And it goes on as if nothing had been.
    assert (await checkpointer.save("t", {"n": 2})) is not None


async def test_a_state_of_200_mb_is_refused(checkpointer, saved, unchanged):
    before = await unchanged()
    with pytest.raises(ContentTooLargeError, match="209,715,2"):
        await checkpointer.save("t", {"blob": bytes(200 << 20)})
    assert await unchanged() == before


async def test_a_state_with_more_scalars_than_can_be_searched_is_saved(
    checkpointer, new_checkpointer
):
    state = {f"key {n}": f"value {n} {'x' * 200}" for n in range(8_000)}
    saved = await checkpointer.save("t", state)
    assert await new_checkpointer().restore(saved) == state


# -- what is not there -----------------------------------------------------------------------------


async def test_what_is_unknown_is_not_found(checkpointer, saved, unchanged):
    unknown = uuid4()
    before = await unchanged()
    elsewhere = await checkpointer.save("u", {"n": 1})
    calls = {
        "get": lambda: checkpointer.get(unknown),
        "restore": lambda: checkpointer.restore(unknown),
        "compare": lambda: checkpointer.compare(saved, unknown),
        "replay": lambda: every(checkpointer.replay(saved, unknown)),
        "tag": lambda: checkpointer.tag(unknown, "x"),
        "untag": lambda: checkpointer.untag(unknown, "x"),
        "mark_failed": lambda: checkpointer.mark_failed(unknown),
        "create_branch": lambda: checkpointer.create_branch(unknown, "b"),
        "parent": lambda: checkpointer.save("t", {}, parent=unknown),
        "parent of another thread": lambda: checkpointer.save("t", {}, parent=elsewhere),
        "parent of another namespace": lambda: checkpointer.save(
            "t", {}, parent=saved, namespace="sub"
        ),
        "fork": lambda: checkpointer.save("t", {}, parent=elsewhere, fork="f"),
        "branch": lambda: checkpointer.save("t", {}, branch="b"),
        "copy": lambda: checkpointer.copy_thread("nobody", "n"),
        "recover": lambda: checkpointer.recover("nobody"),
    }
    for what, call in calls.items():
        with pytest.raises(NotFoundError):
            pytest.fail(f"{what}: {await call()}")
    await checkpointer.delete_thread("u")
    after = await unchanged()
    assert after[:4] == before[:4]  # threads, branches, checkpoints, schemas


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"checkpoint_interval": 0}, "checkpoint_interval"),
        ({"max_checkpoints_per_thread": 0}, "max_checkpoints_per_thread"),
        ({"retention_days": 0}, "retention_days"),
        ({"retention_days": float("nan")}, "retention_days"),
        ({"retention_days": float("inf")}, "retention_days"),
        ({"retention_days": 1e300}, "retention_days"),
        ({"keep_minimum": -1}, "keep_minimum"),
        ({"keep_minimum": 5, "max_checkpoints_per_thread": 4}, "keep_minimum"),
        ({"compression": "gzip"}, "compression"),
        ({"encryption_key": "short"}, "32 bytes"),
        ({"encryption_key": ""}, "32 bytes"),
        ({"encryption_key": b""}, "32 bytes"),
        ({"encryption_key": b"x" * 31}, "32 bytes"),
        ({"encryption_key": 5}, "encryption_key"),
        ({"cache_bytes": -1}, "cache_bytes"),
        ({"search_paths": ["a["]}, "path"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_wrong_setting_is_named(settings, named):
    with pytest.raises(ConfigurationError, match=named) as raised:
        CheckpointConfig(**settings)
    assert "short" not in str(raised.value)


def test_a_key_is_not_shown(key):
    secret = KeyRing.generate()
    assert secret not in repr(CheckpointConfig(encryption_key=secret))
    with pytest.raises(ConfigurationError) as raised:
        CheckpointConfig(encryption_key=f"{secret},{secret}")
    assert secret not in "".join(traceback.format_exception(raised.value))


async def test_a_naive_time_is_utc(checkpointer, saved):
    found = await checkpointer.find_checkpoint("t", before_timestamp=datetime(2100, 1, 1))  # noqa: DTZ001
    assert found.id == saved
    assert await checkpointer.find_checkpoint("t", before_timestamp=datetime(2000, 1, 1)) is None  # noqa: DTZ001
