"""Candidates that repeat an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from seedbed.text import jaccard, normalise, shingles
from seedbed.types import Candidate, Sample, Verdict

PERMUTATIONS = 128
MISSED = 0.001
"""Chance that MinHash overlooks a pair that is just at the threshold, at most."""


@dataclass(frozen=True)
class Dedup:
    """Drops a candidate that is equal or nearly equal to one kept before it; labels do not make a difference.

    threshold: Jaccard similarity of the sets of 5-character shingles from which two texts count as nearly equal, in [0.1, 1]. Two
    candidates are compared by their generated text, and only where their given fields are the same. MinHash LSH proposes pairs and the
    exact similarity decides, so judging the kept ones again drops nothing. Candidates without fields are kept.
    """

    version: ClassVar[int] = 1
    scope: ClassVar[Literal["row", "set"]] = "set"

    threshold: Annotated[float, Field(ge=0.1, le=1)] = 0.8

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        from rensa import RMinHash, RMinHashLSH

        task = sample.task
        keys = [None if c.fields is None else (normalise(task.prefix(c.fields)), normalise(task.body(c.fields))) for c in candidates]
        sketches = RMinHash.from_token_sets((shingles(key[1]) if key else () for key in keys), PERMUTATIONS, 0)
        kept = RMinHashLSH(self.threshold, PERMUTATIONS, _bands(self.threshold))
        seen: set[tuple[str, str]] = set()
        verdicts = []
        for index, (key, sketch) in enumerate(zip(keys, sketches, strict=True)):
            if key is None:
                verdicts.append(Verdict(True))
                continue
            reason = "exact duplicate" if key in seen else ""
            if not reason and self._near(key, [keys[i] for i in kept.query(sketch)]):
                reason = "near duplicate"
            if not reason:
                seen.add(key)
                kept.insert(index, sketch)
            verdicts.append(Verdict(not reason, reason))
        return verdicts

    def _near(self, key: tuple[str, str], proposed: Sequence[tuple[str, str] | None]) -> bool:
        own = shingles(key[1])
        return any(other and other[0] == key[0] and jaccard(own, shingles(other[1])) >= self.threshold for other in proposed)


def _bands(threshold: float) -> int:
    """Bands of the LSH table: as few as overlook a pair at the threshold with a chance of MISSED at most.

    With r rows in each of b bands a pair of similarity s is proposed with probability 1 - (1 - s^r)^b (Leskovec et al. 2014, 3.4).
    """
    rows = PERMUTATIONS
    while rows > 1 and (1 - threshold**rows) ** (PERMUTATIONS // rows) > MISSED:
        rows //= 2
    return PERMUTATIONS // rows
