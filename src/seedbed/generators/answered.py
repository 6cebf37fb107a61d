"""Questions and answers as turns of one row: a teacher makes the inputs, an answerer the target, several times; the majority is kept.

Self-consistency (Wang et al. 2023, arXiv 2203.11171): the share of answers that agree says how far to trust the one that is kept.
"""

from __future__ import annotations

import ast
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from seedbed.arithmetic import final_number
from seedbed.errors import ComponentError, ParseError
from seedbed.generators.hard import Hard
from seedbed.generators.refine import one_record
from seedbed.limits import NEVER, Deadline
from seedbed.parts import Component
from seedbed.prompting import STOP, begun
from seedbed.task import Task
from seedbed.text import normalise
from seedbed.types import Ask, Candidate, Completion, Fields, ModelRef, Prompt, Row, Sample, Teacher, seed_for


@dataclass(frozen=True)
class Answered:
    """Makes the inputs of a row, then answers them n times; the answer that most give is its target, and `confidence` in the provenance says
    {"answers": n, "agreeing": k}. Answers agree where their final number does (math), their label, their program but for its layout (code), else
    their words.

    questions: the generator of the inputs, such as {kind = "soft"}; few-shot words with `shots` where not given. n: answers. shots: fit examples in
    a prompt, drawn anew for each answer. by: who answers: "words", few-shot prompts, or "teacher", the questions' own (finetune, hard).
    engine, model: whom "words" asks, such as {kind = "openai"} and a model's name there; the recipe's [engine], with what it loaded for the
    questions, where not given.
    """

    version: ClassVar[int] = 1
    later: ClassVar[tuple[str, ...]] = ("n", "by", "engine", "model")
    parts: ClassVar[Mapping[str, str]] = {"questions": "generator", "engine": "engine"}

    questions: Component | None = None
    n: Annotated[int, Field(ge=1, le=101)] = 5
    shots: Annotated[int, Field(ge=0, le=64)] = 5
    by: Literal["words", "teacher"] = "words"
    engine: Component | None = None
    model: str = ""

    def __post_init__(self) -> None:
        one_record(self._asking, "questions")
        if self.by == "teacher" and not getattr(self._asking, "answers", False):
            raise ValueError('by = "teacher" needs questions = {kind = "finetune"} or {kind = "hard"}, which answer too')
        if self.by == "teacher" and self.engine:
            raise ValueError('engine is whom by = "words" asks: remove it, or by')
        if self.model and not self.engine:
            raise ValueError('model is a name for engine, such as engine = {kind = "openai"}')
        if getattr(self._asking, "order", "") == "label-first":
            raise ValueError('questions with order = "label-first" begin with the answer: order = "input-first"')
        if self.by == "words" and not self.engine and "adapter" in self._asking.needs:
            raise ValueError('questions load an adapter, which prompts in words do not fit: by = "teacher", or an engine and a model')

    @property
    def needs(self) -> frozenset[str]:
        """Of the recipe's engine."""
        return frozenset(self._asking.needs) | frozenset(() if self.engine else {"text"})

    @property
    def _asking(self) -> Any:
        return self.questions.settings if self.questions else Hard(shots=self.shots)

    def fit(self, sample: Sample, model: str, seed: int, out: Path, deadline: Deadline = NEVER) -> Mapping[str, Any] | None:
        """Fits the questions' generator in questions/ and copies the rows; gives back what that fit does."""
        task = sample.task
        if not task.target or task.target in task.given_columns:
            raise ComponentError(
                f"[generator] kind = 'answered' asks for the target of a {task.kind} task, which {_why(task)}. Choose another generator."
            )
        for folder in (out / "questions", out / "answers"):
            folder.mkdir(exist_ok=True)
        Hard(shots=self.shots).fit(sample, model, seed, out / "answers")
        short: Mapping[str, Any] | None = self._asking.fit(replace(sample, task=_inputs_first(task)), model, seed, out / "questions", deadline)
        return short

    def load(self, folder: Path, task: Task, model: str) -> AnsweredTeacher:
        asking = self._asking.load(folder / "questions", _inputs_first(task), model)
        answering = asking if self.by == "teacher" else Hard(shots=self.shots).load(folder / "answers", task, model)
        ask = Ask(self.engine.settings, self.model or model) if self.engine else None
        return AnsweredTeacher(asking, answering, _inputs_first(task), self.n, ask)


def _why(task: Task) -> str:
    return "is given" if task.target else "it lacks"


def _inputs_first(task: Task) -> Task:
    return replace(task, label_first=False) if task.has_labels else task


@dataclass(frozen=True)
class AnsweredTeacher:
    """asking: makes the inputs. answering: prompts for the target of a row with these given. ask: whom that asks, or None."""

    asking: Teacher
    answering: Teacher
    task: Task
    n: int
    ask: Ask | None

    @property
    def model(self) -> ModelRef:
        return self.asking.model

    def rows(self, sample: Sample, count: int, seed: int) -> Iterator[Row]:
        return self.asking.rows(sample, count, seed)

    def prompt(self, row: Row) -> Prompt | None:
        own = begun(self.asking, row)
        if own is None:
            prompt = self.asking.prompt(row)
            return prompt and replace(prompt, stop=f"\n{self.task.mark(str(self.task.target))}")  # the question alone
        asked, turns = own
        inputs = self._inputs(self._question(asked).text)
        if len(turns) == self.n or isinstance(inputs, str):
            return None
        prompt = self.answering.prompt(self._answer(row, inputs, len(turns)))
        return prompt and replace(prompt, ask=self.ask)

    def read(self, row: Row) -> list[Candidate]:
        own = begun(self.asking, row)
        asked, turns = own or (row, ())
        question = self._question(asked)
        inputs = self._inputs(question.text)
        provenance = dict(question.provenance) | {"generator": "answered", "made_by": question.provenance.get("generator")}
        provenance |= {"answered_by": self.ask.model} if self.ask else {}
        if isinstance(inputs, str):
            return [replace(question, fields=None, problem=f"question: {inputs}", provenance=provenance)]
        fields, agreeing = self._majority(row, inputs, turns)
        provenance |= {"confidence": {"answers": len(turns), "agreeing": agreeing}}
        if fields is None:
            return [replace(question, fields=None, problem="no answer", provenance=provenance)]
        return [replace(question, text=self.task.render(fields), fields=fields, finished=True, problem="", provenance=provenance)]

    def _question(self, asked: Row) -> Candidate:
        return self.asking.read(asked)[0]

    def _inputs(self, text: str) -> Fields | str:
        """The columns before the target, of a text that ends before it, or where the model did not stop, behind it; or why there are none."""
        target = str(self.task.target)
        try:
            fields = replace(self.task, labels=()).parse(f"{text.split(STOP)[0]}\n{self.task.mark(target)} -")
        except ParseError as error:
            return error.reason
        return {name: value for name, value in fields.items() if name != target}

    def _answer(self, row: Row, inputs: Fields, i: int, turns: tuple[Completion, ...] = ()) -> Row:
        """The row as the answerer sees it."""
        return Row(row.index, seed_for(row.seed, "answer", i), inputs, row.source, turns)

    def _majority(self, row: Row, inputs: Fields, turns: tuple[Completion, ...]) -> tuple[Fields | None, int]:
        """(the fields with the first of the answers that most agree with, how many do); (None, 0) where no turn is an answer."""
        read = [self.answering.read(self._answer(row, inputs, i, (turn,)))[0] for i, turn in enumerate(turns)]
        whole = [c.fields for c in read if c.fields is not None and c.finished]
        keys = [_key(self.task, str(fields[str(self.task.target)])) for fields in whole]
        counts = Counter(key for key in keys if key)
        if not counts:
            return None, 0
        best, agreeing = counts.most_common(1)[0]
        return whole[keys.index(best)], agreeing


def _key(task: Task, answer: str) -> str:
    """What two answers share that agree; "" for none."""
    if task.kind == "math":
        return final_number(answer) or ""
    if task.kind == "code":
        with warnings.catch_warnings(action="ignore"):  # of the program's own text
            try:
                return ast.dump(ast.parse(answer))
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                return ""
    return answer if task.has_labels else normalise(answer)
