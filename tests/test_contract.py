"""Everything in the catalogue passes the checks that plug-in authors are given, and the checks catch what is broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from seedbed import testing
from seedbed.catalog import CATALOG, find
from seedbed.types import Candidate, Measure, Sample, Verdict

CHECKS = {"annotator": testing.check_annotator, "filter": testing.check_filter, "metric": testing.check_metric, "student": testing.check_student}


WRITERS = ("causal", "seq2seq")
"""Students that are checked in test_writers.py, with a model of a size for it."""
GROUPS: dict[str, Any] = {"groups": {"a": ("play",), "b": ("fog",)}}
NEEDED = {"balance": GROUPS, "bias": GROUPS}
"""Settings without a default: what only a user can know."""


@pytest.mark.parametrize(("role", "kind"), [(role, kind) for role in CHECKS for kind in CATALOG[role] if kind not in WRITERS])
def test_what_ships_conforms(role: str, kind: str) -> None:
    CHECKS[role](find(role, kind)(**NEEDED.get(kind, {})))


def test_hard_conforms() -> None:
    from seedbed.generators.hard import Hard

    testing.check_generator(Hard(), "toy")
    testing.check_generator(Hard(template="zero-shot"), "toy")


@dataclass(frozen=True)
class Good:
    """Drops texts longer than `limit` letters."""

    scope: ClassVar[str] = "row"
    limit: int = 20

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        return [Verdict(len(c.text) <= self.limit, "too long") for c in candidates]


@dataclass(frozen=True)
class Neighbours(Good):
    """limit: not used; looks at neighbours although its scope says row."""

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        return [Verdict(i == 0, "not first") for i, _ in enumerate(candidates)]


@dataclass(frozen=True)
class Short(Good):
    """limit: not used; gives too few verdicts."""

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        return [Verdict(True) for _ in candidates][:2]


@dataclass(frozen=True)
class Silent(Good):
    """limit: not used; drops without a reason."""

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        return [Verdict(False) for _ in candidates]


@dataclass(frozen=True)
class Undocumented(Good):
    """Says nothing of its setting."""

    lim: int = 3


def test_a_good_filter_passes() -> None:
    testing.check_filter(Good())


@pytest.mark.parametrize(
    ("broken", "words"), [(Neighbours(), "may not depend"), (Short(), "2 verdicts"), (Silent(), "has a reason"), (Undocumented(), "lacks")]
)
def test_a_broken_filter_is_caught(broken: Any, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        testing.check_filter(broken)


@dataclass(frozen=True)
class Zero:
    """A metric that gives no value and no reason."""

    def measure(self, sample: Sample, kept: Sequence[Any], seed: int) -> list[Measure]:
        return [Measure("zero", None)]


def test_a_metric_without_a_reason_is_caught() -> None:
    with pytest.raises(AssertionError, match="needs a reason"):
        testing.check_metric(Zero())
