"""Random metadata and filters, and a second reading of what they mean."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

KEYS = ("kind", "topic", "seq", "tags", "note.of", "note.by.whom", "timestamp", "archived")
TIMES = tuple(f"2026-0{month}-01T00:00:00.{month:06d}Z" for month in range(1, 6))
# Few of each, so that they meet: numbers that are one value, texts that are numbers or times.
SCALARS = st.sampled_from(
    [None, True, False, 0, 1, 1.0, -1, 0.5, 2**53 + 1, float(2**53), 10**23, 1e23, "", "1", "a",
     "ab", "é", "日本", "a b", "TRUE", "2026-01-01", *TIMES]
)  # fmt: skip
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(st.sampled_from(["of", "x"]), SCALARS, max_size=2),
)
ORDERED = st.sampled_from([0, 1, 0.5, -1, 2**53, 1e23, "", "a", "ab", "日", *TIMES])


@st.composite
def metadata(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = draw(
        st.dictionaries(
            st.sampled_from(["kind", "topic", "seq", "tags", "timestamp", "archived"]),
            VALUES,
            max_size=5,
        )
    )
    note = draw(
        st.one_of(
            st.none(),
            st.fixed_dictionaries({}, optional={"of": VALUES, "by": st.just({"whom": "a"})}),
            SCALARS,
        )
    )
    return found if note is None else {**found, "note": note}


def _fields() -> st.SearchStrategy[dict[str, Any]]:
    operators = st.one_of(
        *(VALUES.map(lambda value, o=o: {o: value}) for o in ("$eq", "$ne", "$contains")),
        *(ORDERED.map(lambda value, o=o: {o: value}) for o in ("$gt", "$gte", "$lt", "$lte")),
        *(st.lists(VALUES, max_size=3).map(lambda value, o=o: {o: value}) for o in ("$in", "$nin")),
        st.booleans().map(lambda value: {"$exists": value}),
    )
    either = st.one_of(operators, operators.map(lambda inner: {"$not": inner}))
    plain = SCALARS | st.lists(SCALARS, max_size=2)
    return st.dictionaries(st.sampled_from(KEYS), either | plain, max_size=2)


def filters() -> st.SearchStrategy[dict[str, Any]]:
    return st.recursive(
        _fields(),
        lambda inner: st.one_of(
            st.tuples(
                st.sampled_from(["$and", "$or"]),
                st.lists(inner.filter(bool), min_size=1, max_size=3),
            ).map(lambda pair: {pair[0]: pair[1]}),
            inner.filter(bool).map(lambda part: {"$not": part}),
        ),
        max_leaves=5,
    )


def passes(document: dict[str, Any], record: Any) -> bool:  # noqa: PLR0911 - a table
    """What a filter means, read off its JSON, written without a look at the other reading."""
    op = document["op"]
    if op in {"and", "or", "not"}:
        held = [passes(part, record) for part in document["parts"]]
        return {"and": all(held), "or": any(held), "not": not held[0]}[op]
    there, found = True, record
    for step in document["path"]:
        there = there and type(found) is dict and step in found
        found = found[step] if there else None
    wanted = document["value"]
    if op == "exists":
        return there == wanted
    one_of = {_form(found)} | ({_form(each) for each in found} if type(found) is list else set())
    if op in {"eq", "in"}:
        return there and any(_form(w) in one_of for w in (wanted if op == "in" else [wanted]))
    if op in {"ne", "nin"}:
        return not passes({**document, "op": {"ne": "eq", "nin": "in"}[op]}, record)
    if op == "contains":
        if type(found) is str:
            return type(wanted) is str and found.find(wanted) >= 0
        return type(found) is list and _form(wanted) in {_form(each) for each in found}
    left, right = _form(found), _form(wanted)
    if not there or left[0] != right[0] or left[0] not in {"number", "text"}:
        return False
    a, b = left[1], right[1]
    return bool({"gt": a > b, "gte": a >= b, "lt": a < b, "lte": a <= b}[op])


def _form(value: Any) -> tuple[str, Any]:
    if value is None or value is True or value is False:
        return ("constant", value)
    if isinstance(value, str):
        return ("text", value)
    if isinstance(value, list):
        return ("list", tuple(_form(each) for each in value))
    if isinstance(value, dict):
        return ("object", frozenset((key, _form(each)) for key, each in value.items()))
    return ("number", Decimal(str(value)))
