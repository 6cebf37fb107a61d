"""How much of the kept rows was copied from real ones, beside how much real rows repeat each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from seedbed.copies import NEAR, Copied, Copies
from seedbed.metrics.draws import in_order
from seedbed.stats import (
    DRAWS,
    bootstrap_mean,
    equal_draw,
    half_spread,
    more_p,
    percentile_interval,
    permutation_p,
    spread_interval,
    wilson,
)
from seedbed.store import Mapped
from seedbed.text import SPLITS, Split, longest_runs, real_texts
from seedbed.types import EVIDENCE, Evidence, Example, Measure, Sample, seed_for

HALVES = 20
"""Random halvings of dev + test that real text's own neighbour ratio is the mean of."""
PERMUTATIONS = 999
LEAST = 20
"""Rows a side below which `nearer_to_fit` says nothing."""
MOST = 500
"""Rows a side of `nearer_to_fit` at most."""
DEALS = 199
"""Ways to deal real rows to fit and the others, behind its p."""


@dataclass(frozen=True)
class Memorisation:
    """Copies of real rows among the kept ones, the longest run of words shared with fit, and the distance to the nearest fit row.

    verbatim_rate: share of kept rows whose text is a real row's but for case, punctuation and white space; near_verbatim_rate: whose 5-character
    shingles have a Jaccard similarity of 0.8 or more with a real row's; both also split by split. longest_shared_run: words, mean over rows.
    neighbour_ratio: median distance to the nearest fit row over the same of dev + test rows; below 1 is nearer to fit than real text is.
    nearer_to_fit: share of kept rows that lie nearer to a fit row than to one of as many dev + test rows. p: permutation of kept and real rows;
    of a rate, Fisher's exact test against the rows that `real` speaks of. embedder: of the distances ("minilm", a folder or hub name).
    """

    version: ClassVar[int] = 3

    embedder: str = "minilm"

    def measure(self, sample: Sample, kept: Sequence[Example], seed: int) -> list[Measure]:
        from seedbed.lm.embed import embed

        body = sample.task.body
        fit, dev, test = (sorted(body(e.fields) for e in rows) for rows in (sample.fit, sample.dev, sample.test))
        texts = Mapped(in_order(sample.task, kept), lambda e: body(e.fields))
        reference = sorted([*dev, *test])
        n = min(len(texts), len(reference))
        distances = []
        if n and fit:
            real = embed(fit, self.embedder)
            drawn = (equal_draw(side, n, seed_for(seed, "neighbour", i)) for i, side in enumerate((texts, reference)))
            distances = [nearest(embed(side, self.embedder), real) for side in drawn]
        few = [equal_draw(side, min(len(side), MOST), seed_for(seed, "nearer", i)) for i, side in enumerate((texts, reference, fit))]
        nearer = _nearer([embed(side, self.embedder) for side in few], seed_for(seed, "nearer")) if n and fit else None
        got = f"got {len(texts)} kept, {len(reference)} dev + test and {len(fit)} fit"
        return [
            *_copied(sample, kept),
            _shared_run(texts, fit, test, seed_for(seed, "run")),
            neighbour_ratio(distances[0], distances[1], seed_for(seed, "ratio"))
            if distances
            else Measure("neighbour_ratio", None, better="closer", note=f"needs rows on each side, {got}"),
            nearer or Measure("nearer_to_fit", None, "share", "closer", note=f"needs {LEAST} rows on each side, {got}"),
        ]


def _copied(sample: Sample, kept: Sequence[Example]) -> list[Measure]:
    """Verbatim and near-verbatim rates against all real rows and against each split; the real one: test rows that stand in fit too, or in the split
    at hand."""
    body = sample.task.body
    real: dict[Split, list[tuple[Split, str, str]]] = {split: [] for split in SPLITS}
    for row in real_texts(sample):
        real[row[0]].append(row)
    known = {split: Copies(rows, NEAR) for split, rows in real.items()}
    dev, test = ([body(e.fields) for e in rows] for rows in (sample.dev, sample.test))
    found = []
    for near in (False, True):
        rate = "near_verbatim_rate" if near else "verbatim_rate"
        copies: dict[Split, int] = dict.fromkeys(SPLITS, 0)
        gravest: list[tuple[int, str, str, Copied]] = []
        for e in kept:  # there may be a million: what is no copy is forgotten
            text = body(e.fields)
            places = [c for split in SPLITS if (c := _look(known[split], text, near))]
            for c in places:
                copies[c.split] += 1
            if places:
                gravest.append((SPLITS.index(places[0].split), text, e.id, places[0]))
        # No p: kept rows may copy from any split, test rows from fit alone, so that the two are not exchangeable.
        beside = {split: [_look(known[split], text, near) for text in (dev if split == "test" else test)] for split in SPLITS}
        whole = _rate(rate, len(gravest), len(kept), any(real.values()), beside["fit"], bool(real["fit"]), "fit")
        shown = tuple(_shown(name, text, c) for _, text, name, c in sorted(gravest, key=lambda row: row[:3])[:EVIDENCE])
        found.append(replace(whole, p=None, rows=shown))
        for split in SPLITS[::-1]:
            if split == "other" and not real["other"]:
                continue
            found.append(_rate(f"{rate}_{split}", copies[split], len(kept), bool(real[split]), beside[split], bool(real[split]), split))
    return found


def _look(known: Copies, text: str, near: bool) -> Copied | None:
    return max(known.near(text), key=lambda c: c.similarity, default=None) if near else known.equal(text)


def _shown(name: str, text: str, copied: Copied) -> Evidence:
    what = "the same text" if copied.similarity == 1 else f"similarity {copied.similarity:.2f}"
    return Evidence(what, name, copied.real, copied.split, text, copied.text)


def _rate(name: str, copies: int, n: int, real: bool, others: Sequence[Copied | None], among: bool, split: Split) -> Measure:
    """Share of n texts that were found among the real ones; beside it the share of other real rows (dev's where the split is test, else test's)
    that were found in the split. With folds there are none: each test row is a row of fit or dev."""
    if not n or not real:
        reason = "no kept row" if not n else f"the sample has no {split} rows to compare with"
        return Measure(name, None, "share", "lower", n, note=reason)
    repeated = sum(c is not None for c in others)
    low, high = wilson(copies, n)
    own, p = (repeated / len(others), more_p(copies, n, repeated, len(others))) if others and among else (None, None)
    side = "dev" if split == "test" else "test"
    beside = f"share of {side} rows that stand in {split} ({len(others)} rows)" if others else f"not known, the sample has no {side} rows of its own"
    note = f"{copies} of {n}; Wilson interval; real: {beside}"
    return Measure(name, copies / n, "share", "lower", n, low, high, own, note, p)


def _shared_run(texts: Sequence[str], fit: Sequence[str], test: Sequence[str], seed: int) -> Measure:
    n = min(len(texts), len(test)) if test else len(texts)
    if not n or not fit:
        reason = "no kept row" if not n else "the sample has no fit rows"
        return Measure("longest_shared_run", None, "words", "closer", n, note=reason)
    drawn = equal_draw(texts, n, seed_for(seed, "kept"))
    others = equal_draw(test, n, seed_for(seed, "test")) if test else []
    runs = longest_runs([*drawn, *others], fit)
    mean, low, high = bootstrap_mean(runs[:n], seed_for(seed, "bootstrap"))
    real = float(np.mean(runs[n:])) if others else None
    p = _difference_p(np.array(runs[:n], float), np.array(runs[n:], float), np.mean, seed_for(seed, "permute")) if others else None
    note = f"mean over {n} drawn rows of {len(texts)}; real: " + (f"{n} test rows" if others else "the sample has no test rows")
    return Measure("longest_shared_run", mean, "words", "closer", n, low, high, real, note, p)


def _difference_p(kept: np.ndarray, real: np.ndarray, middle: Callable[..., Any], seed: int) -> float:
    """p of the difference of the two sides' means or medians, (n,) and (m,) numbers, either way."""
    rng, n = np.random.default_rng(seed), len(kept)
    both = np.concatenate([kept, real])
    orders = np.stack([both, *(rng.permutation(both) for _ in range(PERMUTATIONS))])
    apart = np.abs(middle(orders[:, :n], axis=1) - middle(orders[:, n:], axis=1))
    return permutation_p(float(apart[0]), apart[1:])


def nearest(features: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Euclidean distance (n,) of each row of (n, d) to the nearest of (m, d), m >= 1."""
    found = []
    for start in range(0, len(features), 1024):
        part = features[start : start + 1024].astype(np.float64)
        squared = (part * part).sum(1)[:, None] + (real.astype(np.float64) ** 2).sum(1) - 2 * part @ real.T.astype(np.float64)
        found.append(np.sqrt(np.maximum(squared.min(1), 0.0)))
    return np.concatenate(found)


def neighbour_ratio(kept: np.ndarray, reference: np.ndarray, seed: int) -> Measure:
    """Median of the kept rows' distances (n,) to fit over the median of the reference rows' (n,); real: half of these over the rest."""
    n = len(kept)
    below = float(np.median(reference))
    if below < 1e-6:
        note = "more than half of the dev + test rows stand in fit too, so there is no distance to compare with"
        return Measure("neighbour_ratio", None, better="closer", n=n, note=note)
    rng = np.random.default_rng(seed)
    above, under = (np.median(d[rng.integers(n, size=(DRAWS, n))], axis=1) for d in (kept, reference))
    low, high = percentile_interval(above / np.maximum(under, 1e-6))
    orders = [rng.permutation(reference) for _ in range(HALVES if n > 1 else 0)]
    halves = [(np.median(order[: n // 2]), np.median(order[n // 2 :])) for order in orders]
    real = float(np.mean([a / max(b, 1e-6) for a, b in halves])) if halves else None
    note = f"median distance to the nearest fit row, {below:.3f} for dev + test; bootstrap of both medians; real: halves of dev + test"
    p = _difference_p(kept, reference, np.median, int(rng.integers(2**62)))
    return Measure("neighbour_ratio", float(np.median(kept)) / below, "", "closer", n, low, high, real, note, p)


def _nearer(sides: Sequence[np.ndarray], seed: int) -> Measure | None:
    """Which real rows are nearer to the kept ones: half of them where the kept ones come from neither. None: too few.

    sides: features (n, d) of kept, dev + test and fit rows.

    p deals fit and dev + test rows out anew: exact where the split was random. real: half of dev + test in the place of the kept rows.
    """
    rng, (kept, reference, fit) = np.random.default_rng(seed), sides
    kept = kept[rng.permutation(len(kept))[:MOST]]
    m = min(len(fit), len(reference), MOST)
    if min(m, len(kept)) < LEAST:
        return None
    fit, reference = (side[rng.permutation(len(side))[:m]] for side in (fit, reference))
    apart = _distances(kept, np.concatenate([fit, reference]))
    value, half = _share(apart, np.arange(m), np.arange(m, 2 * m)), m // 2
    dealt = [_share(apart, order[:m], order[m:]) for order in (rng.permutation(2 * m) for _ in range(DEALS))]
    spread = [
        _share(apart[rng.permutation(len(kept))[: len(kept) // 2]], rng.permutation(m)[:half], m + rng.permutation(m)[:half]) for _ in range(HALVES)
    ]
    low, high = spread_interval(value, [half_spread(value, np.array(spread))])
    bounds = wilson(round(value * len(kept)), len(kept))
    beside = []
    for _ in range(HALVES):
        order = rng.permutation(m)
        beside.append(
            _share(_distances(reference[order[:half]], np.concatenate([fit, reference])), rng.permutation(m)[:half], m + order[half : 2 * half])
        )
    note = f"{len(kept)} kept rows, {m} fit and {m} dev + test rows; 0.5: no nearer; interval: random halves; p: {DEALS} deals of the real rows"
    return Measure(
        "nearer_to_fit", value, "share", "closer", len(kept), max(0.0, min(low, bounds[0])), min(1.0, max(high, bounds[1])), float(np.mean(beside)),
        note, permutation_p(value, dealt),
    )  # fmt: skip


def _distances(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared distances (n, m), rounded so that copies are equally far on every side."""
    a, b = rows.astype(np.float64), others.astype(np.float64)
    return np.asarray(np.round(np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T, 0.0), 9))


def _share(apart: np.ndarray, ours: np.ndarray, others: np.ndarray) -> float:
    """Share of the rows whose nearest column is among `ours`; ties are halves."""
    a, b = apart[:, ours].min(1), apart[:, others].min(1)
    return float((a < b).mean() + (a == b).mean() / 2)
