"""The command `haive`."""

from __future__ import annotations


def main() -> None:
    """Run the command line; what the script `haive` calls."""
    from haive.core.persistence.cli.app import app  # noqa: PLC0415 - completion starts sooner

    app()


__all__ = ["main"]
