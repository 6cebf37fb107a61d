"""A logistic regression on frozen features: the cheapest student, and the same one every time it is trained on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from seedbed.lm.classify import Learned, Sentences, head, lesson_of, tfidf, unsupported
from seedbed.types import Example

if TYPE_CHECKING:
    from seedbed.task import Task


@dataclass(frozen=True)
class Linear:
    """Logistic regression on features of the inputs; C is the one with the best log-likelihood on dev (lm/classify.py).

    features: "minilm" (frozen sentence embeddings: one of each input column and, of neighbouring columns u and v, |u - v| and u * v as
    in InferSent, Conneau et al. 2017) or "tfidf" (words, pairs of words, and 3 to 5 letters within words; needs no model).

    Learns from `Example.weight`, rows of weight 0 being left out, and from the target or, where a row has them, its `target_probs`. The
    seed changes nothing: the optimum is unique and the optimiser (L-BFGS) draws no random number.
    """

    version: ClassVar[int] = 2
    features: Literal["minilm", "tfidf"] = "minilm"

    def supports(self, task: Task) -> str:
        """The reason why not, or "" for a task with labels."""
        return unsupported("linear student", task)

    def learn(self, task: Task, examples: Sequence[Example], dev: Sequence[Example], seed: int) -> Learned:
        """Labels that no training row has are never predicted. Raises ComponentError: a task without labels, no row, a negative weight."""
        lesson = lesson_of("[student]", task, examples)
        return head(tfidf(task, lesson.rows) if self.features == "tfidf" else Sentences(task), task, lesson, dev)
