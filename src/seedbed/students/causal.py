"""A small causal language model that reads the inputs and writes the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from seedbed.lm.writing import Writer, unsupported
from seedbed.types import Example

if TYPE_CHECKING:
    from seedbed.task import Task


@dataclass(frozen=True)
class Causal:
    """Fine-tunes all weights of a causal language model on the target after the inputs, and answers greedily. For any task with a target.

    model: "seedling" (shipped), a folder or a hub name. layers: keeps the first so many of its blocks, for a student smaller than its
    teacher; absent: all. epochs: at most. patience: evaluations on dev without a lower loss before the training stops; the best one is kept.
    batch: rows of one step, about. lr: AdamW's rate, reached after `warmup` steps. max_tokens: of one answer.

    Rows of weight 0 are left out; other weights than 1 are refused, and `target_probs` not read: a text has one target. Of a task with
    labels the label is written too, and a text that is no label counts as wrong. Rows longer than the model's context are left out of the
    training, and get no answer.
    """

    version: ClassVar[int] = 1

    model: str = "seedling"
    layers: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[int, Field(ge=1)] = 10
    patience: Annotated[int, Field(ge=1)] = 3
    batch: Annotated[int, Field(ge=1)] = 16
    lr: Annotated[float, Field(gt=0)] = 1e-3
    warmup: Annotated[int, Field(ge=0)] = 30
    max_tokens: Annotated[int, Field(ge=1)] = 128

    def supports(self, task: Task) -> str:
        """The reason why not, or "" for a task with a target."""
        return unsupported("causal student", task)

    def learn(self, task: Task, examples: Sequence[Example], dev: Sequence[Example], seed: int) -> Writer:
        """Raises ComponentError: no target, no row, a weight but 0 and 1; ModelError: a model that cannot be loaded or has fewer blocks."""
        from seedbed.lm import causal
        from seedbed.lm.finetune import Tuning

        how = Tuning(method="full", epochs=self.epochs, patience=self.patience, batch=self.batch, lr=self.lr, warmup=self.warmup)
        return causal.learn(self.model, self.layers, how, self.max_tokens, "[student]", task, examples, dev, seed)
