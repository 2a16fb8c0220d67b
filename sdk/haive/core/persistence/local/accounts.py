"""The operating-system account that the stack's programs run under."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from pathlib import Path

_NOBODY = 65534


class Credentials(TypedDict, total=False):
    """The keyword arguments with which a child process takes on an account."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Account:
    """An account, and whether a child has to switch to it.

    Postgres refuses to run as root, so under root everything but the supervisor runs as
    `nobody`: an account that every machine has, so none is made.
    """

    uid: int
    gid: int
    switches: bool

    @classmethod
    def for_services(cls) -> Account:
        """Return the account for the stack's programs: this user, or `nobody` for root."""
        if os.geteuid() != 0:
            return cls(uid=os.geteuid(), gid=os.getegid(), switches=False)
        try:
            entry = pwd.getpwnam("nobody")
        except KeyError:
            return cls(uid=_NOBODY, gid=_NOBODY, switches=True)
        return cls(uid=entry.pw_uid, gid=entry.pw_gid, switches=True)

    def credentials(self) -> Credentials:
        """Return the arguments that make a child process run under this account."""
        if not self.switches:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def take(self, path: Path) -> None:
        """Give one file or directory to this account."""
        if self.switches:
            os.chown(path, self.uid, self.gid)

    def take_tree(self, root: Path) -> None:
        """Give a directory and all it holds to this account."""
        if not self.switches:
            return
        for folder, _, files in os.walk(root):
            os.chown(folder, self.uid, self.gid)
            for file in files:
                os.chown(os.path.join(folder, file), self.uid, self.gid)  # noqa: PTH118 - a hot loop

    def reaches(self, path: Path) -> bool:
        """Tell whether this account may read (and enter or execute) a path."""
        if not self.switches:
            return os.access(path, os.R_OK)
        try:
            resolved = path.resolve(strict=True)
            execute = resolved.is_dir() or bool(resolved.stat().st_mode & stat.S_IXUSR)
            return self._has(resolved, 0o5 if execute else 0o4) and all(
                self._has(parent, 0o1) for parent in resolved.parents
            )
        except FileNotFoundError:
            return False

    def _has(self, path: Path, wanted: int) -> bool:
        status = path.stat()
        if status.st_uid == self.uid:
            granted = status.st_mode >> 6
        elif status.st_gid == self.gid:
            granted = status.st_mode >> 3
        else:
            granted = status.st_mode
        return granted & wanted == wanted
