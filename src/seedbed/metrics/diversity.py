"""How much the kept texts differ among themselves, beside how much real ones do."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from seedbed.metrics.draws import Rows, equal_sides
from seedbed.stats import half_spread, permutation_p, spread_interval
from seedbed.text import words
from seedbed.types import Example, Measure, Sample, seed_for

ORDERS = 4
"""The longest run of words that self-BLEU looks at."""
HALVES = 20
"""Random halves of each draw, for the intervals."""
PERMUTATIONS = 199
"""Arrangements behind a p: the smallest that it can be is 0.005."""
VENDI_ROWS = 250
"""Rows of a Vendi score at most: it asks for the eigenvalues of an n x n matrix, hundreds of times."""
Number = Callable[[np.ndarray], float]
"""A number of the rows at the indices (n,)."""
UNITS = {"distinct_1": "share", "distinct_2": "share", "distinct_3": "share", "self_bleu": "", "vendi": "texts", "compression_ratio": ""}


@dataclass(frozen=True)
class Diversity:
    """distinct-1, -2, -3, self-BLEU, the Vendi score and the compression ratio of kept texts; real: the same of as many dev + test rows.

    All depend on n, so both sides have the same: the size of the smallest of kept, dev + test and fit, at most `rows`. The value is the mean of
    several random draws. p: permutation test of kept against dev + test rows, of the first draw, more and less diverse alike.

    embedder: gives the Vendi score's features ("minilm", a folder or hub name). draws: how many, 1 to 100. rows: of a draw at most, 4 or more.
    """

    version: ClassVar[int] = 1

    embedder: str = "minilm"
    draws: Annotated[int, Field(ge=1, le=100)] = 5
    rows: Annotated[int, Field(ge=4)] = 500

    def measure(self, sample: Sample, kept: Sequence[Example], seed: int) -> list[Measure]:
        sides = equal_sides(sample, kept, self.draws, seed, self.rows)
        if few := sides.few(4):
            return [Measure(name, None, unit, "closer", sides.n, note=few) for name, unit in UNITS.items()]
        found: dict[str, list[_Draw]] = {name: [] for name in UNITS}
        for i, drawn in enumerate(sides.draws):
            for name, (number, n) in self._numbers(sample, drawn[:2]).items():
                found[name].append(_draw(number, n, seed_for(seed, name, i), 0 if i else PERMUTATIONS))
        features = f"{self.embedder} features" + sides.cut(sample.task, self.embedder)
        return [_measure(name, draws, features, sides.n) for name, draws in found.items()]

    def _numbers(self, sample: Sample, both: Sequence[Rows]) -> dict[str, tuple[Number, int]]:
        """Each number as a function of rows among those of both sides, n of the first and then n of the second, and that n."""
        from seedbed.lm.embed import embed

        texts = [sample.task.body(e.fields) for side in both for e in side]
        n = len(both[0])
        few = min(n, VENDI_ROWS)
        grams = Grams([words(text) for text in texts])
        raw = [text.encode() for text in texts]
        features = embed([*texts[:few], *texts[n : n + few]], self.embedder).astype(np.float64)
        kernel = features @ features.T
        found: dict[str, tuple[Number, int]] = {f"distinct_{k}": (lambda rows, k=k: grams.distinct(rows, k), n) for k in (1, 2, 3) if grams.has(n, k)}  # type: ignore[misc]
        found["self_bleu"] = (grams.self_bleu, n)
        found["vendi"] = (lambda rows: vendi(kernel[np.ix_(rows, rows)]), few)
        found["compression_ratio"] = (lambda rows: compression_ratio([raw[i] for i in rows]), n)
        return found


@dataclass(frozen=True)
class _Draw:
    """A number of n kept rows and of n real ones, the first one's spread, and its p."""

    n: int
    value: float
    real: float
    spread: np.ndarray
    p: float | None


def _draw(number: Number, n: int, seed: int, permutations: int) -> _Draw:
    """`number` of rows 0 to n - 1 (kept) and n to 2n - 1 (real)."""
    rng = np.random.default_rng(seed)
    # Rows in a random order: the compression ratio sees it, and sorted texts on one side alone would not be exchangeable.
    ours, real = rng.permutation(n), n + rng.permutation(n)
    value, beside = number(ours), number(real)
    halves = np.array([number(rng.permutation(n)[: n // 2]) for _ in range(HALVES)])
    orders = [rng.permutation(2 * n) for _ in range(permutations)]
    apart = [abs(number(order[:n]) - number(order[n:])) for order in orders]
    return _Draw(n, value, beside, half_spread(value, halves), permutation_p(abs(value - beside), apart) if permutations else None)


def _measure(name: str, draws: Sequence[_Draw], features: str, n: int) -> Measure:
    if not draws:
        return Measure(name, None, UNITS[name], "closer", n, note=f"no text of one side has {name[-1]} words")
    value, real = (float(np.mean([getattr(d, side) for d in draws])) for side in ("value", "real"))
    low, high = spread_interval(value, [d.spread for d in draws])
    low, high = max(0.0, low), min(1.0, high) if name != "compression_ratio" and name != "vendi" else high
    note = f"mean of {len(draws)} draws of n rows a side; interval: spread of random halves of the rows; real: dev + test"
    note += f"; p: {PERMUTATIONS} permutations of the first draw's rows" + (f"; cosine kernel of {features}" if name == "vendi" else "")
    return Measure(name, value, UNITS[name], "closer", draws[0].n, low, high, real, note, draws[0].p)


class Grams:
    """Runs of 1 to ORDERS words of tokenised texts, held so that numbers of any subset of the texts cost one pass.

    For each order, entries (text, run, how often it stands there), sorted by run and the most frequent first.
    """

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self.lengths = np.array([len(text) for text in texts])
        self.entries = []
        for order in range(1, ORDERS + 1):
            numbers: dict[tuple[str, ...], int] = {}
            counts = [Counter(zip(*(text[k:] for k in range(order)), strict=False)) for text in texts]
            flat = [(i, numbers.setdefault(gram, len(numbers)), c) for i, count in enumerate(counts) for gram, c in count.items()]
            entries = np.array(flat, dtype=np.int64).reshape(-1, 3)
            self.entries.append(entries[np.lexsort((entries[:, 0], -entries[:, 2], entries[:, 1]))])

    def _of(self, rows: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
        """Entries of the texts at `rows`, and where a new run begins among them."""
        inside = np.zeros(len(self.lengths), dtype=bool)
        inside[rows] = True
        entries = self.entries[order - 1]
        entries = entries[inside[entries[:, 0]]]
        first = np.ones(len(entries), dtype=bool)
        first[1:] = entries[1:, 1] != entries[:-1, 1]
        return entries, first

    def has(self, n: int, order: int) -> bool:
        """Whether both the first n texts and the n behind them have a run of `order` words."""
        return all(self._of(rows, order)[0].size for rows in (np.arange(n), np.arange(n, 2 * n)))

    def distinct(self, rows: np.ndarray, order: int) -> float:
        """distinct-n in [0, 1]: different runs of `order` words over all runs (Li et al. 2016, arXiv:1510.03055); 0 where there is no run."""
        entries, first = self._of(rows, order)
        return float(first.sum() / max(1, entries[:, 2].sum()))

    def self_bleu(self, rows: np.ndarray) -> float:
        """Mean over texts of the BLEU-4 of each against all the others, in [0, 1] (Zhu et al. 2018, arXiv:1802.01886).

        BLEU of a sentence (Papineni et al. 2002): the geometric mean of clipped precisions of orders 1 to 4, times exp(1 - r / c) where the text (c
        words) is shorter than the reference of the nearest length (r; the shorter of two). A precision of 0 counts as 0.1 over its denominator,
        1 at least (Chen and Cherry 2014, smoothing 1), without which a text of few words is 0.
        """
        logs = np.zeros(len(self.lengths))
        single = np.zeros(len(self.lengths), dtype=bool)
        for order in range(1, ORDERS + 1):
            entries, first = self._of(rows, order)
            group = np.cumsum(first) - 1
            starts = np.flatnonzero(first)
            top = entries[starts, 2]
            after = np.append(starts[1:], len(entries)) if len(starts) else starts
            second = np.where(after - starts > 1, entries[np.minimum(starts + 1, max(0, len(entries) - 1)), 2], 0)
            # What the others hold: the most frequent text of a run is clipped by the second, all others by it.
            clipped = np.minimum(entries[:, 2], np.where(first, second[group], top[group]))
            matched = np.bincount(entries[:, 0], weights=clipped, minlength=len(self.lengths))
            runs = np.maximum(self.lengths - order + 1, 1)
            logs += np.log(np.where(matched > 0, matched, 0.1) / runs) / ORDERS
            if order == 1:
                single = matched == 0  # no word shared: BLEU is 0 whatever the smoothing
        scores = np.where(single, 0.0, np.exp(logs + self._brevity(rows)))
        return float(scores[rows].mean())

    def _brevity(self, rows: np.ndarray) -> np.ndarray:
        """min(0, 1 - r / c) of each text at `rows`, r the nearest length among the others; 0 elsewhere."""
        found = np.zeros(len(self.lengths))
        lengths, counts = np.unique(self.lengths[rows], return_counts=True)
        below = np.concatenate([[-np.inf], lengths[:-1]]).astype(float)
        above = np.concatenate([lengths[1:], [np.inf]]).astype(float)
        nearest = np.where(counts > 1, lengths, np.where(lengths - below <= above - lengths, below, above))
        penalty = np.where(lengths > 0, np.minimum(0.0, 1 - nearest / np.maximum(lengths, 1)), 0.0)
        found[rows] = penalty[np.searchsorted(lengths, self.lengths[rows])]
        return found


def vendi(kernel: np.ndarray) -> float:
    """Vendi score of a kernel (n, n) with ones on its diagonal, in [1, n]: exp of the entropy of the eigenvalues of K / n.

    How many wholly different texts would be as diverse (Friedman and Dieng 2022, arXiv:2210.02410, order 1).
    """
    values = np.linalg.eigvalsh(kernel / len(kernel))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def compression_ratio(texts: Sequence[bytes]) -> float:
    """Bytes of the texts, joined by line ends, over their bytes when compressed by zlib; more repetition is higher (Shaib et al. 2024)."""
    joined = b"\n".join(texts)
    return len(joined) / len(zlib.compress(joined, 6))
