"""What comes over the wire is a message or is none; it is never an error of another kind."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haive.core.persistence.local.realtime import filters, wire

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
few = settings(max_examples=60, deadline=None)


@few
@given(st.text() | st.binary() | ANYTHING.map(json.dumps), st.booleans())
def test_any_frame_is_a_message_or_is_refused(data, arrays):
    try:
        message = wire.decode(data, arrays=arrays)
    except wire.MalformedError:
        return
    assert isinstance(message.payload, dict)


@few
@given(st.dictionaries(st.text(), ANYTHING, max_size=3), st.booleans(), st.none() | st.text())
def test_a_message_comes_back_as_it_was_sent(payload, arrays, ref):
    frame = wire.encode("realtime:x", "event", payload, arrays=arrays, ref=ref)
    size = frame[1] & 0x7F
    text = frame[{126: 4, 127: 10}.get(size, 2) :].decode()
    message = wire.decode(text, arrays=arrays)
    assert (message.topic, message.event, message.ref) == ("realtime:x", "event", ref)
    assert message.payload == payload


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_frame_says_how_long_it_is(size):
    text = "x" * size
    frame = wire.encode("", "", orjson.Fragment(json.dumps(text)), arrays=True)
    length = frame[1]
    at = {126: 4, 127: 10}.get(length, 2)
    length = int.from_bytes(frame[2:at]) if at > 2 else length
    assert length == len(frame) - at
    assert frame[0] == 0x81


@few
@given(st.text(max_size=200))
def test_any_filter_is_one_or_is_refused(text):
    try:
        conditions = filters.parse(text)
    except filters.FilterError:
        return
    assert conditions


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("a=eq.1", """(r."a" = '1')"""),
        ("a\"b=eq.it's", """(r."a""b" = 'it''s')"""),
        ('a=eq."x,y"', """(r."a" = 'x,y')"""),
        (r'a=eq."say \"hi\""', """(r."a" = 'say "hi"')"""),
        ("a=not.in.(1,2)", """not (r."a" in ('1', '2'))"""),
        ("a=is.NULL", """(r."a" is null)"""),
        ("a=gt.1,b=lt.2", """(r."a" > '1') and (r."b" < '2')"""),
    ],
)
def test_a_filter_is_sql_with_quoted_names_and_values(text, sql):
    assert " and ".join(condition.sql("r") for condition in filters.parse(text)) == sql
