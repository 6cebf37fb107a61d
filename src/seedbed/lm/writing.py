"""Rows of any task as questions and answers in plain text: what a student that writes its answers learns from and is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seedbed.errors import ComponentError
from seedbed.types import Example

if TYPE_CHECKING:
    from seedbed.task import Task


@dataclass(frozen=True)
class Writer:
    """A trained student that writes its answers. write: questions -> answers; fits: whether a question is one that the model can read.

    facts: what the training chose and left out, as plain values.
    """

    task: Task
    write: Callable[[Sequence[str]], list[str]]
    fits: Callable[[str], bool]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, examples: Sequence[Example]) -> list[str]:
        """A text each; "" where the inputs are too long for the model. Of a label task: whatever was written, a label or not."""
        asked = [question(self.task, e) for e in examples]
        read = [i for i, text in enumerate(asked) if self.fits(text)]
        found = [""] * len(asked)
        for i, text in zip(read, self.write([asked[i] for i in read]) if read else [], strict=True):
            found[i] = text.strip()
        return found

    def cut(self, examples: Sequence[Example]) -> int:
        """How many of the examples are too long for the model, and get no answer."""
        return sum(not self.fits(question(self.task, e)) for e in examples)


def unsupported(what: str, task: Task) -> str:
    """Why `what` cannot learn the task, or "" where it has a target."""
    return "" if task.target else f"the {what} predicts a target, and a {task.kind} task has none"


def lesson(where: str, task: Task, examples: Sequence[Example]) -> list[Example]:
    """The rows of weight 1; those of weight 0 are left out.

    Raises ComponentError: a task without a target, no row, another weight, which the loss of a text knows nothing of.
    """
    if reason := unsupported(f"{where.strip('[]')}", task):
        raise ComponentError(f"{where} {reason}. Choose a task with a target.")
    odd = next((e for e in examples if e.weight not in (0, 1)), None)
    if odd:
        raise ComponentError(f"{where} the weight of a training row must be 0 or 1 where texts are written. Row {odd.id!r} has {odd.weight}.")
    rows = [e for e in examples if e.weight]
    if not rows:
        raise ComponentError(f"{where} needs a training row whose weight is 1. Got none among {len(examples)}.")
    return rows


def question(task: Task, example: Example) -> str:
    """All inputs as sections, then the mark of the target: `Text: play a song`, `Label:`."""
    inputs = {name: example.fields[name] for name in task.inputs}
    return task.known(inputs).prefix(inputs) + task.mark(str(task.target))


def answer(task: Task, example: Example) -> str:
    return str(example.fields[str(task.target)])
