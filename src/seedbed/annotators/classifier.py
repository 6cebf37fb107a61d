"""A classifier trained on the real rows says which label it reads in each candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from seedbed.lm.classify import Learner, unsupported
from seedbed.types import Annotations, Backing, Candidate, Example, Sample

if TYPE_CHECKING:
    from seedbed.task import Task


@dataclass(frozen=True)
class Classifier(Learner):
    """Trains a classifier on `fit`, with its choices on `dev`, and gives each candidate's inputs a distribution over the labels of fit.

    model: "minilm", a folder or a hub name of a text encoder. tune: false trains a logistic head on frozen sentence features (seconds on a
    CPU); true trains all weights by `epochs`, `lr`, `batch`, `warmup` and `patience`, as of the encoder student. Labels that no fit row
    has get no probability. The candidate's own label is not looked at, so that agreement with it says something (He et al. 2022).
    """

    version: ClassVar[int] = 1

    def supports(self, task: Task) -> str:
        """The reason why not, or "" for a task with labels."""
        return unsupported("classifier annotator", task)

    def annotate(self, candidates: Sequence[Candidate], sample: Sample, seed: int, backing: Backing) -> Annotations:
        """Rows of label -> probability; facts: what the training chose, and `candidates_cut`, those longer than a tuned model can read."""
        task = sample.task
        learned = self.learned("[annotator]", task, sample.fit, sample.dev, seed)
        whole = [c for c in candidates if c.fields is not None]
        inputs = [Example(c.id, {name: (c.fields or {})[name] for name in task.inputs}) for c in whole]
        said = {id(c): dict(zip(learned.labels, p.tolist(), strict=True)) for c, p in zip(whole, learned.probabilities(inputs), strict=True)}
        return Annotations([said.get(id(c), {}) for c in candidates], dict(learned.facts) | {"candidates_cut": learned.cut(inputs)})
