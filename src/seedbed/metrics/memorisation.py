"""How much of the kept rows was copied from real ones, beside how much real rows repeat each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from seedbed.metrics.draws import in_order
from seedbed.stats import DRAWS, bootstrap_mean, equal_draw, percentile_interval, permutation_p, wilson
from seedbed.store import Mapped
from seedbed.text import SPLITS, Split, longest_runs, normalise, real_texts
from seedbed.types import Example, Measure, Sample, seed_for

HALVES = 20
"""Random halvings of dev + test that real text's own neighbour ratio is the mean of."""
PERMUTATIONS = 999


@dataclass(frozen=True)
class Memorisation:
    """Copies of real rows among the kept ones, the longest run of words shared with fit, and the distance to the nearest fit row.

    verbatim_rate: share of kept rows whose text is a real row's but for case, punctuation and white space; also split by split.
    longest_shared_run: words, mean over rows. neighbour_ratio: median distance to the nearest fit row over the same of dev + test rows;
    below 1 is nearer to fit than real text is. p: permutation of kept and real rows; of a rate, Fisher's exact test against the rows that
    `real` speaks of. embedder: of that distance ("minilm", a folder or hub name).
    """

    version: ClassVar[int] = 2

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
        got = f"got {len(texts)} kept, {len(reference)} dev + test and {len(fit)} fit"
        return [
            *_verbatim(sample, Mapped(kept, lambda e: body(e.fields))),
            _shared_run(texts, fit, test, seed_for(seed, "run")),
            neighbour_ratio(distances[0], distances[1], seed_for(seed, "ratio"))
            if distances
            else Measure("neighbour_ratio", None, better="closer", note=f"needs rows on each side, {got}"),
        ]


def _verbatim(sample: Sample, texts: Sequence[str]) -> list[Measure]:
    """The rate against all real rows and against each split; the real one: test rows that stand in fit too, or in the split at hand."""
    real: dict[Split, set[str]] = {split: set() for split in SPLITS}
    for split, text in real_texts(sample):
        real[split].add(normalise(text))
    body = sample.task.body
    dev, test = ([normalise(body(e.fields)) for e in rows] for rows in (sample.dev, sample.test))
    # No p: kept rows may copy from any split, test rows from fit alone, so that the two are not exchangeable.
    everywhere = set().union(*real.values())
    found = [plain for text in texts if (plain := normalise(text)) in everywhere]  # the copies alone: there may be a million texts
    whole = _rate("verbatim_rate", len(texts), found, everywhere, test, real["fit"], "real: share of test rows that stand in fit")
    rates = [replace(whole, p=None)]
    for split in SPLITS[::-1]:
        if split == "other" and not real["other"]:
            continue
        others, named = (dev, "dev") if split == "test" else (test, "test")
        among = real[split]
        rates.append(_rate(f"verbatim_rate_{split}", len(texts), found, among, others, among, f"real: share of {named} rows that stand in {split}"))
    return rates


def _rate(name: str, n: int, found: Sequence[str], real: set[str], others: Sequence[str], among: set[str], named: str) -> Measure:
    """Share of n texts that are among the real ones, of which some are in `found`; beside it the share of other real rows that are `among`
    real ones."""
    from scipy.stats import hypergeom

    if not n or not real:
        reason = "no kept row" if not n else "the sample has no rows to compare with"
        return Measure(name, None, "share", "lower", n, note=reason)
    copies = sum(1 for text in found if text and text in real)
    low, high = wilson(copies, n)
    own, p = None, None
    if others and among:
        repeated = sum(1 for text in others if text and text in among)
        own = repeated / len(others)
        p = float(hypergeom.sf(copies - 1, n + len(others), copies + repeated, n))
    note = f"{copies} of {n}; Wilson interval; {named} ({len(others)} rows)"
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
