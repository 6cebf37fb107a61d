"""Candidates that hold personal data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from seedbed.pii import Found, allowed, find
from seedbed.text import SPLITS, Split, body, real_texts
from seedbed.types import Candidate, Sample, Verdict


@dataclass(frozen=True)
class Personal:
    """Drops a candidate that holds personal data of a real row ("email of fit"), or any ("email").

    Kinds, and what is allowed, are those of the metric `pii`: e-mail, phone, IBAN, card, social security number, IP, MAC, key of a service.
    which: "real" drops what stands in a real row, "any" what a model made up too (it may be somebody's). allow, presidio: as of the metric.
    Candidates without fields are kept; with "real" so are real inputs of the pool, which "any" judges too.
    """

    version: ClassVar[int] = 2
    scope: ClassVar[Literal["row", "set"]] = "row"

    which: Literal["real", "any"] = "real"
    allow: tuple[str, ...] = ()
    presidio: str = ""

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        if not candidates:
            return []
        known = self._known(sample)
        return [self._one(c, sample, known) for c in candidates]

    def _one(self, candidate: Candidate, sample: Sample, known: dict[Found, Split]) -> Verdict:
        if candidate.fields is None or (candidate.annotated and self.which == "real"):
            return Verdict(True)
        found = {f for f in find(body(sample.task, candidate.fields), self.presidio) if not allowed(f, self.allow)}
        copied = sorted((SPLITS.index(known[f]), f[0]) for f in found & known.keys())
        if copied:
            place = SPLITS[copied[0][0]]
            return Verdict(False, f"{copied[0][1]} of {'other real row' if place == 'other' else place}")
        return Verdict(False, sorted(found)[0][0]) if found and self.which == "any" else Verdict(True)

    def _known(self, sample: Sample) -> dict[Found, Split]:
        for before, same, known in _last:
            if before is sample and same == self:
                return known
        known = {}
        for split, _, text in real_texts(sample):
            for found in find(text, self.presidio):
                known.setdefault(found, split)
        _last[:] = [(sample, self, known)]
        return known


_last: list[tuple[Sample, Personal, dict[Found, Split]]] = []
"""What was found last: a run judges part by part, always against the same rows."""
