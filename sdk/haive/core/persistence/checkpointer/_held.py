"""Objects as plain data for as long as an upcaster has them, and as objects again."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from haive.core.persistence.checkpointer._schemas import mismatch, path_of, problems_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Steps = list[str | int]


class Held(dict[str, Any]):
    """The fields of an object of an allowed class, which is not made yet.

    A dict as any other: who changes it changes the object, and who copies it has plain data.

    Args:
        fields: By their names.
        make: Makes the object of fields; it is told whether they are those that were stored.
    """

    __slots__ = ("make", "stored")

    def __init__(self, fields: Mapping[str, Any], make: Callable[..., object]) -> None:
        super().__init__(fields)
        self.make = make
        self.stored = dict(fields)

    def with_fields(self, fields: Mapping[str, Any]) -> Held:
        """The same object with other fields."""
        other = Held(fields, self.make)
        other.stored = self.stored
        return other

    def is_unchanged(self) -> bool:
        """Whether the fields are those that were stored."""
        same = (item is self.get(name, ...) for name, item in self.stored.items())
        return len(self) == len(self.stored) and all(same)


class HeldItems(list[Any]):
    """What has objects that are held as members of a set or keys of a dict, which cannot be hashed.

    Args:
        items: The members, or pairs.
        make: Makes the set or dict of them.
    """

    __slots__ = ("make",)

    def __init__(self, items: Iterable[Any], make: Callable[[list[Any]], object]) -> None:
        super().__init__(items)
        self.make = make


def completed(tree: object, *, leave: bool = False) -> Any:
    """A tree with the objects that are held in it, in their places.

    Args:
        tree: Any; dicts and lists are changed in place.
        leave: What does not fit its class any more stays plain data.

    Raises:
        StateMismatchError: It does not fit; ``paths`` says where.
    """
    return _completed(tree, [], leave=leave)


def _completed(value: object, steps: Steps, *, leave: bool) -> Any:
    kind = type(value)
    if kind is Held or kind is dict:
        return _mapping(value, steps, leave=leave)  # type: ignore[arg-type]
    if kind is list or kind is tuple or kind is deque or kind is HeldItems:
        return _sequence(value, steps, leave=leave)
    return value


def _mapping(value: dict[Any, Any], steps: Steps, *, leave: bool) -> object:
    unchanged = isinstance(value, Held) and value.is_unchanged()
    for key, item in value.items():
        steps.append(key if isinstance(key, str) else str(key))
        made = _completed(item, steps, leave=leave)
        steps.pop()
        if made is not item:
            value[key] = made
    if isinstance(value, Held):
        return _made(value, steps, unchanged=unchanged, leave=leave)
    return value


def _sequence(value: Any, steps: Steps, *, leave: bool) -> object:
    changed = {}
    for place, item in enumerate(value):
        steps.append(place)
        made = _completed(item, steps, leave=leave)
        steps.pop()
        if made is not item:
            changed[place] = made
    if changed and type(value) is tuple:
        return tuple(changed.get(place, item) for place, item in enumerate(value))
    for place, made in changed.items():
        value[place] = made
    if isinstance(value, HeldItems):
        try:
            return value.make(value)
        except TypeError:  # of a class that is not allowed, there are dicts
            return list(value)
    return value


def _made(held: Held, steps: Steps, *, unchanged: bool, leave: bool) -> object:
    fields = dict(held)
    try:
        return held.make(fields, unchanged=unchanged)
    except ValidationError as error:
        problems = problems_of(error, steps)
    except Exception:  # noqa: BLE001 - constructors are anybody's code
        problems = {path_of(steps): "class"}
    if leave:
        return fields
    raise mismatch(problems)
