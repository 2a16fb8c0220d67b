from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4
from xml.etree import ElementTree as ET

import asyncpg
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from haive.core.persistence import PersistenceConfig, PostgresStore
from haive.core.persistence._encoding import new_id
from haive.core.persistence.cli.app import app
from haive.core.persistence.cli.memory._plane import plane_of, telling_words
from haive.core.persistence.embedding import FunctionEmbedder, HashingEmbedder
from haive.core.persistence.vector import MemoryConfig, VectorMemory
from haive.core.persistence.vector.backends.pgvector import PgvectorBackend
from haive.core.persistence.vector.models import Memory

_PROGRAM = "from haive.core.persistence.cli import main; main()"
_OURS = ("DATABASE_URL", "SUPABASE_", "HAIVE_", "OPENAI_")
_HOSTILE = "[red]x[/] <b>&\x1b]0;title\x07 \x9b31m \u202e"
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_FOOD = [f"Ada likes the restaurant {n} and its noodles" for n in ("Sino", "Luna", "Miku", "Rosa")]
_TRIPS = [f"Ada takes the night train to {n} in spring" for n in ("Basel", "Rome", "Bern", "Turin")]
_names = itertools.count(1)

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def collection() -> str:
    """A name of its own: all tenants of an installation share collections."""
    return f"cli-{os.getpid()}-{next(_names)}"


@pytest.fixture
async def memory(stack, tenant, collection):
    """What fills the tenant, with vectors that need no model; the commands go their own way."""
    config = PersistenceConfig(connection_string=SecretStr(stack.database_url), tenant=tenant)
    async with PostgresStore(config) as store:
        settings = MemoryConfig(index_name=collection, embedder=HashingEmbedder(64))
        async with VectorMemory(
            config=settings, store=store, backend=PgvectorBackend(store)
        ) as own:
            yield own


@pytest.fixture
def run(way, collection) -> Run:
    """Run `haive memory` in this process: a test has many commands."""

    async def one(command: str, *arguments: object, stdin: str | None = None) -> Result:
        hidden = dict.fromkeys(name for name in os.environ if name.startswith(_OURS))
        return await asyncio.to_thread(
            CliRunner().invoke,
            app,
            ["memory", command, *map(str, arguments), "--collection", collection],
            input=stdin,
            env={**hidden, **way},
        )

    return one


@pytest.fixture
async def ok(run):
    """Run a command that succeeds; what it prints."""

    async def one(*arguments: object, **options: str) -> str:
        done = await run(*arguments, **options)
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    return one


async def test_what_is_added_is_found_with_who_when_and_why(ok, memory):
    said = await ok("add", "The peanuts are gone.", "--user", "ada", "--importance", 0.9)
    (made,) = _ID.findall(said)
    assert said.startswith("Remembered")
    assert (await ok("add", "The peanuts are gone.", "--user", "ada")) == f"Known already: {made}\n"
    await ok("add", "Nothing about food.", "--user", "bob", "--metadata", '{"topic": "none"}')
    shown = await ok("search", "peanuts", "--explain", "--limit", 1)
    assert re.search(rf"^1 +\d\.\d+ +ada +20\d\d-.* · note · {made}$", shown, re.MULTILINE)
    assert "   The peanuts are gone." in shown
    assert re.search(r"█+.* words \d\.\d{3}", shown)
    (hit,) = json.loads(await ok("search", "peanuts", "--json", "--user", "ada", "--explain"))
    assert (hit["id"], hit["importance"], hit["user_id"]) == (made, 0.9, "ada")
    assert sum(hit["parts"].values()) == pytest.approx(hit["score"])
    other = json.loads(await ok("search", "food", "--json", "--filter", '{"topic": "none"}'))
    assert [one["text"] for one in other] == ["Nothing about food."]
    assert "rerank" in await ok("search", "peanuts", "--rerank", "--explain")
    assert "Nothing is found" in await ok("search", "peanuts", "--user", "nobody")


async def test_what_a_caller_calls_an_id_or_a_score_is_not_taken_for_ours(ok, run, memory):
    await ok("add", "The peanuts are gone.", "--metadata", '{"id": "order-7", "score": -1}')
    (hit,) = json.loads(await ok("search", "peanuts", "--json"))
    assert hit["score"] > 0
    assert json.loads(await ok("forget", hit["id"], "--yes", "--json"))["forgotten"] == [hit["id"]]


async def test_a_superseded_memory_is_found_as_of_its_time(ok, memory):
    (older,) = _ID.findall(
        await ok("add", "Ada lives in Rome.", "--metadata", '{"timestamp": "2026-01-01"}')
    )
    await ok("add", "Ada lives in Bern.", "--supersedes", older)
    now = json.loads(await ok("search", "lives", "--json"))
    assert [one["text"] for one in now] == ["Ada lives in Bern."]
    then = json.loads(await ok("search", "lives", "--json", "--as-of", "2026-02-01"))
    assert [one["text"] for one in then] == ["Ada lives in Rome."]
    assert "until 20" in await ok("search", "lives", "--as-of", "2026-02-01")


async def test_the_lines_of_stdin_are_remembered_once(ok, memory):
    lines = "\n".join([*_FOOD, "", _FOOD[0]])
    assert await ok("add", stdin=lines) == "4 memories added, 1 known already.\n"
    again = json.loads(await ok("add", "--json", stdin="\n".join([*_FOOD, _TRIPS[0]])))
    assert (again["new"], len(again["ids"])) == (1, 5)


async def test_a_conversation_is_remembered_and_forgotten_as_a_whole(ok, run, memory):
    store = memory._store
    talk = await store.create_conversation("agent", user_id="ada")
    for role, text in (("user", "The grinder is loud."), ("assistant", "Clean its burrs.")):
        await store.add_message(talk.id, role, text)
    added = json.loads(await ok("add", "--conversation", talk.id, "--summary", "--json"))
    assert added["turns"] == 2
    which = ("--filter", json.dumps({"conversation_id": str(talk.id), "kind": "turn"}))
    planned = json.loads(await ok("forget", *which, "--dry-run", "--json"))
    assert planned == {"counts": {"turn": 2}, "dry_run": True}
    refused = await run("forget", *which, stdin="n\n")
    assert refused.exit_code == 1
    assert "Forget 2 memories (2 turn)" in refused.output
    assert len(json.loads(await ok("search", "grinder", "--json"))) > 0
    gone = json.loads(await ok("forget", *which, "--yes", "--json"))
    assert gone["counts"] == {"turn": 2, "summary": 1}
    assert gone["removed"] == [added["id"]]
    assert "Nothing is found" in await ok("search", "grinder")


async def test_ids_are_forgotten_and_those_that_are_not_there_passed_over(ok, run, memory):
    kept, gone = await memory.add_many([_FOOD[0], _TRIPS[0]])
    assert "Forgotten: 1 memory (1 note)." in await ok("forget", gone, uuid4(), "--yes")
    assert [one["id"] for one in json.loads(await ok("search", "Ada", "--json"))] == [kept]
    assert "no such memories" in await ok("forget", gone, "--yes")
    for arguments in ((), (gone, "--user", "ada"), ("x",), ("--filter", "{}")):
        assert (await run("forget", *arguments, "--yes")).exit_code == 2


async def test_what_has_expired_is_forgotten_without_asking(ok, run, memory):
    kept, gone = await memory.add_many([_FOOD[0], _TRIPS[0]])
    past = datetime.now(UTC) - timedelta(minutes=1)
    await memory._shelf.rewrite([replace(await memory.get(gone), expires_at=past)])
    assert "expired" in await ok("stats")
    planned = json.loads(await ok("forget", "--expired", "--dry-run", "--json"))
    assert planned == {"counts": {"note": 1}, "dry_run": True}
    assert await ok("forget", "--expired") == "Forgotten: 1 memory (1 note).\n"
    assert await ok("forget", "--expired") == "There are no such memories.\n"
    assert [one["id"] for one in json.loads(await ok("search", "Ada", "--json"))] == [kept]
    for arguments in (
        ("--expired", "--user", "ada"),
        (kept, "--expired"),
        (kept, "--every", "1h"),
        ("--expired", "--every", "1h", "--dry-run"),
        ("--expired", "--every", "soon"),
    ):
        assert (await run("forget", *arguments)).exit_code == 2, arguments


async def test_consolidate_shows_what_it_would_do_and_does_it(ok, memory):
    # Written past the guard against duplicates.
    for text in ("The door code is 4711.", "The door code is 4711!"):
        await memory._shelf.write([_note(text)])
    how = ("--strategy", "dedupe", "--threshold", 0.8, "--window", "7d")
    planned = await ok("consolidate", *how, "--dry-run")
    assert "merged of 2\n  - The door code is 4711" in planned
    assert "2 would go into 1 memory, 2 archived." in planned
    assert len(json.loads(await ok("search", "door", "--json"))) == 2
    done = json.loads(await ok("consolidate", *how, "--json"))
    assert (len(done["created"]), len(done["archived"])) == (1, 2)
    assert len(json.loads(await ok("search", "door", "--json"))) == 1
    assert len(json.loads(await ok("search", "door", "--json", "--archived"))) == 3


def _note(text: str):
    now = datetime.now(UTC)
    return Memory(
        id=str(new_id()), text=text, timestamp=now, valid_from=now, created_at=now, importance=0.3
    )


async def test_one_consolidate_is_at_work_in_a_collection(run, memory, way, collection):
    job = f"haive {way['HAIVE_TENANT']} consolidate {collection}"
    async with memory._store._transport.alone(job) as is_alone:
        assert is_alone
        done = await run("consolidate")
        if "DATABASE_URL" in way:
            assert done.exit_code == 1
            assert "Another consolidate is at work" in done.stderr
        else:  # the API has no session that could hold a lock
            assert done.exit_code == 0
    assert (await run("consolidate")).exit_code == 0


@pytest.fixture
def job(memory, way, collection):
    """`haive memory consolidate --every 1s`, in a process of its own."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
    path = os.pathsep.join(filter(None, sys.path))
    command = ["memory", "consolidate", "--every", "1s", "--collection", collection]
    running = subprocess.Popen(
        [sys.executable, "-u", "-W", "error", "-c", _PROGRAM, *command],
        env={**inherited, "PYTHONPATH": path, **way},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield running
    running.kill()
    running.communicate()


async def test_consolidate_every_so_often_runs_until_it_is_stopped(job):
    for _ in range(2):
        assert "Of 0 memories" in await asyncio.to_thread(job.stdout.readline)
    job.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(job.wait, 20) == 130
    assert "Traceback" not in job.stderr.read()


async def test_stats_count_by_kind_and_name_the_model(ok, memory, collection):
    await memory.add_many([*_FOOD, *_TRIPS])
    shown = await ok("stats")
    assert f"{collection}  8 memories" in shown
    assert re.search(r"^ +8  note$", shown, re.MULTILINE)
    assert "hashing-1-64" in shown
    facts = json.loads(await ok("stats", "--json"))
    assert (facts["total"], facts["kinds"], facts["dimensions"]) == (8, {"note": 8}, 64)


@pytest.mark.parametrize("way", ["postgres"], indirect=True)
async def test_reindex_builds_what_is_missing(ok, run, memory, stack, collection):
    assert "All indexes are there" in await ok("reindex")
    (index,) = json.loads(await ok("stats", "--json"))["indexes"]
    connection = await asyncpg.connect(stack.database_url)
    await connection.execute(f'drop index vecs."{index["name"]}"')
    await connection.close()
    assert json.loads(await ok("reindex", "--json"))["built"] == [f"vecs.{index['name']}"]
    for size in ("banana", "0MB", "12", "-1GB"):
        done = await run("reindex", "--memory", size)
        assert done.exit_code == 2
        assert "--memory" in done.stderr


@pytest.mark.parametrize("way", ["supabase"], indirect=True)
async def test_reindex_says_that_it_needs_a_direct_connection(run, memory):
    done = await run("reindex")
    assert done.exit_code == 1
    assert "direct connection" in done.stderr


async def test_a_map_is_a_whole_document_with_a_point_for_each(ok, memory, tmp_path):
    await memory.add_many([*_FOOD, *_TRIPS, _HOSTILE.replace("\x07", "")])
    file = tmp_path / "map.svg"
    said = await ok("map", "--output", file, "--groups", 2)
    assert "9 memories · 2 groups" in said
    root = ET.parse(file).getroot()
    tag = "{http://www.w3.org/2000/svg}"
    dots = [one for one in root.iter(f"{tag}circle") if "dot" in one.get("class", "")]
    titles = ["".join(one.itertext()) for one in dots]
    assert len(dots) == 9
    assert all(any(text in title for title in titles) for text in [*_FOOD, *_TRIPS])
    for one in dots:
        assert 24 <= float(one.get("cx")) <= 924
        assert 88 <= float(one.get("cy")) <= 776
    text = file.read_text()
    assert "prefers-color-scheme:dark" in text
    assert not any(part in text for part in ("<script", "href", "<b>"))
    assert not {"\x1b", "\x9b", "\u202e"} & set(text)
    first = text
    await ok("map", "--output", file, "--groups", 2)
    assert file.read_text() == first
    await ok("map", "--output", file, "--limit", 3)
    assert "3 of 9 memories" in file.read_text()


async def test_a_map_to_standard_output_is_nothing_but_the_document(run, memory):
    await memory.add_many([*_FOOD, *_TRIPS])
    done = await run("map", "--output", "-", "--groups", 2)
    assert ET.fromstring(done.stdout).tag == "{http://www.w3.org/2000/svg}svg"
    assert "8 memories · 2 groups" in done.stderr


async def test_a_map_is_drawn_in_the_terminal(ok, memory, tmp_path):
    await memory.add_many([*_FOOD, *_TRIPS])
    shown = await ok("map", "--text", "--groups", 2)
    key = re.findall(r"^([ab]) 4  (.*)$", shown, re.MULTILINE)
    assert sorted(letter for letter, _ in key) == ["a", "b"]
    assert {"restaurant", "noodles"} & {word for _, said in key for word in said.split(", ")}
    drawn = "".join(shown.split("\n\n", 1)[1].rsplit("\n\n", 1)[0]).replace("\n", "")
    assert set(drawn) <= set("abAB ")


async def test_a_map_of_what_has_no_vectors_says_so(run, ok, collection):
    await ok("add", "By its words alone.", "--embedder", "none")
    done = await run("map")
    assert done.exit_code == 1
    assert f"no vectors in {collection}" in done.stderr
    # It is opened as it was made, whatever model this machine has.
    assert len(json.loads(await ok("search", "words", "--json"))) == 1
    refused = await run("search", "words", "--embedder", "api", "--model", "m")
    assert refused.exit_code == 1


async def test_a_collection_in_another_language_is_opened_as_it_was_made(ok, memory, collection):
    settings = MemoryConfig(
        index_name=f"{collection}-de", embedding_strategy="none", language="german"
    )
    backend = PgvectorBackend(memory._store)
    async with VectorMemory(config=settings, store=memory._store, backend=backend) as other:
        await other.add("Die Häuser sind rot.")
    for more in ((), ("--embedder", "none")):
        found = await ok("search", "Haus", "--environment", "de", "--json", *more)
        assert [one["text"] for one in json.loads(found)] == ["Die Häuser sind rot."]
    assert "1 memory" in await ok("stats", "--environment", "de")


@pytest.fixture
async def asked(way):
    """The texts that an embeddings API was sent, which the commands could reach."""
    texts: list[str] = []

    async def embeddings(request: web.Request) -> web.Response:
        sent = (await request.json())["input"]
        texts.extend(sent)
        vectors = (await HashingEmbedder(64).embed(sent)).tolist()
        data = [{"index": place, "embedding": each} for place, each in enumerate(vectors)]
        return web.json_response({"data": data, "usage": {"prompt_tokens": 1}})

    server = web.Application()
    server.router.add_post("/v1/embeddings", embeddings)
    async with TestServer(server) as running:
        way |= {"OPENAI_API_KEY": "sk-made-up", "OPENAI_BASE_URL": str(running.make_url("/v1"))}
        yield texts


async def test_texts_go_to_no_api_unless_the_model_is_known_to_be_one(
    run, ok, memory, collection, asked
):
    # As SentenceTransformerEmbedder names itself.
    made = FunctionEmbedder(_hashed, name="all-mpnet-base-v2-64", dimensions=64)
    settings = MemoryConfig(index_name=f"{collection}-st", embedder=made)
    backend = PgvectorBackend(memory._store)
    async with VectorMemory(config=settings, store=memory._store, backend=backend) as other:
        await other.add("The peanuts are gone.")
    which = ("--environment", "st")
    for arguments in (("search", "a secret", *which), ("add", "a secret", *which)):
        done = await run(*arguments)
        assert done.exit_code == 1
        assert "all-mpnet-base-v2-64, which the command line does not know" in done.stderr
        assert "--model" in done.stderr
    assert asked == []
    found = await ok("search", "peanuts", *which, "--model", "all-mpnet-base-v2", "--json")
    assert [one["text"] for one in json.loads(found)] == ["The peanuts are gone."]
    assert asked == ["peanuts"]
    done = await run("add", "New.", "--model", "all-mpnet-base-v2", "--environment", "new")
    assert done.exit_code == 1
    assert "embedding_dimensions" in done.stderr


async def _hashed(texts):
    return await HashingEmbedder(64).embed(texts)


async def test_what_is_wrong_is_said(run, collection):
    for command in (("search", "x"), ("stats",), ("map",), ("forget", "--user", "x")):
        done = await run(*command)
        assert done.exit_code == 1, command
        assert f"no collection {collection}" in done.stderr
        assert "haive memory add" in done.stderr
    for arguments in (
        ("search", "x", "--filter", "no"),
        ("search", "x", "--as-of", "soon"),
        ("add", "x", "--ttl", "soon"),
        ("add", "x", "--conversation", uuid4()),
        ("add", "x", "--summary"),
        ("add", "--supersedes", uuid4()),
        ("consolidate", "--window", "soon"),
        ("consolidate", "--strategy", "guess"),
    ):
        assert (await run(*arguments)).exit_code == 2, arguments


async def test_what_others_wrote_commands_no_terminal(ok, memory):
    text = _HOSTILE
    await memory.add(text, {text: text}, user_id=text)
    for arguments in (
        ("search", "title", "--explain"),
        ("search", "title", "--json"),
        ("map", "--text"),
        ("consolidate", "--dry-run", "--strategy", "summarize"),
        ("stats",),
        ("forget", "--user", text, "--yes"),
    ):
        shown = await ok(*arguments)
        assert not {"\x1b", "\x07", "\x9b"} & set(shown), arguments


def test_groups_that_lie_apart_are_found_and_drawn_apart():
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((5, 300))
    truth = np.repeat(np.arange(5), [60, 30, 20, 15, 10])
    plane = plane_of((centres[truth] + 0.6 * rng.standard_normal((135, 300))).astype(np.float32))
    assert plane.groups.tolist() == truth.tolist()
    middles = np.stack([plane.points[truth == g].mean(axis=0) for g in range(5)])
    spread = max(plane.points[truth == g].std(axis=0).max() for g in range(5))
    apart = min(np.linalg.norm(a - b) for a, b in itertools.combinations(middles, 2))
    # The components of all vectors, in place of those of the centres, come to 4.2.
    assert apart > 5 * spread


@pytest.mark.parametrize("number", [1, 2, 3, 7])
def test_few_or_equal_vectors_have_a_place_too(number):
    for vectors in (np.ones((number, 5)), np.eye(number, 5), np.ones((number, 1))):
        plane = plane_of(vectors.astype(np.float32))
        assert plane.points.shape == (number, 2)
        assert np.isfinite(plane.points).all()
        assert 0 <= plane.share <= 1 + 1e-9


def test_telling_words_tell_groups_apart():
    texts = ["the red apple", "a red apple pie", "the red boat", "Boats and a red boat"]
    assert telling_words(texts, [0, 0, 1, 1], 2, most=1) == [["apple"], ["boat"]]


async def test_all_of_a_user_is_listed_page_by_page(memory, ok):
    ids = await memory.add_many(_FOOD, user_id="ada")
    other = await memory.add(_HOSTILE, user_id="bo")
    await memory.update(ids[1], archived=True)
    listed = await ok("list", "--user", "ada")
    assert _ID.findall(listed) == ids
    assert all(text in listed for text in _FOOD)
    assert "archived" in listed
    assert "--after" not in listed
    first = await ok("list", "--user", "ada", "--limit", 3)
    assert f"--after {ids[2]}" in first
    rest = json.loads(await ok("list", "--after", ids[2], "--json"))
    assert [each["id"] for each in rest] == [ids[3], other]
    assert "\x1b]0" not in await ok("list", "--user", "bo")
    assert "Nothing is remembered." in await ok("list", "--filter", '{"user_id": "nobody"}')
