"""No more candidates of a group than its share: what mitigates a skew that the metric `bias` found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from seedbed.groups import NONE, SEVERAL, Groups, problems
from seedbed.types import Candidate, Sample, Verdict


@dataclass(frozen=True)
class Balance:
    """Keeps of each group's candidates so many that the groups stand in the wished-for shares ("over the group's share" are the others).

    groups, column: as of the metric `bias`. to: "real", each group's share of the fit rows that name one; "equal", as many of each. by_label: within
    each label, so that no label goes with a group more than in fit rows (or at all, with "equal"): the rows of Kamiran and Calders 2012, drawn
    instead of weighted. The first candidates of a group are kept. Those that name no group, or several, are kept; so are those without fields.
    """

    version: ClassVar[int] = 2
    scope: ClassVar[Literal["row", "set"]] = "set"

    groups: Mapping[str, Annotated[tuple[str, ...], Field(min_length=1)]] = field(default_factory=dict)
    column: str = ""
    to: Literal["real", "equal"] = "real"
    by_label: bool = True

    def __post_init__(self) -> None:
        if found := problems(self.groups, self.column):
            raise ValueError("; ".join(found))

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        groups, task = Groups(self.groups, self.column), sample.task
        target = str(task.target) if self.by_label and task.has_labels else ""

        def cell(fields: Mapping[str, object]) -> tuple[str, str]:
            return groups.of(task, fields), str(fields[target]) if target else ""

        cells = [None if c.fields is None else cell(c.fields) for c in candidates]
        there, real = Counter(c for c in cells if c), Counter(cell(e.fields) for e in sample.fit)
        names = groups.names([*sample.fit, *sample.dev])
        most: dict[tuple[str, str], int] = {}
        for label in {label for _, label in there}:
            most |= self._most(label, {g: there[g, label] for g in names}, {g: real[g, label] for g in names})
        taken: Counter[tuple[str, str]] = Counter()
        verdicts = []
        for place in cells:
            if place is None or place[0] in (NONE, SEVERAL) or place not in most:
                verdicts.append(Verdict(True))
                continue
            taken[place] += 1
            over = taken[place] > most[place]
            verdicts.append(Verdict(not over, "over the group's share" if over else ""))
        return verdicts

    def _most(self, label: str, there: Mapping[str, int], real: Mapping[str, int]) -> dict[tuple[str, str], int]:
        """Candidates of each group to keep at most: as many rows together as the shares allow. A group that fit rows lack keeps what it has."""
        shares = {g: 1.0 if self.to == "equal" else float(n) for g, n in real.items() if self.to == "equal" or n}
        whole = sum(shares.values())
        if not whole or not all(there[g] for g in shares):
            # A group of which there is no candidate would leave none of the others: they are kept, and the metric shows it.
            shares = {g: share for g, share in shares.items() if there[g]}
            whole = sum(shares.values())
        rows = min((there[g] * whole / share for g, share in shares.items()), default=0.0)
        return {(g, label): max(1, round(rows * share / whole)) for g, share in shares.items()}
