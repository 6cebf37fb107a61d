"""The teacher's own word: how likely it finds each label after a candidate's inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from seedbed.errors import ComponentError, TooLong
from seedbed.progress import bar
from seedbed.task import Task
from seedbed.types import Annotations, Backing, Candidate, Example, Row, Sample, Session, Teacher, seed_for

WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"tokens": lambda found: found[:, 0] / found[:, 1], "none": lambda found: found[:, 0]}
DEV_ROWS = 200
"""Dev rows that the temperature is chosen on, at most: by a hash of the id, as a file may be sorted by label."""


@dataclass(frozen=True)
class Likelihood:
    """Scores every label's full string, end-of-text included, under the teacher's prompt for a row whose inputs are given; all labels of a row in
    one pass over one reading of the prompt. The distribution is the softmax of the scores.

    normalise: "tokens" divides a label's log-likelihood by its tokens, so that long labels are not at a disadvantage; "none" takes the
    probability of the string itself, which is what a teacher tuned on these labels gives; "auto" the one with the better log-likelihood on
    dev. calibrate: divides the scores by the temperature
    that gives dev the best log-likelihood (Guo et al. 2017); it changes no first choice. A fine-tuned teacher is called what Kaddour and Liu
    (2023) call one; with a few-shot prompt this is what a base model knows.
    """

    version: ClassVar[int] = 3
    asks_teacher: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"score:text"})

    normalise: Literal["auto", "tokens", "none"] = "auto"
    calibrate: bool = True

    def supports(self, task: Task) -> str:
        """The reason why not, or "" for a task with labels."""
        return "" if task.has_labels else f"the likelihood annotator compares labels, and a {task.kind} task has none"

    def annotate(self, candidates: Sequence[Candidate], sample: Sample, seed: int, backing: Backing) -> Annotations:
        """Rows of label -> probability, empty for candidates that do not fit the model's context.

        facts: `normalise`, `temperature`; of `dev_rows` dev rows, `dev_accuracy` (share) and `dev_log_likelihood` (nats, of the right label);
        `margin`, mean probability of the first label less the second's; `too_long`.
        """
        teacher, task = backing.teacher, sample.task
        if teacher is None:
            raise ComponentError("[annotator] kind = 'likelihood' asks the teacher, and this recipe's generator makes none that answers.")
        session = backing.remember(teacher.model.name, backing.open(teacher.model))

        def scores(name: str, fields: Mapping[str, Any]) -> np.ndarray | None:
            return self._scores(teacher, session, task, name, fields)

        divide, temperature, facts = self._choices(sample, scores)
        rows: list[dict[str, float]] = []
        with bar("likelihood", len(candidates)) as update:
            for i, candidate in enumerate(candidates):
                found = None if candidate.fields is None else scores(candidate.id, candidate.fields)
                rows.append({} if found is None else dict(zip(task.labels, _softmax(divide(found) / temperature).tolist(), strict=True)))
                update(i + 1, "")
        tops = [sorted(row.values())[-2:] for row in rows if row]
        facts |= {"margin": float(np.mean([b - a for a, b in tops])) if tops else None}
        facts |= {"too_long": sum(c.fields is not None and not row for c, row in zip(candidates, rows, strict=True))}
        return Annotations(rows, facts)

    def _scores(self, teacher: Teacher, session: Session, task: Task, name: str, fields: Mapping[str, Any]) -> np.ndarray | None:
        """float64 (labels, 2): nats and tokens of each label; None where the row is too long for the model."""
        row = Row(0, seed_for(0, "likelihood", name), {column: fields[column] for column in task.inputs}, name)
        prompt = teacher.prompt(row)
        if prompt is None:
            raise ComponentError("the teacher has no prompt for a row whose inputs are given. Choose another [generator].")
        asked = replace(prompt, text=prompt.text + task.mark(str(task.target)))
        try:
            found = session.score(asked, [f" {label}{prompt.stop}" for label in task.labels], ended=not prompt.stop)
        except TooLong:
            return None
        return np.array(found, dtype=np.float64)

    def _choices(
        self, sample: Sample, scores: Callable[[str, Mapping[str, Any]], np.ndarray | None]
    ) -> tuple[Callable[[np.ndarray], np.ndarray], float, dict[str, Any]]:
        """(what makes one number of a label's nats and tokens, the temperature, facts of both), by dev."""
        task = sample.task
        chosen = set(sorted((e.id for e in sample.dev), key=lambda name: seed_for(0, "likelihood dev", name))[:DEV_ROWS])
        read = [(e, scores(e.id, e.fields)) for e in sample.dev if e.id in chosen]
        known = [(found, task.labels.index(_target(task, e))) for e, found in read if found is not None and _target(task, e) in task.labels]
        if not known:
            name = str(self.normalise).replace("auto", "tokens")
            return WAYS[name], 1.0, {"normalise": name, "temperature": None, "dev_accuracy": None, "dev_log_likelihood": None}
        table, right = np.array([found for found, _ in known]), np.array([place for _, place in known])
        tried = []
        for name in WAYS if self.normalise == "auto" else (self.normalise,):
            values = np.array([WAYS[name](row) for row in table])
            temperature, fit = _temperature(values, right) if self.calibrate else (1.0, _fit(values, right))
            facts = {"normalise": name, "temperature": temperature, "dev_accuracy": float((values.argmax(axis=1) == right).mean())}
            tried.append((fit, temperature, facts | {"dev_log_likelihood": fit, "dev_rows": len(known)}))
        _, temperature, facts = max(tried, key=lambda one: one[0])
        return WAYS[str(facts["normalise"])], temperature, facts


def _temperature(values: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """(the temperature, in (0.018, 55), that gives the right labels the best mean log-likelihood, which that is)."""
    from scipy.optimize import minimize_scalar

    log_t = float(minimize_scalar(lambda log_t: -_fit(values / math.exp(log_t), right), bounds=(-4.0, 4.0), method="bounded").x)
    return math.exp(log_t), _fit(values / math.exp(log_t), right)


def _fit(values: np.ndarray, right: np.ndarray) -> float:
    """Mean log-likelihood in nats of the right labels."""
    return float(np.mean([math.log(max(_softmax(row)[i], 1e-12)) for row, i in zip(values, right, strict=True)]))


def _target(task: Task, example: Example) -> str:
    return str(example.fields[str(task.target)])


def _softmax(scores: np.ndarray) -> np.ndarray:
    exps = np.exp(scores - scores.max())
    return np.asarray(exps / exps.sum())
