"""Candidates that copy a real row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from seedbed.copies import NEAR, Copies
from seedbed.text import Split, real_texts
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

    threshold: Annotated[float, Field(gt=0, le=1)] = NEAR
    run: Annotated[int, Field(ge=2)] = 13
    others: bool = True

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        if not candidates:
            return []
        real = _index(sample, self)
        reasons = ["" if c.fields is None else _reason(real, sample.task.body(c.fields), self.others and not c.annotated) for c in candidates]
        return [Verdict(not reason, reason) for reason in reasons]


def _reason(real: Copies, text: str, others: bool) -> str:
    """Why the text counts as copied; "" where it does not. others: of rows outside of fit, dev and test too."""

    def counts(split: Split) -> bool:
        return others or split != "other"

    if (whole := real.equal(text)) and counts(whole.split):
        return f"copy of {_named(whole.split)}"
    if near := next((copied for copied in real.near(text) if counts(copied.split)), None):
        return f"near copy of {_named(near.split)}"
    found = [split for split in real.shared(text) if counts(split)]
    return f"shared run with {_named(found[0])}" if found else ""


def _named(split: Split) -> str:
    return "other real row" if split == "other" else split


_last: list[tuple[Sample, Overlap, Copies]] = []
"""The index made last: a run judges part by part, always against the same rows."""


def _index(sample: Sample, settings: Overlap) -> Copies:
    for known, same, real in _last:
        if known is sample and same == settings:
            return real
    real = Copies(list(real_texts(sample)), settings.threshold, settings.run)
    _last[:] = [(sample, settings, real)]
    return real
