"""A cell of a comparison, one arm under one seed, and what the notes of the table say of its cells."""

from __future__ import annotations

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


def reasons_of(grown: Grown) -> str:
    """The three that dropped the most rows."""
    counts = tally((), grown.dropped)
    return ", ".join(f"{key} {n}" for key, n in sorted(counts.items(), key=lambda pair: -pair[1])[:3]) or "no candidate"
