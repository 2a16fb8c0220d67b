"""From what the database answers to models."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from haive.core.persistence._encoding import describe
from haive.core.persistence.errors import DatabaseError, KeyMissingError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


def decode(returns: TypeAdapter[T], answer: object) -> T:
    """The model in an answer: JSON text, or what JSON text was decoded to.

    Raises:
        DatabaseError: It is something else. The error says where, and not what.
        KeyMissingError: It is sealed, and the store has no keys.
    """
    try:
        if isinstance(answer, str) and answer:
            return returns.validate_json(answer)
        return returns.validate_python(answer)
    except ValidationError as error:
        # What is sealed is an object with the id of its key, where there would be text.
        if any(_is_sealed(problem["input"]) for problem in error.errors(include_url=False)):
            raise KeyMissingError from None
        raise DatabaseError(
            f"The answer of the database cannot be read: {describe(error)}."
        ) from None


def _is_sealed(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {"sealed", "sealed_with"}
