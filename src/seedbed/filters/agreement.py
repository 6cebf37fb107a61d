"""Candidates whose label an annotator does not read in their text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from seedbed.errors import ComponentError
from seedbed.types import Candidate, Sample, Verdict


@dataclass(frozen=True)
class Agreement:
    """Drops a candidate whose label is not the annotator's first choice ("label disagrees"), or is too unsure a one ("not confident").

    annotator: the kind of annotator whose annotations are read; the recipe must hold it. confidence: the least probability that the label
    must have, in [0, 1]; 0 asks for the first choice alone. Of labels with the same probability each is a first choice. Candidates
    without fields are kept: they have no annotation, and the form filter is the one to drop them.
    """

    version: ClassVar[int] = 1
    scope: ClassVar[Literal["row", "set"]] = "row"

    annotator: str = "classifier"
    confidence: Annotated[float, Field(ge=0, le=1)] = 0.0

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({self.annotator})

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        """Raises ComponentError where a candidate lacks the annotator's column."""
        return [self._one(candidate, str(sample.task.target)) for candidate in candidates]

    def _one(self, candidate: Candidate, target: str) -> Verdict:
        if candidate.fields is None:
            return Verdict(True)
        said = candidate.annotations.get(self.annotator)
        if said is None:
            raise ComponentError(
                f"[filter] kind = 'agreement': candidate {candidate.id} has no annotation of {self.annotator!r}. "
                f'Write [[annotator]] kind = "{self.annotator}" in the recipe.'
            )
        probability = said.get(str(candidate.fields[target]), 0.0)
        if probability < max(said.values(), default=1.0):
            return Verdict(False, "label disagrees")
        return Verdict(False, "not confident") if probability < self.confidence else Verdict(True)
