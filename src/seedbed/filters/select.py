"""The part of the candidates that is together nearest to real text."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from seedbed.stats import median_distance, squared_distances
from seedbed.text import words
from seedbed.types import Candidate, Sample, Verdict, seed_for

BUCKETS = 10_000
"""Hashed n-grams of DSIR."""
REFERENCE = 4000
"""Fit rows that the kernel looks at, at most."""
SCALED = 500
"""Fit rows that the kernel's width is taken from, at most."""
PART = 256
"""Candidates whose kernels with all of these are held together: 8 MB."""


@dataclass(frozen=True)
class Select:
    """Keeps `rows` candidates, chosen together to be distributed like fit rows; the others are "not selected". It reads no dev or test row, so that
    what these measure afterwards was not chosen by them.

    method: "mmd", kernel herding (Chen, Welling and Smola 2010): one after the other the candidate that lowers the maximum mean discrepancy of
    sentence features to fit's most; "ngrams", importance resampling on hashed words and pairs (DSIR, Xie et al. 2023, arXiv 2302.03169).
    rows: to keep, of as many more candidates as you can afford. by_label: each label on its own, in fit's shares as far as its candidates go.
    embedder: of "mmd". Candidates without fields are kept.
    """

    version: ClassVar[int] = 3
    scope: ClassVar[Literal["row", "set"]] = "set"

    method: Literal["mmd", "ngrams"] = "mmd"
    rows: Annotated[int, Field(ge=1)] = 500
    by_label: bool = True
    embedder: str = "minilm"

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        task = sample.task
        label = str(task.target) if self.by_label and task.has_labels else None
        real: dict[str, list[str]] = {}
        for e in sample.fit[:REFERENCE]:
            real.setdefault(str(e.fields[label]) if label else "", []).append(task.body(e.fields))
        parts: dict[str, list[int]] = {}
        for i, c in enumerate(candidates):
            if c.fields is not None:
                parts.setdefault(str(c.fields[label]) if label else "", []).append(i)
        kept = {i for i, c in enumerate(candidates) if c.fields is None}
        every = [text for found in real.values() for text in found]
        wanted = _shares({name: len(places) for name, places in parts.items()}, {name: len(found) for name, found in real.items()}, self.rows)
        for name, places in sorted(parts.items()):
            texts = [task.body(candidates[i].fields or {}) for i in places]
            like, most = real.get(name) or every, wanted[name]
            ids = [candidates[i].id for i in places]
            chosen = self._herd(texts, like, every, most) if self.method == "mmd" else _resample(texts, like, most, ids)
            kept |= {places[j] for j in chosen}
        return [Verdict(i in kept, "" if i in kept else "not selected") for i in range(len(candidates))]

    def _herd(self, texts: list[str], real: list[str], every: list[str], wanted: int) -> list[int]:
        """every: real rows of all labels, which give the kernel's width where `real` has no two that differ."""
        from seedbed.lm.embed import embed

        x, y, spread = (embed(rows, self.embedder) for rows in (texts, real, real[:SCALED] if len(set(real[:SCALED])) > 1 else every[:SCALED]))
        gamma = median_distance(spread.astype(np.float64)) ** -2
        towards = _kernel(x, y, gamma)
        taken, among = list[int](), np.zeros(len(x))
        free = np.ones(len(x), dtype=bool)
        for step in range(wanted):
            gain = np.where(free, towards - among / (step + 1), -np.inf)
            best = int(gain.argmax())
            taken.append(best)
            free[best] = False
            among += _kernel(x, x[best : best + 1], gamma)
        return taken


def _kernel(x: np.ndarray, y: np.ndarray, gamma: float) -> np.ndarray:
    """float (n,): of each row of (n, d), the mean over the rows of (m, d)."""
    y = y.astype(np.float64)
    parts = (x[i : i + PART].astype(np.float64) for i in range(0, len(x), PART))
    return np.concatenate([np.exp(-gamma * squared_distances(part, y)).mean(1) for part in parts])


def _shares(there: dict[str, int], real: dict[str, int], rows: int) -> dict[str, int]:
    """`rows` over the names in the shares of `real` by largest remainder, none above what is there; what one lacks goes to the others."""
    found, left = dict[str, int](), min(rows, sum(there.values()))
    free = sorted(there)
    while free:
        counts = [real.get(name, 0) for name in free]
        counts = counts if any(counts) else [1] * len(free)
        ideal = {name: left * count / sum(counts) for name, count in zip(free, counts, strict=True)}
        full = [name for name in free if ideal[name] >= there[name]]
        if not full:
            found |= {name: int(ideal[name]) for name in free}
            for name in sorted(free, key=lambda name: found[name] - ideal[name])[: left - sum(found[name] for name in free)]:
                found[name] += 1
            break
        found |= {name: there[name] for name in full}
        left -= sum(there[name] for name in full)
        free = [name for name in free if name not in full]
    return found


def _resample(texts: list[str], real: list[str], wanted: int, ids: list[str]) -> list[int]:
    """Gumbel top-k: draws without replacement in proportion to p_real(text) / p_candidates(text); noise is the candidate's own."""
    counted, target = _counts(texts), _total(_counts(real))
    source = _total(counted)
    slope = np.log((target + 1) / (target.sum() + BUCKETS)) - np.log((source + 1) / (source.sum() + BUCKETS))
    uniform = np.array([(seed_for(0, "select", name) % 2**53 + 0.5) / 2**53 for name in ids])
    weights = counted @ slope - np.log(-np.log(uniform))
    found: list[int] = np.argsort(-weights, kind="stable")[:wanted].tolist()
    return found


def _counts(texts: list[str]) -> Any:
    """scipy's sparse array (n, BUCKETS): a text has few of them."""
    from scipy.sparse import csr_array

    def grams(text: str) -> np.ndarray:
        tokens = words(text)
        found = [*tokens, *(f"{a} {b}" for a, b in pairwise(tokens))]
        return np.array([zlib.crc32(gram.encode()) % BUCKETS for gram in found], dtype=np.int32)

    places = [grams(text) for text in texts]
    every = np.concatenate(places)
    found = csr_array((np.ones(len(every)), every, np.cumsum([0, *map(len, places)])), shape=(len(texts), BUCKETS))
    found.sum_duplicates()
    return found


def _total(counts: Any) -> np.ndarray:
    return np.asarray(counts.sum(axis=0)).ravel()
