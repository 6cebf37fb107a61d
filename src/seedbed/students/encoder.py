"""A text encoder with a classification head: frozen, or fine-tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from seedbed.lm.classify import Learned, Learner, unsupported
from seedbed.types import Example

if TYPE_CHECKING:
    from seedbed.task import Task


@dataclass(frozen=True)
class Encoder(Learner):
    """Reads each text through an encoder and predicts its label; what Kaddour and Liu (2023) call a student, for a small one.

    model: "minilm" (shipped with a dependency), a folder or a hub name of an encoder. tune: false trains a logistic head on frozen sentence
    features, the same for every seed; true trains all weights, with a head drawn from the seed. epochs: at most. lr: AdamW's peak rate.
    batch: rows of one step. warmup: share of the steps in which the rate rises, before it falls to 0 in a straight line. patience: epochs
    without a better log-likelihood on dev before the training stops; the best epoch is kept.

    Learns from `Example.weight` and `target_probs`. With tune, pairs are read together and texts beyond the model's limit are cut.
    """

    version: ClassVar[int] = 1

    def supports(self, task: Task) -> str:
        """The reason why not, or "" for a task with labels."""
        return unsupported("encoder student", task)

    def learn(self, task: Task, examples: Sequence[Example], dev: Sequence[Example], seed: int) -> Learned:
        """Labels that no training row has are never predicted. Raises ComponentError: a task without labels, no row, a negative weight."""
        return self.learned("[student]", task, examples, dev, seed)
