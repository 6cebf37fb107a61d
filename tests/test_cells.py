"""What the note of a comparison's row says of the cells behind it."""

from __future__ import annotations

from typing import Any

import pytest
from test_compare import BASE, ROOT

from seedbed import recipe as recipes
from seedbed.arms import Arm
from seedbed.cells import Cell, half_empty, labellers
from seedbed.grow import Grown
from seedbed.types import Candidate

RECIPE = recipes.build(BASE, ROOT)
WRITTEN = Candidate("c0", 0, "text", {}, True)
LABELLED = Candidate("a0", 0, "text", {}, True, provenance={"generator": "annotate"})


def cell(mode: str, *kept: list[Candidate], facts: list[dict[str, Any]] = []) -> Cell:  # noqa: B006
    """Of one fold for each list of kept rows."""
    return Cell(Arm("a", mode, RECIPE), 0, [Grown(RECIPE, {}, None, rows, (), {}, facts, {}) for rows in kept], [[] for _ in kept])


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([cell("annotate+generate", [LABELLED])] * 2, "all rows that it wrote were dropped: it holds annotated rows alone"),
        (
            [cell("annotate+generate", [LABELLED], [LABELLED, WRITTEN]), cell("annotate+generate", [WRITTEN], [WRITTEN])],
            "all rows that it wrote were dropped in 1 of 4 seeds and folds: it holds annotated rows alone there",
        ),
        ([cell("annotate+generate", [LABELLED, WRITTEN])], ""),
        ([cell("annotate", [LABELLED])], ""),
        ([], ""),
    ],
)
def test_an_arm_that_writes_and_annotates_says_where_it_holds_annotated_rows_alone(cells: list[Cell], said: str) -> None:
    assert half_empty(cells) == said


def test_what_annotators_read_right_is_of_all_dev_rows_together() -> None:
    pool = {"kind": "classifier", "of": "pool", "dev_accuracy": 0.5, "dev_rows": 10}
    other = [{"kind": "classifier", "dev_accuracy": 0.0, "dev_rows": 10}, {"kind": "prompted", "of": "pool"}]
    unread = {"kind": "likelihood", "of": "pool", "dev_accuracy": None}
    cells = [cell("annotate", [LABELLED], facts=[pool, *other, unread]), cell("annotate", [LABELLED], facts=[pool | {"dev_accuracy": 0.9}])]
    assert labellers(cells) == ["its classifier reads 70 % of 20 dev rows right"]
    assert labellers([]) == []
