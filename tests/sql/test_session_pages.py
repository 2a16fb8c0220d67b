"""A session's page has each message as a conversation's page has it."""

from __future__ import annotations

import json
from uuid import UUID

_ID = UUID(int=7)
_MESSAGES = [
    {"role": "user", "content": "in words", "metadata": {"a": [1, None]}},
    {
        "role": "assistant",
        "content": "in parts",
        "parts": [{"type": "text", "text": "in parts"}],
    },
    {
        "role": "assistant",
        "content": "counted",
        "input_tokens": 3,
        "output_tokens": 4,
        "model": "m",
        "cost": "0.0195",
    },
    {"role": "assistant", "content": "free", "input_tokens": 0, "output_tokens": 0},
]


async def test_a_message_is_the_same_in_both_kinds_of_pages(postgres):
    session = {"id": str(_ID), "agent_id": "a", "user_id": "ada"}
    await postgres.fetchval("select haive.create_session($1)", json.dumps(session))
    await postgres.fetchval(
        "select haive.add_session_messages($1, $2, 'ada')", _ID, json.dumps(_MESSAGES)
    )
    plain = json.loads(await postgres.fetchval("select haive.get_messages($1)", _ID))
    placed = json.loads(await postgres.fetchval("select haive.session_messages($1)", _ID))
    assert len(plain) == len(_MESSAGES)
    assert isinstance(plain[1]["content"], list)
    assert [one["token_usage"] is None for one in plain] == [True, True, False, False]
    own = [{"index": n, "author": "ada", "hidden": False} for n in range(1, len(plain) + 1)]
    assert placed == [{**message, **more} for message, more in zip(plain, own, strict=True)]
