"""Plug-ins as a user would write them: one file, nothing registered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from seedbed.engines.toy import ToySession
from seedbed.students.linear import Linear
from seedbed.task import Task
from seedbed.types import Annotations, Backing, Candidate, Example, Measure, ModelRef, Predictor, Sample, Verdict


@dataclass(frozen=True)
class Parsed:
    """Keeps every candidate."""

    scope: ClassVar[str] = "row"

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        return [Verdict(True) for _ in candidates]


@dataclass(frozen=True)
class TextOnly:
    """An engine that takes words alone."""

    can: ClassVar[frozenset[str]] = frozenset({"text"})

    def open(self, model: ModelRef) -> ToySession:
        return ToySession(3, 0.1, model)


@dataclass(frozen=True)
class Raises:
    """Every part of a run, failing."""

    scope: ClassVar[str] = "row"
    needs: ClassVar[frozenset[str]] = frozenset()
    can: ClassVar[frozenset[str]] = frozenset({"text", "soft"})

    def fit(self, *what: object) -> None:
        raise ZeroDivisionError("by a user")

    load = open = learn = fit

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        raise ZeroDivisionError("by a user")

    def measure(self, sample: Sample, kept: Sequence[Example], seed: int) -> list[Measure]:
        raise ZeroDivisionError("by a user")

    def supports(self, task: Task) -> str:
        return ""

    def annotate(self, candidates: Sequence[Candidate], sample: Sample, seed: int, backing: Backing) -> Annotations:
        raise ZeroDivisionError("by a user")


@dataclass(frozen=True)
class Nothing:
    """A filter, a metric and an annotator that give nothing."""

    scope: ClassVar[str] = "row"

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> None:
        return None

    def measure(self, sample: Sample, kept: Sequence[Example], seed: int) -> None:
        return None

    def supports(self, task: Task) -> str:
        return ""

    def annotate(self, candidates: Sequence[Candidate], sample: Sample, seed: int, backing: Backing) -> None:
        return None


@dataclass(frozen=True)
class Certain:
    """An annotator that is sure of the first label, and has a fact named `kind`."""

    def supports(self, task: Task) -> str:
        return ""

    def annotate(self, candidates: Sequence[Candidate], sample: Sample, seed: int, backing: Backing) -> Annotations:
        return Annotations([{sample.task.labels[0]: 1.0} for _ in candidates], {"kind": "certain", "rows": len(candidates)})


@dataclass(frozen=True)
class NoNumber:
    """A metric whose value is no number."""

    def measure(self, sample: Sample, kept: Sequence[Example], seed: int) -> list[Measure]:
        return [Measure("mine", float("nan"))]


@dataclass(frozen=True)
class Logged:
    """The linear student; each that learns is a line in the file `log`."""

    log: str = ""

    def supports(self, task: Task) -> str:
        return Linear().supports(task)

    def learn(self, task: Task, examples: Sequence[Example], dev: Sequence[Example], seed: int) -> Predictor:
        with open(self.log, "a") as file:
            file.write(f"{len(examples)}\n")
        return Linear(features="tfidf").learn(task, examples, dev, seed)


@dataclass(frozen=True)
class Dies:
    """An engine that takes its process down, as one that is out of memory does; of a user's, in a hand."""

    can = frozenset({"text"})

    def open(self, model: object) -> object:
        os._exit(1)
