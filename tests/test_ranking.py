"""Which way is the best: known answers, and how often equal ways are told apart."""

from __future__ import annotations

import numpy as np
import pytest

from seedbed.gain import Ruler
from seedbed.ranking import HEAD, LEGEND, NO_RANK, ranked, sentence, table, unmeasured
from seedbed.task import Task
from seedbed.types import Example

ROWS = 120
TASK = Task(kind="classification", inputs=("text",), target="label", labels=("no", "yes"))
TEST = tuple(Example(str(i), {"text": f"text {i}", "label": "yes"}, "test") for i in range(ROWS))
RULER = Ruler(TASK, TEST, "accuracy", 1)


def answers(right: int) -> list[str]:
    return ["yes"] * right + ["no"] * (ROWS - right)


def test_the_way_with_the_highest_score_is_the_best_and_the_others_are_behind_by_their_difference() -> None:
    found = ranked(RULER, {"low": [answers(60), answers(66)], "high": [answers(90), answers(96)], "same": [answers(90), answers(96)]})
    assert found["high"] == NO_RANK | {"best": True}  # the first of two equals
    assert found["low"]["behind"] == pytest.approx(25.0) and found["low"]["behind_low"] > 0
    assert (found["same"]["behind"], found["same"]["behind_low"], found["same"]["behind_high"]) == (0, 0, 0)


def test_two_ways_that_miss_the_same_rows_are_told_apart_though_their_own_intervals_overlap() -> None:
    better, worse = answers(72), answers(60)
    assert RULER.interval(RULER.scorer([worse]), 1)[2] > RULER.interval(RULER.scorer([better]), 1)[1]
    assert ranked(RULER, {"a": [worse], "b": [better]})["a"]["behind_low"] > 0


def test_equal_ways_are_told_apart_in_at_most_five_of_a_hundred_comparisons() -> None:
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(20):
        runs = {way: [np.where(rng.random(ROWS) < 0.6, "yes", "no").tolist()] for way in range(8)}
        wrong += any(rank["behind"] is not None and rank["behind_low"] > 0 for rank in ranked(RULER, runs).values())
    assert wrong <= 3  # P(more of 20 at 5 %) = 0.02; without a correction it is 12


def test_one_way_alone_has_no_rank_and_no_sentence() -> None:
    assert ranked(RULER, {"a": [answers(60)]}) == {"a": NO_RANK}
    assert sentence([NO_RANK]) == ""


def test_the_sentence_says_what_was_beaten_and_what_was_not() -> None:
    ranks = ranked(RULER, {"low": [answers(60)], "near": [answers(88)], "high": [answers(90)]})
    facts = {"mode": "generate", "student": "linear", "n_kept": 30, "metric": "accuracy", "gain": 2.0, "gain_low": -1.0, "gain_high": 5.0}
    low, near = (f"{ranks[arm]['behind_low']:.1f} to {ranks[arm]['behind_high']:.1f}" for arm in ("low", "near"))
    assert sentence([facts | {"arm": arm} | rank for arm, rank in ranks.items()]) == (
        f"Highest accuracy of student linear with 30 rows: high, generate, 2.0 points over real rows alone (-1.0 to 5.0): no gain is shown; "
        f"shown to beat low, generate (25.0 points, {low}); "
        f"not shown to beat near, generate (1.7 points, {near})."
    )


def test_a_best_way_that_is_behind_the_real_rows_alone_is_said_to_be() -> None:
    facts = {"mode": "generate", "student": "linear", "n_kept": 30, "metric": "accuracy", "gain_low": -3.0, "gain_high": 1.0, "best": True}
    behind, even = (sentence([facts | NO_RANK | {"arm": "a", "best": True, "gain": gain}]) for gain in (-1.5, -0.01))
    assert "-1.5 points over real rows alone (-3.0 to 1.0), which score higher" in behind and "which score higher" not in even


@pytest.mark.parametrize(("low", "high", "shown"), [(-1.0, 5.0, False), (0.0, 5.0, False), (0.1, 5.0, True), (-5.0, -0.1, True), (0.0, 0.0, False)])
def test_that_no_gain_is_shown_is_said_where_its_interval_holds_0_and_there_alone(low: float, high: float, shown: bool) -> None:
    facts = {"mode": "generate", "student": "linear", "n_kept": 30, "metric": "accuracy", "arm": "a", "gain": (low + high) / 2}
    said = sentence([facts | NO_RANK | {"best": True, "gain_low": low, "gain_high": high}])
    assert (": no gain is shown." in said) is not shown


def test_the_table_has_no_minus_zero_and_no_brackets_and_a_word_for_each_column() -> None:
    row = unmeasured("a", "generate", "linear", 80, 71, "accuracy") | {"mean": 50.0, "low": -0.01, "high": 60.0, "gain": -0.04, "gain_low": -0.01}
    row |= {"gain_high": 0.0, "all_gain": -0.0, "all_gain_low": -1.0, "all_gain_high": -0.02, "all_kept": [76, 71], "best": True}
    said = sentence([row, row | {"best": False, "behind": 0.04, "behind_low": -0.03, "behind_high": 0.1}])
    text = table([row, row | {"all_kept": 76}], [said])
    assert "-0.0" not in text and "0.0 to 60.0" in text and "-1.0 to 0.0" in text
    assert "0.0 (n = 76, 71)" in text and "0.0 (n = 76)" in text and "[" not in text
    assert not [name for name in HEAD if f"{name}:" not in LEGEND and f"{name}," not in LEGEND]
