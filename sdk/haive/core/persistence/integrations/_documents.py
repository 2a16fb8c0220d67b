"""LangChain's documents as memories, and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.documents import Document

from haive.core.persistence._encoding import new_id
from haive.core.persistence.errors import InvalidInputError
from haive.core.persistence.integrations._checking import checked_name, listed
from haive.core.persistence.vector._adding import Note, noted
from haive.core.persistence.vector._ids import EPOCH, derived_id
from haive.core.persistence.vector._personal import looked_through
from haive.core.persistence.vector._shelf import checked_text
from haive.core.persistence.vector._talks import GIVEN
from haive.core.persistence.vector.models import DOCUMENT, OURS, Memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from haive.core.persistence.privacy import Redactor

_RESERVED = frozenset({*OURS, DOCUMENT})
# What a document tells of a memory that was no document.
_TOLD = ("kind", "user_id", "conversation_id", "seq", "speaker", "role", "timestamp")


def memory_of(
    text: str,
    metadata: Mapping[str, Any],
    *,
    key: str,
    memory_id: str,
    whose: str | None,
    now: datetime,
    redactor: Redactor | None = None,
) -> Memory:
    """The memory that keeps a document.

    Metadata under names of ours that a caller may give (``user_id``, ``timestamp`` …) mean ours as
    in `VectorMemory.add`; all of it comes back as it was given.

    Args:
        text: Its content.
        metadata: The caller's.
        key: Its id.
        memory_id: That of the memory.
        whose: The user that the vector store is for.
        now: When it is written.
        redactor: What is done with personal data in it.

    Raises:
        InvalidInputError: Something cannot be stored, or it is another user's.
        PersonalDataError: It has what the policy of the store refuses.
    """
    if not isinstance(metadata, dict):
        raise InvalidInputError(f"metadata is a {type(metadata).__name__}, not a mapping.")
    given = metadata.get("user_id")
    if whose is not None and given is not None and given != whose:
        raise InvalidInputError(
            "A document names another user than its vector store is for.",
            hint="Leave user_id out of the metadata, or use a vector store without one.",
        )
    text = checked_text(text)
    if redactor is not None:
        # Not what is ours: users and times are named by it.
        about = {name: value for name, value in metadata.items() if name not in GIVEN}
        text, about = looked_through(text, about, redactor)
        metadata = {n: v for n, v in metadata.items() if n in GIVEN} | about
    own: dict[str, Any] = {}
    if key != memory_id:
        own["id"] = key
    if kept := {name: value for name, value in metadata.items() if name in _RESERVED}:
        own["metadata"] = kept
    rest = {name: value for name, value in metadata.items() if name not in _RESERVED}
    ours = {name: value for name, value in metadata.items() if name in GIVEN}
    note = Note(
        metadata={**rest, **ours, DOCUMENT: own},
        user_id=whose,
        importance=None,
        ttl=None,
        id=memory_id,
    )
    return noted(text, note, now)


def document_of(memory: Memory) -> Document:
    """A memory as a document; of one that was none, with what is telling in its metadata."""
    own = memory.metadata.get(DOCUMENT)
    rest = {name: value for name, value in memory.metadata.items() if name != DOCUMENT}
    if not isinstance(own, dict):
        told = {name: value for name in _TOLD if (value := getattr(memory, name)) is not None}
        return Document(id=memory.id, page_content=memory.text, metadata={**rest, **told})
    kept = own.get("metadata")
    return Document(
        id=key_of(memory),
        page_content=memory.text,
        metadata={**rest, **kept} if isinstance(kept, dict) else rest,
    )


def key_of(memory: Memory) -> str:
    """The id that the caller knows a memory by."""
    own = memory.metadata.get(DOCUMENT)
    key = own.get("id") if isinstance(own, dict) else None
    return key if isinstance(key, str) else memory.id


def keys_of(ids: Iterable[str | None] | None, count: int) -> list[str]:
    """The ids of documents; those that have none are given one.

    Raises:
        InvalidInputError: There are not as many as documents, or one is no text.
    """
    if ids is None:
        return [str(new_id()) for _ in range(count)]
    given = listed(ids, "ids")
    if len(given) != count:
        raise InvalidInputError(f"There are {len(given)} ids for {count} texts.")
    return [
        str(new_id()) if key is None else checked_name(key, "The id of a document") for key in given
    ]


def asked_keys(ids: Sequence[str]) -> list[str]:
    """Ids that are asked for, each once.

    Raises:
        InvalidInputError: One is no text, or they are one text and no list.
    """
    return list(
        dict.fromkeys(checked_name(key, "The id of a document") for key in listed(ids, "ids"))
    )


def is_memory_id(key: str) -> bool:
    """Whether an id can be a memory's: a UUID as Postgres writes it."""
    try:
        return str(UUID(key)) == key
    except ValueError:
        return False


def derived_from(key: str, tenant: str, whose: str | None) -> str:
    """The memory's id for any other id: always the same, and another for each tenant and user."""
    return derived_id(EPOCH, "document", json.dumps([tenant, whose, key]))
