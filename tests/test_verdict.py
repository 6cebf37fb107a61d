"""The verdict: one sentence, each of its parts in each of its cases."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from seedbed.report.verdict import DIVERSITY, tone, verdict
from seedbed.types import Measure

GAIN = "real + synthetic beats real by 4.1 points (95 % interval 2.8 to 5.4)"


def measures(*found: Measure) -> list[dict[str, Any]]:
    return [asdict(m) for m in found]


def rate(copies: int, n: int = 200) -> Measure:
    return Measure("verbatim_rate", copies / n, "share", "lower", n, 0.0, 0.1)


def diversity(low: float, high: float, name: str = DIVERSITY[0], p: float | None = None) -> Measure:
    return Measure(name, (low + high) / 2, "", "closer", 200, low, high, 50.0, p=p)


CASES = [
    ([rate(0)], f"{GAIN}; 0 copies of real rows among 200"),
    ([rate(1)], f"{GAIN}; 1 copy of real rows among 200"),
    ([rate(7, 30)], f"{GAIN}; 7 copies of real rows among 30"),
    ([], f"{GAIN}; copies of real rows were not counted"),
    ([Measure("verbatim_rate", None, note="no kept row")], f"{GAIN}; copies of real rows were not counted"),
    ([rate(0), diversity(20, 49)], f"{GAIN}; 0 copies of real rows among 200; less diverse than real text"),
    ([rate(0), diversity(51, 60)], f"{GAIN}; 0 copies of real rows among 200; more diverse than real text, which garbled text is too"),
    ([rate(0), diversity(45, 55)], f"{GAIN}; 0 copies of real rows among 200"),
    (
        [rate(0), diversity(20, 49, p=0.005)],
        f"{GAIN}; 0 copies of real rows among 200; less diverse than real text; unlike real text by 1 of 1 tests (p <= 0.01)",
    ),
    ([rate(0), diversity(20, 49, p=0.2)], f"{GAIN}; 0 copies of real rows among 200; none of 1 tests tells them from real text"),
    ([rate(0), Measure("pii_rate", 0.0, p=1.0)], f"{GAIN}; 0 copies of real rows among 200"),
    ([rate(0), Measure(DIVERSITY[0], None, note="too few")], f"{GAIN}; 0 copies of real rows among 200"),
    ([rate(0), Measure(DIVERSITY[0], 3.0)], f"{GAIN}; 0 copies of real rows among 200"),
    ([rate(0), diversity(51, 60, DIVERSITY[1]), diversity(20, 49)], f"{GAIN}; 0 copies of real rows among 200; less diverse than real text"),
]


@pytest.mark.parametrize(("found", "sentence"), CASES)
def test_the_verdict_says_gain_copies_and_diversity(found: list[Measure], sentence: str) -> None:
    assert verdict(GAIN, measures(*found)) == sentence


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.1, 4.0, "better"), (-4.0, -0.1, "worse"), (-1.0, 2.0, "open"), (0.0, 0.0, "open"), (None, None, "unknown")]
)
def test_the_tone_follows_the_interval(low: float | None, high: float | None, expected: str) -> None:
    assert tone({"difference": {"mean": 1.0, "low": low, "high": high}}) == expected
    assert tone(None) == "unknown"
