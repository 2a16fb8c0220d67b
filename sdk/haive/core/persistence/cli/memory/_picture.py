"""A map of memories as an SVG file: no script, nothing fetched, light and dark."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from haive.core.persistence.checkpointer._text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from haive.core.persistence.cli.memory._plane import Plane

_WIDTH, _HEIGHT = 1200, 800
# Where the points are: below the title, and left of the key.
_LEFT, _TOP, _RIGHT, _BOTTOM = 56, 112, 900, 744
_KEY = 936
_LONGEST = 300
_LIGHT = (
    "#3b6fd8", "#d9722b", "#2a9d74", "#c43d5d", "#8257c9",
    "#b58a00", "#1791b0", "#b44fa4", "#6a8f2f", "#7b6a5d",
)  # fmt: skip
_DARK = (
    "#7fa6ff", "#ffa166", "#5fd3a6", "#ff7f9a", "#b797ff",
    "#e8c14d", "#5cc9e6", "#ec8fdc", "#a8cf68", "#c2ae9f",
)  # fmt: skip
_FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_HEAD = (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"'
    f' aria-labelledby="name said" font-family="{_FONT}">'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """What is known of a point beside where it lies."""

    about: str
    """Who, when, which kind: the first line of its title."""
    text: str
    importance: float


def picture(
    plane: Plane, dots: Sequence[Dot], words: Sequence[Sequence[str]], title: str, about: str
) -> str:
    """The SVG document.

    Args:
        plane: Where the points lie, and in which groups.
        dots: What they are, in the same order.
        words: The telling words of each group.
        title: The collection.
        about: How much it is, and what is shown.
    """
    places = _placed(plane.points)
    sizes = np.bincount(plane.groups, minlength=plane.number)
    lines = [
        _HEAD,
        f'<title id="name">{_said(title)}</title>',
        f'<desc id="said">{_said(about)}</desc>',
        _style(plane.number),
        f'<rect class="paper" width="{_WIDTH}" height="{_HEIGHT}"/>',
        f'<rect class="field" x="24" y="88" width="{_RIGHT}" height="{_HEIGHT - 112}" rx="14"/>',
        f'<text class="title" x="28" y="46">{_said(title)}</text>',
        f'<text class="soft" x="28" y="70">{_said(about)}</text>',
        *_grid(),
        *_clouds(places, plane),
        *_points(places, plane, dots),
        *_labels(places, plane, words),
        *_key(words, sizes.tolist()),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _style(number: int) -> str:
    light = [f".g{n}{{fill:{_LIGHT[n]};stroke:{_LIGHT[n]}}}" for n in range(number)]
    dark = [f".g{n}{{fill:{_DARK[n]};stroke:{_DARK[n]}}}" for n in range(number)]
    rules = [
        *light,  # first, so that a dot's own outline wins
        ".paper{fill:#f6f7f9}.field{fill:#ffffff;stroke:#e2e5ea}.grid{stroke:#eef0f4}",
        ".title{font-size:26px;font-weight:650;fill:#16191f;letter-spacing:-.3px}",
        ".soft{font-size:14px;fill:#667085}.word{font-size:14px;fill:#16191f}",
        ".dot{fill-opacity:.72;stroke:#ffffff;stroke-width:.8}",
        ".dot:hover{fill-opacity:1;stroke-width:3;stroke:#16191f}",
        ".cloud{fill-opacity:.07;stroke-opacity:.28;stroke-width:1.2}",
        ".label{font-size:16px;font-weight:650;stroke:none;text-anchor:middle}",
        ".halo{font-size:16px;font-weight:650;text-anchor:middle;fill:#ffffff;stroke:#ffffff}",
        ".halo{stroke-width:5;stroke-linejoin:round;stroke-opacity:.9}",
        "@media (prefers-color-scheme:dark){",
        *dark,
        ".paper{fill:#0f1218}.field{fill:#161a22;stroke:#272d38}.grid{stroke:#1e242e}",
        ".title,.word{fill:#eef1f6}.soft{fill:#98a2b3}.halo{fill:#161a22;stroke:#161a22}",
        ".dot{stroke:#161a22}.dot:hover{stroke:#ffffff}",
        "}",
    ]
    return "<style>" + "".join(rules).replace("}.", "}\n.") + "</style>"


def _placed(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points in the units of the picture; what lies far outside is at the edge."""
    bounded = np.clip(points, -1.02, 1.02)
    middle = np.array([(_LEFT + _RIGHT) / 2, (_TOP + _BOTTOM) / 2])
    reach = np.array([(_RIGHT - _LEFT) / 2, -(_BOTTOM - _TOP) / 2]) * 0.94
    return middle + bounded * reach


def _grid() -> Iterator[str]:
    for part in range(1, 8):
        x = 24 + part * _RIGHT / 8
        yield f'<path class="grid" d="M{x:.0f} 89V{_HEIGHT - 25}"/>'
    for part in range(1, 6):
        y = 88 + part * (_HEIGHT - 112) / 6
        yield f'<path class="grid" d="M25 {y:.0f}H{24 + _RIGHT - 1}"/>'


def _clouds(places: NDArray[np.float64], plane: Plane) -> Iterator[str]:
    """An ellipse where most of a group lies: its spread along the directions it has most in."""
    for group in range(plane.number):
        inside = places[plane.groups == group]
        if len(inside) < 3 or plane.number < 2:
            continue
        values, directions = np.linalg.eigh(np.cov(inside.T))
        radii = 1.7 * np.sqrt(np.maximum(values, 16.0))
        angle = float(np.degrees(np.arctan2(directions[1, 1], directions[0, 1])))
        x, y = inside.mean(axis=0)
        yield (
            f'<ellipse class="cloud g{group}" rx="{radii[1]:.1f}" ry="{radii[0]:.1f}"'
            f' transform="translate({x:.1f} {y:.1f}) rotate({angle:.1f})"/>'
        )


def _points(places: NDArray[np.float64], plane: Plane, dots: Sequence[Dot]) -> Iterator[str]:
    # Many are drawn smaller, and what is important above the rest.
    scale = float(np.clip(8.4 - np.log10(max(len(dots), 1)) * 1.4, 2.4, 6.5))
    for place in sorted(range(len(dots)), key=lambda one: dots[one].importance):
        dot, (x, y) = dots[place], places[place]
        size = scale * (0.75 + 0.75 * min(max(dot.importance, 0.0), 1.0))
        text = " ".join(dot.text.split())
        text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
        yield (
            f'<circle class="g{plane.groups[place]} dot" cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}">'
            f"<title>{_said(dot.about)}\n{_said(text)}</title></circle>"
        )


def _labels(
    places: NDArray[np.float64], plane: Plane, words: Sequence[Sequence[str]]
) -> Iterator[str]:
    """The first words of each group at its middle, moved apart where they would cover another."""
    taken: list[tuple[float, float, float]] = []
    for group in range(plane.number):
        text = " · ".join(words[group][:2])
        if not text:
            continue
        half = 4.9 * len(text) + 8
        x, y = np.median(places[plane.groups == group], axis=0)
        x = float(np.clip(x, _LEFT + half - 20, _RIGHT - half + 12))
        y = _free(x, float(y), half, taken)
        taken.append((x, y, half))
        where = f'x="{x:.1f}" y="{y + 5:.1f}"'
        said = _said(text)
        yield f'<text class="halo" aria-hidden="true" {where}>{said}</text>'
        yield f'<text class="g{group} label" {where}>{said}</text>'


def _free(x: float, y: float, half: float, taken: Sequence[tuple[float, float, float]]) -> float:
    """The height nearest to ``y`` where a label covers no other one."""
    for step in range(60):
        tried = y + (step + 1) // 2 * 12 * (1 if step % 2 else -1)
        inside = _TOP <= tried <= _BOTTOM
        if inside and all(
            abs(tried - other_y) >= 24 or abs(x - other_x) >= half + other_half
            for other_x, other_y, other_half in taken
        ):
            return tried
    return y


def _key(words: Sequence[Sequence[str]], sizes: Sequence[int]) -> Iterator[str]:
    y = 112
    for group, (said, size) in enumerate(zip(words, sizes, strict=True)):
        text = " · ".join(said) or "without words"
        text = text if len(text) <= 31 else f"{text[:30]}…"
        yield f'<circle class="g{group}" cx="{_KEY + 14}" cy="{y - 5}" r="6"/>'
        yield f'<text class="word" x="{_KEY + 32}" y="{y}">{_said(text)}</text>'
        yield (
            f'<text class="soft" x="{_KEY + 32}" y="{y + 19}">{size:,}'
            f" {'memory' if size == 1 else 'memories'}</text>"
        )
        y += 56


def _said(text: str) -> str:
    """Text of somebody's to stand in the document."""
    return escape(printable(text))
