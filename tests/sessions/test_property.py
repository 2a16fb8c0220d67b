"""Anything that can happen to sessions, in any order: each has what a list in memory has."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haive.core.persistence.embedding import HashingEmbedder
from haive.core.persistence.errors import (
    ConflictError,
    InvalidInputError,
    PersistenceError,
    SessionClosedError,
)
from haive.core.persistence.models import Message
from haive.core.persistence.session import (
    ConflictResolution,
    MergeStrategy,
    MessageRef,
    SessionManager,
)
from haive.core.persistence.session._merging import plan_merge

# Of the long run, in worlds of sessions that know nothing of each other.
OPERATIONS, WORLDS = 10_000, 20
# A merge of more after the common beginning is left to other tests.
LONGEST_TAIL = 120
WORDS = ("book", "table", "four", "five", "people", "seven", "Rome", "Paris", "cheap", "not")
WEIGHTS = {
    "write": 50, "write_many": 4, "create": 3, "branch": 8, "merge": 6, "undo": 6, "hide": 4,
    "show": 2, "close": 2, "resume": 6, "expire": 3, "sweep": 1, "go_on": 1,
}  # fmt: skip


class Said:
    """A message, which several sessions may have."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.text = message.text
        self.hidden = False


@dataclass
class Merged:
    """A merge into a session: what that had before, and how much of its own."""

    id: UUID
    secondary: Model
    before: list[Said]
    own: int
    secondary_status: str
    summary: Said | None = None
    undone: bool = False


@dataclass(eq=False)
class Model:
    """A session as it must be."""

    id: UUID
    line: list[Said]
    max_messages: int | None
    ttl: int | None
    own: list[Said] = field(default_factory=list)
    status: str = "open"
    merges: list[Merged] = field(default_factory=list)
    branched: bool = False
    successor: Model | None = None

    def visible(self) -> list[tuple[int, str]]:
        return [(n, said.text) for n, said in enumerate(self.line, 1) if not said.hidden]

    def add(self, said: Said) -> None:
        self.own.append(said)
        self.line.append(said)


class World:
    """Does random things to sessions, and to lists in memory."""

    def __init__(
        self, chance: random.Random, manager: SessionManager, owner, tenant: str, rarely: int
    ) -> None:
        self.chance = chance
        self.manager = manager
        self.owner = owner
        self.tenant = tenant
        self.rarely = rarely  # one operation of so many is followed by a check through the SDK
        self.sessions: list[Model] = []
        self.embedder = HashingEmbedder()
        self.done: Counter[str] = Counter()

    async def step(self) -> None:
        kinds = list(WEIGHTS) if self.sessions else ["create"]
        kind = self.chance.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
        touched = await getattr(self, f"_{kind}")()
        if touched:
            self.done[kind] += 1
        await self.check_stored({*touched, *([] if self.chance.randrange(4) else [self.pick()])})
        if not self.chance.randrange(self.rarely):
            await self.check(self.pick())

    def pick(self) -> Model:
        return self.chance.choice(self.sessions)

    def said(self) -> tuple[str, str]:
        text = " ".join(self.chance.choices(WORDS, k=self.chance.randint(1, 6)))
        return self.chance.choice(["user", "assistant"]), text

    async def refused(self, error: type[PersistenceError], doing) -> list[Model]:
        with pytest.raises(error):
            await doing
        return []

    # -- what is checked ---------------------------------------------------------------------------

    async def check(self, model: Model) -> None:
        """One session through the manager, read in two ways."""
        found = await self.manager.get_session(model.id)
        assert (found.message_count, found.status) == (len(model.line), model.status)
        wanted = model.visible()
        read = await self.manager.messages(model.id, limit=10_000)
        assert [(each.index, each.text) for each in read] == wanted
        if wanted and self.chance.random() < 0.2:
            after = self.chance.randrange(len(model.line) + 1)
            before = self.chance.randrange(after, len(model.line) + 2)
            size = self.chance.randint(1, len(model.line))
            # Pages are by index: what is hidden leaves a smaller page.
            for last in (False, True):
                inside = range(after + 1, max(before, after + 1))
                taken = inside[-size:] if last else inside[:size]
                page = await self.manager.messages(
                    model.id, after=after, before=before, limit=size, last=last
                )
                expected = [one for one in wanted if one[0] in taken]
                assert [(each.index, each.text) for each in page] == expected

    async def check_stored(self, models: Iterable[Model]) -> None:
        """Some sessions, in one statement."""
        models = list(models)
        rows = await self.owner.fetch(
            "select haive.get_session(u.id, tenant => $2) as session,"
            " haive.session_messages(u.id, page_size => 10000, tenant => $2) as page"
            " from unnest($1::uuid[]) with ordinality as u (id, place) order by u.place",
            *([model.id for model in models], self.tenant),
        )
        for model, row in zip(models, rows, strict=True):
            found = json.loads(row["session"])
            assert (found["message_count"], found["status"]) == (len(model.line), model.status)
            read = [(each["index"], each["content"]) for each in json.loads(row["page"])]
            assert read == model.visible()

    # -- what is done ------------------------------------------------------------------------------

    async def _create(self) -> list[Model]:
        most, ttl = self.chance.choice([None, None, 15, 40]), self.chance.choice([None, 3600])
        made = await self.manager.create_session("ada", max_messages=most, ttl=ttl)
        self.sessions.append(Model(made.id, [], most, ttl))
        return [self.sessions[-1]]

    async def _branch(self) -> list[Model]:
        parent = self.pick()
        most, ttl = self.chance.choice([None, None, None, 60]), self.chance.choice([None, 3600])
        index = self.chance.choice([None, self.chance.randint(0, len(parent.line))])
        made = await self.manager.branch_session(parent.id, index, max_messages=most, ttl=ttl)
        model = Model(made.id, parent.line[:index], most, ttl, branched=True)
        self.sessions.append(model)
        return [parent, model]

    async def _target(self, model: Model, room: int) -> Model | None:
        """Where messages to a session go; None: nowhere."""
        while True:
            if model.successor is not None:
                model = model.successor
            elif model.status != "open":
                return None
            elif model.max_messages is None or len(model.line) + room <= model.max_messages:
                return model
            else:
                await self._follow(model)

    async def _follow(self, model: Model) -> Model:
        """The successor that the next message makes; its id is known when it is there."""
        successor = Model(UUID(int=0), [], model.max_messages, model.ttl)
        model.status, model.successor = "continued", successor
        self.sessions.append(successor)
        return successor

    async def _write(self) -> list[Model]:
        model = self.pick()
        role, text = self.said()
        target = await self._target(model, 1)
        doing = self.manager.add_message(model.id, role, text)
        if target is None:
            return await self.refused(SessionClosedError, doing)
        written = await doing
        return self._written(model, target, [written])

    async def _write_many(self) -> list[Model]:
        model = self.pick()
        messages = [self.said() for _ in range(self.chance.randint(1, 8))]
        target = await self._target(model, len(messages))
        doing = self.manager.add_messages(
            model.id, [{"role": role, "content": text} for role, text in messages]
        )
        if target is None:
            return await self.refused(SessionClosedError, doing)
        return self._written(model, target, await doing)

    def _written(self, model: Model, target: Model, written: list[Message]) -> list[Model]:
        if not target.id.int:
            target.id = written[0].conversation_id
        for message in written:
            target.add(Said(message))
            assert (message.conversation_id, message.seq) == (target.id, len(target.own))
        return [model, target]

    async def _go_on(self) -> list[Model]:
        model = self.pick()
        doing = self.manager.continue_session(model.id)
        if model.successor is None and model.status != "open":
            return await self.refused(SessionClosedError, doing)
        successor = model.successor or await self._follow(model)
        made = await doing
        assert successor.id.int in {0, made.id.int}
        successor.id = made.id
        return [model, successor]

    async def _merge(self) -> list[Model]:
        primary, secondary = self.pick(), self.pick()
        if not self.chance.randrange(3):  # of one family, as most are
            near = [one for one in self.sessions if common(one.line, primary.line)]
            secondary = self.chance.choice(near or self.sessions)
        strategy = self.chance.choice(list(MergeStrategy))
        resolution = self.chance.choice(list(ConflictResolution))
        shared = common(primary.line, secondary.line)
        if max(len(primary.line), len(secondary.line)) - shared > LONGEST_TAIL:
            return []
        doing = self.manager.merge_sessions(primary.id, secondary.id, strategy, resolution)
        if primary is secondary:
            return await self.refused(InvalidInputError, doing)
        if primary.status != "open":
            return await self.refused(SessionClosedError, doing)
        record = (await doing).merge
        root = record.root_count
        assert root <= shared
        if not any(one.merges or one.branched for one in self.sessions):
            assert root == 0
        tails = [
            [said for said in one.line[root:] if not said.hidden] for one in (primary, secondary)
        ]
        plan = await plan_merge(
            *[[said.message for said in tail] for tail in tails],
            strategy=strategy,
            conflict_resolution=resolution,
            embedder=self.embedder,
        )
        known = {MessageRef.of(said.message): said for tail in tails for said in tail}
        merged = Merged(
            record.id, secondary, list(primary.line), len(primary.own), secondary.status
        )
        primary.line = primary.line[:root] + [known[entry.message] for entry in plan.entries]
        assert (record.summary_seq is None) == (plan.summary is None)
        if plan.summary is not None:
            (summary,) = await self.manager.messages(primary.id, last=True, limit=1)
            assert (summary.seq, summary.text) == (record.summary_seq, plan.summary.text)
            merged.summary = Said(summary)
            primary.add(merged.summary)
        primary.merges.append(merged)
        if secondary.status != "continued":
            secondary.status = "merged"
        return [primary, secondary]

    async def _undo(self) -> list[Model]:
        able = [one for one in self.sessions if one.merges]
        if not able:
            return []
        model = self.chance.choice(able)
        standing = [each for each in model.merges if not each.undone]
        merged = self.chance.choice(standing[-1:] * 8 + model.merges)
        doing = self.manager.undo_merge(model.id, merged.id)
        if merged.undone:
            await doing
            return [model]
        if model.status != "open":
            return await self.refused(SessionClosedError, doing)
        if merged is not standing[-1]:
            return await self.refused(ConflictError, doing)
        await doing
        merged.undone = True
        summaries = {each.summary for each in model.merges}
        model.line = merged.before + [
            said for said in model.own[merged.own :] if said not in summaries
        ]
        self._part(merged)
        return [model, merged.secondary]

    def _part(self, merged: Merged) -> None:
        """The secondary is what it was, unless it is in another session still."""
        others = [
            each
            for one in self.sessions
            for each in one.merges
            if each.secondary is merged.secondary and not each.undone
        ]
        waiting = [each for each in others if each.secondary_status == "merged"]
        if others:
            if waiting and merged.secondary_status != "merged":
                min(waiting, key=lambda each: each.id).secondary_status = merged.secondary_status
        elif merged.secondary.status == "merged":
            merged.secondary.status = merged.secondary_status

    async def _hide(self) -> list[Model]:
        model = self.pick()
        if not model.own:
            return []
        said = self.chance.choice(model.own)
        changed = await self.manager.hide_message(model.id, said.message.id)
        assert changed is not said.hidden
        said.hidden = True
        hidden = await self.manager.messages(model.id, limit=10_000, hidden=True)
        expected = [
            (n, each.text, each.hidden)
            for n, each in enumerate(model.line, 1)
            if not each.hidden or each in set(model.own)
        ]
        assert [(each.index, each.text, each.hidden) for each in hidden] == expected
        return self.sessions[-3:]

    async def _show(self) -> list[Model]:
        model = self.pick()
        hidden = [said for said in model.own if said.hidden]
        if not hidden:
            return []
        said = self.chance.choice(hidden)
        assert await self.manager.show_message(model.id, said.message.id)
        said.hidden = False
        return [model]

    async def _close(self) -> list[Model]:
        model = self.pick()
        doing = self.manager.close(model.id)
        if model.status == "continued":
            return await self.refused(SessionClosedError, doing)
        await doing
        model.status = "closed"
        return [model]

    async def _resume(self) -> list[Model]:
        model = self.chance.choice([one for one in self.sessions if one.status != "open"] or [None])
        if model is None:
            return []
        doing = self.manager.resume(model.id)
        if model.status == "continued":
            return await self.refused(SessionClosedError, doing)
        await doing
        model.status = "open"
        return [model]

    async def _expire(self) -> list[Model]:
        """Let the ttl of a session pass."""
        model = self.pick()
        if model.ttl is None or model.status != "open":
            return []
        await self.owner.execute(
            "update haive.sessions set active_at = now() - ttl * interval '1 second'"
            " where tenant_id = $1 and id = $2",
            *(self.tenant, model.id),
        )
        model.status = "expired"
        return [model]

    async def _sweep(self) -> list[Model]:
        await self.manager.expire_sessions(batch=self.chance.choice([1, 1000]))
        return self.sessions[:1]


def common(one: list[Said], other: list[Said]) -> int:
    """How many messages two lines have in common at their beginning."""
    for n, (a, b) in enumerate(zip(one, other, strict=False)):
        if a is not b:
            return n
    return min(len(one), len(other))


@pytest.mark.timeout(900)  # a minute or less, but for a machine that has much else to do
@pytest.mark.parametrize("transport", ["postgres"], indirect=True)
async def test_ten_thousand_operations_leave_what_lists_in_memory_have(
    manager, owner, tenant, record_property
):
    chance = random.Random(20261128)
    done: Counter[str] = Counter()
    for _ in range(WORLDS):
        world = World(chance, manager, owner, tenant, rarely=20)
        for _ in range(OPERATIONS // WORLDS):
            await world.step()
        await world.check_stored(world.sessions)
        done.update(world.done)
    record_property("operations", dict(done))
    assert set(done) == set(WEIGHTS)
    assert min(done[kind] for kind in ("branch", "merge", "undo", "hide", "resume")) > 100


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(chance=st.randoms(use_true_random=False))
async def test_any_operations_leave_what_lists_in_memory_have(manager, owner, tenant, chance):
    world = World(chance, manager, owner, tenant, rarely=2)
    for _ in range(25):
        await world.step()
    await world.check_stored(world.sessions)
