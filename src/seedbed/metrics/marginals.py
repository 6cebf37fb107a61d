"""Whether kept texts are as long as real ones and use the same words and pairs of words as often: what no embedder has to see."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from seedbed.metrics.draws import Drawn, equal_sides, mean_of
from seedbed.stats import half_spread, permutation_p
from seedbed.text import words
from seedbed.types import Example, Measure, Sample, seed_for

LEAST = 4
HALVES = 20
PERMUTATIONS = 199
CELLS = 4_000_000
"""Counts held at once while rows are permuted."""
UNITS = {"length_distance": "words", "unigram_divergence": "bits", "bigram_divergence": "bits"}
WORDLESS = {"unigram_divergence": "no kept, dev or test text has a word", "bigram_divergence": "no kept, dev or test text has two words"}
Apart = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Numbers (b,) of two sides, each given as which of the rows it has, float (b, rows) of zeros and ones."""


@dataclass(frozen=True)
class Marginals:
    """`length_distance`, `unigram_divergence`, `bigram_divergence` of kept against dev + test texts; real: fit against dev + test.

    length_distance: 1-Wasserstein distance of the numbers of words, in words. The others: Jensen-Shannon divergence of the shares of words, of
    pairs of words, in [0, 1] bits. All at equal n, the size of the smallest of the three sides, at most `rows`. Of labels see metric coverage.

    draws: how many, 1 to 100. rows: of a draw at most, 4 or more.
    """

    version: ClassVar[int] = 1

    draws: Annotated[int, Field(ge=1, le=100)] = 5
    rows: Annotated[int, Field(ge=LEAST)] = 500

    def measure(self, sample: Sample, kept: Sequence[Example], seed: int) -> list[Measure]:
        sides = equal_sides(sample, kept, self.draws, seed, self.rows)
        if few := sides.few(LEAST):
            return [Measure(name, None, unit, "lower", sides.n, note=few) for name, unit in UNITS.items()]
        found: dict[str, list[Drawn]] = {name: [] for name in UNITS}
        for i, rows in enumerate(sides.draws):
            texts = [[words(sample.task.body(e.fields)) for e in side] for side in rows]
            for name, draw in compare(texts[0], texts[1], texts[2], seed_for(seed, "marginals", i), test=not i).items():
                found[name].append(draw)
        note = f"mean of {self.draws} draws of n rows a side; interval: random halves of the rows; real: fit against dev + test"
        note += f"; p: {PERMUTATIONS} permutations of the first draw's rows"
        most = {"bits": 1.0}
        none = {name: Measure(name, None, UNITS[name], "lower", sides.n, note=WORDLESS[name]) for name, draws in found.items() if not draws}
        return [
            none.get(name) or mean_of(name, draws, UNITS[name], "lower", sides.n, note, most.get(UNITS[name], math.inf))
            for name, draws in found.items()
        ]


def compare(kept: list[list[str]], reference: list[list[str]], fit: list[list[str]], seed: int, *, test: bool) -> dict[str, Drawn]:
    """Each number of one draw, n tokenised texts a side, n >= 4; test: with a p."""
    n, rng = len(kept), np.random.default_rng(seed)
    texts = [*kept, *reference, *fit]
    ours, theirs, beside = (np.repeat(np.arange(3) == side, n)[None].astype(np.float32) for side in range(3))
    halves = [_half(rng, n, side) for side in (0, 1)]
    orders = [rng.permutation(2 * n) for _ in range(PERMUTATIONS if test else 0)]
    dealt = [
        np.array([np.isin(np.arange(3 * n), part) for part in parts], np.float32) for parts in zip(*((o[:n], o[n:]) for o in orders), strict=True)
    ]
    found = {}
    for name, apart in _numbers(texts, n).items():
        value, real = float(apart(ours, theirs)[0]), float(apart(beside, theirs)[0])
        p = permutation_p(value, apart(dealt[0], dealt[1])) if test else None
        scatter = apart(halves[0], halves[1])
        # Of two like sides a distance of lengths is all chance, and its scatter no share of its level.
        spread = scatter - scatter.mean() if name == "length_distance" else half_spread(value, scatter)
        found[name] = Drawn(value, real, spread, p)
    return found


def _half(rng: np.random.Generator, n: int, side: int) -> np.ndarray:
    """`HALVES` random halves of the n rows of a side, among 3 n rows."""
    inside = np.zeros((HALVES, 3 * n), np.float32)
    for row in inside:
        row[side * n + rng.permutation(n)[: n // 2]] = 1
    return inside


def _numbers(texts: Sequence[Sequence[str]], n: int) -> dict[str, Apart]:
    lengths = np.array([len(text) for text in texts], dtype=float)

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # At equal sizes: the mean difference of the sorted lengths.
        return np.array([np.abs(np.sort(lengths[a > 0]) - np.sort(lengths[b > 0])).mean() for a, b in zip(x, y, strict=True)])

    single, pairs = (_counts(texts, order) for order in (1, 2))
    found: dict[str, Apart] = {"length_distance": distance}
    if single[: 2 * n].nnz:
        found["unigram_divergence"] = lambda x, y: _divergence(single, x, y)
    if pairs[: 2 * n].nnz:
        found["bigram_divergence"] = lambda x, y: _divergence(pairs, x, y)
    return found


def _counts(texts: Sequence[Sequence[str]], order: int) -> Any:
    """Sparse float32 (texts, runs): how often each run of `order` words stands in each text."""
    from scipy.sparse import csr_array

    numbers: dict[tuple[str, ...], int] = {}
    counted = [Counter(zip(*(text[k:] for k in range(order)), strict=False)) for text in texts]
    entries = [(i, numbers.setdefault(run, len(numbers)), c) for i, count in enumerate(counted) for run, c in count.items()]
    where = np.array(entries, dtype=np.int64).reshape(-1, 3)
    return csr_array((where[:, 2].astype(np.float32), (where[:, 0], where[:, 1])), shape=(len(texts), max(1, len(numbers))))


def _divergence(counts: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence (Lin 1991) in bits, in [0, 1], of each pair of sides; 0 where neither has a run, 1 where just one has."""
    step = max(1, CELLS // counts.shape[1])
    found = []
    for start in range(0, len(x), step):
        p, q = (np.asarray(side[start : start + step] @ counts, dtype=np.float64) for side in (x, y))
        sums = [side.sum(1, keepdims=True) for side in (p, q)]
        p, q = (side / np.maximum(total, 1) for side, total in zip((p, q), sums, strict=True))
        divergence = (_entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2) / np.log(2)
        empty = [total[:, 0] == 0 for total in sums]
        found.append(np.where(empty[0] & empty[1], 0.0, np.where(empty[0] | empty[1], 1.0, divergence)))
    return np.asarray(np.clip(np.concatenate(found), 0.0, 1.0))


def _entropy(shares: np.ndarray) -> np.ndarray:
    """In nats, of each row."""
    from scipy.special import entr

    return np.asarray(entr(shares).sum(1))
