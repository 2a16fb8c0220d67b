"""What a row may hold, whoever writes it."""

from __future__ import annotations

import json
from decimal import Decimal

import asyncpg
import pytest

_MIB = 2**20

_CONVERSATIONS = {
    "agent_id": (["a", "a" * 200], ["", "a" * 201]),
    "user_id": (["u" * 200], ["", "u" * 201]),
    "title": (["", "t" * 1000], ["t" * 1001]),
    "tags": ([["t"] * 1000], [["t"] * 1001, [None], ["t" * 200_001]]),
    "participants": ([["p"] * 1000], [["p"] * 1001, [None]]),
    "context": ([{}, {"a": [1]}], [[], "text", {"a": "x" * _MIB}]),
    "settings": ([{"a": None}], [[], 1]),
}
_MESSAGES = {
    "role": (["system", "user", "assistant", "tool"], ["", "User", "developer"]),
    "content": (["", "x" * (8 * _MIB)], ["x" * (8 * _MIB + 1), "ä" * (4 * _MIB + 1)]),
    "parts": (
        ["[]", '[{"type": "text", "text": ""}]', '[{"type": "image", "url": "x", "more": 1}]'],
        ["{}", '"text"', "[5]", "[null]", '[{"type": "text"}]', '[{"type": "image_url"}]'],
    ),
    "metadata": (["{}"], ["[]", "1", json.dumps({"a": "x" * _MIB})]),
    "model": (["m" * 200], ["", "m" * 201]),
    "cost": (
        [Decimal(0), Decimal("0.000000000001"), Decimal("999999999999.999999999999")],
        [Decimal("-0.1"), Decimal("1e12"), Decimal("0.0000000000001"), Decimal("NaN")],
    ),
    "input_tokens": ([0, 2**31 - 1], [-1]),
}


def _cases(bounds):
    return [
        pytest.param(column, value, fits, id=f"{column}-{'fits' if fits else 'not'}-{number}")
        for column, (good, bad) in bounds.items()
        for fits, values in ((True, good), (False, bad))
        for number, value in enumerate(values)
    ]


async def _expect(writing, *, fits):
    try:
        await writing
    except asyncpg.CheckViolationError:
        assert not fits
    else:
        assert fits


@pytest.mark.parametrize(("column", "value", "fits"), _cases(_CONVERSATIONS))
async def test_the_bounds_of_a_conversation(writer, column, value, fits):
    await _expect(writer.conversation(**{column: value}), fits=fits)


@pytest.mark.parametrize(("column", "value", "fits"), _cases(_MESSAGES))
async def test_the_bounds_of_a_message(writer, message, broken, column, value, fits):
    usage = {"output_tokens": 1} if column == "input_tokens" else {}
    one = message(await writer.conversation(), **{column: value}, **usage)
    await _expect(writer.one(one), fits=fits)
    await _expect(writer.many([one]), fits=fits)
    assert await broken() == {}


@pytest.mark.parametrize("tokens", [{"input_tokens": 1}, {"output_tokens": 1}])
async def test_usage_is_given_whole_or_not_at_all(writer, message, tokens):
    one = message(await writer.conversation(), **tokens)
    await _expect(writer.one(one), fits=False)
    await _expect(writer.many([one]), fits=False)


async def test_one_bad_message_writes_none_of_its_batch(writer, message, postgres, broken):
    conversation = await writer.conversation()
    batch = [message(conversation), message(conversation, role="nobody")]
    await _expect(writer.many(batch), fits=False)
    assert await postgres.fetchval("select count(*) from haive.messages") == 0
    assert await broken() == {}
