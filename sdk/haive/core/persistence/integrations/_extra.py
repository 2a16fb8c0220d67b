"""Names the extra that brings a library, where the library is missing."""

from __future__ import annotations


def missing(error: ModuleNotFoundError, extra: str) -> ModuleNotFoundError:
    """The same error, which says what to install.

    Args:
        error: What an import raised.
        extra: The extra of this package that brings what was imported.
    """
    library = (error.name or extra).partition(".")[0]
    return ModuleNotFoundError(
        f"{library} is not installed. Run: pip install 'haive-persistence[{extra}]'",
        name=error.name,
        path=error.path,
    )
