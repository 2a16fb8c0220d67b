"""The names by which collections know LangChain's models of vectors."""

from __future__ import annotations

import inspect
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.embeddings import Embeddings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# What names a model: attributes of the classes of LangChain's partners, and what functions carry.
_MODEL = ("model", "model_name", "model_id", "deployment_name", "repo_id")
# The class of all functions, and once the name of what they made.
_FUNCTIONS = "EmbeddingsLambda"
_MAIN = "__main__"
# A collection records up to 200 characters, and the width is among them.
_LONGEST = 190


def name_of(embeddings: Embeddings) -> str:
    """What makes the vectors, by its class and the model that it names.

    What only keeps the vectors of another one (``CacheBackedEmbeddings``) has that one's name, and
    what only calls a function (LangGraph's ``EmbeddingsLambda``) the function's.
    """
    behind = getattr(embeddings, "underlying_embeddings", None)
    if isinstance(behind, Embeddings):
        return name_of(behind)
    if (function := _function_of(embeddings)) is not None:
        return _name_of_function(function)
    return _named(type(embeddings).__name__, _attributes(embeddings))


def former_names(embeddings: Embeddings) -> list[str]:
    """The names that versions before gave to a function, none to all else."""
    function = _function_of(embeddings)
    if function is None:
        return []
    named = function if hasattr(function, "__qualname__") else type(function)
    # The last is of a script, whose functions are those of a module where that is imported.
    modules = (named.__module__, _MAIN)
    names = [f"{module}.{named.__qualname__}"[:_LONGEST] for module in modules]
    return [*dict.fromkeys(names), _FUNCTIONS]


def _function_of(embeddings: Embeddings) -> Any:
    """The function that LangGraph's ``EmbeddingsLambda`` calls; None of all others."""
    if type(embeddings).__name__ != _FUNCTIONS:
        return None
    return getattr(embeddings, "afunc", None) or getattr(embeddings, "func", None)


def _name_of_function(function: Any) -> str:
    """A function by its module, its own name, and the model that it carries."""
    carried: dict[str, Any] = {}
    while isinstance(function, partial):
        carried = _arguments(function) | carried
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    carried = (
        _attributes(getattr(function, "__self__", function)) | _closed_over(function) | carried
    )
    return _named(f"{_module_of(named)}.{named.__qualname__}", carried)


def _named(own: str, carried: Mapping[str, Any]) -> str:
    given = (carried.get(name) for name in _MODEL)
    model = next((value for value in given if isinstance(value, str) and value), None)
    return (f"{own}:{model}" if model else own)[:_LONGEST]


def _module_of(named: Any) -> str:
    """A module by the name that it is imported by, also where it is what was started."""
    if named.__module__ not in {_MAIN, "__mp_main__"}:
        return str(named.__module__)
    main = sys.modules[_MAIN]
    if (spec := getattr(main, "__spec__", None)) is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else _MAIN


def _attributes(of: object) -> dict[str, Any]:
    return {name: value for name in _MODEL if (value := getattr(of, name, None)) is not None}


def _arguments(call: partial[Any]) -> dict[str, Any]:
    """What a partial passes on, by the names of the parameters."""
    try:
        bound = inspect.signature(call.func).bind_partial(*call.args, **call.keywords)
    except (TypeError, ValueError):  # of what has no signature
        return call.keywords
    # What goes into its ``**options`` is bound under that name.
    return {**bound.arguments, **call.keywords}


def _closed_over(function: Any) -> dict[str, Any]:
    """The variables of other functions that a function made within them refers to."""
    function = getattr(function, "__func__", function)
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    return dict(_filled(names, getattr(function, "__closure__", None) or ()))


def _filled(names: tuple[str, ...], cells: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(names, cells, strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # it is not assigned yet
            continue
