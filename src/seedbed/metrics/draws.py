"""The rows that metrics compare: several draws of equally many rows of each side, the same ones for every metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from seedbed.stats import equal_draw, spread_interval
from seedbed.types import Example, Measure, Sample, seed_for

Rows = list[Example]


@dataclass(frozen=True)
class Drawn:
    """A number of one draw of rows, the same of real rows, the spread of the first about 0, and its p."""

    value: float
    real: float
    spread: np.ndarray
    p: float | None


def mean_of(
    name: str, draws: Sequence[Drawn], unit: str, better: Literal["higher", "lower", "closer"], n: int, note: str, most: float = math.inf
) -> Measure:
    """The mean of the draws, one or more, of a number in 0 to `most`; their spread is its interval, the first one's p its p."""
    value, real = (float(np.mean([getattr(d, side) for d in draws])) for side in ("value", "real"))
    low, high = spread_interval(value, [d.spread for d in draws])
    return Measure(name, value, unit, better, n, max(0.0, low), min(most, high), real, note, draws[0].p)


@dataclass(frozen=True)
class Sides:
    """n: rows a side, the size of the smallest of kept, dev + test and fit. got: their sizes in words. draws: (kept, dev + test, fit) each."""

    n: int
    got: str
    draws: list[tuple[Rows, Rows, Rows]]


def equal_sides(sample: Sample, kept: Sequence[Example], draws: int, seed: int, most: int | None = None) -> Sides:
    """`draws` draws without replacement of n rows of each side, `most` of these at most; the rows' order changes nothing. No draw where n is 0."""

    def place(row: Example) -> tuple[str, str]:
        return sample.task.body(row.fields), str(row.fields.get(sample.task.target or "", ""))

    sides = [sorted(side, key=place) for side in (kept, (*sample.dev, *sample.test), sample.fit)]
    n = min(map(len, sides))
    got = f"got {len(sides[0])} kept, {len(sides[1])} dev + test and {len(sides[2])} fit"
    used = n if most is None else min(n, most)
    picked = []
    for i in range(draws if n else 0):
        # First n, then fewer of these: what one metric embeds, the next one has already.
        drawn = [equal_draw(side, n, seed_for(seed, "draw", i, j)) for j, side in enumerate(sides)]
        a, b, c = (equal_draw(side, used, seed_for(seed, "fewer", i, j)) for j, side in enumerate(drawn))
        picked.append((a, b, c))
    return Sides(used, got, picked)
