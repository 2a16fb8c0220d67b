"""What each state is stored against, so that it takes few bytes and few steps to read.

Most states are deltas against their parents. After `MAX_DELTAS` of them comes an anchor: a delta
against the anchor before it, or a whole state. So what a state adds is stored twice, and a state
is read in `MAX_DEPTH` steps at most. Of 200 steps with one more message of 800 bytes each, the
payloads take 120 KB; with whole states for anchors they took 266.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from haive.core.persistence.checkpointer import _frames
from haive.core.persistence.checkpointer._sealing import state_place
from haive.core.persistence.errors import CorruptCheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from haive.core.persistence.checkpointer._documents import Frame
    from haive.core.persistence.checkpointer._sealing import Sealer

#: Most deltas after an anchor, and most anchors after a whole state.
MAX_DELTAS, MAX_ANCHORS = 16, 16
#: The longest chain: 32 deltas of a 150 KB state are decoded in 1.4 ms, about what a query takes.
MAX_DEPTH = MAX_DELTAS + MAX_ANCHORS

# Deltas of so many bytes together are read with the anchor, however small that is.
_FEW_BYTES = 8 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """What has to be read to have a state: a whole one, the anchors after it, and deltas.

    Attributes:
        anchor: The last one that is no delta against its parent; None while there is none.
        anchors: How many there are after the whole one.
        deltas: How many come after the last anchor.
        anchor_bytes: What the whole one and the anchors take together, in bytes.
        delta_bytes: What the deltas take together, in bytes.
    """

    anchor: UUID | None = None
    anchors: int = 0
    deltas: int = 0
    anchor_bytes: int = 0
    delta_bytes: int = 0

    @property
    def depth(self) -> int:
        """How many deltas there are, of either kind."""
        return self.anchors + self.deltas

    def wants_anchor(self, next_delta: int) -> bool:
        """Whether an anchor is better than one more delta of so many bytes.

        It is when there are enough deltas, and when to read them costs more than all before them.
        """
        most = max(self.anchor_bytes, _FEW_BYTES)
        return self.deltas >= MAX_DELTAS or self.delta_bytes + next_delta > most

    def takes_anchor(self, nbytes: int, whole: int) -> bool:
        """Whether one more anchor may follow the last one, or a whole state is better.

        Args:
            nbytes: What it takes against the last one, in bytes.
            whole: What the whole state takes, in bytes: reading shall cost at most twice that.
        """
        cheap = self.anchor_bytes + nbytes <= 2 * whole
        return cheap and self.anchors < MAX_ANCHORS and nbytes < whole

    def after(self, code: int, nbytes: int, checkpoint_id: UUID) -> Chain:
        """The chain that a frame of so many bytes ends."""
        if code == _frames.DELTA:
            return Chain(
                anchor=self.anchor,
                anchors=self.anchors,
                deltas=self.deltas + 1,
                anchor_bytes=self.anchor_bytes,
                delta_bytes=self.delta_bytes + nbytes,
            )
        if code == _frames.BASED:
            return Chain(
                anchor=checkpoint_id,
                anchors=self.anchors + 1,
                anchor_bytes=self.anchor_bytes + nbytes,
            )
        return Chain(anchor=checkpoint_id, anchor_bytes=nbytes)

    def after_all(self, line: Iterable[tuple[UUID, Packed]]) -> Chain:
        """The chain that more frames end, without one for each of them."""
        chain = self
        deltas = delta_bytes = 0
        for checkpoint_id, packed in line:
            if packed.code == _frames.DELTA:
                deltas += 1
                delta_bytes += len(packed.data)
            else:
                chain = chain.after(packed.code, len(packed.data), checkpoint_id)
                deltas = delta_bytes = 0
        if not deltas:
            return chain
        return replace(
            chain, deltas=chain.deltas + deltas, delta_bytes=chain.delta_bytes + delta_bytes
        )


@dataclass(frozen=True, slots=True)
class Known:
    """A packed state at hand."""

    id: UUID
    plain: bytes
    chain: Chain
    branch: str


@dataclass(frozen=True, slots=True)
class Packed:
    """A state as it is stored, not sealed yet.

    Attributes:
        code: How it is packed; see `_frames`.
        data: The frame.
        base: The anchor that it is stored against, if it is.
    """

    code: int
    data: bytes
    base: UUID | None = None


def delta_of(plain: bytes, parent: Known | None, *, compress: bool) -> Packed | None:
    """A state against its parent, or whole where that is smaller; None: it shall be an anchor."""
    if parent and compress and parent.chain.deltas >= MAX_DELTAS:
        return None  # whatever the delta would take
    code, data = _frames.encode(plain, parent.plain if parent else None, compress=compress)
    if parent and code == _frames.DELTA and parent.chain.wants_anchor(len(data)):
        return None
    return Packed(code, data)


def anchor_of(plain: bytes, chain: Chain, last: Known | None) -> Packed:
    """A state against the last anchor of a chain, or whole.

    Args:
        plain: The packed state.
        chain: What its parent is read from.
        last: The last anchor of that chain, or None if it is not at hand.
    """
    code, data = _frames.encode(plain, None)
    whole = Packed(code, data)
    if last is None or last.id != chain.anchor:
        return whole
    data = _frames.delta_against(plain, last.plain)
    if chain.takes_anchor(len(data), len(whole.data)):
        return Packed(_frames.BASED, data, last.id)
    return whole


# -- what is stored --------------------------------------------------------------------------------


def seal_state(  # noqa: PLR0917 - in the order in which they are bound
    sealer: Sealer,
    thread_id: str,
    namespace: str,
    checkpoint_id: UUID,
    parent_id: UUID | None,
    packed: Packed,
    *,
    key_id: str | None = None,
) -> bytes:
    """The payload of a row.

    Args:
        sealer: What seals.
        thread_id: Its thread.
        namespace: Which part of that.
        checkpoint_id: The checkpoint.
        parent_id: The one before it.
        packed: Its state.
        key_id: The key of the row, where another part of it is sealed already.
    """
    bound = state_place(thread_id, namespace, checkpoint_id, parent_id, packed.code, packed.base)
    if key_id is None:
        return sealer.seal(packed.data, "state", *bound)
    return sealer.seal_again(key_id, packed.data, "state", *bound)


def open_frame(sealer: Sealer, thread_id: str, namespace: str, frame: Frame) -> Packed:
    """The state in a stored frame, opened but not decoded.

    Raises:
        CorruptCheckpointError: It is damaged or lies where it does not belong.
        CheckpointKeyError: No key opens it.
    """
    base = frame.base_id if frame.codec == _frames.BASED else None
    if sealer.takes(frame.key_id):  # and what it would be bound to need not be put together
        return Packed(frame.codec, frame.payload, base)
    bound = state_place(thread_id, namespace, frame.id, frame.parent_id, frame.codec, base)
    return Packed(frame.codec, sealer.open(frame.key_id, frame.payload, "state", *bound), base)


def unpacked(
    frames: Sequence[Frame],
    branches: dict[UUID, str],
    sealer: Sealer,
    thread_id: str,
    namespace: str,
) -> dict[UUID, Known]:
    """Decode frames, each after what it is a delta against.

    Args:
        frames: All that is needed.
        branches: Of those that are answered, the newest first.
        sealer: What opens them.
        thread_id: Whose they are.
        namespace: Likewise.
    """
    known: dict[UUID, Known] = {}
    by_id = {frame.id: frame for frame in frames}
    for wanted in reversed(branches):  # the oldest first: later ones are read from it
        target = frame = by_id.get(wanted)
        line: list[Frame] = []
        before: UUID | None = None
        # A UUID is hashed slowly.
        while frame is not None and not (known and frame.id in known):
            line.append(frame)
            before = _before(frame)
            if frame.codec not in {_frames.DELTA, _frames.BASED}:
                break
            if len(line) > len(frames):
                raise CorruptCheckpointError("A chain of deltas runs in a circle.")
            frame = by_id.get(before) if before else None
            if frame is None:
                what = "parent" if line[-1].codec == _frames.DELTA else "anchor"
                raise CorruptCheckpointError(f"The {what} of checkpoint {line[-1].id} is missing.")
        if target is None or not line:
            continue
        first = known.get(before) if before else None
        line.reverse()
        opened = [open_frame(sealer, thread_id, namespace, frame) for frame in line]
        plain = _frames.decode_line(
            [(each.code, each.data, frame.size) for each, frame in zip(opened, line, strict=True)],
            first.plain if first else None,
        )
        chain = first.chain if first else Chain()
        chain = chain.after_all(zip((frame.id for frame in line), opened, strict=True))
        known[target.id] = Known(target.id, plain, chain, branches[target.id])
    return known


def _before(frame: Frame) -> UUID | None:
    """What a frame is stored against; None for a whole state."""
    if frame.codec == _frames.DELTA:
        return frame.parent_id
    return frame.base_id if frame.codec == _frames.BASED else None
