"""Intervals, paired differences and equal-size draws. All randomness is a seed argument."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Scorer = Callable[[int, np.ndarray], np.ndarray]
"""(seed index, int (draws, rows) of test rows, repeats allowed) -> float (draws,), the points of one arm."""
Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]
"""int (draws, rows), (draws, seeds of a), (draws, seeds of b)."""
DRAWS = 2000
CELLS = 100_000
"""Indices that are drawn before they are scored together: as many as stay near the processor."""
KEPT = 2_000_000
"""Indices of one set of draws that are kept for the next arm, at most: 16 MB."""
ALARM = 0.01
"""A p at or below this is an alarm: real rows in the place of kept ones raise it once in a hundred times for each measure."""
Z_POWER = 1.96 + 0.84
"""Two-sided 5 % level and 80 % power: a true difference below Z_POWER standard errors is usually missed."""


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m), of the rows of (n, d) and (m, d)."""
    return np.asarray(np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T, 0.0))


def median_distance(features: np.ndarray) -> float:
    """Median distance between different rows of (n, d), equal points left out; 1 where all are equal."""
    squared = squared_distances(features, features)[np.triu_indices(len(features), 1)]
    apart = squared[squared > 1e-9]
    return float(np.sqrt(np.median(apart))) if len(apart) else 1.0


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


def more_p(hits: int, n: int, others: int, m: int) -> float:
    """Fisher's exact p that `hits` of n rows are no more than exchangeable with `others` of m rows: small where there are more of them."""
    from scipy.stats import hypergeom

    return float(hypergeom.sf(hits - 1, n + m, hits + others, n))


def permutation_p(observed: float, permuted: Sequence[float] | np.ndarray) -> float:
    """Share of the arrangements, the observed one among them, that are as extreme; the larger, the more extreme.

    Exact (P(p <= a) <= a for every a) where all arrangements were equally likely (Phipson and Smyth 2010, arXiv:1603.05766).
    """
    values = np.asarray(permuted, dtype=float)
    # Sums in another order differ in the last digits: what is equal must count as equal.
    return float((1 + np.sum(values >= observed - 1e-9 * max(1.0, abs(observed)))) / (1 + len(values)))


def half_spread(value: float, halves: np.ndarray) -> np.ndarray:
    """How a number of n rows scatters, about 0, by its values on random halves of the rows, drawn without replacement.

    Half of the rows without replacement vary as much as n rows do between samples: s^2 / (n / 2) * (1 - 1 / 2) = s^2 / n. Unlike a
    bootstrap's, they repeat no row, which a measure of diversity or of neighbours would see. A number that depends on n has another level at
    n / 2, so that spreads are taken relative to the level.
    """
    level = float(halves.mean())
    return (halves - level) * (value / level if level else 1.0)


def spread_interval(value: float, spreads: Sequence[np.ndarray]) -> tuple[float, float]:
    """value -+ 1.96 standard errors, from deviations about 0: one array for each draw of rows."""
    flat = np.concatenate(spreads)
    width = 1.96 * math.sqrt(float(np.sum(flat**2)) / max(1, len(flat) - len(spreads)))
    return value - width, value + width


def bootstrap_mean(values: Sequence[float] | np.ndarray, seed: int, draws: int = DRAWS) -> tuple[float, float, float]:
    """(mean, low, high) of a sample of numbers, percentile bootstrap."""
    data = np.asarray(values, dtype=float)
    picks = np.random.default_rng(seed).integers(len(data), size=(draws, len(data)))
    low, high = percentile_interval(data[picks].mean(axis=1))
    return float(data.mean()), low, high


def paired_difference(
    a: int,
    b: int,
    rows: int,
    score_a: Scorer,
    score_b: Scorer,
    seed: int,
    draws: int = DRAWS,
    paired: bool = False,
) -> Difference:
    """b - a on the same test rows; a, b: seeds of each arm.

    Every draw resamples the test rows once for both arms, and each arm's seeds; paired: the same seeds of both (their training rows are the same).
    """
    every = np.arange(rows)[None]
    mean = float(np.mean([score_b(s, every) for s in range(b)]) - np.mean([score_a(s, every) for s in range(a)]))
    drawn = (_kept if draws * rows <= KEPT else _drawn)(a, b, rows, seed, draws, paired)
    values = np.concatenate([_over_seeds(score_b, second, picked) - _over_seeds(score_a, first, picked) for picked, first, second in drawn])
    low, high = percentile_interval(values)
    return Difference(mean, low, high, float(np.std(values)))


def _drawn(a: int, b: int, rows: int, seed: int, draws: int, paired: bool) -> Iterator[Drawn]:
    """The draws of `paired_difference`, as many together as CELLS allows."""
    rng = np.random.default_rng(seed)

    def draw() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        picked, first = rng.integers(rows, size=rows), rng.integers(a, size=a)
        return picked, first, first if paired else rng.integers(b, size=b)

    step = max(1, CELLS // rows)
    for start in range(0, draws, step):
        drawn = [draw() for _ in range(min(step, draws - start))]
        picked, first, second = (np.array(part) for part in zip(*drawn, strict=True))
        yield picked, first, second


@lru_cache(maxsize=4)
def _kept(a: int, b: int, rows: int, seed: int, draws: int, paired: bool) -> list[Drawn]:
    """They are the same for all arms of a gain, and drawing them takes longer than scoring them."""
    return list(_drawn(a, b, rows, seed, draws, paired))


def _over_seeds(score: Scorer, seeds: np.ndarray, picked: np.ndarray) -> np.ndarray:
    """float (draws,): the mean of each draw's seeds. seeds: int (draws, seeds); picked: int (draws, rows)."""
    points = np.array([score(s, picked) for s in range(seeds.max() + 1)])
    return np.asarray(points[seeds, np.arange(len(seeds))[:, None]].mean(axis=1))


def equal_draw(items: Sequence[T], n: int, seed: int) -> list[T]:
    """n of the items without replacement, in their order; raises ValueError when there are fewer."""
    if n > len(items):
        raise ValueError(f"cannot draw {n} of {len(items)} items.")
    picked = sorted(np.random.default_rng(seed).choice(len(items), size=n, replace=False).tolist())
    return [items[i] for i in picked]


def mean_of(values: Sequence[float | None]) -> float | None:
    """None where one of them could not be measured, or there is none."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def power_law(points: Sequence[tuple[float, float]], n: float) -> float:
    """Seconds at n by a power law through (n, seconds), its exponent held between 0 and 2; in proportion where all n are equal."""
    known = [(math.log(x), math.log(max(seconds, 1e-6))) for x, seconds in points if x > 0]
    x, y = (sum(values) / len(known) for values in zip(*known, strict=True))
    spread = sum((a - x) ** 2 for a, _ in known)
    slope = sum((a - x) * (b - y) for a, b in known) / spread if spread > 1e-9 else 1.0
    return math.exp(y + min(2.0, max(0.0, slope)) * (math.log(max(n, 1)) - x))
