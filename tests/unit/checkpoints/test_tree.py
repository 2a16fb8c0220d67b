"""The branches of a thread, drawn."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from haive.core.persistence.checkpointer._tree import Node, render_tree

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Thread:
    """Checkpoints that follow each other a minute apart; `drawn` says how they look."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.heads: dict[str, UUID] = {}
        self._chance = random.Random(5)

    def add(self, parent: UUID | None, branch: str = "main", **more: object) -> UUID:
        number = len(self.nodes) + 1
        given: dict[str, object] = {
            "id": UUID(int=self._chance.getrandbits(128)),
            "parent_id": parent,
            "branch": branch,
            "seq": number,
            "created_at": NOW - timedelta(minutes=60 - number),
            "failed": False,
            "tags": (),
            "label": f"step {number}",
            "size": 1_000 * number,
            **more,
        }
        self.nodes.append(Node(**given))
        self.heads[branch] = self.nodes[-1].id
        return self.nodes[-1].id

    def line(self, parent: UUID | None, count: int, branch: str = "main") -> UUID | None:
        for _ in range(count):
            parent = self.add(parent, branch)
        return parent

    def drawn(self, *, full: bool = False, width: int = 100) -> str:
        return drawn(self.nodes, self.heads, full=full, width=width)


def drawn(
    nodes: Sequence[Node], heads: Mapping[str, UUID], *, full: bool = False, width: int = 100
) -> str:
    console = Console(force_terminal=False, width=width, record=True, file=io.StringIO())
    render_tree(nodes, heads, console=console, full=full, now=NOW)
    return console.export_text()


def branching() -> Thread:
    thread = Thread()
    fork = thread.line(thread.add(None, label="start"), 10)
    tip = thread.add(fork, label="plan")
    other = thread.add(fork, "what-if", label="plan")
    tip = thread.add(tip, tags=("golden", "v1"), label="act")
    failed = thread.add(other, "what-if", failed=True, label="tools")
    again = thread.add(other, "retry", label="tools")
    thread.add(fork, "cheap", label="plan")
    thread.add(again, "retry", label="respond")
    thread.add(tip, label="respond")
    thread.heads["what-if"] = failed
    return thread


GOLDEN = """\
●        346c6e2b  41 min ago    19 KB  respond  [main]
│ ●      8a0a8c96  42 min ago    18 KB  respond  [retry]
│ │ ●    4a0fe75d  43 min ago    17 KB  plan  [cheap]
│ ● │    fb7ff337  44 min ago    16 KB  tools
│ │ │ ✕  359eeefb  45 min ago    15 KB  tools  failed  [what-if]
│ ├─┼─╯
◆ │ │    00745130  46 min ago    14 KB  act  #golden  #v1
│ ● │    9e115e4b  47 min ago    13 KB  plan
│ ├─╯
● │      cc11d357  48 min ago    12 KB  plan
├─╯
●        c4069545  49 min ago    11 KB  step 11
●        478c281d  50 min ago    10 KB  step 10
●        035b7399  51 min ago   9.0 KB  step 9
⋮        6 more
●        cb91ce37  58 min ago   2.0 KB  step 2
●        9f767c45  59 min ago   1.0 KB  start
"""


def test_branches_stand_beside_each_other_and_meet_where_they_part() -> None:
    assert branching().drawn() == GOLDEN


def test_a_terminal_without_unicode_gets_stand_ins() -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii"), width=100)
    thread = branching()
    render_tree(thread.nodes, thread.heads, console=console, now=NOW)
    console.file.flush()
    table = str.maketrans("●◆✕⋮│├╯─┼", "*#x:|+'-+")
    assert raw.getvalue().decode("ascii") == GOLDEN.translate(table)


def test_a_long_stretch_is_folded_unless_all_of_it_is_asked_for() -> None:
    thread = Thread()
    thread.line(None, 40)
    rows = thread.drawn().splitlines()
    assert [row[0] for row in rows] == ["●", "●", "●", "⋮", "●", "●"]
    assert rows[3] == "⋮  35 more"
    assert len(thread.drawn(full=True).splitlines()) == 40


def test_what_happened_is_not_folded_away() -> None:
    thread = Thread()
    middle = thread.line(thread.add(thread.line(None, 12), failed=True), 6)
    thread.line(thread.add(middle, tags=("keep",)), 8)
    thread.heads["release"] = thread.nodes[4].id
    text = thread.drawn()
    assert "step 13  failed" in text
    assert "step 20  #keep" in text
    assert "step 5  [release]" in text
    assert [row.split()[1] for row in text.splitlines() if row.startswith("⋮")] == ["4", "3", "4"]


def test_a_short_stretch_is_not_folded() -> None:
    thread = Thread()
    thread.line(None, 7)
    assert "more" not in thread.drawn()
    thread.line(thread.heads["main"], 1)
    assert "⋮  3 more" in thread.drawn()


def test_what_goes_on_below_but_was_pruned_is_shown_as_cut_off() -> None:
    thread = Thread()
    thread.line(UUID(int=1), 2)
    thread.line(UUID(int=2), 1, "other")
    thread.line(None, 1, "root")
    assert [row[:3] for row in thread.drawn().splitlines()] == [
        "  ●", "  ●", "  ┆", "●  ", "●  ", "┆",
    ]  # fmt: skip


def test_fifty_branches_of_one_checkpoint_take_few_columns() -> None:
    thread = Thread()
    fork = thread.add(None)
    for number in range(50):
        thread.add(fork, f"b{number}")
    thread.add(fork)
    rows = thread.drawn().splitlines()
    assert max(row.index("●") for row in rows if "●" in row) == 2
    for number in range(50):
        assert f"[b{number}]" in thread.drawn()


def test_fifty_branches_side_by_side_stand_close_together() -> None:
    thread = Thread()
    forks = [thread.add(None)]
    for _ in range(50):
        forks.append(thread.add(forks[-1]))
    for number, fork in enumerate(forks[1:]):
        thread.add(fork, f"b{number}")
    text = thread.drawn()
    follow(text, thread.nodes)
    assert max(row.rfind("●") for row in text.splitlines()) <= 51


def test_the_oldest_branch_has_the_first_column_whatever_has_followed_it() -> None:
    thread = Thread()
    thread.add(thread.add(thread.add(None)), "other")
    graph = [row[:3] for row in thread.drawn().splitlines()]
    assert graph == ["  ●", "╭─╯", "●  ", "●  "]


def test_nobody_comes_before_its_children_though_clocks_differ() -> None:
    thread = Thread()
    first = thread.add(None, created_at=NOW)
    second = thread.add(first, created_at=NOW - timedelta(hours=1))
    thread.add(second, created_at=NOW - timedelta(minutes=30))
    labels = [row.split("step ")[1].split()[0] for row in thread.drawn().splitlines()]
    assert labels == ["3", "2", "1"]


def test_short_ids_are_as_long_as_it_takes() -> None:
    thread = Thread()
    thread.add(thread.add(None, id=UUID(int=0xA1234567890)), id=UUID(int=0xB1234567890))
    assert [row.split()[1] for row in thread.drawn().splitlines()] == [
        "0b1234567890", "0a1234567890",
    ]  # fmt: skip


def test_names_command_neither_rich_nor_the_terminal() -> None:
    thread = Thread()
    evil = "[red]x[/] \x1b[2J\u202e\n"
    thread.add(None, evil, label=evil * 9, tags=(evil,))
    text = thread.drawn()
    assert not {c for c in text if not c.isprintable()} - {"\n"}
    assert text.count("\n") == 1
    assert "#[red]x[/] \\x1b[2J\\u202e\\n" in text
    assert "…" in text


@pytest.mark.parametrize(
    ("seconds", "age"),
    [(-5, "just now"), (44, "just now"), (45, "1 min ago"), (200, "3 min ago"),
     (5_399, "90 min ago"), (5_400, "2 h ago"), (86_400, "24 h ago"), (200_000, "2 d ago"),
     (10**8, "3 y ago")],
)  # fmt: skip
def test_ages_are_what_people_say(seconds: int, age: str) -> None:
    thread = Thread()
    thread.add(None, created_at=NOW - timedelta(seconds=seconds))
    assert f"  {age}  " in thread.drawn()


def test_a_terminal_cuts_a_long_row_and_a_file_has_it_whole() -> None:
    thread = Thread()
    thread.add(None, tags=tuple(f"tag{n}" for n in range(30)))
    assert "#tag29" in thread.drawn(width=60)
    assert len(thread.drawn(width=60).splitlines()) == 1
    console = Console(force_terminal=True, width=60, file=io.StringIO(), color_system=None)
    render_tree(thread.nodes, thread.heads, console=console, now=NOW)
    (row,) = console.file.getvalue().splitlines()
    assert len(row.rstrip()) <= 60
    assert "#tag29" not in row


def test_a_thread_without_checkpoints_says_so() -> None:
    assert drawn([], {}) == "No checkpoints.\n"


def follow(text: str, nodes: Sequence[Node]) -> None:
    """Check that the line that begins below each checkpoint ends at its parent."""
    rows = text.splitlines()
    gap = 1 if "●│" in text or "││" in text else 2
    by_label = {node.label: node for node in nodes}
    of_row: dict[int, tuple[int, Node]] = {}
    for y, row in enumerate(rows):
        column = next((x for x in range(0, len(row), gap) if row[x] in "●✕◆"), None)
        if column is not None and "step" in row:
            label = next(one for one in by_label if f"  {one}  " in f"{row}  ")
            of_row[y] = column, by_label[label]
    assert len(of_row) == len(nodes)
    known = {node.id for node in nodes}
    for y, (column, node) in of_row.items():
        below, x = y + 1, column
        if node.parent_id is None:
            continue
        while True:
            sign = rows[below][x]
            if node.parent_id not in known:
                assert sign == "┆"
                break
            if sign in "●✕◆":
                assert of_row[below][1].id == node.parent_id
                break
            assert sign in "│┼├╯"
            if sign == "╯":
                while rows[below][x] not in "├╭":
                    x -= 1
                    assert rows[below][x] in "─┼├╭"
            below += 1


@given(
    st.lists(
        st.tuples(st.integers(-2, 12), st.integers(0, 4), st.integers(0, 60)),
        min_size=1,
        max_size=25,
    )
)
def test_every_line_leads_to_the_parent(steps: list[tuple[int, int, int]]) -> None:
    thread = Thread()
    for back, branch, minutes in steps:
        if back == -2 or not thread.nodes:
            parent = None
        elif back == -1:
            parent = UUID(int=1)
        else:
            parent = thread.nodes[max(len(thread.nodes) - 1 - back, 0)].id
        thread.add(parent, f"b{branch}", created_at=NOW - timedelta(minutes=minutes))
    follow(thread.drawn(full=True, width=400), thread.nodes)
    folded = thread.drawn(width=400)
    hidden = sum(int(row.rsplit(" ", 2)[1]) for row in folded.splitlines() if row.endswith("more"))
    shown = sum("step" in row for row in folded.splitlines())
    assert hidden + shown == len(thread.nodes)
