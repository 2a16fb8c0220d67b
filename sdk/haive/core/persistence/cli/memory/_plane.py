"""Where vectors lie to each other: the groups that they make, and a plane to draw them in."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from haive.core.persistence.embedding._common import COMMON

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# Colours that are told apart.
MOST_GROUPS = 10
# Components that groups are found in.
_LEADING = 8
_SEED = 7
_ROUNDS = 60
_STARTS = 4
_WORD = re.compile(r"[^\W\d_]{3,}(?:[-'\u2019][^\W\d_]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Points of a picture, each in a group; the largest group is 0."""

    points: Floats
    """Shape (n, 2), each axis from -1 to 1: nearly all between them, what lies far out beyond."""
    groups: Ints
    share: float
    """Of the variance of the vectors, what the plane shows: 0 to 1."""

    @property
    def number(self) -> int:
        """How many groups there are."""
        return int(self.groups.max()) + 1 if len(self.groups) else 0


def plane_of(vectors: NDArray[np.float32], number: int | None = None) -> Plane:
    """Group vectors, and lay them into a plane; the same vectors always give the same picture.

    The plane is that of the two principal components. Where there are three groups or more, they
    are those of the groups' centres, all taken to be as far out as each other: in the components of
    all vectors, the group that is farthest out presses the others together.

    Args:
        vectors: At least one.
        number: How many groups; those that are told apart best if not given.
    """
    data = np.asarray(vectors, np.float64)
    data = data - data.mean(axis=0)
    groups = _grouped(data @ _components(data, _LEADING), number)
    k = int(groups.max()) + 1
    leading = data
    if k > 2:
        centres = np.stack([data[groups == g].mean(axis=0) for g in range(k)])
        leading = centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    axes = _components(leading, 2)
    points = data @ axes
    total = float((data**2).sum())
    share = float((points**2).sum()) / total if total > 0 else 0.0
    low, high = np.quantile(points, (0.005, 0.995), axis=0)
    half = np.where(high - low > 1e-9, (high - low) / 2, 1.0)
    return Plane(points=(points - (low + high) / 2) / half, groups=groups, share=share)


def _components(data: Floats, most: int) -> Floats:
    """The first principal axes, shape (d, most), by subspace iteration: d may be thousands."""
    width = data.shape[1]
    rng = np.random.default_rng(_SEED)
    basis = np.linalg.qr(rng.standard_normal((width, min(most + 10, width))))[0]
    for _ in range(20):
        basis = np.linalg.qr(data.T @ (data @ basis))[0]
    turned = np.linalg.svd(data @ basis, full_matrices=False)[2]
    axes = (basis @ turned.T)[:, :most]
    if axes.shape[1] < most:  # of fewer vectors or numbers than that
        axes = np.pad(axes, ((0, 0), (0, most - axes.shape[1])))
    # An axis has no direction of its own: what is farthest out lies right and above.
    ends = np.take_along_axis(data @ axes, np.abs(data @ axes).argmax(axis=0)[None], axis=0)[0]
    return np.asarray(axes * np.where(ends < 0, -1.0, 1.0), np.float64)


def _grouped(data: Floats, number: int | None) -> Ints:
    """The group of each, by k-means; the number of groups is that of the clearest silhouette.

    In the leading components alone: over hundreds of numbers all distances are nearly the same.
    """
    different = len(np.unique(data, axis=0))
    most = min(MOST_GROUPS, different)
    if number is not None:
        return _ranked(_means(data, max(1, min(number, most)))[0])
    if different < 6:
        return np.zeros(len(data), np.int64)
    best, best_score = np.zeros(len(data), np.int64), 0.0
    for k in range(2, min(most, different // 3) + 1):
        groups, centres = _means(data, k)
        score = _silhouette(data, groups, centres)
        # One more group has to be worth its colour.
        if score > best_score * 1.02:
            best, best_score = groups, score
    return _ranked(best)


def _means(data: Floats, k: int) -> tuple[Ints, Floats]:
    """Lloyd's algorithm from a few starts of k-means++; the tightest of them."""
    rng = np.random.default_rng(_SEED)
    found: tuple[float, Ints, Floats] | None = None
    for _ in range(_STARTS):
        centres = _starts(data, k, rng)
        groups = np.zeros(len(data), np.int64)
        for turn in range(_ROUNDS):
            nearest = _distances(data, centres).argmin(axis=1)
            if turn and (nearest == groups).all():
                break
            groups = nearest
            for g in range(k):
                if (groups == g).any():
                    centres[g] = data[groups == g].mean(axis=0)
        spread = float(_distances(data, centres).min(axis=1).sum())
        if found is None or spread < found[0] - 1e-12:
            found = (spread, groups, centres)
    assert found is not None  # there are starts # noqa: S101 # nosec B101
    return found[1], found[2]


def _starts(data: Floats, k: int, rng: np.random.Generator) -> Floats:
    centres = [data[rng.integers(len(data))]]
    while len(centres) < k:
        weights = _distances(data, np.stack(centres)).min(axis=1)
        total = weights.sum()
        place = rng.choice(len(data), p=weights / total) if total > 0 else len(centres) % len(data)
        centres.append(data[place])
    return np.stack(centres)


def _distances(data: Floats, centres: Floats) -> Floats:
    """Squared distances, shape (n, k)."""
    squares = (data**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)[None]
    return np.asarray(np.maximum(squares - 2 * data @ centres.T, 0), np.float64)


def _silhouette(data: Floats, groups: Ints, centres: Floats) -> float:
    """How much nearer each is to its own centre than to the next one, on average: 0 to 1."""
    distances = np.sqrt(_distances(data, centres))
    own = np.take_along_axis(distances, groups[:, None], axis=1)[:, 0]
    np.put_along_axis(distances, groups[:, None], np.inf, axis=1)
    other = distances.min(axis=1)
    return float(((other - own) / np.maximum(np.maximum(own, other), 1e-12)).mean())


def _ranked(groups: Ints) -> Ints:
    """The same groups, with the largest as 0 and no number left out."""
    counts = Counter(groups.tolist())
    order = sorted(counts, key=lambda g: (-counts[g], g))
    places = {g: place for place, g in enumerate(order)}
    return np.array([places[g] for g in groups.tolist()], np.int64)


def telling_words(
    texts: Sequence[str], groups: Sequence[int], number: int, *, most: int = 3
) -> list[list[str]]:
    """The words of each group that tell it from the others, the best first.

    A word counts by the share of the group's texts that have it, and by how much larger that is
    than the share among all. Of a word, the form that is written most often is given.
    """
    written: dict[str, Counter[str]] = {}
    inside: list[Counter[str]] = [Counter() for _ in range(number)]
    sizes = Counter(groups)
    for text, group in zip(texts, groups, strict=True):
        seen = set()
        for word in _WORD.findall(unicodedata.normalize("NFKC", text[:4_000])):
            plain = word.casefold()
            if plain in COMMON or "'" in plain or "\u2019" in plain:
                continue
            written.setdefault(plain, Counter())[word] += 1
            seen.add(plain)
        inside[group].update(seen)
    everywhere: Counter[str] = sum(inside, Counter())
    total = max(len(texts), 1)
    found: list[list[str]] = []
    for group, words in enumerate(inside):
        size = max(sizes[group], 1)

        def score(plain: str, words: Counter[str] = words, size: int = size) -> float:
            share = words[plain] / size
            lift = math.log(share / (everywhere[plain] / total)) if number > 1 else 1.0
            return share * lift * min(len(plain), 7) * (1.0 if words[plain] > 1 else 0.3)

        best = sorted(words, key=lambda plain: (-round(score(plain), 9), plain))
        chosen: list[str] = []
        for plain in best:
            # "song" and "songs" tell the same.
            if len(chosen) < most and not any(
                plain.startswith(one[:5]) or one.startswith(plain[:5]) for one in chosen
            ):
                chosen.append(plain)
        found.append([_most(written[plain]) for plain in chosen])
    return found


def _most(counts: Counter[str]) -> str:
    return min(counts, key=lambda word: (-counts[word], word))
