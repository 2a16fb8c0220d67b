"""What differs between two states, and how it is shown."""

from __future__ import annotations

import io
import json
import random
import time
from collections import Counter
from copy import deepcopy
from uuid import UUID

import pytest
import rich
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from haive.core.persistence.checkpointer._alignment import _longest_rise, _shortest_edit
from haive.core.persistence.checkpointer._content import Contents
from haive.core.persistence.checkpointer._diff import (
    Change,
    ChangeKind,
    Difference,
    compare_trees,
)
from haive.core.persistence.checkpointer._paths import child, lookup

A, B = UUID(int=0xA), UUID(int=0xB)

scalars = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from([1.0, 0.5, "a", "b c"])
# Few keys and values: most of what is generated has something in common.
keys = st.sampled_from(["a", "b", "id", "name", "a key", "1"])
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=30,
)
items = st.lists(
    st.integers(0, 4) | st.fixed_dictionaries({"id": st.integers(0, 5), "v": st.integers(0, 2)}),
    max_size=10,
)


def apply(a: object, changes: list[Change]) -> object:
    """Make the second tree from the first one and the changes alone."""
    by_kind = {kind: {c.path: c for c in changes if c.kind is kind} for kind in ChangeKind}
    moved_from = {c.before: c.after for c in changes if c.kind is ChangeKind.MOVED}

    def made(node: object, path_a: str, path: str) -> object:  # noqa: PLR0912
        if path in by_kind[ChangeKind.CHANGED]:
            return by_kind[ChangeKind.CHANGED][path].after
        added = by_kind[ChangeKind.ADDED]
        if isinstance(node, dict):
            out = {
                key: made(item, child(path_a, key), child(path, key))
                for key, item in node.items()
                if child(path_a, key) not in by_kind[ChangeKind.REMOVED]
            }
            for there, change in added.items():
                for key in ("a", "b", "id", "name", "a key", "1", "v"):
                    if there == child(path, key):
                        out[key] = change.after
            return out
        if isinstance(node, list):
            stay: list[int] = []
            fixed: dict[int, object] = {}
            for i, item in enumerate(node):
                there = child(path_a, i)
                if there in moved_from:
                    here = moved_from[there]
                    fixed[int(here[len(path) + 1 : -1])] = made(item, there, here)
                elif there not in by_kind[ChangeKind.REMOVED]:
                    stay.append(i)
            for there, change in added.items():
                if there.startswith(f"{path}[") and there[len(path) + 1 : -1].isdigit():
                    fixed[int(there[len(path) + 1 : -1])] = change.after
            out_list: list[object] = []
            for place in range(len(stay) + len(fixed)):
                if place in fixed:
                    out_list.append(fixed[place])
                else:
                    i = stay.pop(0)
                    out_list.append(made(node[i], child(path_a, i), child(path, place)))
            return out_list
        return node

    return made(a, "$", "$")


def same(a: object, b: object) -> bool:
    contents = Contents()
    return contents.of(a) == contents.of(b)


def counted(a: object, b: object) -> Counter[ChangeKind]:
    return Counter(change.kind for change in compare_trees(a, b))


def told(a: object, b: object) -> list[tuple[str, str]]:
    return [(change.kind.value, change.path) for change in compare_trees(a, b)]


@given(trees | items, trees | items)
@example([True], [1])
@example([{"id": 1, "v": 0}, {"id": 2}], [{"id": 2}, {"id": 1, "v": 1}])
def test_the_changes_make_the_second_tree_of_the_first_one(a: object, b: object) -> None:
    untouched = deepcopy((a, b))
    changes = compare_trees(a, b)
    assert same(apply(a, changes), b)
    assert bool(changes) is not same(a, b)
    for change in changes:
        if change.kind in {ChangeKind.ADDED, ChangeKind.CHANGED}:
            assert lookup(b, change.path, "nothing") is change.after
        if change.kind is ChangeKind.REMOVED:
            assert lookup(a, change.path, "nothing") is change.before
    assert (a, b) == untouched


@given(items, items)
def test_lists_are_made_of_their_changes(a: list[object], b: list[object]) -> None:
    assert same(apply(a, compare_trees(a, b)), b)


@given(trees | items, trees | items)
def test_swapped_trees_have_the_opposite_changes(a: object, b: object) -> None:
    there, back = counted(a, b), counted(b, a)
    assert there[ChangeKind.ADDED] == back[ChangeKind.REMOVED]
    assert there[ChangeKind.REMOVED] == back[ChangeKind.ADDED]
    assert there[ChangeKind.CHANGED] == back[ChangeKind.CHANGED]
    assert there[ChangeKind.MOVED] == back[ChangeKind.MOVED]


@given(trees)
def test_a_tree_does_not_differ_from_its_copy(tree: object) -> None:
    assert compare_trees(tree, deepcopy(tree)) == []


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), max_size=12))
def test_the_shortest_edit_keeps_a_longest_common_subsequence(
    old: list[int], new: list[int]
) -> None:
    lengths = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for x in range(len(old)):
        for y in range(len(new)):
            lengths[x + 1][y + 1] = (
                lengths[x][y] + 1 if old[x] == new[y] else max(lengths[x][y + 1], lengths[x + 1][y])
            )
    pairs = _shortest_edit(old, new, most=24)
    assert pairs is not None
    assert len(pairs) == lengths[-1][-1]
    assert all(old[x] == new[y] for x, y in pairs)
    assert pairs == sorted(pairs)
    assert len({x for x, _ in pairs}) == len({y for _, y in pairs}) == len(pairs)


def test_an_edit_longer_than_allowed_is_given_up() -> None:
    assert _shortest_edit([0] * 10, [1] * 10, most=19) is None
    assert _shortest_edit([0] * 10, [1] * 10, most=20) == []


@given(st.permutations(range(8)))
def test_a_longest_rise_rises_and_none_is_longer(values: list[int]) -> None:
    rise = [values[at] for at in _longest_rise(values)]
    assert rise == sorted(rise)
    best = [1] * 8
    for x in range(8):
        best[x] += max((best[y] for y in range(x) if values[y] < values[x]), default=0)
    assert len(rise) == max(best)


def message(number: int, **more: object) -> dict[str, object]:
    return {"type": "human", "content": f"hello {number}", "id": None, **more}


def test_a_message_put_in_front_is_one_addition() -> None:
    messages = [message(n) for n in range(500)]
    assert told(messages, [message(-1), *messages]) == [("added", "$[0]")]
    assert told(messages, [*messages, message(-1)]) == [("added", "$[500]")]
    assert told([message(-1), *messages], messages) == [("removed", "$[0]")]


def test_repeated_values_are_put_in_and_taken_out_at_two_places() -> None:
    old = ["tick", "tock"] * 50
    new = [*old[:10], "tick", *old[10:60], *old[61:]]
    assert told(old, new) == [("added", "$[11]"), ("removed", "$[60]")]


def test_a_moved_item_is_moved_and_nothing_else() -> None:
    (change,) = compare_trees({"s": [1, 2, 3, 4]}, {"s": [4, 1, 2, 3]})
    assert change == Change(path="$.s[0]", kind=ChangeKind.MOVED, before="$.s[3]", after="$.s[0]")


def test_items_with_an_id_are_compared_inside_also_where_they_moved() -> None:
    old = [{"id": n, "v": n, "w": [n]} for n in range(5)]
    new = deepcopy(old)
    new[1]["v"] = "new"
    new.insert(0, new.pop())
    new[0]["w"] = []
    assert told(old, new) == [
        ("moved", "$[0]"), ("removed", "$[4].w[0]"), ("changed", "$[2].v"),
    ]  # fmt: skip


def test_items_with_different_ids_are_different_items() -> None:
    assert told([{"id": 1, "v": 1}], [{"id": 2, "v": 1}]) == [
        ("removed", "$[0]"),
        ("added", "$[0]"),
    ]
    assert told([{"id": None, "v": 1}], [{"id": 2, "v": 1}]) == [("changed", "$[0].id")]


def test_ids_that_stand_twice_identify_nothing() -> None:
    old = [{"name": "x", "v": 1}, {"name": "x", "v": 2}]
    assert told(old, old[::-1]) == [("moved", "$[1]")]


def test_an_edited_item_is_found_again_beside_new_ones() -> None:
    old = [{"n": 1}, {"type": "ai", "content": "a", "name": None}, {"n": 2}]
    new = [{"n": 1}, "x", {"type": "ai", "content": "b", "name": None}, ["y"], {"n": 2}]
    assert told(old, new) == [("added", "$[1]"), ("changed", "$[2].content"), ("added", "$[3]")]
    lines = ["an outline of the plan", "do it"]
    edited = ["first of all", "an outline of the new plan", "do it"]
    assert told(lines, edited) == [("added", "$[0]"), ("changed", "$[1]")]


def test_numbers_are_equal_by_value_and_booleans_are_no_numbers() -> None:
    nan = float("nan")
    assert compare_trees([1, 0.0, nan, {"a": 1}], [1.0, -0.0, float("nan"), {"a": 1.0}]) == []
    assert told({"a": True}, {"a": 1}) == [("changed", "$.a")]
    assert told([0], [False]) == [("changed", "$[0]")]
    assert told({"a": None}, {}) == [("removed", "$.a")]
    assert told([], {}) == [("changed", "$")]


def test_keys_come_in_the_order_of_the_first_tree_then_the_new_ones() -> None:
    assert told({"b": 1, "a": 1}, {"z": 1, "a": 2, "c": 1, "b": 2}) == [
        ("changed", "$.b"), ("changed", "$.a"), ("added", "$.z"), ("added", "$.c"),
    ]  # fmt: skip


def _long_lists() -> dict[str, tuple[list[object], list[object]]]:
    chance = random.Random(7)
    numbers: list[object] = list(range(20_000))
    shuffled = chance.sample(numbers, len(numbers))
    bits: list[object] = [chance.random() < 0.5 for _ in range(20_000)]
    other_bits: list[object] = [chance.random() < 0.5 for _ in range(20_001)]
    messages: list[object] = [message(n) for n in range(20_000)]
    return {
        "put in": (messages, [message(-1), *messages]),
        "reversed": (numbers, numbers[::-1]),
        "shuffled": (numbers, shuffled),
        "replaced": (messages, [message(-n - 1) for n in range(19_999)]),
        "bits": (bits, other_bits),
        "one value": (["x"] * 20_000, ["x"] * 19_000),
    }


@pytest.mark.parametrize("case", list(_long_lists()))
def test_lists_of_twenty_thousand_take_no_square_of_the_time(case: str) -> None:
    a, b = _long_lists()[case]
    begun = time.process_time()
    compare_trees(a, b)
    assert time.process_time() - begun < 4  # measured: less than 0.5 on an idle machine


@pytest.mark.parametrize("depth", [900, 3_000])
def test_deep_trees_are_compared_and_drawn(depth: int) -> None:
    def deep(end: object) -> object:
        for _ in range(depth):
            end = [{"a": end}]
        return end

    (change,) = compare_trees(deep(1), deep(2))
    assert change.path == "$" + "[0].a" * depth
    (whole,) = compare_trees({"x": deep(1)}, {"x": 1})
    assert whole.kind is ChangeKind.CHANGED
    difference = between({"x": deep(1), "y": deep(1)}, {"x": 1, "y": deep(2)})
    assert "→ 1" in difference.render(width=5_000) or "+ 1" in difference.render(width=5_000)


def test_deep_trees_that_differ_everywhere_are_compared_in_no_time() -> None:
    def deep(end: str) -> object:
        tree: object = end
        for number in range(900):
            tree = [{"a": tree, "t": "x" * 100}, f"{end}{number}"]
        return tree

    begun = time.process_time()
    assert len(compare_trees(deep("a"), deep("b"))) == 901
    assert time.process_time() - begun < 4  # measured: less than 0.5 on an idle machine


def between(a: object, b: object, **more: object) -> Difference:
    return Difference.between(a=A, b=B, tree_a=a, tree_b=b, bytes_a=4_100, bytes_b=812, **more)


def test_a_difference_counts_and_is_true_if_there_is_one() -> None:
    a = {"status": "running", "messages": [1], "old": 0, "steps": ["x", "y"]}
    b = {"status": "completed", "messages": [1, 2, 3], "steps": ["y", "x"]}
    difference = between(a, b)
    assert (difference.added, difference.removed) == (2, 1)
    assert (difference.changed, difference.moved) == (1, 1)
    assert difference
    assert not difference.identical
    assert len(difference.changes) == 5
    assert str(difference) == difference.summary == (
        '2 added, 1 removed, 1 changed, 1 moved: status "running" -> "completed"; messages +2;'
        " old removed; 1 more"
    )  # fmt: skip
    brief = between(a, b, include_details=False)
    assert brief.changes == ()
    assert brief.summary == difference.summary
    assert brief
    equal = between(a, a)
    assert not equal
    assert equal.identical
    assert equal.summary == "No difference."


@pytest.mark.parametrize(
    ("a", "b", "summary"),
    [
        ({"x": {"y": 1}, "z": 1}, {"x": {"y": 2}, "z": 2}, "2 changed: z 1 -> 2; x.y 1 -> 2"),
        ({"t": "x" * 50}, {"t": "y"}, "1 changed: t changed"),
        ([1, 2, 3], [1, 4, 3], "1 changed: [1] 2 -> 4"),
        ([1, 2, 3], [3, 1, 2], "1 moved: state moved"),
        ({"a": [1, 2, 3]}, {"a": [3, 2, 1]}, "2 moved: a 2 moved"),
        ({}, {"a key": 1, "k": "\x1b[2J"}, '2 added: ["a key"] added; k added'),
        (1, "\x1b[2J", '1 changed: state 1 -> "\\u001b[2J"'),
        ({"a": ["x", "y"]}, {"a": ["z"]}, "1 added, 2 removed: a -2 +1"),
    ],
)
def test_the_summary_says_the_telling_places(a: object, b: object, summary: str) -> None:
    assert between(a, b).summary == summary


def test_a_difference_as_json_has_the_sides_that_a_change_has() -> None:
    shown = between({"a": 1, "b": None}, {"a": None, "c": 2}).as_dict()
    assert json.loads(json.dumps(shown)) == {
        "a": str(A), "b": str(B), "identical": False, "added": 1, "removed": 1, "changed": 1,
        "moved": 0, "bytes_a": 4_100, "bytes_b": 812,
        "summary": "1 added, 1 removed, 1 changed: a 1 -> null; b removed; c added",
        "changes": [
            {"path": "$.a", "kind": "changed", "before": 1, "after": None},
            {"path": "$.b", "kind": "removed", "before": None},
            {"path": "$.c", "kind": "added", "after": 2},
        ],
    }  # fmt: skip


SENTENCE = "The quick brown fox jumps over the lazy dog, and nobody minds it very much at all. "
BEFORE = {
    "status": "running",
    "messages": [{"id": f"m{n}", "content": f"hello {n}"} for n in range(4)],
    "plan": {"stage": "draft", "steps": ["a", "b", "c", "d"], "notes": "one\ntwo\nthree\nfour"},
    "report": SENTENCE * 2,
    "gone": [1, 2],
}
AFTER = {
    "status": "completed",
    "messages": [
        *BEFORE["messages"][:2],
        {"id": "m2", "content": "[red]hello[/] \x1b[31m:smile:"},
        BEFORE["messages"][3],
        {"id": "m4", "content": "Yes. " * 60},
    ],
    "plan": {"stage": "final", "steps": ["d", "a", "b", "c"], "notes": "one\ntwo\n3\nfour\nfive"},
    "report": SENTENCE + SENTENCE.replace("lazy", "sleepy"),
    "a key": {"größe": None},
}
HEAD = (
    "00000000-0000-0000-0000-00000000000a → 00000000-0000-0000-0000-00000000000b · 4.1 KB → 812 B"
)
PROSE = "Yes. Yes. Yes. Yes. Yes. Yes. Yes. Yes. Yes. Yes. Yes. Y…"
GOLDEN = f"""\
{HEAD}
2 added, 1 removed, 5 changed, 1 moved: status "running" -> "completed"; messages +1; report
changed; 6 more

~ status  "running" → "completed"
messages
  ~ [2].content  "hello 2" → "[red]hello[/] \\u001b[31m:smile:"
  + [4]  {{"id": "m4", "content": "{PROSE} (2 keys)
plan
  ~ stage  "draft" → "final"
  > steps[3] → steps[0]
  ~ notes
        two
      - three
      + 3
        four
      + five
~ report
    ~ … fox jumps over the [-lazy-]{{+sleepy+}} dog, and nobody minds …
- gone  [1, 2]
+ ["a key"]  {{"größe": null}}
"""


def test_a_difference_is_drawn_by_the_parts_of_the_state() -> None:
    assert between(BEFORE, AFTER).render() == GOLDEN


def test_the_drawing_needs_no_colour_and_is_the_same_on_a_console() -> None:
    console = Console(
        force_terminal=False, width=100, record=True, file=io.StringIO(), color_system=None
    )
    assert between(BEFORE, AFTER).render(console) == GOLDEN
    printed = console.export_text()
    assert "".join(f"{line.rstrip()}\n" for line in printed.splitlines()) == GOLDEN


def test_colours_say_what_the_signs_say() -> None:
    console = Console(force_terminal=True, width=100, file=io.StringIO(), color_system="standard")
    console.print(between({"a": [1, 2, 3], "b": 1, "d": 1}, {"a": [3, 1, 2], "c": 1, "d": 2}))
    drawn = console.file.getvalue()
    for colour, sign in ((36, ">"), (31, "-"), (32, "+"), (33, "~")):
        assert f"\x1b[1;{colour}m{sign} " in drawn


def test_rich_prints_a_difference(capsys: pytest.CaptureFixture[str]) -> None:
    rich.print(between({"a": 1}, {"a": 2}))
    assert "~ a  1 → 2" in capsys.readouterr().out


def test_nothing_of_a_value_commands_the_terminal() -> None:
    evil = "[bold]x[/bold]\x1b]0;title\x07\x9b2J\u202e\r\n\x1b[31m"
    a = {evil: evil, "t": f"{evil}one\n" * 3, "w": f"{SENTENCE * 3}{evil}", "l": [evil]}
    b = {"t": f"{evil}two\n" * 3, "w": f"{SENTENCE * 3}{evil}.", "l": [evil, evil]}
    drawn = between(a, b).render() + between(b, a).render()
    assert not {c for c in drawn if not c.isprintable()} - {"\n"}
    assert "[bold]x[/bold]" in drawn


def test_a_terminal_without_unicode_gets_stand_ins() -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii"), width=100, color_system=None)
    console.print(between(BEFORE, AFTER))
    console.file.flush()
    drawn = raw.getvalue().decode("ascii")
    assert '~ status  "running" -> "completed"' in drawn
    assert '{"gr\\xf6\\xdfe": null}' in drawn


def test_many_changes_are_counted_unless_all_are_asked_for() -> None:
    a: dict[str, object] = {"n": list(range(100)), **{f"k{n}": 1 for n in range(80)}}
    b: dict[str, object] = {"n": [-n - 1 for n in range(100)], **{f"k{n}": 2 for n in range(80)}}
    drawn = between(a, b).render()
    assert "  … 80 more\n" in drawn
    assert drawn.endswith("… 31 more changes\n")
    full = between(a, b).render(full=True)
    assert full.count("~") == 180
    assert "more\n" not in full.partition("\n\n")[2]


def test_long_values_are_shortened_and_say_how_long_they_are() -> None:
    drawn = between({}, {"t": "x" * 5_000, "l": [1] * 5_000, "d": {str(n): n for n in range(99)}})
    shown = drawn.render(width=60)
    for length in ("… (5,000 characters)", "… (5,000 items)", "… (99 keys)"):
        assert length in shown
    assert all(len(line) <= 60 for line in shown.splitlines())


def test_a_text_that_was_rewritten_is_shown_from_where_it_differs() -> None:
    same_beginning = "0123456789abcdef" * 20
    drawn = between({"b": f"{same_beginning}X"}, {"b": f"{same_beginning}Y"}).render()
    assert "abcdefX" in drawn
    assert "abcdefY" in drawn


def test_a_script_without_spaces_is_compared_by_characters() -> None:
    text = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 3
    drawn = between({"t": text}, {"t": text.replace("猫", "犬", 1)}).render()
    assert "[-猫-]{+犬+}" in drawn


def test_long_lines_of_a_text_are_compared_by_words() -> None:
    old = f"short\n{SENTENCE * 2}\nend"
    drawn = between({"t": old}, {"t": old.replace("minds", "heeds", 1)}).render()
    assert "[-minds-]{+heeds+}" in drawn


def test_a_rewritten_book_is_drawn_in_no_time() -> None:
    chance = random.Random(3)
    words = ["the", "of", "and", "to", "a", "in", "fox", "dog"]
    one, other = (" ".join(chance.choices(words, k=10_000)) for _ in range(2))
    begun = time.process_time()
    between({"t": one, "u": one.replace(" fox ", "\n")}, {"t": other, "u": other}).render()
    assert time.process_time() - begun < 8
