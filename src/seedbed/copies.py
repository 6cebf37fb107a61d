"""Real texts, indexed so that a text that copies one is found for certain. The overlap filter and the measure of memorisation both ask it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from seedbed.text import SPLITS, Split, jaccard, normalise, shingles, word_runs
from seedbed.types import Example, Sample

NEAR = 0.8
"""Jaccard similarity of shingles from which a text is nearly a real one."""
LOOKED_AT, LOOKED_AMONG = 500, 2000
"""Test rows that `repeated` looks at, and rows learned from that it looks for them among, at most: each pair of texts from one mould is compared."""


@dataclass(frozen=True)
class Copied:
    """Of a real row: its split, id and text. similarity: 1 of an equal text."""

    split: Split
    real: str
    text: str
    similarity: float


class Copies:
    """Looks a text up among real ones: equal but for case, punctuation and white space; nearly equal; sharing a long run of words."""

    def __init__(self, rows: Sequence[tuple[Split, str, str]], threshold: float, run: int | None = None) -> None:
        """rows: (split, id, text), the gravest split first: the first of several equal texts names the place. threshold: Jaccard similarity of the
        sets of 5-character shingles from which a text is nearly equal, in (0, 1]. run: words of a run that count as copied."""
        self.threshold, self.run = threshold, run
        self.whole: dict[str, tuple[Split, str]] = {}
        self.runs: dict[str, Split] = {}
        self.learned: set[str] = set()  # runs of test or dev that fit has too
        for split, name, text in rows:
            self.whole.setdefault(normalise(text), (split, name))
            for words in word_runs(text, run) if run else ():
                if self.runs.setdefault(words, split) != "fit" and split == "fit":
                    self.learned.add(words)
        self.whole.pop("", None)
        self.texts = list(self.whole)
        self.sets = [shingles(text) for text in self.texts]
        self.common = Counter(s for shingled in self.sets for s in shingled)
        self.holders: dict[str, list[int]] = {}
        for index, shingled in enumerate(self.sets):
            for shingle in self._rarest(shingled):
                self.holders.setdefault(shingle, []).append(index)

    def equal(self, text: str) -> Copied | None:
        """The real row whose text it is."""
        plain = normalise(text)
        found = self.whole.get(plain)
        return Copied(*found, plain, 1.0) if found else None

    def near(self, text: str) -> list[Copied]:
        """The real rows that it is nearly equal to, or equal, the gravest split first."""
        return list(self.nearly(text))

    def nearly(self, text: str) -> Iterator[Copied]:
        """Those of `near`, each when it is come to."""
        own = shingles(text)
        for index in sorted({i for shingle in self._rarest(own) for i in self.holders.get(shingle, ())}):
            if (similarity := jaccard(own, self.sets[index])) >= self.threshold:
                yield Copied(*self.whole[self.texts[index]], self.texts[index], similarity)

    def shared(self, text: str, but: Container[str] = ()) -> list[Split]:
        """The splits that it shares a long run of words with, the gravest first. but: runs that do not count, nor do those that reach into one."""
        run = self.run or 1
        runs = word_runs(text, run)
        passed = [words in but for words in runs]
        found = {self.runs[words] for i, words in enumerate(runs) if words in self.runs and not any(passed[max(0, i - run + 1) : i + run])}
        return sorted(found, key=SPLITS.index)

    def _rarest(self, shingled: frozenset[str]) -> list[str]:
        """The rarest shingles, so many that two sets at the threshold have one in common (prefix filter: Bayardo et al. 2007)."""
        # 1e-9: 0.7 * 10 must not count as above 7.
        count = len(shingled) - math.ceil(self.threshold * len(shingled) - 1e-9) + 1
        return sorted(shingled, key=lambda s: (self.common[s], s))[:count] if shingled else []


def repeated(sample: Sample) -> str:
    """How many test rows ask nearly what a row asks that is learned from, in each of the task's inputs, and what that does; "" where none does."""
    task, found, looked = sample.task, list[tuple[str, str]](), 0
    for part in sample.folds or (sample,):
        learned, tests = _some((*part.dev, *part.fit), LOOKED_AMONG), _some(part.test, LOOKED_AT)
        by_id, known = {e.id: e for e in learned}, Copies([("fit", e.id, task.input_text(e)) for e in learned], NEAR)
        looked += len(tests)
        for e in tests:
            near = (by_id[copied.real] for copied in known.nearly(task.input_text(e)))
            same = (other.id for other in near if all(alike(str(e.fields[c]), str(other.fields[c])) for c in task.inputs))
            found += [(e.id, name) for name in islice(same, 1)]
    if not found:
        return ""
    some = f" that were looked at, of {len(sample.tested):,}," if looked < len(sample.tested) else ""
    return (
        f"{len(found)} of {looked} test rows{some} nearly repeat a row that is learned from, such as {found[0][0]!r} and {found[0][1]!r}: "
        "answers to them may be known by heart, so that scores and copies of real rows read high. Leave one of each two out"
    )


def _some(rows: Sequence[Example], most: int) -> Sequence[Example]:
    """Every k-th, so that no more than so many are left."""
    return rows[:: max(1, -(-len(rows) // most))]


def alike(a: str, b: str, threshold: float = NEAR) -> bool:
    """Whether two values are equal, but for case, punctuation and white space, or nearly equal."""
    return normalise(a) == normalise(b) or jaccard(shingles(a), shingles(b)) >= threshold
