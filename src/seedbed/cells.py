"""A cell of a comparison, one arm under one seed, and what the notes of the table say of its cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from seedbed.arms import Arm
from seedbed.grow import Grown
from seedbed.sifting import tally
from seedbed.types import Example

LEAST_SHARE = 0.15
"""An arm that under some seed keeps less than this share of the most rows does not drag the others down to its size: it is measured at its own."""


@dataclass(frozen=True)
class Cell:
    """One arm under one seed: what it grew in each fold, or once. rows: the kept ones of each, as a student learns from them."""

    arm: Arm
    seed: int
    grown: Sequence[Grown]
    rows: Sequence[Sequence[Example]]

    @property
    def kept(self) -> int:
        """Rows, of the fold that kept fewest."""
        return min(map(len, self.rows))

    @property
    def least(self) -> Grown:
        """What that fold grew."""
        return min(zip(self.rows, self.grown, strict=True), key=lambda pair: len(pair[0]))[1]


def too_few(cell: Cell, budget: int) -> str:
    """Why the arm is not at the rows of the others, and what would bring it there."""
    return (
        f"kept {cell.kept} rows, under {100 * LEAST_SHARE:.0f} % of the most: it is scored at these and not ranked with the others at {budget}. "
        f"Let it keep more (it dropped {reasons_of(cell.least)}), or give all arms a higher [generate] count"
    )


def half_empty(cells: Sequence[Cell]) -> str:
    """That an arm which writes and annotates rows kept none of those that it wrote; "" where it kept some of each seed and fold."""
    grown = [g for cell in cells for g in cell.grown if cell.arm.mode == "annotate+generate"]
    without = sum(all(c.annotated for c in g.kept) for g in grown)
    some = f" in {without} of {len(grown)} seeds and folds" * (without < len(grown))
    return f"all rows that it wrote were dropped{some}: it holds annotated rows alone" + " there" * bool(some) if without else ""


def labellers(cells: Sequence[Cell]) -> list[str]:
    """How much of dev each annotator of the pool reads right, all seeds and folds together; none of one that did not say."""
    said = [f for cell in cells for g in cell.grown for f in g.annotators if f.get("of") == "pool" and f.get("dev_rows")]
    rows, right = Counter[str](), Counter[str]()
    for facts in said:
        rows[facts["kind"]] += facts["dev_rows"]
        right[facts["kind"]] += round(facts["dev_rows"] * facts["dev_accuracy"])
    return [f"its {kind} reads {100 * right[kind] / n:.0f} % of {n} dev rows right" for kind, n in rows.items()]


def reasons_of(grown: Grown) -> str:
    """The three that dropped the most rows."""
    counts = tally((), grown.dropped)
    return ", ".join(f"{key} {n}" for key, n in sorted(counts.items(), key=lambda pair: -pair[1])[:3]) or "no candidate"
