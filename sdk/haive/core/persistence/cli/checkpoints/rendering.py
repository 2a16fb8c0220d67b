"""Threads and checkpoints for people to look at, and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from haive.core.persistence.checkpointer._text import printable, size_text
from haive.core.persistence.checkpointer._tree import Node, render_tree
from haive.core.persistence.cli.output import out, safe_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from haive.core.persistence.checkpointer import Branch, Checkpoint, Thread

_MORE = "[dim]There are more: see --limit.[/]"


def wide() -> Console:
    """What tables are printed on: a pipe has no width of its own."""
    return out if out.is_terminal else Console(width=240)


def thread_as_dict(thread: Thread) -> dict[str, Any]:
    """A thread for programs."""
    return _jsonable(asdict(thread))


def checkpoint_as_dict(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint for programs, without its state."""
    return _jsonable({
        name: getattr(checkpoint, name)
        for name in (
            "id", "thread_id", "namespace", "branch", "seq", "parent_id", "created_at", "failed",
            "tags", "metadata", "size", "stored_bytes", "depth", "encrypted", "schema_hash",
        )
    })  # fmt: skip


def tree_as_dict(
    checkpoints: Sequence[Checkpoint], branches: Sequence[Branch], *, more: bool
) -> dict[str, Any]:
    """The branches of a thread and its newest checkpoints for programs."""
    return {
        "branches": [_jsonable(asdict(one)) for one in branches],
        "checkpoints": [checkpoint_as_dict(one) for one in checkpoints],
        "more": more,
    }


def _jsonable(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in facts.items()
    }


def print_threads(threads: Sequence[Thread], *, more: bool) -> None:
    """Print a line for each thread."""
    if not threads:
        out.print("No threads.")
        return
    table = _table("thread", "user")
    for name in ("checkpoints", "branches", "stored"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("last change", min_width=19)
    for one in threads:
        table.add_row(
            _line(one.thread_id),
            _line(one.user_id or ""),
            f"{one.checkpoints:,}",
            f"{one.branches:,}",
            size_text(one.stored_bytes),
            _time(one.updated_at),
        )
    _print_table(table, more=more)


def print_checkpoints(checkpoints: Sequence[Checkpoint], *, more: bool) -> None:
    """Print a line for each checkpoint."""
    if not checkpoints:
        out.print("No checkpoints.")
        return
    table = _table()
    table.add_column("id", min_width=36)  # never shortened: it is there to be copied
    table.add_column("time", min_width=19)
    for name in ("branch", "step"):
        table.add_column(name, max_width=40, overflow="fold")
    for name in ("size", "stored"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("tags", overflow="fold")
    for one in checkpoints:
        table.add_row(
            str(one.id),
            _time(one.created_at),
            _line(one.branch),
            _line(step_of(one)),
            size_text(one.size),
            size_text(one.stored_bytes),
            _marks(one),
        )
    _print_table(table, more=more)


def print_checkpoint(checkpoint: Checkpoint) -> None:
    """Print what is known of a checkpoint."""
    one = checkpoint
    how = "whole" if not one.depth else f"as delta {one.depth} after a whole one"
    facts = {
        "checkpoint": str(one.id),
        "thread": one.thread_id,
        "namespace": one.namespace,
        "branch": one.branch,
        "parent": str(one.parent_id or "none"),
        "saved": f"{_time(one.created_at)} (seq {one.seq:,})",
        "size": f"{size_text(one.size)}, stored {how}: {size_text(one.stored_bytes)}",
        "sealed": "yes" if one.encrypted else "no",
        "failed": "yes" if one.failed else "",
        "tags": ", ".join(one.tags),
        "schema": one.schema_hash or "",
    }
    for name, said in facts.items():
        if said:
            line = Text(f"{name:<11}", "dim").append(_line(said))
            out.print(line, highlight=False)
    if one.metadata:
        out.print(Text("metadata", "dim"))
        typer.echo(safe_json(one.metadata))


def draw_tree(
    checkpoints: Sequence[Checkpoint], branches: Sequence[Branch], *, full: bool, more: bool
) -> None:
    """Draw the branches of a thread."""
    nodes = [
        Node(
            id=one.id,
            parent_id=one.parent_id,
            branch=one.branch,
            seq=one.seq,
            created_at=one.created_at,
            failed=one.failed,
            tags=one.tags,
            label=step_of(one),
            size=one.size,
        )
        for one in checkpoints
    ]
    heads = {branch.name: branch.head_id for branch in branches if branch.head_id is not None}
    render_tree(nodes, heads, console=out, full=full)
    if more:
        out.print(_MORE)


def step_of(checkpoint: Checkpoint) -> str:
    """What made a checkpoint, as far as its metadata says."""
    for name in ("node", "step", "source"):
        said = checkpoint.metadata.get(name)
        if isinstance(said, str | int) and not isinstance(said, bool):
            return said if isinstance(said, str) else f"{name} {said}"
    return ""


def _marks(checkpoint: Checkpoint) -> Text:
    marks = Text().append("failed " if checkpoint.failed else "", "bold red")
    return marks.append(" ".join(f"#{printable(tag)}" for tag in checkpoint.tags))


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _print_table(table: Table, *, more: bool) -> None:
    wide().print(table, soft_wrap=False)
    if more:
        out.print(_MORE)


def _line(text: str) -> Text:
    return Text(printable(text))


def _time(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"
