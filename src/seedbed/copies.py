"""Real texts, indexed so that a text that copies one is found for certain. The overlap filter and the measure of memorisation both ask it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from seedbed.text import SPLITS, Split, jaccard, normalise, shingles, word_runs

NEAR = 0.8
"""Jaccard similarity of shingles from which a text is nearly a real one."""


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
        for split, name, text in rows:
            self.whole.setdefault(normalise(text), (split, name))
            for words in word_runs(text, run) if run else ():
                self.runs.setdefault(words, split)
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
        own = shingles(text)
        found = []
        for index in sorted({i for shingle in self._rarest(own) for i in self.holders.get(shingle, ())}):
            if (similarity := jaccard(own, self.sets[index])) >= self.threshold:
                found.append(Copied(*self.whole[self.texts[index]], self.texts[index], similarity))
        return found

    def shared(self, text: str) -> list[Split]:
        """The splits that it shares a long run of words with, the gravest first."""
        found = {self.runs[words] for words in word_runs(text, self.run or 1) if words in self.runs}
        return sorted(found, key=SPLITS.index)

    def _rarest(self, shingled: frozenset[str]) -> list[str]:
        """The rarest shingles, so many that two sets at the threshold have one in common (prefix filter: Bayardo et al. 2007)."""
        # 1e-9: 0.7 * 10 must not count as above 7.
        count = len(shingled) - math.ceil(self.threshold * len(shingled) - 1e-9) + 1
        return sorted(shingled, key=lambda s: (self.common[s], s))[:count] if shingled else []
