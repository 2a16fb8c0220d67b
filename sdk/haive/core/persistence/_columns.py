"""Conversations and messages from rows of ``haive_private.stored_columns``.

What is in the tables was checked by the types of their columns: models are made of it as it is, in
two thirds of the time that pydantic takes for JSON.
"""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from itertools import accumulate, chain, repeat
from operator import add
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json

from haive.core.persistence._encoding import describe
from haive.core.persistence._rows import PARTS, ROLES
from haive.core.persistence.errors import DatabaseError, KeyMissingError
from haive.core.persistence.models import (
    MOST_TOKENS,
    Conversation,
    ConversationMetadata,
    Message,
    Page,
    TokenUsage,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from haive.core.persistence.models import ContentPart

    #: A record of asyncpg.
    Row = Mapping[str, Any]

M = TypeVar("M", bound=BaseModel)

_IDS = TypeAdapter(list[UUID])
_NO_PRICE = (None, None)

# The slots of an instance are set all at once: a half of the time of object.__setattr__ for each.
_new: Any = object.__new__
_set_dict, _set_fields, _set_extra, _set_private = (
    BaseModel.__dict__[slot].__set__
    for slot in (
        "__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__",
    )
)  # fmt: skip
# What is set of each is all of it: models that do not change share what says so.
_FIELDS: dict[type[BaseModel], set[str]] = {
    kind: set(kind.model_fields)
    for kind in (Conversation, ConversationMetadata, Message, TokenUsage)
}


def page_of(rows: Sequence[Row], *, with_messages: bool) -> Page:
    """The conversations of rows, and where the next page begins; see `conversations_of`."""
    following = (row["next_page"] for row in rows if row["place"] is not None)
    return Page(
        conversations_of(rows, with_messages=with_messages), next_page=next(following, None)
    )


def conversations_of(rows: Sequence[Row], *, with_messages: bool) -> list[Conversation]:
    """The conversations of rows in their order, with the messages if those were asked for.

    Raises:
        DatabaseError: Something in them is none of ours.
        KeyMissingError: Something is sealed, and the store has no keys.
    """
    found = sorted((row for row in rows if row["place"] is not None), key=_place)
    if any(row["is_sealed"] for row in found):
        raise KeyMissingError
    said: dict[UUID, list[Message]] = {}
    if with_messages:
        others = [row for row in rows if row["place"] is None]
        ids = [row["conversation_id"] for row in others]
        said = dict(zip(ids, messages_of(others), strict=True))
    metadata = _models(
        ConversationMetadata,
        [
            {
                "title": row["title"],
                "tags": row["tags"],
                "context": _object(row["context"]),
                "participants": row["participants"],
                "settings": _object(row["settings"]),
            }
            for row in found
        ],
    )
    return _models(
        Conversation,
        [
            {
                "id": UUID(int=row["conversation_id"].int),
                "tenant_id": row["tenant_id"],
                "agent_id": row["agent_id"],
                "user_id": row["user_id"],
                "metadata": known,
                "message_count": row["message_count"],
                "input_tokens": row["input_tokens"],
                "output_tokens": row["output_tokens"],
                "cost": Decimal(row["cost"]),
                "created_at": row["created_at"],
                "updated_at": row["updated_at"],
                "last_message_at": row["last_message_at"],
                "messages": said.get(row["conversation_id"]),
            }
            for row, known in zip(found, metadata, strict=True)
        ],
    )


def messages_of(rows: Sequence[Row]) -> list[list[Message]]:
    """The messages of each row, in their order; made of all rows at once, which takes less.

    Raises:
        DatabaseError: Something in them is none of ours.
        KeyMissingError: One is sealed, and the store has no keys.
    """
    if any(row["is_sealed"] for row in rows):
        raise KeyMissingError
    try:
        roles = [ROLES[role] for role in _joined(rows, "roles")]
    except KeyError:
        raise DatabaseError("The answer of the database cannot be read: a role.") from None
    sizes = [len(row["seqs"] or ()) for row in rows]
    contents: list[Any] = _joined(rows, "contents")
    metadata: list[dict[str, Any]] = [{} for _ in roles]
    usages: list[TokenUsage | None] = [None] * len(roles)
    # What only some messages have comes with the seqs of those.
    for into, named, values in (
        (contents, "parted", map(_parts, _joined(rows, "parts"))),
        (metadata, "described", map(from_json, _joined(rows, "metadata"))),
        (usages, "metered", _usages(rows)),
    ):
        for place, value in zip(_places(rows, named), values, strict=True):
            into[place] = value
    conversation_ids = chain.from_iterable(
        repeat(UUID(int=row["conversation_id"].int), size)
        for row, size in zip(rows, sizes, strict=True)
    )
    messages = _models(
        Message,
        [
            {
                "id": message_id,
                "conversation_id": conversation_id,
                "seq": seq,
                "role": role,
                "content": content,
                "metadata": details,
                "token_usage": usage,
                "created_at": created_at,
            }
            for message_id, conversation_id, seq, role, content, details, usage, created_at in zip(
                _uuids(b"".join(row["ids"] or b"" for row in rows)),
                conversation_ids,
                _joined(rows, "seqs"),
                roles,
                contents,
                metadata,
                usages,
                _joined(rows, "times"),
                strict=True,
            )
        ],
    )
    ends = [*accumulate(sizes)]
    return [messages[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def _usages(rows: Sequence[Row]) -> list[TokenUsage]:
    """What the messages that are metered took, in their order."""
    inputs, outputs = _joined(rows, "inputs"), _joined(rows, "outputs")
    totals = [*map(add, inputs, outputs)]
    if max(totals, default=0) > MOST_TOKENS:
        raise DatabaseError("The answer of the database cannot be read: total_tokens.")
    priced = zip(_joined(rows, "models"), _joined(rows, "costs"), strict=True)
    prices = dict(zip(_places(rows, "priced"), priced, strict=True))
    return _models(
        TokenUsage,
        [
            {
                "input_tokens": read,
                "output_tokens": written,
                "total_tokens": total,
                "model": model,
                "cost": cost and Decimal(cost),
            }
            for read, written, total, (model, cost) in zip(
                inputs,
                outputs,
                totals,
                [prices.get(place, _NO_PRICE) for place in _places(rows, "metered")],
                strict=True,
            )
        ],
    )


def _joined(rows: Sequence[Row], name: str) -> list[Any]:
    """A column of all rows."""
    return [*chain.from_iterable(row[name] or () for row in rows)]


def _places(rows: Sequence[Row], name: str) -> list[int]:
    """Where in the columns of all rows the messages are that a column names by seq."""
    places: list[int] = []
    start = 0
    for row in rows:
        seqs = row["seqs"] or ()
        if named := row[name]:
            where = {seq: place for place, seq in enumerate(seqs, start)}
            places += [where[seq] for seq in named]
        start += len(seqs)
    return places


def _models(kind: type[M], values: Sequence[dict[str, Any]]) -> list[M]:
    """Models of values that are as the fields say."""
    models: list[M] = [*map(_new, repeat(kind, len(values)))]
    for done in (
        map(_set_dict, models, values),
        map(_set_fields, models, repeat(_FIELDS[kind])),
        map(_set_extra, models, repeat(None)),
        map(_set_private, models, repeat(None)),
    ):
        deque(done, maxlen=0)
    return models


def _uuids(ids: bytes) -> list[UUID]:
    # From their bytes, for a driver's UUIDs are of a class of its own, and take as long again.
    return _IDS.validate_python([ids[at : at + 16] for at in range(0, len(ids), 16)])


def _parts(text: str) -> list[ContentPart]:
    try:
        return PARTS.validate_json(text)
    except ValidationError as error:
        raise DatabaseError(
            f"The answer of the database cannot be read: {describe(error)}."
        ) from None


def _object(text: str) -> dict[str, Any]:
    value: dict[str, Any] = {} if text == "{}" else from_json(text)
    return value


def _place(row: Row) -> int:
    place: int = row["place"]
    return place
