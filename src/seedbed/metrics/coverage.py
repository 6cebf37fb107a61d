"""Whether kept rows lie where real ones do, and in the same shares: nearest neighbours, a classifier that tells them apart, and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from seedbed.metrics.draws import Drawn, Rows, equal_sides
from seedbed.stats import half_spread, permutation_p, spread_interval, wilson
from seedbed.types import Example, Measure, Sample, seed_for

LEAST = 20
"""Rows a side below which neighbours and classifiers say nothing."""
LEAST_LABELS = 4
"""The same for labels: halves of fewer rows do not vary."""
HALVES = 20
"""Random halves of each draw, for the intervals of neighbours and label coverage."""
RESAMPLES = 200
"""Bootstrap resamples of each draw, for the intervals of the classifier and of label shares."""
PERMUTATIONS = 199
LABEL_PERMUTATIONS = 999
FOLDS = 5
STEPS = 15
"""Steps of the logistic regression; AUC no longer moves in the third digit (LOG, 24 November)."""
RIDGE = 1.0
"""L2 penalty: half of it times |w|^2, against the sum of the rows' losses."""
NEIGHBOURS = ("knn_precision", "knn_recall", "knn_density", "knn_coverage")
LABELS = ("label_coverage", "label_divergence")
NAMED: dict[str, tuple[Literal["higher", "lower", "closer"], str]] = {
    "knn_precision": ("higher", "share of kept rows within reach of a real row, its k-th real neighbour being the limit"),
    "knn_recall": ("higher", "share of real rows within reach of a kept row, its k-th kept neighbour being the limit"),
    "knn_density": ("closer", "real rows within whose reach a kept row lies, over k, mean"),
    "knn_coverage": ("higher", "share of real rows within whose reach a kept row lies"),
    "c2st_auc": ("lower", f"AUC of a logistic regression between kept and real rows, mean of {FOLDS} held-out folds; 0.5: cannot be told apart"),
    "label_coverage": ("higher", "share of the labels of dev + test that stand among the kept rows"),
    "label_divergence": ("lower", "total variation between the shares of labels"),
}


@dataclass(frozen=True)
class Coverage:
    """k-NN precision, recall, density and coverage, the AUC of a classifier between kept and real rows, and how labels are covered and shared.

    All of kept against dev + test; real: fit against dev + test. All at equal n, the size of the smallest of kept, dev + test and fit, at most
    `rows`; the value is the mean of several random draws. p: permutation test of kept against dev + test rows, of the first draw.

    embedder: gives the features ("minilm", a folder or hub name). draws: how many, 1 to 100. k: the neighbour that a row reaches, 1 to 9.
    rows: of a draw at most, 20 or more.
    """

    version: ClassVar[int] = 1

    embedder: str = "minilm"
    draws: Annotated[int, Field(ge=1, le=100)] = 5
    k: Annotated[int, Field(ge=1, le=9)] = 5
    rows: Annotated[int, Field(ge=LEAST)] = 500

    def measure(self, sample: Sample, kept: Sequence[Example], seed: int) -> list[Measure]:
        from seedbed.lm.embed import embed

        sides = equal_sides(sample, kept, self.draws, seed, self.rows)
        labelled = bool(sample.task.has_labels and sample.task.target)
        known = set(_labels(sample, [*sample.dev, *sample.test])) if labelled else set()
        found: dict[str, list[Drawn]] = {name: [] for name in NAMED}
        for i, rows in enumerate(sides.draws):
            drawn = {}
            if sides.n >= LEAST:
                features = [embed([sample.task.body(e.fields) for e in side], self.embedder) for side in rows]
                drawn = self.compare(features[0], features[1], features[2], seed_for(seed, "coverage", i), test=not i)
            if labelled and sides.n >= LEAST_LABELS:
                labels = [_labels(sample, side) for side in rows]
                drawn |= compare_labels(labels[0], labels[1], labels[2], known, seed_for(seed, "labels", i), test=not i)
            for name, draw in drawn.items():
                found[name].append(draw)
        reasons = dict.fromkeys(NAMED, sides.few(LEAST))
        reasons |= dict.fromkeys(LABELS, sides.few(LEAST_LABELS) if labelled else f"a task of kind {sample.task.kind} has no labels")
        measures = [_measure(name, draws, sides.n, reasons[name]) for name, draws in found.items()]
        cut = sides.cut(sample.task, self.embedder) if sides.n >= LEAST else ""
        return [replace(m, note=m.note + cut) if m.name not in LABELS and m.value is not None else m for m in measures]

    def compare(self, kept: np.ndarray, reference: np.ndarray, fit: np.ndarray, seed: int, *, test: bool) -> dict[str, Drawn]:
        """Each number of one draw's features (n, d), n >= LEAST; test: with a p."""
        ours, real = (_squared(np.concatenate([side, reference]).astype(np.float64)) for side in (kept, fit))
        n, rng = len(kept), np.random.default_rng(seed)
        first, second = np.arange(n), np.arange(n, 2 * n)
        value, beside = (knn(squared, first, second, self.k) for squared in (ours, real))
        halves = [knn(ours, rng.permutation(n)[: n // 2], n + rng.permutation(n)[: n // 2], self.k) for _ in range(HALVES)]
        orders = [rng.permutation(2 * n) for _ in range(PERMUTATIONS if test else 0)]
        numbers = np.array([value, *(knn(ours, order[:n], order[n:], self.k) for order in orders)])
        # Low is unlike real; of density, what is far from 1, the mean of exchangeable rows.
        unlike = np.where([name == "knn_density" for name in NEIGHBOURS], np.abs(numbers - 1), -numbers)
        found = {}
        for j, name in enumerate(NEIGHBOURS):
            p = permutation_p(unlike[0, j], unlike[1:, j]) if test else None
            found[name] = Drawn(value[j], beside[j], half_spread(value[j], np.array([h[j] for h in halves])), p)
        return found | {"c2st_auc": _classifier(kept, reference, fit, rng, test)}


def _measure(name: str, draws: Sequence[Drawn], n: int, few: str) -> Measure:
    better, meaning = NAMED[name]
    if not draws:
        return Measure(name, None, better=better, n=n, note=few)
    value, real = (float(np.mean([getattr(d, side) for d in draws])) for side in ("value", "real"))
    low, high = spread_interval(value, [d.spread for d in draws])
    if name in ("knn_precision", "knn_recall", "knn_coverage"):
        # Halves of rows that are all in, or all out, do not vary; a share of n rows is known no better than by Wilson's interval.
        bounds = wilson(round(value * n), n)
        low, high = min(low, max(bounds[0], 0.0)), max(high, bounds[1])
    low, high = max(0.0, min(low, value)), high if name == "knn_density" else min(1.0, max(high, value))
    how = f"bootstrap of {'scores' if name == 'c2st_auc' else 'rows'}" if name in ("c2st_auc", "label_divergence") else "random halves of the rows"
    permutations = LABEL_PERMUTATIONS if name in LABELS else PERMUTATIONS
    note = f"{meaning}; mean of {len(draws)} draws of n rows a side; interval: {how}; real: fit against dev + test"
    return Measure(name, value, "", better, n, low, high, real, f"{note}; p: {permutations} permutations of the first draw's rows", draws[0].p)


def _squared(features: np.ndarray) -> np.ndarray:
    """Squared distances (n, n), infinite to oneself; rounded, so that copies are at 0 on every side."""
    norms = (features * features).sum(1)
    found = np.round(np.maximum(norms[:, None] + norms - 2 * features @ features.T, 0.0), 9)
    np.fill_diagonal(found, np.inf)
    return np.asarray(found)


def knn(squared: np.ndarray, kept: np.ndarray, real: np.ndarray, k: int) -> np.ndarray:
    """Precision, recall (Kynkaanniemi et al. 2019, arXiv:1904.06991), density and coverage (Naeem et al. 2020, arXiv:2002.09797), (4,).

    squared: distances of all rows, infinite to oneself. kept, real: the rows' indices, more than k each. A row reaches as far as its k-th
    neighbour of its own side, and what lies just there is within reach.
    """
    across = squared[np.ix_(kept, real)]
    reach = [np.partition(squared[np.ix_(side, side)], k - 1, axis=1)[:, k - 1] for side in (kept, real)]
    by_kept, by_real = across <= reach[0][:, None], across <= reach[1][None, :]
    return np.array([by_real.any(1).mean(), by_kept.any(0).mean(), by_real.sum() / (k * len(kept)), by_real.any(0).mean()])


def _classifier(kept: np.ndarray, reference: np.ndarray, fit: np.ndarray, rng: np.random.Generator, test: bool) -> Drawn:
    n = len(kept)
    # Each fold has equally many rows of both sides, and a permutation moves rows between the sides within their fold.
    folds = np.concatenate([rng.permutation(n) % FOLDS, rng.permutation(n) % FOLDS])
    labels = np.repeat([1.0, -1.0], n)
    columns = [labels]
    for _ in range(PERMUTATIONS if test else 0):
        shuffled = labels.copy()
        for fold in range(FOLDS):
            shuffled[folds == fold] = rng.permutation(labels[folds == fold])
        columns.append(shuffled)
    ours, real = np.concatenate([kept, reference]), np.concatenate([fit, reference])
    signs = np.stack(columns, axis=1)
    scores = out_of_fold(ours, signs, folds)
    values = fold_auc(scores, signs, folds)
    beside = float(fold_auc(out_of_fold(real, signs[:, :1], folds), signs[:, :1], folds)[0])
    spread = _auc_spread(scores[:, 0], labels, folds, rng)
    return Drawn(float(values[0]), beside, spread, permutation_p(float(values[0]), values[1:]) if test else None)


def out_of_fold(features: np.ndarray, signs: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Scores (n, b) of logistic regressions, each row's from those that were fitted on the other folds.

    features (n, d), centred here; signs (n, b), +1 or -1, a column for each regression. All columns share Boehning's bound of the Hessian,
    X'X / 4 (Boehning 1992), so that hundreds of regressions are a few matrix products. No intercept: it changes no order within a fold.
    """
    x = (features - features.mean(0)).astype(np.float32)
    y = signs.astype(np.float32)
    scores = np.zeros(y.shape, dtype=np.float32)
    for fold in np.unique(folds):
        rows, labels = x[folds != fold], y[folds != fold]
        inverse = np.linalg.inv((rows.T @ rows / 4).astype(np.float64) + RIDGE * np.eye(x.shape[1])).astype(np.float32)
        weights = np.zeros((x.shape[1], y.shape[1]), dtype=np.float32)
        for _ in range(STEPS):
            wrong = labels / (1 + np.exp(np.clip(labels * (rows @ weights), -30, 30)))
            weights += inverse @ (rows.T @ wrong - RIDGE * weights)
        scores[folds == fold] = x[folds == fold] @ weights
    return scores


def fold_auc(scores: np.ndarray, signs: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Mean over folds of the area under the ROC curve of each column (n, b) -> (b,): P(score of + > score of -), ties one half."""
    from scipy.stats import rankdata

    found = []
    for fold in np.unique(folds):
        ranks, ours = rankdata(scores[folds == fold], axis=0), signs[folds == fold] > 0
        many, others = ours.sum(0), (~ours).sum(0)
        found.append(((ranks * ours).sum(0) - many * (many + 1) / 2) / (many * others))
    return np.asarray(np.mean(found, axis=0))


def _auc_spread(scores: np.ndarray, labels: np.ndarray, folds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deviations (RESAMPLES,) of the mean AUC when the rows of each side and fold are drawn again, the regressions held fast."""
    total = np.zeros(RESAMPLES)
    for fold in range(FOLDS):
        ours, theirs = (scores[(folds == fold) & (labels == sign)] for sign in (1, -1))
        above = (ours[:, None] > theirs) + 0.5 * (ours[:, None] == theirs)
        u, v = (rng.multinomial(len(s), np.full(len(s), 1 / len(s)), size=RESAMPLES) / len(s) for s in (ours, theirs))
        total += ((u @ above) * v).sum(1) / FOLDS
    return np.asarray(total - total.mean())


def _labels(sample: Sample, rows: Rows) -> list[str]:
    return [str(e.fields.get(str(sample.task.target), "")) for e in rows]


def compare_labels(kept: list[str], reference: list[str], fit: list[str], known: set[str], seed: int, *, test: bool) -> dict[str, Drawn]:
    """Label coverage and divergence of one draw: n labels a side. known: the labels of all dev + test rows. test: with a p."""
    rng, n = np.random.default_rng(seed), len(kept)
    names = sorted({*kept, *reference, *fit, *known})
    ours, theirs, beside = (np.array([side.count(name) for name in names]) for side in (kept, reference, fit))
    real = np.array([name in known for name in names])

    def covered(counts: np.ndarray) -> np.ndarray:
        return np.asarray((counts[..., real] > 0).mean(-1))

    def apart(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(p - q).sum(-1) / (2 * n))

    halves = covered(rng.multivariate_hypergeometric(ours, n // 2, size=HALVES))
    p, q = (rng.multinomial(n, side / n, size=RESAMPLES) for side in (ours, theirs))
    resampled = apart(p, q)
    value, distance = float(covered(ours)), float(apart(ours, theirs))
    chances: list[float | None] = [None, None]
    if test:
        permuted = rng.multivariate_hypergeometric(ours + theirs, n, size=LABEL_PERMUTATIONS, method="marginals")
        rest = ours + theirs - permuted
        # Of coverage: by how many labels the real side has more. Which labels are known depends on who is real; that does not.
        missing = [(b > 0).sum(-1) - (a > 0).sum(-1) for a, b in ((ours, theirs), (permuted, rest))]
        chances = [permutation_p(float(missing[0]), missing[1]), permutation_p(distance, apart(permuted, rest))]
    return {
        "label_coverage": Drawn(value, float(covered(beside)), half_spread(value, halves), chances[0]),
        "label_divergence": Drawn(distance, float(apart(beside, theirs)), resampled - resampled.mean(), chances[1]),
    }
