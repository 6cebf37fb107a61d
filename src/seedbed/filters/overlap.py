"""Candidates that copy a real row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from seedbed.text import SPLITS, Split, jaccard, normalise, real_texts, shingles, word_runs
from seedbed.types import Candidate, Sample, Verdict


@dataclass(frozen=True)
class Overlap:
    """Drops a candidate whose generated text copies a real row's: of test, dev or fit, or another one (pool, and rows the sample left out).

    Three kinds, the gravest first and each looked for in all splits: equal but for case, punctuation and white space ("copy of fit");
    nearly equal ("near copy of fit"); sharing a long run of words ("shared run with fit"). threshold: Jaccard similarity of the sets of
    5-character shingles from which a text is nearly equal, in (0, 1]. run: words of a run that count as copied, 2 or more. others: look
    at pool and left-out rows too, but for real inputs that were annotated: they are such rows. Candidates without fields are kept.
    """

    version: ClassVar[int] = 2
    scope: ClassVar[Literal["row", "set"]] = "row"

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    run: Annotated[int, Field(ge=2)] = 13
    others: bool = True

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        if not candidates:
            return []
        real = _index(sample, self)
        reasons = ["" if c.fields is None else real.reason(sample.task.body(c.fields), self.others and not c.annotated) for c in candidates]
        return [Verdict(not reason, reason) for reason in reasons]


class _Real:
    """Real texts, indexed so that a text that copies one is found for certain."""

    def __init__(self, rows: Sequence[tuple[Split, str]], settings: Overlap) -> None:
        """rows: (split, text), the gravest split first: the first of several equal texts names the place."""
        self.settings = settings
        self.whole: dict[str, Split] = {}
        self.runs: dict[str, Split] = {}
        for split, text in rows:
            self.whole.setdefault(normalise(text), split)
            for run in word_runs(text, settings.run):
                self.runs.setdefault(run, split)
        self.whole.pop("", None)
        self.sets = [(split, shingles(text)) for text, split in self.whole.items()]
        self.common = Counter(s for _, shingled in self.sets for s in shingled)
        self.holders: dict[str, list[int]] = {}
        for index, (_, shingled) in enumerate(self.sets):
            for shingle in self._rarest(shingled):
                self.holders.setdefault(shingle, []).append(index)

    def reason(self, text: str, others: bool) -> str:
        """Why the text counts as copied; "" where it does not. others: of rows outside of fit, dev and test too."""
        plain = normalise(text)

        def counts(split: Split | None) -> bool:
            return split is not None and (others or split != "other")

        if counts(self.whole.get(plain)):
            return f"copy of {_named(self.whole[plain])}"
        near = next(filter(counts, self._near(shingles(plain))), None)
        if near:
            return f"near copy of {_named(near)}"
        found = [split for run in word_runs(plain, self.settings.run) if counts(split := self.runs.get(run)) and split]
        return f"shared run with {_named(min(found, key=SPLITS.index))}" if found else ""

    def _near(self, own: frozenset[str]) -> Iterator[Split]:
        for index in sorted({i for shingle in self._rarest(own) for i in self.holders.get(shingle, ())}):
            split, other = self.sets[index]
            if jaccard(own, other) >= self.settings.threshold:
                yield split

    def _rarest(self, shingled: frozenset[str]) -> list[str]:
        """The rarest shingles, so many that two sets at the threshold have one in common (prefix filter: Bayardo et al. 2007)."""
        # 1e-9: 0.7 * 10 must not count as above 7.
        count = len(shingled) - math.ceil(self.settings.threshold * len(shingled) - 1e-9) + 1
        return sorted(shingled, key=lambda s: (self.common[s], s))[:count] if shingled else []


def _named(split: Split) -> str:
    return "other real row" if split == "other" else split


_last: list[tuple[Sample, Overlap, _Real]] = []
"""The index made last: a run judges part by part, always against the same rows."""


def _index(sample: Sample, settings: Overlap) -> _Real:
    for known, same, real in _last:
        if known is sample and same == settings:
            return real
    real = _Real(list(real_texts(sample)), settings)
    _last[:] = [(sample, settings, real)]
    return real
