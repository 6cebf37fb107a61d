"""How near the distribution of kept texts is to that of real ones.

MAUVE (Pillutla et al., NeurIPS 2021), its smoothed variant (Pillutla et al., JMLR 2023) and the frontier integral (Liu et al., NeurIPS
2021), written from the formulas; and the unbiased maximum mean discrepancy (Gretton et al., JMLR 2012), which speaks for small samples too.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from seedbed.metrics.draws import equal_sides
from seedbed.stats import median_distance, percentile_interval, permutation_p, squared_distances
from seedbed.types import Example, Measure, Sample, seed_for

SCALING = 5.0
"""c: how steeply a divergence counts."""
VARIANCE = 0.9
"""Share of it that the joint PCA keeps."""
WEIGHTS = np.linspace(1e-6, 1 - 1e-6, 25)
LEAST = 100
"""Rows a side below which histograms say nothing, and MAUVE is None."""
MMD_ROWS = 2000
"""Rows a side that MMD looks at, at most: it holds n x n kernels."""
RESAMPLES = 200
"""Bootstrap resamples of each draw."""
PERMUTATIONS = 999
"""Arrangements behind a p: the smallest that it can be is 0.001."""


@dataclass(frozen=True)
class Mauve:
    """MAUVE, its smoothed variant, the frontier integral and MMD^2 of kept texts against dev + test; real: fit against dev + test.

    All at equal n, the size of the smallest of kept, dev + test and fit: the number is the mean of several random draws of n rows, each
    with its own start of k-means. Under 100 rows a side the first three are None, and MMD^2 alone speaks. Values depend on n, on the
    embedder and on the bins: compare only where these agree. p: permutation test of kept against dev + test rows, of the first draw.

    embedder: gives the features ("minilm", a folder or hub name). draws: how many, 1 to 100. k: bins, 2 or more; None: n / 10.
    restarts, iterations: of k-means, 1 or more.
    """

    version: ClassVar[int] = 2

    embedder: str = "minilm"
    draws: Annotated[int, Field(ge=1, le=100)] = 5
    k: Annotated[int, Field(ge=2)] | None = None
    restarts: Annotated[int, Field(ge=1)] = 1
    iterations: Annotated[int, Field(ge=1)] = 10

    def measure(self, sample: Sample, kept: Sequence[Example], seed: int) -> list[Measure]:
        from seedbed.lm.embed import embed

        sides = equal_sides(sample, kept, self.draws, seed)
        n, got = sides.n, sides.got
        found: dict[str, list[_Draw]] = {name: [] for name in NAMES}
        for i, rows in enumerate(sides.draws if n >= 2 else []):
            features = [embed([sample.task.body(e.fields) for e in side], self.embedder) for side in rows]
            drawn = self.compare(features[0], features[1], features[2], seed_for(seed, "mauve", i), 0 if i else PERMUTATIONS)
            for name, draw in drawn.items():
                found[name].append(draw)
        how = f"mean of {self.draws} draws of n rows a side; interval: bootstrap of the rows, and the draws; real: fit against dev + test"
        how += f"; p: {PERMUTATIONS} permutations of the first draw's rows" + sides.cut(sample.task, self.embedder)
        bins = f"{self.k or 'n / 10'} bins of {self.embedder} features, {how}"
        few = f"needs {LEAST} rows on each side, {got}; mmd stands in"
        kernel = f"RBF kernel, median heuristic on fit rows, {self.embedder} features, {how}"
        return [
            _measure("mauve", "higher", n, found, bins, few),
            _measure("mauve_smoothed", "higher", n, found, bins, few),
            _measure("frontier_integral", "lower", n, found, bins, few),
            _measure("mmd", "lower", min(n, MMD_ROWS), found, kernel, f"needs 2 rows on each side, {got}"),
        ]

    def compare(self, kept: np.ndarray, reference: np.ndarray, fit: np.ndarray, seed: int, permutations: int = 0) -> dict[str, _Draw]:
        """Each number of one draw: features (n, d) of each side, n >= 2; under LEAST rows MMD^2 alone. permutations: 0 makes no test."""
        found = {"mmd": _mmd_draw(kept, reference, fit, seed_for(seed, "mmd"), permutations)}
        if len(kept) >= LEAST:
            ours, real = (mauve(side, reference, k=self.k, seed=seed, restarts=self.restarts, iterations=self.iterations) for side in (kept, fit))
            resampled = _resampled(ours, seed_for(seed, "bootstrap"))
            p = _chances(ours, seed_for(seed, "permute"), permutations) if permutations else (None, None, None)
            found["mauve"] = _Draw(ours.value, real.value, resampled[0], p[0])
            found["mauve_smoothed"] = _Draw(ours.smoothed, real.smoothed, resampled[1], p[1])
            found["frontier_integral"] = _Draw(ours.frontier, real.frontier, resampled[2], p[2])
        return found


NAMES = ("mauve", "mauve_smoothed", "frontier_integral", "mmd")


@dataclass(frozen=True)
class _Draw:
    """A number of one draw of rows, the same of real rows, the number of bootstrap resamples (RESAMPLES,), and the p of the value."""

    value: float
    real: float
    resampled: np.ndarray
    p: float | None = None


def _measure(name: str, better: Literal["higher", "lower"], n: int, found: Mapping[str, Sequence[_Draw]], note: str, few: str) -> Measure:
    draws = found[name]
    if not draws:
        return Measure(name, None, better=better, n=n, note=few)
    value, real = (float(np.mean([getattr(d, side) for d in draws])) for side in ("value", "real"))
    # Resampling itself moves the number away from real text (a resample has fewer different rows), so its centre is the draw's own value.
    low, high = percentile_interval(np.concatenate([d.value + d.resampled - d.resampled.mean() for d in draws]))
    if name != "mmd":
        low, high = max(0.0, low), min(1.0, high)
    return Measure(name, value, better=better, n=n, low=low, high=high, real=real, note=note, p=draws[0].p)


def _resampled(result: MauveResult, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """MAUVE, smoothed and frontier integral of bootstrap resamples of both sides' rows, the bins held fast."""
    rng = np.random.default_rng(seed)
    p, q = (rng.multinomial(side.sum(), _shares(side), size=RESAMPLES) for side in (result.p, result.q))
    smoothed = _area(_curve(_shares(p + 0.5), _shares(q + 0.5), SCALING))
    return _area(_curve(_shares(p), _shares(q), SCALING)), smoothed, _frontier(_shares(p), _shares(q))


def _chances(result: MauveResult, seed: int, permutations: int) -> tuple[float, float, float]:
    """p of MAUVE, smoothed and frontier integral. The bins know nothing of the sides, so permuted rows fall into them hypergeometrically."""
    rng = np.random.default_rng(seed)
    both = result.p + result.q
    p = rng.multivariate_hypergeometric(both, int(result.p.sum()), size=permutations, method="marginals")
    q = both - p
    mauves, smoothed = _area(_curve(_shares(p), _shares(q), SCALING)), _area(_curve(_shares(p + 0.5), _shares(q + 0.5), SCALING))
    frontiers = permutation_p(result.frontier, _frontier(_shares(p), _shares(q)))
    return permutation_p(-result.value, -mauves), permutation_p(-result.smoothed, -smoothed), frontiers


def _mmd_draw(kept: np.ndarray, reference: np.ndarray, fit: np.ndarray, seed: int, permutations: int) -> _Draw:
    rng = np.random.default_rng(seed)
    n = min(len(kept), MMD_ROWS)
    x, y, z = (side[np.sort(rng.choice(len(side), n, replace=False))].astype(np.float64) for side in (kept, reference, fit))
    bandwidth = median_distance(z)  # of neither side that is compared: a permutation leaves it as it is
    p = permutation_p(*_mmd_permuted(x, y, bandwidth, rng, permutations)) if permutations else None
    u, v = (rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64) for _ in range(2))
    return _Draw(mmd(x, y, bandwidth), mmd(z, y, bandwidth), _mmd(x, y, bandwidth, u, v), p)


@dataclass(frozen=True)
class MauveResult:
    """value, smoothed, frontier in [0, 1]; k bins; n rows of the smaller side; curve (27, 2) from (1, 0) to (0, 1); p, q: counts (k,)."""

    value: float
    smoothed: float
    frontier: float
    k: int
    n: int
    curve: np.ndarray
    p: np.ndarray
    q: np.ndarray


def mauve(
    p_features: np.ndarray,
    q_features: np.ndarray,
    *,
    k: int | None = None,
    seed: int = 0,
    restarts: int = 1,
    iterations: int = 10,
) -> MauveResult:
    """MAUVE between two sets of features, (n, d) and (m, d), in any order: the rows' order changes nothing, nor does swapping the sides.

    k: bins, by default a tenth of the smaller side and 2 at least; never more than there are different points. restarts, iterations: of
    k-means. Raises ValueError where a side is empty.
    """
    n = min(len(p_features), len(q_features))
    if not n:
        raise ValueError(f"both sides need a row. Got {len(p_features)} and {len(q_features)}.")
    p, q = _histograms(p_features, q_features, max(2, round(n / 10)) if k is None else k, seed, restarts, iterations)
    curve = _curve(_shares(p), _shares(q), SCALING)
    smoothed = _area(_curve(_shares(p + 0.5), _shares(q + 0.5), SCALING))
    return MauveResult(float(_area(curve)), float(smoothed), float(_frontier(_shares(p), _shares(q))), len(p), n, curve, p, q)


def _histograms(p: np.ndarray, q: np.ndarray, k: int, seed: int, restarts: int, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts (k,) of each side's rows in the bins of a joint k-means.

    Different points in sorted order, weighted by how often they stand, so that equal rows share a bin whatever the order of the rows. It
    starts from random rows, as the reference does: k-means++ takes 10 times as long, and by its outliers makes other bins (LOG, 2026-11-24).
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    both = np.concatenate([p, q]).astype(np.float64)
    both /= np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-12)
    points, where, counts = np.unique(both, axis=0, return_inverse=True, return_counts=True)
    where = where.reshape(-1)
    bins = min(k, len(points))
    labels = np.zeros(len(points), dtype=np.int64)
    # One thread: sums over threads come in any order and can move a point at a border.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a bin may stay empty; that is no fault
        if bins > 1:
            reduced = PCA(VARIANCE).fit(np.repeat(points, counts, axis=0)).transform(points).astype(np.float32)
            means = KMeans(bins, init="random", n_init=restarts, max_iter=iterations, random_state=seed % 2**32)
            labels = means.fit(reduced, sample_weight=counts.astype(np.float32)).labels_
    placed = labels[where]
    return np.bincount(placed[: len(p)], minlength=bins), np.bincount(placed[len(p) :], minlength=bins)


def _shares(counts: np.ndarray) -> np.ndarray:
    """Counts (..., k) -> shares that sum to 1."""
    return np.asarray(counts / counts.sum(-1, keepdims=True))


def _kl(p: np.ndarray, r: np.ndarray) -> np.ndarray:
    """KL(p|r) in nats over the last axis; empty bins of p count 0."""
    from scipy.special import rel_entr

    return np.asarray(rel_entr(p, r).sum(-1))


def _curve(p: np.ndarray, q: np.ndarray, scaling: float) -> np.ndarray:
    """Shares (..., k) -> divergence curve (..., 27, 2)."""
    mixes = (w * p + (1 - w) * q for w in WEIGHTS)
    points = [np.stack([np.exp(-scaling * _kl(q, r)), np.exp(-scaling * _kl(p, r))], -1) for r in mixes]
    ends = [np.broadcast_to(end, points[0].shape) for end in ((1.0, 0.0), (0.0, 1.0))]
    return np.stack([ends[0], *points, ends[1]], -2)


def _area(curve: np.ndarray) -> np.ndarray:
    """Area under curves (..., 27, 2), x falling from 1 to 0; between points straight lines."""
    x, y = curve[..., 0], curve[..., 1]
    return np.asarray(((y[..., 1:] + y[..., :-1]) / 2 * (x[..., :-1] - x[..., 1:])).sum(-1))


def _frontier(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Frontier integral of shares (..., k), in [0, 1]: 2 * integral over w of w KL(p|r) + (1 - w) KL(q|r), in closed form."""
    with np.errstate(divide="ignore", invalid="ignore"):
        # p q (ln p - ln q) / (p - q) tends to p where p = q, and to 0 where one is 0.
        inner = np.where(p == q, p, np.where((p > 0) & (q > 0), p * q * (np.log(p) - np.log(q)) / (p - q), 0.0))
    return np.asarray(2 * ((p + q) / 4 - inner / 2).sum(-1))


def mmd(x: np.ndarray, y: np.ndarray, bandwidth: float) -> float:
    """Unbiased MMD^2 of (n, d) and (m, d) with the kernel exp(-|a - b|^2 / (2 bandwidth^2)); about 0, also below, where both are alike.

    Needs 2 rows a side.
    """
    return float(_mmd(x, y, bandwidth, np.ones((1, len(x))), np.ones((1, len(y))))[0])


def _mmd_permuted(x: np.ndarray, y: np.ndarray, bandwidth: float, rng: np.random.Generator, permutations: int) -> tuple[float, np.ndarray]:
    """MMD^2 of (n, d) and (n, d), and of `permutations` random halvings of their 2n rows."""
    both = np.concatenate([x, y])
    n = len(x)
    k = np.exp(-squared_distances(both, both) / (2 * bandwidth**2))
    np.fill_diagonal(k, 0.0)
    signs = np.concatenate([np.ones(n), -np.ones(n)])
    sides = np.stack([signs, *(rng.permutation(signs) for _ in range(permutations))])
    ours, total = (sides > 0).astype(np.float64), k.sum()
    within, whole = ((ours @ k) * ours).sum(1), ours @ k.sum(1)
    theirs, across = total - 2 * whole + within, whole - within
    values = (within + theirs) / (n * (n - 1)) - 2 * across / n**2
    return float(values[0]), values[1:]


def _mmd(x: np.ndarray, y: np.ndarray, bandwidth: float, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """MMD^2 for each row of the weights u (b, n) and v (b, m), which sum to n and m."""

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-squared_distances(a, b) / (2 * bandwidth**2))

    def within(a: np.ndarray, weights: np.ndarray) -> np.ndarray:
        k = kernel(a, a)
        np.fill_diagonal(k, 0.0)
        return np.asarray(((weights @ k) * weights).sum(1) / (len(a) * (len(a) - 1)))

    return np.asarray(within(x, u) + within(y, v) - 2 * ((u @ kernel(x, y)) * v).sum(1) / (len(x) * len(y)))
