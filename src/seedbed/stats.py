"""Intervals, paired differences and equal-size draws. All randomness is a seed argument."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")
DRAWS = 2000
Z_POWER = 1.96 + 0.84
"""Two-sided 5 % level and 80 % power: a true difference below Z_POWER standard errors is usually missed."""


@dataclass(frozen=True)
class Difference:
    """mean of b - a with its 95 % interval; se: its bootstrap standard error; smallest_detectable: Z_POWER * se."""

    mean: float
    low: float
    high: float
    se: float

    @property
    def smallest_detectable(self) -> float:
        return Z_POWER * self.se


def percentile_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The central 95 % of bootstrap values."""
    low, high = np.percentile(np.asarray(values, dtype=float), [2.5, 97.5])
    return float(low), float(high)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927), in [0, 1]; n >= 1."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"need 0 <= successes <= n and n >= 1. Got {successes} of {n}.")
    z = 1.959963984540054
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return centre - half if successes else 0.0, centre + half if successes < n else 1.0


def bootstrap_mean(values: Sequence[float] | np.ndarray, seed: int, draws: int = DRAWS) -> tuple[float, float, float]:
    """(mean, low, high) of a sample of numbers, percentile bootstrap."""
    data = np.asarray(values, dtype=float)
    picks = np.random.default_rng(seed).integers(len(data), size=(draws, len(data)))
    low, high = percentile_interval(data[picks].mean(axis=1))
    return float(data.mean()), low, high


def resamples(seeds: int, rows: int, seed: int, draws: int = DRAWS) -> list[tuple[np.ndarray, np.ndarray]]:
    """Bootstrap draws over training seeds and test rows together: pairs (seed indices, row indices)."""
    rng = np.random.default_rng(seed)
    return [(rng.integers(seeds, size=seeds), rng.integers(rows, size=rows)) for _ in range(draws)]


def paired_difference(
    a: int, b: int, rows: int, score_a: Callable[[int, np.ndarray], float], score_b: Callable[[int, np.ndarray], float], seed: int, draws: int = DRAWS
) -> Difference:
    """b - a on the same test rows: `score_x(seed index, row indices)` scores one arm's predictions; a, b: seeds of each arm.

    Every draw resamples the test rows once for both arms, and each arm's seeds.
    """
    rng = np.random.default_rng(seed)
    everything = np.arange(rows)
    mean = float(np.mean([score_b(s, everything) for s in range(b)]) - np.mean([score_a(s, everything) for s in range(a)]))
    values = []
    for _ in range(draws):
        picked = rng.integers(rows, size=rows)
        first = np.mean([score_a(int(s), picked) for s in rng.integers(a, size=a)])
        second = np.mean([score_b(int(s), picked) for s in rng.integers(b, size=b)])
        values.append(float(second - first))
    low, high = percentile_interval(values)
    return Difference(mean, low, high, float(np.std(values)))


def equal_draw(items: Sequence[T], n: int, seed: int) -> list[T]:
    """n of the items without replacement, in their order; raises ValueError when there are fewer."""
    if n > len(items):
        raise ValueError(f"cannot draw {n} of {len(items)} items.")
    picked = sorted(np.random.default_rng(seed).choice(len(items), size=n, replace=False).tolist())
    return [items[i] for i in picked]
