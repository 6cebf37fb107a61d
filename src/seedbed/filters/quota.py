"""As many candidates of each label as were asked for, and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from seedbed.types import Candidate, Sample, Verdict


@dataclass(frozen=True)
class Quota:
    """Keeps the first `per_label` candidates of each label ("over quota" are the others); counts of the run say which labels fall short.

    per_label: rows of each label, 1 or more. It stands last among the filters: what a later one drops is not made up for. Candidates without
    fields, or of a task without labels, are kept.
    """

    version: ClassVar[int] = 1
    scope: ClassVar[Literal["row", "set"]] = "set"

    per_label: Annotated[int, Field(ge=1)] = 50

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        taken: Counter[str] = Counter()
        return [self._one(candidate, sample, taken) for candidate in candidates]

    def _one(self, candidate: Candidate, sample: Sample, taken: Counter[str]) -> Verdict:
        if candidate.fields is None or not sample.task.has_labels:
            return Verdict(True)
        label = str(candidate.fields[str(sample.task.target)])
        taken[label] += 1
        return Verdict(taken[label] <= self.per_label, "" if taken[label] <= self.per_label else "over quota")

    def short(self, kept: Sequence[Candidate], sample: Sample) -> dict[str, int]:
        """Label -> rows that it lacks, for those that do."""
        found = Counter(str((c.fields or {}).get(str(sample.task.target))) for c in kept)
        return {label: self.per_label - found[label] for label in sample.task.labels if found[label] < self.per_label}
