"""Candidates that are no whole record of the task, or far shorter or longer than real ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from seedbed.types import Candidate, Sample, Verdict


@dataclass(frozen=True)
class Form:
    """Drops what could not be parsed (with the parser's reason), was cut by the engine, is empty, or is out of the real rows' length band.

    low, high: quantiles of the words of fit and dev rows' generated text, [0, 0.5) and (0.5, 1]. slack: how far beyond them a length may
    lie, a factor of 1 or more: the band is low / slack .. high * slack words. Without fit and dev rows every length is allowed, and to a real
    input that was annotated.
    """

    version: ClassVar[int] = 2
    scope: ClassVar[Literal["row", "set"]] = "row"

    low: Annotated[float, Field(ge=0, lt=0.5)] = 0.01
    high: Annotated[float, Field(gt=0.5, le=1)] = 0.99
    slack: Annotated[float, Field(ge=1)] = 1.5

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        band = self.band(sample)
        return [self._one(candidate, sample, band) for candidate in candidates]

    def band(self, sample: Sample) -> tuple[float, float]:
        """(fewest, most) words allowed; a quantile between two lengths is taken outwards."""
        lengths = sorted(len(sample.task.body(e.fields).split()) for e in (*sample.fit, *sample.dev))
        if not lengths:
            return 0.0, math.inf
        last = len(lengths) - 1
        return lengths[math.floor(self.low * last)] / self.slack, lengths[math.ceil(self.high * last)] * self.slack

    def _one(self, candidate: Candidate, sample: Sample, band: tuple[float, float]) -> Verdict:
        if candidate.fields is None:
            return Verdict(False, candidate.problem or "not parsed")
        if not candidate.finished:
            return Verdict(False, "unfinished")
        if candidate.annotated and sample.task.has_labels:
            return Verdict(True)  # a real row's text is as long as it is
        length = len(sample.task.body(candidate.fields).split())
        if not length:
            return Verdict(False, "empty")
        if length < band[0]:
            return Verdict(False, "too short")
        return Verdict(False, "too long") if length > band[1] else Verdict(True)
