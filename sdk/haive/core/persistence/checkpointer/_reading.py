"""Finds checkpoints and makes of their rows what callers get."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from haive.core.persistence._encoding import as_uuid, object_to_json, to_json
from haive.core.persistence.checkpointer import _schemas
from haive.core.persistence.checkpointer._arguments import is_model, mapping
from haive.core.persistence.checkpointer._codec import Codec
from haive.core.persistence.checkpointer._diff import Difference
from haive.core.persistence.checkpointer._documents import SCHEMA
from haive.core.persistence.checkpointer._engine import blinded, checked_tags, scalars
from haive.core.persistence.checkpointer._held import Held, completed
from haive.core.persistence.checkpointer._matching import matching_terms
from haive.core.persistence.checkpointer._view import view
from haive.core.persistence.checkpointer.config import RecoveryPolicy
from haive.core.persistence.checkpointer.models import Checkpoint
from haive.core.persistence.errors import (
    CheckpointError,
    CorruptCheckpointError,
    InvalidInputError,
    NotFoundError,
    StateMismatchError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from uuid import UUID

    from haive.core.persistence.checkpointer._documents import Found, Row
    from haive.core.persistence.checkpointer._engine import Engine

_PAGE = 100
_NOT_FOUND = "It was pruned, belongs to another tenant, or is not the caller's to see."
_NOT_THERE = (
    "It was pruned, is of another thread or of another namespace than {!r}, or is not the caller's"
    " to see."
)
# Of a replay: checkpoints of the line that are looked through, and states that are read at once, or
# bytes of them: no more than a page has.
_LINE, _STATES, _STATE_BYTES = 1000, 50, 64 * 1024 * 1024


class Reader:
    """What `Checkpointer` reads with."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._plain = Codec()

    async def one(
        self, checkpoint_id: UUID | str, thread_id: str | None, namespace: str, **wanted: bool
    ) -> Found:
        """One checkpoint, by its id and, where a copy has it too, its thread."""
        key = as_uuid(checkpoint_id, "checkpoint_id")
        found = await self._engine.find(
            checkpoint_id=key, thread_id=thread_id, namespace=namespace, **wanted
        )
        if not found.checkpoints:
            raise NotFoundError(
                f"There is no checkpoint {key}.",
                hint=_NOT_FOUND if thread_id is None else _NOT_THERE.format(namespace),
            )
        if len(found.checkpoints) > 1:
            raise InvalidInputError(
                "Several threads have this checkpoint, for one is a copy.",
                hint="Name the thread too: pass thread_id.",
            )
        return found

    async def checkpoints(self, found: Found) -> list[Checkpoint]:
        """Rows as what callers get, with states if those came too."""
        sealer = await self._engine.sealer()
        known = {} if found.frames is None else await self._engine.states(found)
        answer = []
        for row in found.checkpoints:
            metadata: dict[str, Any] = {}
            tags: tuple[str, ...] = ()
            if sealer.takes(row.key_id):
                metadata, tags = row.metadata or {}, tuple(row.tags or ())
            elif row.key_id is None or (row.metadata, row.tags, row.sealed) != (None, None, None):
                # Without details nothing was sent; with a key, what is not sealed is refused.
                metadata, tags, _ = self._engine.open_details(sealer, row)
            state = None
            if known and row.id in known:  # a UUID is hashed slowly
                state = await self.state(row, known[row.id].plain)
            answer.append(_checkpoint(row, metadata, tags, state))
        return answer

    async def history(self, limit: int, before: int | None, **wanted: Any) -> list[Checkpoint]:
        """So many checkpoints; a page ends early where its states are large."""
        answer: list[Checkpoint] = []
        while True:
            found = await self._engine.find(
                **wanted, before_seq=before, page_size=limit - len(answer) if answer else limit
            )
            answer += await self.checkpoints(found)
            before = found.next_seq
            if before is None or len(answer) >= limit:
                return answer

    # -- states ----------------------------------------------------------------------------------

    async def state(
        self,
        row: Row,
        plain: bytes,
        *,
        model: type[BaseModel] | None = None,
        validate: bool = False,
    ) -> Any:
        """The state in a packed one, brought up to date and validated if asked."""
        if model is not None and not is_model(model):
            raise InvalidInputError("model is no class of pydantic models.")
        if validate and row.schema_hash is not None:
            data = _state_of(self._plain.unpack(plain))
            _schemas.check(view(data), await self._schema(row.schema_hash))
        upcaster = self._engine.config.upcaster
        exact = model is None and not validate
        saved = self._engine.codec.first_class(plain)
        root = model or (saved if saved and issubclass(saved, BaseModel) else None)
        if upcaster is None and model in {None, saved}:
            # Where it fails: damaged, or saved when a class was another. Then the paths are told.
            with suppress(CorruptCheckpointError):
                return _state_of(self._engine.codec.unpack(plain, exact=exact))
        if root is None:
            return self.envelope(plain, exact=exact)[0]
        if upcaster is None:
            return _schemas.rebuilt(root, _state_of(self._plain.unpack(plain)))
        held = _state_of(self._held(plain, exact=exact))
        data = upcaster(held)
        if exact and isinstance(held, Held) and type(data) in {dict, Held}:
            same = held.with_fields(data)
            if same.is_unchanged():
                return completed(same)
        # Of the root itself it is told what does not fit, so it is made last.
        data = dict(data) if isinstance(data, Held) else data
        return _schemas.rebuilt(root, completed(data, leave=True))

    def envelope(self, plain: bytes, *, exact: bool = True) -> list[Any]:
        """The state in a packed one, brought up to date, and what an adapter keeps beside it.

        Args:
            plain: The packed one.
            exact: Objects of classes that have not changed are not validated.

        Raises:
            CorruptCheckpointError: It is damaged.
            StateMismatchError: Something in it does not fit its class; ``paths`` says where.
        """
        upcaster = self._engine.config.upcaster
        if upcaster is None:
            with suppress(CorruptCheckpointError):  # as above
                return _pair(self._engine.codec.unpack(plain, exact=exact))
        held, beside = _pair(self._held(plain, exact=exact))
        state = held if upcaster is None else upcaster(held)
        if isinstance(held, Held) and type(state) is dict:
            state = held.with_fields(state)
        return [completed(state), completed(beside, leave=True)]

    def written(self, channel: str, plain: bytes) -> Any:
        """The value in a packed pending write.

        Where a class of it has changed since, it is brought up to date as a state that has nothing
        but this channel.

        Raises:
            CorruptCheckpointError: It is damaged.
            StateMismatchError: Something in it does not fit its class; ``paths`` says where.
        """
        with suppress(CorruptCheckpointError):
            return self._engine.codec.unpack(plain)
        state = {channel: self._held(plain)}
        upcaster = self._engine.config.upcaster
        if upcaster is not None:
            state = {**state, **upcaster(dict(state))}
        return completed(state)[channel]

    def _held(self, plain: bytes, *, exact: bool = True) -> object:
        return self._engine.codec.unpack(plain, holding=self._engine.held, exact=exact)

    async def _schema(self, schema_hash: str) -> dict[str, Any]:
        key = bytes.fromhex(schema_hash)
        stored = await self._engine.call("get_checkpoint_schema", {"hash": key}, SCHEMA, safe=True)
        if stored is None:
            raise CorruptCheckpointError("The schema of the checkpoint is missing.")
        sealer = await self._engine.sealer()
        opened = sealer.open(stored.key_id, stored.payload, "schema", key)
        if stored.key_id is None and _schemas.hash_of(opened) != key:
            raise CorruptCheckpointError("The schema of the checkpoint is another one.")
        try:
            schema: dict[str, Any] = json.loads(opened)
        except (ValueError, RecursionError):
            raise CorruptCheckpointError("The schema of the checkpoint is no JSON.") from None
        return schema

    async def replay(
        self,
        from_checkpoint: UUID | str,
        to_checkpoint: UUID | str,
        thread_id: str | None,
        namespace: str,
    ) -> AsyncIterator[Any]:
        """The states from one checkpoint to a later one of the same branch."""
        last = (await self.one(to_checkpoint, thread_id, namespace)).checkpoints[0]
        first = (await self.one(from_checkpoint, last.thread_id, last.namespace)).checkpoints[0]
        where = {"thread_id": last.thread_id, "namespace": last.namespace, "branch": last.branch}
        line: list[Row] = []
        before: int | None = last.seq + 1
        while before is not None:
            found = await self._engine.find(
                **where, before_seq=before, page_size=_LINE, details=False
            )
            line += [row for row in found.checkpoints if row.seq >= first.seq]
            before = found.next_seq if line and line[-1].seq > first.seq else None
        if not line or line[-1].id != first.id:
            raise NotFoundError(
                f"Checkpoint {first.id} is not in the history of {last.id}.",
                hint="Replay runs along one branch, forwards.",
            )
        line.reverse()
        for part in _parts(line):
            # Newest first, as they come; a page ends early where its states are large.
            states: list[tuple[Row, bytes]] = []
            before = part[-1].seq + 1
            while before is not None and len(states) < len(part):
                found = await self._engine.find(
                    **where,
                    before_seq=before,
                    page_size=len(part) - len(states),
                    details=False,
                    states=True,
                )
                known = await self._engine.states(found)
                states += [(row, known[row.id].plain) for row in found.checkpoints]
                before = found.next_seq
            for row, plain in reversed(states):
                yield await self.state(row, plain)

    async def compare(
        self,
        checkpoint_a: UUID | str,
        checkpoint_b: UUID | str,
        thread_id: str | None,
        namespace: str,
        *,
        include_details: bool,
    ) -> Difference:
        """What is different in the second of two checkpoints."""
        sides = []
        for checkpoint_id in (checkpoint_a, checkpoint_b):
            found = await self.one(checkpoint_id, thread_id, namespace, details=False, states=True)
            row = found.checkpoints[0]
            plain = (await self._engine.states(found))[row.id].plain
            try:
                state = await self.state(row, plain)
            except StateMismatchError:
                state = _state_of(self._plain.unpack(plain))
            sides.append((row, view(state)))
        (a, before), (b, after) = sides
        return Difference.between(
            a=a.id,
            b=b.id,
            tree_a=before,
            tree_b=after,
            bytes_a=a.size,
            bytes_b=b.size,
            include_details=include_details,
        )

    # -- what is asked for -----------------------------------------------------------------------

    async def pattern(
        self,
        tags: Sequence[str],
        state: Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """Tags, parts of the state and metadata as arguments: in plain, or hashed."""
        wanted = checked_tags(tags)
        state = mapping(state, "with_state_matching")
        metadata = mapping(metadata, "metadata")
        terms = dict(matching_terms(state)) if state else {}
        sealer = await self._engine.sealer()
        if sealer.keys is None:
            return {
                "tags": wanted or None,
                "search": to_json([terms], "with_state_matching") if terms else None,
                "metadata": object_to_json(metadata, "metadata") if metadata else None,
            }
        searched = dict(metadata or {})
        if scalars(searched) != searched:
            raise InvalidInputError(
                "Of sealed metadata only scalars at the top can be searched.",
                hint="Ask for text, numbers and booleans.",
            )
        if not (wanted or terms or searched):
            return {}
        columns = blinded(sealer, {"terms": terms, "metadata": searched, "tags": wanted})
        return {"search": to_json(columns, "search")}

    async def check_key(self, where: Mapping[str, Any]) -> None:
        """Open the last checkpoint of a place: by another key nothing is found, whatever is there.

        Raises:
            CheckpointKeyError: No key of the ring opens it.
        """
        # One that is damaged, or not sealed, is not what was searched for.
        with suppress(CorruptCheckpointError):
            await self.checkpoints(await self._engine.find(**where, page_size=1))

    async def recover(
        self,
        policy: RecoveryPolicy,
        tags: Sequence[str],
        thread_id: str,
        namespace: str,
        branch: UUID | str | None,
    ) -> Checkpoint:
        """The checkpoint that a policy takes, with its state."""
        where = {"thread_id": thread_id, "namespace": namespace, "branch": branch and str(branch)}
        if policy not in list(RecoveryPolicy):
            raise InvalidInputError(f"The policies are {', '.join(RecoveryPolicy)}.")
        policy = RecoveryPolicy(policy)
        if tags and policy is not RecoveryPolicy.LAST_TAGGED:
            raise InvalidInputError(
                f"The policy {policy.value} looks at no tags.",
                hint="Take RecoveryPolicy.LAST_TAGGED, or leave the tags out.",
            )
        if policy is RecoveryPolicy.LAST_READABLE:
            return await self._last_readable(where)
        found = await self._engine.find(
            **where,
            **await self._policy(policy, tags, where),
            page_size=1,
            states=True,
        )
        if not found.checkpoints:
            if tags:
                await self.check_key(where)
            raise NotFoundError(
                f"The thread has no checkpoint for the policy {policy.value}.",
                hint="Save one, or take another policy or branch.",
            )
        (checkpoint,) = await self.checkpoints(found)
        if policy is RecoveryPolicy.LATEST:
            # The next save goes after it without asking; if others have saved since, it hears so.
            # A branch without checkpoints of its own begins at one of another.
            name = checkpoint.branch if branch is None else str(branch)
            self._engine.cache.move_head(thread_id, namespace, name, checkpoint.id)
        return checkpoint

    async def _policy(
        self, policy: RecoveryPolicy, tags: Sequence[str], where: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What a policy asks for, as arguments."""
        if policy is RecoveryPolicy.LAST_SUCCESSFUL:
            return {"failed": False}
        if policy is RecoveryPolicy.LAST_TAGGED:
            return await self._tagged(tags, where)
        if policy is RecoveryPolicy.BEFORE_FAILURE:
            return await self._before_failure(where)
        return {}

    async def _tagged(self, tags: Sequence[str], where: Mapping[str, Any]) -> dict[str, Any]:
        if tags:
            return await self.pattern(tags, None, None)
        async for row, found in self._rows(where):
            (checkpoint,) = await self.checkpoints(found._replace(checkpoints=[row]))
            if checkpoint.tags:
                return {"checkpoint_id": checkpoint.id}
        return {"before_seq": 0}

    async def _before_failure(self, where: Mapping[str, Any]) -> dict[str, Any]:
        first = None
        async for row, _ in self._rows(where, failed=True, details=False):
            first = row.seq
        return {"failed": False} if first is None else {"failed": False, "before_seq": first}

    async def _last_readable(self, where: Mapping[str, Any]) -> Checkpoint:
        """The newest checkpoint that can be read."""
        problem: CheckpointError | None = None
        async for row, _ in self._rows(where, details=False):
            try:
                found = await self.one(row.id, row.thread_id, row.namespace, states=True)
                return (await self.checkpoints(found))[0]
            except CheckpointError as error:
                problem = problem or error
        raise problem or NotFoundError("The thread has no checkpoint.", hint="Save one.")

    async def _rows(self, where: Mapping[str, Any], **wanted: Any) -> Any:
        before = None
        while True:
            found = await self._engine.find(**where, **wanted, before_seq=before, page_size=_PAGE)
            for row in found.checkpoints:
                yield row, found
            before = found.next_seq
            if before is None:
                return


def _parts(line: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows whose states are read at once; of a large one it alone."""
    part: list[Row] = []
    size = 0
    for row in line:
        if part and (len(part) == _STATES or size + row.size > _STATE_BYTES):
            yield part
            part, size = [], 0
        part.append(row)
        size += row.size
    if part:
        yield part


def _checkpoint(
    row: Row, metadata: dict[str, Any], tags: tuple[str, ...], state: object
) -> Checkpoint:
    # What is in a row was checked: a fifth of the time of calling the class.
    checkpoint = Checkpoint.__new__(Checkpoint)
    # All at once: one by one they take as long as all the rest.
    (
        checkpoint_id, thread_id, namespace, _, branch, seq, parent_id, _, created_at, size,
        stored_bytes, depth, failed, key_id, schema_hash, *_,
    ) = row  # fmt: skip
    values = {
        "id": checkpoint_id,
        "thread_id": thread_id,
        "namespace": namespace,
        "branch": branch,
        "seq": seq,
        "parent_id": parent_id,
        "created_at": created_at,
        "failed": failed,
        "tags": tags,
        "metadata": metadata,
        "size": size,
        "stored_bytes": stored_bytes,
        "depth": depth,
        "encrypted": key_id is not None,
        "schema_hash": schema_hash,
        "state": state,
    }
    object.__setattr__(checkpoint, "__dict__", values)
    return checkpoint


def _pair(envelope: object) -> list[Any]:
    """What is packed: the state, and what an adapter keeps beside it."""
    if not isinstance(envelope, list) or len(envelope) != 2:
        raise CorruptCheckpointError("What is stored is no state.")
    return envelope


def _state_of(envelope: object) -> Any:
    return _pair(envelope)[0]
