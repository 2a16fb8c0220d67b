"""`haive bench`: what it does in what time, beside the limit and the peers, in one run."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from haive.core.persistence.local.machine import check_machine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from haive.core.persistence.bench.report import Report
    from haive.core.persistence.bench.server import Server
    from haive.core.persistence.bench.timing import Progress

app = typer.Typer(
    name="bench",
    help="Measure writing and reading, beside the limit and the peers, in one run.",
    no_args_is_help=True,
)
_out = Console()
# Figures are never shortened: a narrower terminal wraps the lines.
_out.width = max(_out.width, 100)
_err = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Check = Annotated[bool, typer.Option("--check", help="Exit with 1 when a bar is missed.")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        help="A database with the schema, as its owner, in place of a local stack of its own. The"
        " bench writes into the tenant 'bench' and removes it."
    ),
]
Rounds = Annotated[int, typer.Option(min=3, help="How many rounds; their median counts.")]


@app.command()
def messages(
    *,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each subject in a round.")] = 1.5,
    rounds: Rounds = 3,
    database_url: DatabaseUrl = None,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Durable messages a second from many callers at once, and the time that a lone one waits."""

    async def measure(server: Server, progress: Progress) -> Report:
        from haive.core.persistence.bench import messages as bench  # noqa: PLC0415 - when it runs

        return await bench.measure(server, rounds=rounds, seconds=seconds, progress=progress)

    _run(
        _with_server(database_url, measure),
        check=check,
        as_json=as_json,
        needs_stack=database_url is None,
    )


@app.command()
def queries(
    *,
    messages: Annotated[int, typer.Option(min=1_000, help="How many to fill in.")] = 1_000_000,
    probes: Annotated[int, typer.Option(min=400, help="Calls of each query.")] = 2_000,
    rounds: Rounds = 4,
    explain: Annotated[bool, typer.Option("--explain", help="Print the plans too.")] = False,
    database_url: DatabaseUrl = None,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """The time that reading takes at a million messages, through the SDK and without it."""

    async def measure(server: Server, progress: Progress) -> Report:
        from haive.core.persistence.bench import queries as bench  # noqa: PLC0415 - when it runs

        return await bench.measure(
            server,
            messages=messages,
            calls=probes // rounds,
            rounds=rounds,
            explain=explain,
            progress=progress,
        )

    _run(
        _with_server(database_url, measure),
        check=check,
        as_json=as_json,
        needs_stack=database_url is None,
    )


@app.command()
def rest(
    *,
    calls: Annotated[int, typer.Option(min=100, help="Calls of each function in a round.")] = 300,
    rounds: Rounds = 3,
    url: Annotated[str | None, typer.Option(help="A project, in place of a local stack.")] = None,
    key: Annotated[str | None, typer.Option(help="Its secret key.")] = None,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """What SupabaseStore adds to supabase-py and to a plain HTTP request."""

    async def measure(progress: Progress) -> Report:
        from haive.core.persistence.bench import rest as bench  # noqa: PLC0415 - when it runs

        return await bench.measure(url, key, calls=calls, rounds=rounds, progress=progress)

    if (url is None) != (key is None):
        raise typer.BadParameter("--url and --key belong together.")
    _run(measure, check=check, as_json=as_json, needs_stack=url is None)


@app.command("import")
def import_(
    *,
    input_file: Annotated[
        str | None, typer.Option("--input", help="A file to import, in place of a made one.")
    ] = None,
    conversations: Annotated[int, typer.Option(min=1, help="How many to make.")] = 6_000,
    messages: Annotated[int, typer.Option(min=1, help="How many to make.")] = 100_000,
    rounds: Rounds = 3,
    database_url: DatabaseUrl = None,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """The import of a file, beside COPY of the same rows into the same tables."""

    async def measure(server: Server, progress: Progress) -> Report:
        from haive.core.persistence.bench import imports as bench  # noqa: PLC0415 - when it runs

        return await bench.measure(
            server,
            input_file=input_file,
            conversations=conversations,
            messages=messages,
            rounds=rounds,
            progress=progress,
        )

    _run(
        _with_server(database_url, measure),
        check=check,
        as_json=as_json,
        needs_stack=database_url is None,
    )


@app.command()
def checkpoints(
    *,
    steps: Annotated[int, typer.Option(min=20, help="Of the workflow that is saved.")] = 200,
    input_file: Annotated[
        str | None,
        typer.Option("--input", help="Dialogues to make states of, not made-up ones."),
    ] = None,
    rounds: Rounds = 3,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """What states of workflows take, in bytes and in time, beside LangGraph's own saver."""

    async def measure(server: Server, progress: Progress) -> Report:
        from haive.core.persistence.bench import checkpoints as bench  # noqa: PLC0415 - when it runs

        return await bench.measure(
            server, steps=steps, rounds=rounds, input_file=input_file, progress=progress
        )

    # Always a stack of its own: what tables take is told exactly in empty databases alone.
    _run(_with_server(None, measure), check=check, as_json=as_json, needs_stack=True)


@app.command()
def tenants(
    *,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each subject in a round.")] = 1.5,
    races: Annotated[int, typer.Option(min=1, help="1,000 creates at a limit of 100.")] = 20,
    rounds: Rounds = 5,
    database_url: DatabaseUrl = None,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """What limits and the record cost a message, and whether a limit holds in a race."""

    async def measure(server: Server, progress: Progress) -> Report:
        from haive.core.persistence.bench import tenants as bench  # noqa: PLC0415 - when it runs

        return await bench.measure(
            server, rounds=rounds, seconds=seconds, races=races, progress=progress
        )

    _run(
        _with_server(database_url, measure),
        check=check,
        as_json=as_json,
        needs_stack=database_url is None,
    )


@app.command()
def realtime(
    *,
    calls: Annotated[int, typer.Option(min=100, help="Events one by one in a round.")] = 500,
    events: Annotated[int, typer.Option(min=1_000, help="Events in a row in a round.")] = 20_000,
    rounds: Rounds = 3,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """How soon events of the database reach a subscriber of the local stack, and how many."""

    async def measure(progress: Progress) -> Report:
        from haive.core.persistence.bench import realtime as bench  # noqa: PLC0415 - when it runs

        return await bench.measure(calls=calls, events=events, rounds=rounds, progress=progress)

    _run(measure, check=check, as_json=as_json, needs_stack=True)


@app.command()
def schemas(
    *,
    tenants: Annotated[int, typer.Option(min=3, help="Each in a schema of its own.")] = 1_000,
    calls: Annotated[int, typer.Option(min=100, help="Turns of each subject in a round.")] = 1_000,
    rounds: Rounds = 3,
    database_url: DatabaseUrl = None,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """How long a tenant's schema takes to make, and whether calls slow down with their number."""

    async def measure(server: Server, progress: Progress) -> Report:
        from haive.core.persistence.bench import schemas as bench  # noqa: PLC0415 - when it runs

        return await bench.measure(
            server, tenants=tenants, rounds=rounds, calls=calls, progress=progress
        )

    _run(
        _with_server(database_url, measure),
        check=check,
        as_json=as_json,
        needs_stack=database_url is None,
    )


@app.command()
def sessions(
    *,
    branches: Annotated[int, typer.Option(min=100, help="How many to make.")] = 2_000,
    calls: Annotated[int, typer.Option(min=20, help="Pages of each way in a round.")] = 300,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each writer in a round.")] = 1.5,
    rounds: Rounds = 3,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """What branches take and how fast they read, beside a plain conversation; merges."""

    async def measure(server: Server, progress: Progress) -> Report:
        from haive.core.persistence.bench import sessions as bench  # noqa: PLC0415 - when it runs

        return await bench.measure(
            server,
            branches=branches,
            rounds=rounds,
            calls=calls,
            seconds=seconds,
            progress=progress,
        )

    # Always a stack of its own: what tables take is told exactly in empty databases alone.
    _run(_with_server(None, measure), check=check, as_json=as_json, needs_stack=True)


@app.command()
def subscriptions(
    *,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each cost in a round.")] = 1.5,
    calls: Annotated[int, typer.Option(min=30, help="Events whose latency is measured.")] = 1_000,
    events: Annotated[int, typer.Option(min=1_000, help="Of the sustained rate.")] = 60_000,
    chaos: Annotated[int, typer.Option(min=0, help="Events while all breaks; 0: none.")] = 100_000,
    disconnects: Annotated[int, typer.Option(min=0, help="Connections that are cut.")] = 1_000,
    restarts: Annotated[int, typer.Option(min=0, help="How often Postgres is killed.")] = 3,
    rounds: Rounds = 5,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """How soon and how much a subscriber hears, what it costs writers, and whether all is heard."""

    async def measure(progress: Progress) -> Report:
        from haive.core.persistence.bench import (  # noqa: PLC0415 - when it runs
            subscriptions as bench,
        )

        return await bench.measure(
            rounds=rounds,
            seconds=seconds,
            calls=calls,
            events=events,
            chaos_events=chaos,
            disconnects=disconnects,
            restarts=restarts,
            progress=progress,
        )

    # Always a stack of its own: there is Realtime in it, and it is broken.
    _run(measure, check=check, as_json=as_json, needs_stack=True)


@app.command()
def vectors(
    *,
    vectors: Annotated[int, typer.Option(min=2_000, help="How many, of all tenants.")] = 30_000,
    dimensions: Annotated[int, typer.Option(min=2, max=4_000, help="Numbers in each.")] = 384,
    binary: Annotated[
        bool, typer.Option("--binary", help="Index their bits, and sort what is found by distance.")
    ] = False,
    calls: Annotated[int, typer.Option(min=20, help="Of each search in a round.")] = 100,
    memory: Annotated[str, typer.Option(help="That Postgres may take to build an index.")] = "2GB",
    rounds: Rounds = 3,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Loading and searching memories, beside bare pgvector and vecs, and what filters find."""

    async def measure(progress: Progress) -> Report:
        from haive.core.persistence.bench import vectors as bench  # noqa: PLC0415 - when it runs

        return await bench.measure(
            vectors=vectors,
            dimensions=dimensions,
            binary=binary,
            calls=calls,
            rounds=rounds,
            memory=memory,
            progress=progress,
        )

    _run(measure, check=check, as_json=as_json, needs_stack=True)


@app.command()
def threading(
    *,
    dialogues: Annotated[
        str, typer.Option(help="A file with dialogues whose services are named; any import reads.")
    ],
    pairs: Annotated[int, typer.Option(min=1, help="Of dialogues, in a round.")] = 200,
    switch: Annotated[
        float, typer.Option(min=0, max=1, help="Chance that the other dialogue goes on.")
    ] = 0.25,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Of similarity.")] = 0.8,
    rounds: Rounds = 3,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Print calibrations measured on the others.")
    ] = False,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Whether messages of two topics at once find the right session; needs no server."""

    async def measure(progress: Progress) -> Report:
        from haive.core.persistence.bench import topics as bench  # noqa: PLC0415 - when it runs

        return await bench.measure(
            dialogues=dialogues,
            pairs=pairs,
            rounds=rounds,
            switch=switch,
            threshold=threshold,
            calibrate=calibrate,
            progress=progress,
        )

    _run(measure, check=check, as_json=as_json, needs_stack=False)


@app.command()
def rotation(
    *,
    rows: Annotated[int, typer.Option(min=100, help="How many to seal.")] = 100_000,
    kills: Annotated[int, typer.Option(min=1, help="How often the rotation is killed.")] = 10,
    database_url: DatabaseUrl = None,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """A new key for all of a sealed tenant, while it is in use and the rotation is killed."""

    async def measure(server: Server, progress: Progress) -> Report:
        from haive.core.persistence.bench import rotation as bench  # noqa: PLC0415 - when it runs

        return await bench.measure(server, rows=rows, kills=kills, progress=progress)

    _run(
        _with_server(database_url, measure),
        check=check,
        as_json=as_json,
        needs_stack=database_url is None,
    )


@app.command()
def memory(
    *,
    locomo: Annotated[
        str, typer.Option(help="A file of LoCoMo, as its authors publish it; gzip is unpacked.")
    ],
    only: Annotated[
        list[str] | None, typer.Option(help="The sample_id of a conversation; repeatable.")
    ] = None,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Whether the turns that answer a question are found, beside plain Postgres and vectors."""

    async def measure(server: Server, progress: Progress) -> Report:
        from haive.core.persistence.bench import memory as bench  # noqa: PLC0415 - when it runs

        return await bench.measure(server, file=locomo, only=only or (), progress=progress)

    # Always a stack of its own: collections are of the whole database.
    _run(_with_server(None, measure), check=check, as_json=as_json, needs_stack=True)


@app.command()
def forgetting(
    *,
    memories: Annotated[int, typer.Option(min=100, help="Turns of the user.")] = 10_000,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Whether what a user said is gone, exactly that, and from everywhere."""

    async def measure(server: Server, progress: Progress) -> Report:
        from haive.core.persistence.bench import forgetting as bench  # noqa: PLC0415

        return await bench.measure(server, memories=memories, progress=progress)

    # Always a stack of its own: collections are of the whole database.
    _run(_with_server(None, measure), check=check, as_json=as_json, needs_stack=True)


@app.command()
def consolidation(
    *,
    input_file: Annotated[
        str, typer.Option("--input", help="Dialogues to remember; any file that import reads.")
    ],
    dialogues: Annotated[
        int | None, typer.Option(min=1, help="How many of them; all if not given.")
    ] = None,
    strategy: Annotated[str, typer.Option(help="hierarchical, dedupe or summarize.")] = (
        "hierarchical"
    ),
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Of similarity.")] = 0.5,
    stops: Annotated[int, typer.Option(min=1, help="How often it is killed.")] = 10,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Whether a consolidation that is stopped anywhere ends where it would have."""

    async def measure(server: Server, progress: Progress) -> Report:
        from haive.core.persistence.bench import consolidation as bench  # noqa: PLC0415

        return await bench.measure(
            server,
            file=input_file,
            dialogues=dialogues,
            strategy=strategy,
            threshold=threshold,
            stops=stops,
            progress=progress,
        )

    # Always a stack of its own: the two runs are in databases that are copies.
    _run(_with_server(None, measure), check=check, as_json=as_json, needs_stack=True)


def _with_server(
    database_url: str | None, measure: Callable[[Server, Progress], Awaitable[Report]]
) -> Callable[[Progress], Awaitable[Report]]:
    async def run(progress: Progress) -> Report:
        from haive.core.persistence.bench.server import running_server  # noqa: PLC0415

        progress("starting")
        async with running_server(database_url) as server:
            return await measure(server, progress)

    return run


def _run(
    measure: Callable[[Progress], Awaitable[Report]],
    *,
    check: bool,
    as_json: bool,
    needs_stack: bool,
) -> None:
    if needs_stack:
        check_machine()

    async def run() -> Report:
        with _err.status("") as status:
            return await measure(status.update)

    report = asyncio.run(run())
    for note in report.notes:
        _err.print(note, soft_wrap=True, markup=False)
    if as_json:
        print(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))  # noqa: T201 - no colours, no wrapping
    else:
        _out.print(report.table())
    if check and not report.met:
        raise typer.Exit(1)
