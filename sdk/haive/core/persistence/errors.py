"""Every error that this package raises."""

from __future__ import annotations


class PersistenceError(Exception):
    """The operation failed."""


class LocalStackError(PersistenceError):
    """The local stack could not be started or has stopped."""


class PartUnavailableError(LocalStackError):
    """A part of the local stack cannot run on this machine."""
