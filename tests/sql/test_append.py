"""One by one or as arrays: the same messages make the same rows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_CONVERSATIONS = [UUID(int=number) for number in (1, 2, 3)]
_UNKNOWN = UUID(int=9)

_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=6,
)
_tokens = st.none() | st.tuples(st.integers(0, 2**30), st.integers(0, 2**30))
_drafts = st.fixed_dictionaries(
    {
        "place": st.sampled_from([*_CONVERSATIONS, _UNKNOWN]),
        "number": st.integers(1, 6),
        "role": st.sampled_from(["system", "user", "assistant", "tool"]),
        "content": _text,
        "parts": st.none()
        | st.lists(_json.map(lambda x: {"type": "text", "text": "", "x": x}), max_size=3).map(
            json.dumps
        ),
        "metadata": st.none() | st.dictionaries(_text, _json, max_size=3).map(json.dumps),
        "tokens": _tokens,
        "model": st.none() | st.text("ab/-", min_size=1, max_size=9),
        "cost": st.none() | st.decimals(0, 10**6, allow_nan=False, places=6),
        "created_at": st.none() | st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1)),  # noqa: DTZ001 - made aware below
    }
)

_ROWS = """
    select conversation_id, seq, id, role, content, parts, metadata, input_tokens, output_tokens,
      model, cost, nullif(created_at, now()) as created_at
    from haive.messages order by conversation_id, seq"""
_COUNTERS = """
    select id, message_count, input_tokens, output_tokens, cost,
      nullif(last_message_at, now()) as last_message_at
    from haive.conversations order by id"""


def _message(message, draft):
    place, number, tokens = (draft.pop(name) for name in ("place", "number", "tokens"))
    made = draft.pop("created_at")
    return message(
        place,
        # Numbers recur, and so do ids; those of the unknown conversation are its own.
        UUID(int=number + (100 if place == _UNKNOWN else 0)),
        **draft,
        input_tokens=tokens and tokens[0],
        output_tokens=tokens and tokens[1],
        created_at=made and made.replace(tzinfo=UTC),
    )


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(drafts=st.lists(_drafts, min_size=1, max_size=8))
async def test_one_by_one_equals_as_arrays(postgres, message, writer_of, broken, drafts):
    messages = [_message(message, dict(draft)) for draft in drafts]
    writer = writer_of(postgres)

    async def after(write):
        transaction = postgres.transaction()
        await transaction.start()
        try:
            documents = [{"id": str(id), "agent_id": "a"} for id in _CONVERSATIONS]  # noqa: A001
            await postgres.fetchval("select haive.create_conversations($1)", json.dumps(documents))
            answers = [(seq, failure) for seq, _, failure in await write()]
            assert await broken() == {}
            return answers, await postgres.fetch(_ROWS), await postgres.fetch(_COUNTERS)
        finally:
            await transaction.rollback()

    async def one_by_one():
        return [await writer.one(message) for message in messages]

    async def as_arrays():
        return await writer.many(messages)

    assert await after(one_by_one) == await after(as_arrays)
