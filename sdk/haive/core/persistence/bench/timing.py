"""Callers in closed loops, timed in rounds that take turns."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from haive.core.persistence.bench.report import Bar, Row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Call = Callable[[], Awaitable[object]]
    Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Subject:
    """One way to do it: each caller calls again when its call is answered."""

    name: str
    callers: Sequence[Call]


@dataclass(slots=True)
class Sample:
    """The calls of one subject in one round."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Calls a second."""
        return len(self.latencies) / self.seconds

    def milliseconds(self, percent: int) -> float:
        """A percentile of the latencies."""
        ordered = sorted(self.latencies)
        return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] * 1e3


Samples = dict[str, list[Sample]]


async def take_turns(
    subjects: Sequence[Subject], *, rounds: int, seconds: float, progress: Progress
) -> Samples:
    """Run each subject for some seconds, one after the other, and all of that again.

    A first round, half as long, warms up and does not count.
    """
    samples: Samples = defaultdict(list)
    for number in range(rounds + 1):
        for subject in subjects:
            progress(f"round {number} of {rounds}: {subject.name}" if number else "warming up")
            sample = await _drive(subject.callers, seconds if number else seconds / 2)
            if number:
                samples[subject.name].append(sample)
    return samples


async def _drive(callers: Sequence[Call], seconds: float) -> Sample:
    sample = Sample()
    begin = perf_counter()
    end = begin + seconds

    async def loop(call: Call) -> None:
        start = perf_counter()
        while True:  # once at least
            await call()
            answered = perf_counter()
            sample.latencies.append(answered - start)
            if answered >= end:
                return
            start = answered

    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(loop(caller))
    sample.seconds = perf_counter() - begin
    return sample


async def take_turns_by_call(
    subjects: dict[str, Callable[[int], Awaitable[object]]],
    *,
    rounds: int,
    calls: int,
    progress: Progress,
) -> Samples:
    """Make the same calls to each subject, in turns from call to call, for one lone caller.

    ``subjects`` take the number of the call; a first round, a quarter as long, does not count.
    """
    samples: Samples = defaultdict(list)
    turns = list(subjects.items())
    for number in range(rounds + 1):
        progress(f"round {number} of {rounds}" if number else "warming up")
        taken = {name: Sample() for name in subjects}
        for call in range(calls if number else calls // 4):
            turns.append(turns.pop(0))  # nobody always comes after the same one
            for name, subject in turns:
                start = perf_counter()
                await subject(call + number * calls)
                taken[name].latencies.append(perf_counter() - start)
        if number:
            for name, sample in taken.items():
                samples[name].append(sample)
    return samples


def rate_rows(samples: Samples, unit: str = "messages/s") -> list[Row]:
    """Throughput and latency of each subject."""
    rows = []
    for name, rounds in samples.items():
        rows.append(Row.of(name, "messages_per_s", unit, [sample.rate for sample in rounds]))
        rows += latency_rows({name: rounds}, (50, 99))
    return rows


def latency_rows(
    samples: Samples,
    percents: Sequence[int],
    bars: dict[tuple[str, int], Bar] | None = None,
) -> list[Row]:
    """Percentiles of each subject; a bar belongs to a name and a percentile."""
    return [
        Row.of(
            name,
            f"p{percent}_ms",
            "ms",
            [sample.milliseconds(percent) for sample in rounds],
            (bars or {}).get((name, percent)),
        )
        for name, rounds in samples.items()
        for percent in percents
    ]


def ratio_row(
    name: str, over: Sequence[float], under: Sequence[float], bar: Bar | None = None
) -> Row:
    """The ratio of two figures, taken round by round: what slows a round slows both."""
    return Row.of(name, "ratio", "ratio", [a / b for a, b in zip(over, under, strict=True)], bar)
