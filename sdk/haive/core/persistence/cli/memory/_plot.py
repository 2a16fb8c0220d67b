"""A map of memories for a terminal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from rich.text import Text

from haive.core.persistence.checkpointer._text import Encodable, printable
from haive.core.persistence.cli.output import out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from haive.core.persistence.cli.memory._plane import Plane

_COLOURS = (
    "bright_blue", "yellow", "green", "red", "magenta",
    "bright_yellow", "cyan", "bright_magenta", "bright_green", "white",
)  # fmt: skip
_LETTERS = "abcdefghij"
_MOST_WIDE = 110


def plot(
    plane: Plane, words: Sequence[Sequence[str]], title: str, about: str, console: Console = out
) -> None:
    """Print the map: a letter where memories of a group lie, a capital where many do."""
    width = min(console.width, _MOST_WIDE) if console.is_terminal else 100
    height = max(width // 3, 8)
    cells: dict[tuple[int, int], Counter[int]] = {}
    for (x, y), group in zip(np.clip(plane.points, -1, 1), plane.groups.tolist(), strict=True):
        column, row = round((x + 1) / 2 * (width - 1)), round((1 - y) / 2 * (height - 1))
        cells.setdefault((row, column), Counter())[group] += 1
    many = max(np.quantile([sum(cell.values()) for cell in cells.values()], 0.9), 2)
    console.print(Encodable(Text(printable(title), "bold")), highlight=False)
    console.print(Encodable(Text(printable(about), "dim")), highlight=False)
    console.print()
    for row in range(height):
        line = Text()
        for column in range(width):
            cell = cells.get((row, column))
            if cell is None:
                line.append(" ")
                continue
            group = min((-number, one) for one, number in cell.items())[1]
            dense = sum(cell.values()) >= many
            sign = _LETTERS[group].upper() if dense else _LETTERS[group]
            line.append(sign, f"bold {_COLOURS[group]}" if dense else _COLOURS[group])
        line.rstrip()
        console.print(line, highlight=False)
    console.print()
    sizes = np.bincount(plane.groups, minlength=plane.number).tolist()
    wide = max(len(f"{size:,}") for size in sizes)
    for group, said in enumerate(words):
        line = Text(f"{_LETTERS[group]} ", f"bold {_COLOURS[group]}")
        line.append(f"{sizes[group]:>{wide},}  ", "dim")
        line.append(printable(", ".join(said)) or "without words")
        console.print(Encodable(line), highlight=False)
