"""Libraries and settings that a backend needs, named where they are missing."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from haive.core.persistence.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import SecretStr


def library(module: str, extra: str) -> Any:
    """A module of an extra, which is imported at the first use.

    Raises:
        ConfigurationError: The extra is not installed.
    """
    try:
        import_module("snowballstemmer")
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is not installed.",
            hint=f"Run: pip install 'haive-persistence[{extra}]'",
        ) from None


def setting(given: SecretStr | str | None, name: str, variable: str) -> str:
    """A setting, or what the environment has for it.

    Raises:
        ConfigurationError: Neither is there.
    """
    found = optional(given, variable)
    if found is None:
        raise ConfigurationError(f"{name} is missing.", hint=f"Pass {name}, or set {variable}.")
    return found


def optional(given: SecretStr | str | None, variable: str) -> str | None:
    """A setting, or what the environment has for it, or None."""
    value = given if given is None or isinstance(given, str) else given.get_secret_value()
    return value or os.environ.get(variable) or None
