"""The teacher's own word: how likely it finds each label after a candidate's inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from seedbed.errors import ComponentError, TooLong
from seedbed.progress import bar
from seedbed.task import Task
from seedbed.types import Annotations, Backing, Candidate, Example, Row, Sample, Session, Teacher, seed_for

if TYPE_CHECKING:
    from collections.abc import Callable

DEV_ROWS = 200
"""Dev rows that the temperature is chosen on, at most."""


@dataclass(frozen=True)
class Likelihood:
    """Scores every label's full string, end-of-text included, under the teacher's prompt for a row whose inputs are given; all labels of a row in
    one pass over one reading of the prompt. The distribution is the softmax of the scores.

    normalise: "tokens" divides a label's log-likelihood by its tokens, so that long labels are not at a disadvantage; "none" takes the
    probability of the string itself, which is what a teacher tuned on these labels gives. calibrate: divides the scores by the temperature
    that gives dev the best log-likelihood (Guo et al. 2017); it changes no first choice. A fine-tuned teacher is called what Kaddour and Liu
    (2023) call one; with a few-shot prompt this is what a base model knows.
    """

    version: ClassVar[int] = 1
    asks_teacher: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"score:text"})

    normalise: Literal["tokens", "none"] = "tokens"
    calibrate: bool = True

    def supports(self, task: Task) -> str:
        """The reason why not, or "" for a task with labels."""
        return "" if task.has_labels else f"the likelihood annotator compares labels, and a {task.kind} task has none"

    def annotate(self, candidates: Sequence[Candidate], sample: Sample, seed: int, backing: Backing) -> Annotations:
        """Rows of label -> probability, empty for candidates that do not fit the model's context. facts: `temperature`; of dev rows and the best
        label, `dev_accuracy` (share) and `dev_log_likelihood` (nats); `margin`, mean probability of the first label less the second's;
        `too_long`."""
        teacher, task = backing.teacher, sample.task
        if teacher is None:
            raise ComponentError("[annotator] kind = 'likelihood' asks the teacher, and this recipe's generator makes none that answers.")
        session = backing.open(teacher.model)

        def scores(name: str, fields: Mapping[str, Any]) -> np.ndarray | None:
            return self._scores(teacher, session, task, name, fields)

        temperature, facts = self._temperature(sample, scores)
        rows: list[dict[str, float]] = []
        with bar("likelihood", len(candidates)) as update:
            for i, candidate in enumerate(candidates):
                found = None if candidate.fields is None else scores(candidate.id, candidate.fields)
                rows.append({} if found is None else dict(zip(task.labels, _softmax(found / temperature).tolist(), strict=True)))
                update(i + 1, "")
        tops = [sorted(row.values())[-2:] for row in rows if row]
        facts |= {"margin": float(np.mean([b - a for a, b in tops])) if tops else None}
        facts |= {"too_long": sum(c.fields is not None and not row for c, row in zip(candidates, rows, strict=True))}
        return Annotations(rows, facts)

    def _scores(self, teacher: Teacher, session: Session, task: Task, name: str, fields: Mapping[str, Any]) -> np.ndarray | None:
        """float64 (labels,) in nats, a token or a label; None where the row is too long for the model."""
        row = Row(0, seed_for(0, "likelihood", name), {column: fields[column] for column in task.inputs}, name)
        prompt = teacher.prompt(row)
        if prompt is None:
            raise ComponentError("the teacher has no prompt for a row whose inputs are given. Choose another [generator].")
        asked = replace(prompt, text=prompt.text + task.mark(str(task.target)))
        try:
            found = session.score(asked, [f" {label}{prompt.stop}" for label in task.labels], ended=not prompt.stop)
        except TooLong:
            return None
        return np.array([value / tokens if self.normalise == "tokens" else value for value, tokens in found])

    def _temperature(self, sample: Sample, scores: Callable[[str, Mapping[str, Any]], np.ndarray | None]) -> tuple[float, dict[str, Any]]:
        from scipy.optimize import minimize_scalar

        task = sample.task
        read = [(e, scores(e.id, e.fields)) for e in sample.dev[:DEV_ROWS]]
        known = [(found, task.labels.index(_target(task, e))) for e, found in read if found is not None and _target(task, e) in task.labels]
        if not known:
            return 1.0, {"temperature": None, "dev_accuracy": None, "dev_log_likelihood": None}
        table, right = np.array([found for found, _ in known]), np.array([place for _, place in known])

        def loss(log_t: float) -> float:
            return -float(np.mean([math.log(max(_softmax(row / math.exp(log_t))[i], 1e-12)) for row, i in zip(table, right, strict=True)]))

        log_t = float(minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded").x) if self.calibrate else 0.0
        accuracy = float((table.argmax(axis=1) == right).mean())
        return math.exp(log_t), {"temperature": math.exp(log_t), "dev_accuracy": accuracy, "dev_log_likelihood": -loss(log_t)}


def _target(task: Task, example: Example) -> str:
    return str(example.fields[str(task.target)])


def _softmax(scores: np.ndarray) -> np.ndarray:
    exps = np.exp(scores - scores.max())
    return np.asarray(exps / exps.sum())
