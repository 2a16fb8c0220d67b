"""What a bench found, for people and for programs."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

_PLACES = {
    "ms": 3,
    "s": 2,
    "ratio": 2,
    "messages/s": 0,
    "puts/s": 0,
    "events/s": 0,
    "rows/s": 0,
    "bytes": 0,
    "round trips": 2,
    "rows": 0,
    "share": 3,
    "sessions": 1,
    "texts/s": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What a figure is held against; one of the two is given."""

    at_least: float | None = None
    at_most: float | None = None

    def met_by(self, value: float) -> bool:
        """Whether a value keeps it."""
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is None or value <= self.at_most

    def __str__(self) -> str:
        return f"≥ {self.at_least:,.9g}" if self.at_least is not None else f"≤ {self.at_most:,.9g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure: the median of the rounds, with the lowest and the highest."""

    name: str
    metric: str
    value: float
    unit: str
    low: float
    high: float
    bar: Bar | None = None

    @classmethod
    def of(
        cls, name: str, metric: str, unit: str, rounds: Sequence[float], bar: Bar | None = None
    ) -> Row:
        """Make the row of a figure from its value in each round."""
        return cls(
            name=name,
            metric=metric,
            unit=unit,
            value=statistics.median(rounds),
            low=min(rounds),
            high=max(rounds),
            bar=bar,
        )

    @property
    def met(self) -> bool:
        """Whether its bar is met; true where it has none."""
        return self.bar is None or self.bar.met_by(self.value)

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON values."""
        row: dict[str, Any] = {
            "name": self.name,
            "metric": self.metric,
            "value": round(self.value, 4),
            "unit": self.unit,
            "low": round(self.low, 4),
            "high": round(self.high, 4),
        }
        if self.bar is not None:
            row |= {"bar": str(self.bar), "met": self.met}
        return row

    def cells(self) -> tuple[str, ...]:
        """The row as the cells of a table."""
        places = _PLACES[self.unit]
        value, low, high = (f"{number:,.{places}f}" for number in (self.value, self.low, self.high))
        bar = "" if self.bar is None else f"{self.bar} {'met' if self.met else '[bold red]missed'}"
        return self.name, self.metric, value, f"{low} to {high}", bar


@dataclass(slots=True, kw_only=True)
class Report:
    """All figures of a run, and how they came about."""

    bench: str
    method: str
    machine: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def met(self) -> bool:
        """Whether every bar is met."""
        return all(row.met for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The report as one JSON object."""
        return {
            "bench": self.bench,
            "machine": self.machine,
            "rows": [row.to_dict() for row in self.rows],
        }

    def table(self) -> Table:
        """The report as a table."""
        machine = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        table = Table(title=self.bench, caption=f"{self.method}\n{machine}", caption_justify="left")
        table.add_column("name", no_wrap=True)
        table.add_column("metric", no_wrap=True)
        for heading in ("median", "rounds", "bar"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(*row.cells())
        return table
