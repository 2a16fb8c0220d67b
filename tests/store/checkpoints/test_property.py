"""Anything that can happen to threads, in any order: every survivor stays exactly what it was."""

from __future__ import annotations

import copy
import random
import time
from dataclasses import dataclass, field
from uuid import UUID

import pytest

from haive.core.persistence.checkpointer import KeyRing, _splices
from haive.core.persistence.errors import BranchConflict, ConflictError, NotFoundError

# Steps of one run, and what they may take together.
STEPS = {"postgres": 220, "supabase": 60}
SECONDS = 20
SEEDS = (4, 5)


@pytest.fixture(autouse=True)
def splices_of_any_state(monkeypatch):
    """What is left to zstd of small states is spliced too, where it is short."""
    monkeypatch.setattr(_splices, "_LEAST_PARENT", 0)


@dataclass
class Saved:
    """A checkpoint as it must be."""

    state: object
    parent: UUID | None
    branch: str
    metadata: dict[str, object]
    tags: list[str]
    failed: bool = False


@dataclass
class Thread:
    """A thread as it must be; `lines` has of each branch all of its history, oldest first."""

    checkpoints: dict[UUID, Saved] = field(default_factory=dict)  # as they were saved
    lines: dict[str, list[UUID]] = field(default_factory=lambda: {"main": []})

    @property
    def heads(self) -> set[UUID]:
        return {line[-1] for line in self.lines.values() if line}

    def remove(self, gone: set[UUID]) -> None:
        for saved in self.checkpoints.values():
            while saved.parent in gone:
                saved.parent = self.checkpoints[saved.parent].parent
        for checkpoint_id in gone:
            del self.checkpoints[checkpoint_id]
        for line in self.lines.values():
            line[:] = [place for place in line if place not in gone]


class Machine:
    """Does random things to threads, and to a model of them in memory."""

    def __init__(self, seed: int, new_checkpointer, key: str | None) -> None:
        self.chance = random.Random(seed)
        self.new = new_checkpointer
        self.keys = [key] if key else []
        self.threads: dict[str, Thread] = {}
        self.done: dict[str, int] = {}
        self.names = 0
        self.reopen()

    def reopen(self, **settings: object) -> None:
        """Go on with a checkpointer that knows nothing."""
        settings = {"cache_bytes": self.chance.choice([0, 3000, 1 << 26]), **settings}
        self.checkpointer = self.new(encryption_key=",".join(self.keys) or None, **settings)

    def name(self, kind: str) -> str:
        self.names += 1
        return f"{kind} {self.names}"

    async def step(self) -> None:
        weights = {
            "save": 30, "save_after": 10, "fork": 5, "lose": 3, "branch": 6, "tag": 4, "fail": 3,
            "prune": 4, "limit": 2, "copy": 2, "delete": 1, "rotate": 2, "restart": 4,
        }  # fmt: skip
        kinds = list(weights) if self.threads else ["save"]
        kind = self.chance.choices(kinds, [weights[kind] for kind in kinds])[0]
        await getattr(self, f"_{kind}")()
        self.done[kind] = self.done.get(kind, 0) + 1

    # -- states ------------------------------------------------------------------------------------

    def state(self, before: object) -> object:
        chance = self.chance
        if not isinstance(before, dict) or chance.random() < 0.05:
            return chance.choice(
                [
                    {"n": 0, "log": [], "text": self.text(2000)},
                    {"log": [self.text(50) for _ in range(50)], "n": 1},
                    {}, None, [1, 2], "text", 0, b"\x00" * 100,
                ]
            )  # fmt: skip
        state = copy.deepcopy(before)
        for _ in range(chance.randrange(3)):
            edit = chance.randrange(5)
            if edit == 0:
                state["n"] = chance.random()
            elif edit == 1:
                log = state.setdefault("log", [])
                log.insert(chance.randrange(len(log) + 1), {"say": self.text(120)})
            elif edit == 2:
                state[chance.choice("abcdefgh")] = self.text(chance.choice([1, 30, 3000]))
            elif edit == 3:
                state["deep"] = {"in": state.get("deep", {}), "set": {1, chance.random()}}
                if chance.random() < 0.2:
                    del state["deep"]
            elif state:
                del state[chance.choice(sorted(state))]
        return state

    def text(self, length: int) -> str:
        return "".join(self.chance.choices("abc def\u00e9\U0001f600", k=length))

    # -- steps -------------------------------------------------------------------------------------

    def pick(self) -> tuple[str, Thread]:
        return self.chance.choice(list(self.threads.items()))

    async def _save_to(self, name: str, branch: str, parent: UUID | None, **how: object) -> None:
        thread = self.threads.setdefault(name, Thread())
        line = thread.lines[branch]
        head = line[-1] if line else None
        state = self.state(thread.checkpoints[head].state if head else None)
        metadata = {"step": self.names, "x": [self.text(3)]}
        saved = await self.checkpointer.save(
            name, state, metadata, ["new"], branch=branch, parent=parent, **how
        )
        thread.checkpoints[saved] = Saved(state, head, branch, metadata, ["new"])
        line.append(saved)

    async def _save(self) -> None:
        if len(self.threads) < 3 and self.chance.random() < 0.2:
            await self._save_to(self.name("thread"), "main", None)
            return
        if not self.threads:
            self.threads[self.name("thread")] = Thread()
        name, thread = self.pick()
        await self._save_to(name, self.chance.choice(list(thread.lines)), None)

    async def _save_after(self) -> None:
        name, thread = self.pick()
        branch = self.chance.choice([b for b, line in thread.lines.items() if line])
        await self._save_to(name, branch, thread.lines[branch][-1])

    async def _fork(self) -> None:
        name, thread = self.pick()
        parent = self.chance.choice(list(thread.checkpoints))
        branch = thread.checkpoints[parent].branch
        if thread.lines[branch][-1] == parent:
            return
        fork = self.name("fork")
        state = self.state(thread.checkpoints[parent].state)
        saved = await self.checkpointer.save(name, state, {"f": 1}, parent=parent, fork=fork)
        line = thread.lines[branch]
        thread.lines[fork] = [*line[: line.index(parent) + 1], saved]
        thread.checkpoints[saved] = Saved(state, parent, fork, {"f": 1}, [])

    async def _lose(self) -> None:
        name, thread = self.pick()
        branch = self.chance.choice(list(thread.lines))
        if len(thread.lines[branch]) < 2:
            return
        with pytest.raises(BranchConflict) as conflict:
            await self.checkpointer.save(
                name, {"lost": 1}, parent=thread.lines[branch][-2], branch=branch
            )
        assert conflict.value.winner == thread.lines[branch][-1]

    async def _branch(self) -> None:
        name, thread = self.pick()
        root = self.chance.choice(list(thread.checkpoints))
        branch = self.name("branch")
        await self.checkpointer.create_branch(root, branch, {"b": branch}, thread_id=name)
        line = thread.lines[thread.checkpoints[root].branch]
        thread.lines[branch] = line[: line.index(root) + 1]

    async def _tag(self) -> None:
        name, thread = self.pick()
        checkpoint_id = self.chance.choice(list(thread.checkpoints))
        tags = thread.checkpoints[checkpoint_id].tags
        if tags and self.chance.random() < 0.4:
            await self.checkpointer.untag(checkpoint_id, tags[0], thread_id=name)
            del tags[0]
        else:
            tags.append(self.name("tag"))
            await self.checkpointer.tag(checkpoint_id, tags[-1], thread_id=name)

    async def _fail(self) -> None:
        name, thread = self.pick()
        checkpoint_id, saved = self.chance.choice(list(thread.checkpoints.items()))
        saved.failed = not saved.failed
        await self.checkpointer.mark_failed(checkpoint_id, failed=saved.failed, thread_id=name)

    async def _prune(self) -> None:
        """Take any away that is no head: retention is but one choice."""
        name, thread = self.pick()
        share = self.chance.random()
        gone = {i for i in thread.checkpoints if self.chance.random() < share} - thread.heads
        removed, _, _ = await self.checkpointer._rewriter.remove(
            name, "", lambda rows, heads, now: gone & {row.id for row in rows} - heads
        )
        assert removed == len(gone)
        thread.remove(gone)

    async def _limit(self) -> None:
        name, thread = self.pick()
        most = self.chance.randint(1, 10)
        pruner = self.new(
            encryption_key=",".join(self.keys) or None, max_checkpoints_per_thread=most
        )
        counted = [i for i, saved in thread.checkpoints.items() if not saved.failed][::-1]
        gone = set(counted[most:]) - thread.heads
        assert (await pruner.prune(name)).removed == len(gone)
        thread.remove(gone)
        if self.chance.random() < 0.5:  # else one goes on that has pruned states at hand
            self.reopen()

    async def _copy(self) -> None:
        if len(self.threads) > 4:
            return
        name, thread = self.pick()
        other = self.name("copy")
        assert await self.checkpointer.copy_thread(name, other) == len(thread.checkpoints)
        with pytest.raises(ConflictError):
            await self.checkpointer.copy_thread(name, other)
        self.threads[other] = copy.deepcopy(thread)

    async def _delete(self) -> None:
        if len(self.threads) < 2:
            return
        name, thread = self.pick()
        assert await self.checkpointer.delete_thread(name) == len(thread.checkpoints)
        del self.threads[name]
        with pytest.raises(NotFoundError):
            await self.checkpointer.recover(name)

    async def _rotate(self) -> None:
        if not self.keys:
            return
        self.keys = [KeyRing.generate(), *self.keys]
        self.reopen()
        if self.chance.random() < 0.7:
            await self.checkpointer.rotate_keys()
            self.keys = self.keys[:1]
            self.reopen()

    async def _restart(self) -> None:
        self.reopen()

    # -- what must be ------------------------------------------------------------------------------

    async def check(self) -> None:
        """Compare one thread, of every branch and state, with the model."""
        if not self.threads:
            return
        name, thread = self.pick()
        reader = self.new(encryption_key=",".join(self.keys) or None)
        everything = {"include_failed": True, "include_state": True, "limit": 1000}
        history = await reader.get_history(name, **everything)
        assert [row.id for row in history] == list(thread.checkpoints)[::-1]
        for row in history:
            saved = thread.checkpoints[row.id]
            assert row.state == saved.state
            metadata = {k: v for k, v in row.metadata.items() if k != "parent_checkpoint"}
            assert (row.parent_id, row.branch, metadata, list(row.tags), row.failed) == (
                saved.parent, saved.branch, saved.metadata, saved.tags, saved.failed,
            )  # fmt: skip
        branches = await reader.list_branches(name)
        assert {b.name: b.head_id for b in branches} == {
            branch: line[-1] if line else None for branch, line in thread.lines.items()
        }
        for branch, line in thread.lines.items():
            rows = await reader.get_history(
                name, branch=branch, include_failed=True, include_metadata=False, limit=1000
            )
            assert [row.id for row in reversed(rows)] == line
        if thread.checkpoints:
            checkpoint_id = self.chance.choice(list(thread.checkpoints))
            restored = await self.checkpointer.restore(checkpoint_id, thread_id=name)
            assert restored == thread.checkpoints[checkpoint_id].state


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_every_survivor_restores_exactly_and_every_line_is_one(
    new_checkpointer, key, transport, seed
):
    machine = Machine(seed, new_checkpointer, key)
    ends = time.monotonic() + SECONDS / 2
    for _ in range(STEPS[transport]):
        await machine.step()
        await machine.check()
        if time.monotonic() > ends:
            break
    assert sum(machine.done.values()) >= 40
    if transport == "postgres" and time.monotonic() < ends:
        missing = {"save", "fork", "lose", "branch", "prune", "limit", "copy"} - machine.done.keys()
        assert not missing
    for name in list(machine.threads):
        machine.pick = lambda name=name: (name, machine.threads[name])
        await machine.check()
