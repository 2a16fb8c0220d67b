"""JSON paths: how a place in a state is written and found.

A path is ``$.plan.steps[3].name``, with keys that are no identifiers in quotes: ``$["a key"]``.
Where people write paths, the ``$.`` may be left out.
"""

from __future__ import annotations

import json
import re

from haive.core.persistence.checkpointer._text import quoted
from haive.core.persistence.errors import InvalidInputError

_STEP = re.compile(
    r"""\[(?P<index>[0-9]{1,15})\]
      | \[(?P<double>"(?:[^"\\]|\\.)*")\]
      | \['(?P<single>(?:[^'\\]|\\.)*)'\]
      | (?P<dot>\.?)(?P<key>[^.\[\]"']+)""",
    re.VERBOSE | re.DOTALL,
)


def child(path: str, key: str | int) -> str:
    """The path of an item of a list or of a value of a mapping, given the container's path."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if key.isidentifier() else f"{path}[{quoted(key)}]"


def join(path: str, further: str) -> str:
    """A path and a further one from there, as paths are stored: ``join("$", "a.b")`` is ``$.a.b``.

    Raises:
        InvalidInputError: The further one is no path.
    """
    for step in parse(further):
        path = child(path, step)
    return path


def parse(path: str) -> tuple[str | int, ...]:
    """The steps of a path: text for keys, numbers for indexes.

    Raises:
        InvalidInputError: It is no path.
    """
    position = 1 if path == "$" or path.startswith(("$.", "$[")) else 0
    steps: list[str | int] = []
    while position < len(path):
        step = _STEP.match(path, position)
        # Only the first key of all stands without a dot.
        if step is None or (step["key"] and bool(step["dot"]) == (position == 0)):
            break
        position = step.end()
        if step["index"]:
            steps.append(int(step["index"]))
        elif step["key"]:
            steps.append(step["key"])
        else:
            try:
                steps.append(_unquoted(step["double"], step["single"]))
            except ValueError:
                break
    else:
        if path:
            return tuple(steps)
    raise InvalidInputError(
        f"{quoted(path[:80])} is no path.", hint='Write $.plan.steps[0].name or $["a key"].'
    )


def _unquoted(double: str | None, single: str | None) -> str:
    if double is None:
        other = {"\\'": "'", '"': '\\"'}
        inside = re.sub(r'\\.|"', lambda found: other.get(found[0], found[0]), single or "")
        double = f'"{inside}"'
    text: str = json.loads(double, strict=False)
    return text


def lookup(tree: object, path: str, default: object = None) -> object:
    """What is at a path of a tree, ``default`` if there is nothing.

    Raises:
        InvalidInputError: It is no path.
    """
    for step in parse(path):
        if isinstance(step, str):
            if not isinstance(tree, dict) or step not in tree:
                return default
            tree = tree[step]
        else:
            if not isinstance(tree, list) or step >= len(tree):
                return default
            tree = tree[step]
    return tree
