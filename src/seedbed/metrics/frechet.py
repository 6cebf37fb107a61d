"""How far apart the clouds of kept and real features lie, each taken for a Gaussian: the distance of images' FID, of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from seedbed.metrics.draws import Drawn, equal_sides, mean_of
from seedbed.stats import half_spread, permutation_p
from seedbed.types import Example, Measure, Sample, seed_for

LEAST = 20
"""Rows a side below which a covariance says nothing."""
HALVES = 20
PERMUTATIONS = 199


@dataclass(frozen=True)
class Frechet:
    """`frechet_distance`: squared 2-Wasserstein distance of Gaussians fitted to the features of kept and of dev + test rows; real: fit against
    dev + test. All at equal n, the size of the smallest of the three, at most `rows`; it falls as n grows, so compare at equal n alone.

    embedder: gives the features ("minilm", a folder or hub name). draws: how many, 1 to 100. rows: of a draw at most, 20 or more.
    """

    version: ClassVar[int] = 1

    embedder: str = "minilm"
    draws: Annotated[int, Field(ge=1, le=100)] = 5
    rows: Annotated[int, Field(ge=LEAST)] = 300

    def measure(self, sample: Sample, kept: Sequence[Example], seed: int) -> list[Measure]:
        from seedbed.lm.embed import embed

        sides = equal_sides(sample, kept, self.draws, seed, self.rows)
        if few := sides.few(LEAST):
            return [Measure("frechet_distance", None, better="lower", n=sides.n, note=few)]
        drawn = []
        for i, rows in enumerate(sides.draws):
            features = [embed([sample.task.body(e.fields) for e in side], self.embedder) for side in rows]
            drawn.append(compare(features[0], features[1], features[2], seed_for(seed, "frechet", i), test=not i))
        note = f"{self.embedder} features; mean of {len(drawn)} draws of n rows a side; interval: random halves of the rows"
        note += f"; real: fit against dev + test; p: {PERMUTATIONS} permutations of the first draw's rows" + sides.cut(sample.task, self.embedder)
        return [mean_of("frechet_distance", drawn, "", "lower", sides.n, note)]


def compare(kept: np.ndarray, reference: np.ndarray, fit: np.ndarray, seed: int, *, test: bool) -> Drawn:
    """The distance of one draw's features (n, d), n >= 4; test: with a p."""
    from threadpoolctl import threadpool_limits

    n, rng = len(kept), np.random.default_rng(seed)
    both = np.concatenate([kept, reference]).astype(np.float64)
    with threadpool_limits(limits=1):  # sums over threads come in any order
        value, real = distance(both[:n], both[n:]), distance(fit.astype(np.float64), both[n:])
        halves = [distance(both[rng.permutation(n)[: n // 2]], both[n + rng.permutation(n)[: n // 2]]) for _ in range(HALVES)]
        orders = [rng.permutation(2 * n) for _ in range(PERMUTATIONS if test else 0)]
        p = permutation_p(value, [distance(both[order[:n]], both[order[n:]]) for order in orders]) if test else None
    return Drawn(value, real, half_spread(value, np.array(halves)), p)


def distance(x: np.ndarray, y: np.ndarray) -> float:
    """|m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)) of the means and covariances of (n, d) and (m, d), 2 rows or more each; 0 for equal sides.

    Dowson and Landau 1982; Heusel et al. 2017, arXiv:1706.08500. With A and B the centred rows over the root of n - 1, S = A'A and S' = B'B, the
    trace of (S S')^(1/2) is the sum of the singular values of A B' (n, m), which needs no root of a matrix that few rows leave singular.
    """
    a, b = ((side - side.mean(0)) / np.sqrt(len(side) - 1) for side in (x, y))
    across = a @ b.T
    if len(across) > len(x[0]):  # fewer columns than rows: the same singular values in a smaller matrix
        upper, other = (np.asarray(np.linalg.qr(side, mode="r")) for side in (a, b))
        across = upper @ other.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(across @ across.T), 0.0)).sum()
    apart = ((x.mean(0) - y.mean(0)) ** 2).sum()
    return max(0.0, float(apart + (a * a).sum() + (b * b).sum() - 2 * shared))
