"""A classifier trained on the real rows says which label it reads in each candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, overload

from seedbed.lm.classify import Learned, Learner, head, lesson_of, tfidf, unsupported
from seedbed.types import Annotations, Backing, Candidate, Example, Sample

if TYPE_CHECKING:
    from seedbed.task import Task

TOGETHER = 1000
"""Candidates that are judged at once."""


@dataclass(frozen=True)
class Classifier(Learner):
    """Trains a classifier on `fit`, with its choices on `dev`, and gives each candidate's inputs a distribution over the labels of fit.

    model: "minilm", a folder or a hub name of a text encoder. tune: false trains a logistic head on frozen sentence features (seconds on a
    CPU); true trains all weights by `epochs`, `lr`, `batch`, `warmup` and `patience`, as of the encoder student. Labels that no fit row
    has get no probability. The candidate's own label is not looked at, so that agreement with it says something (He et al. 2022).
    """

    version: ClassVar[int] = 1

    features: Literal["encoder", "tfidf"] = "encoder"

    def supports(self, task: Task) -> str:
        """The reason why not, or "" for a task with labels."""
        return unsupported("classifier annotator", task)

    def annotate(self, candidates: Sequence[Candidate], sample: Sample, seed: int, backing: Backing) -> Annotations:
        """Rows of label -> probability; facts: what the training chose; `dev_accuracy`, the share of `dev_rows` that it reads right;
        `candidates_cut`, those longer than a tuned model can read."""
        learned = self._learned(sample, seed)
        cut = sum(learned.cut(_inputs(sample, candidates[i : i + TOGETHER])) for i in range(0, len(candidates), TOGETHER))
        return Annotations(_Read(learned, candidates, sample), dict(learned.facts) | _right(learned, sample) | {"candidates_cut": cut})

    def _learned(self, sample: Sample, seed: int) -> Learned:
        if self.features == "tfidf":
            lesson = lesson_of("[annotator]", sample.task, sample.fit)
            return head(tfidf(sample.task, lesson.rows), sample.task, lesson, sample.dev)
        return self.learned("[annotator]", sample.task, sample.fit, sample.dev, seed)


def _right(learned: Learned, sample: Sample) -> dict[str, float]:
    """Of dev, by which the training chose too; nothing where it has no row."""
    hits = [said == str(e.fields[str(sample.task.target)]) for said, e in zip(learned.predict(sample.dev), sample.dev, strict=True)]
    return {"dev_accuracy": sum(hits) / len(hits), "dev_rows": len(hits)} if hits else {}


def _inputs(sample: Sample, candidates: Sequence[Candidate]) -> list[Example]:
    """Of those with fields."""
    return [Example(c.id, {name: c.fields[name] for name in sample.task.inputs}) for c in candidates if c.fields is not None]


class _Read(Sequence[Mapping[str, float]]):
    """Distributions, made a part at a time when they are asked for; empty for candidates without fields."""

    def __init__(self, learned: Learned, candidates: Sequence[Candidate], sample: Sample) -> None:
        self.learned, self.candidates, self.sample = learned, candidates, sample
        self.number, self.part = -1, list[Mapping[str, float]]()

    def __len__(self) -> int:
        return len(self.candidates)

    @overload
    def __getitem__(self, place: int) -> Mapping[str, float]: ...
    @overload
    def __getitem__(self, place: slice) -> list[Mapping[str, float]]: ...
    def __getitem__(self, place: int | slice) -> Mapping[str, float] | list[Mapping[str, float]]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        number, at = divmod(range(len(self))[place], TOGETHER)
        if number != self.number:
            self.number, self.part = number, self._made(self.candidates[number * TOGETHER : (number + 1) * TOGETHER])
        return self.part[at]

    def _made(self, candidates: Sequence[Candidate]) -> list[Mapping[str, float]]:
        said = iter(self.learned.probabilities(_inputs(self.sample, candidates)).tolist())
        return [{} if c.fields is None else dict(zip(self.learned.labels, next(said), strict=True)) for c in candidates]
