"""What a text is for: fields, labels, rendering, parsing and scoring, for each kind of task.

A record is rendered as sections `Name: value`, one field after the other; `parse(render(x)) == x` for every record whose text
values are stripped strings. A plain text is rendered as itself. Structured values (triples, dialogue acts, tests) are JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, Literal

from seedbed import scores
from seedbed.errors import ParseError
from seedbed.types import Candidate, Example, Fields, Measure, Row

Kind = Literal["classification", "pair", "qa", "data2text", "text2text", "math", "code", "plain"]
LABELLED = ("classification", "pair", "qa")
"""Kinds whose target is one of a closed set of labels."""


@dataclass(frozen=True)
class Task:
    """The form of one task.

    kind: which family it is of. inputs: columns that are known at prediction time. target: column to predict (None for `plain`).
    labels: allowed targets; empty means: those seen in the sample. given: columns taken from real rows instead of being generated;
    None means the kind's usual ones (pair: the first input; qa: the first input; data2text: all inputs). group, references, tests:
    columns that scoring needs (MultiRC's question, several reference texts, assert statements). label_first: a text has the label before what
    is generated with it, else last; None means the kind's usual place (classification: first; pair, qa: last).
    """

    kind: Kind
    inputs: tuple[str, ...]
    target: str | None = None
    labels: tuple[str, ...] = ()
    given: tuple[str, ...] | None = None
    group: str | None = None
    references: str | None = None
    tests: str | None = None
    label_first: bool | None = None

    def __post_init__(self) -> None:
        problems = []
        if not self.inputs:
            problems.append("'inputs' must name at least one column. Got none.")
        if self.kind == "plain" and (self.target or len(self.inputs) != 1):
            problems.append("a plain task has one input column and no target.")
        if self.kind != "plain" and not self.target:
            problems.append(f"a {self.kind} task needs 'target', the column to predict. For text alone use kind = \"plain\".")
        if self.kind in ("pair", "qa") and len(self.inputs) < 2:
            problems.append(f"a {self.kind} task needs at least two input columns. Got {list(self.inputs)}.")
        tests = (self.tests,) if self.kind == "code" and self.tests else ()
        known = (*self.inputs, *tests, *([self.target] if self.has_labels and self.target else []))
        for name in self.given or ():
            if name not in known:
                problems.append(f"'given' names {name!r}, which is no input, nor the label. Allowed: {list(known)}.")
        if self.label_first is not None and not self.has_labels:
            problems.append(f"'label_first' is for tasks with labels. Got kind = {self.kind!r}.")
        names = self.columns
        if len(set(names)) != len(names):
            problems.append(f"each column may be named once. Got {list(names)}.")
        if any(not name.strip() or name.strip().startswith("\\") for name in names):
            problems.append(f"a column name may not be empty or begin with a backslash. Got {list(names)}.")  # `_escape` writes one
        titles = [_title(name) for name in names]
        if len(set(titles)) != len(titles):
            problems.append(f"column names must differ in more than case and underscores. Got {list(names)}.")
        if problems:
            raise ValueError(" ".join(problems))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns a text of this task holds, inputs first."""
        tests = (self.tests,) if self.kind == "code" and self.tests else ()
        return (*self.inputs, *tests, *((self.target,) if self.target else ()))

    @property
    def extras(self) -> tuple[str, ...]:
        """Columns that scoring reads and no text shows."""
        tests = (self.tests,) if self.kind != "code" and self.tests else ()
        return tuple(c for c in (self.group, self.references) if c) + tests

    @cached_property
    def structured(self) -> frozenset[str]:
        """Columns whose values are lists, rendered as JSON."""
        return frozenset(self.inputs if self.kind == "data2text" else ()) | frozenset([self.tests] if self.tests else ())

    @property
    def given_columns(self) -> tuple[str, ...]:
        """Columns that are known before generation starts."""
        if self.given is not None:
            return self.given
        return {"pair": self.inputs[:1], "qa": self.inputs[:1], "data2text": self.inputs}.get(self.kind, ())

    @property
    def has_labels(self) -> bool:
        return self.kind in LABELLED

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The order in a text: given columns, then the label where it comes first, else inputs before the target."""
        rest = [c for c in self.columns if c not in self.given_columns]
        first = self.kind == "classification" if self.label_first is None else self.label_first
        if self.has_labels and first and self.target in rest:
            rest = [self.target, *(c for c in rest if c != self.target)]
        return (*self.given_columns, *rest)

    def known(self, given: Fields) -> Task:
        """The task with just these columns given: all inputs of a row that is to be answered, a label that was asked for."""
        if set(given) == set(self.given_columns):
            return self
        return replace(self, given=tuple(c for c in self.columns if c in given))

    def mark(self, name: str) -> str:
        """What stands before a column's value: `Label:`. A space follows."""
        return f"{_title(name)}:"

    def render(self, fields: Fields) -> str:
        """The whole text of one record."""
        prefix, rest = self.split(fields)
        return prefix + rest

    def split(self, fields: Fields) -> tuple[str, str]:
        """(the part that is given, the part to generate); the first is "" when nothing is given. They join to `render(fields)`."""
        if self.kind == "plain":
            return ("", str(fields[self.inputs[0]]))
        sections = [f"{_title(name)}: {self._escape(self._show(name, fields[name]))}" for name in self.order]
        known = len(self.given_columns)
        prefix = "".join(s + "\n" for s in sections[:known])
        return prefix, "\n".join(sections[known:])

    def prefix(self, given: Fields) -> str:
        """The given part alone, from the given columns alone."""
        return "".join(f"{_title(n)}: {self._escape(self._show(n, given[n]))}\n" for n in self.given_columns)

    def parse(self, text: str) -> dict[str, Any]:
        """Fields of one text. Raises ParseError: a section missing or empty, JSON broken, no list, a label that is not the task's."""
        if self.kind == "plain":
            if not text.strip():
                raise ParseError("empty")
            return {self.inputs[0]: text.strip()}
        fields: dict[str, Any] = {}
        rest = "\n" + text.strip("\n")
        marks = [f"\n{_title(name)}:" for name in self.order]
        if not rest.startswith(marks[0]):
            raise ParseError("section missing")
        for i, name in enumerate(self.order):
            rest = rest[len(marks[i]) :]
            end = rest.find(marks[i + 1]) if i + 1 < len(marks) else len(rest)
            if end < 0:
                raise ParseError("section missing")
            fields[name] = self._read(name, self._unescape(rest[:end]).strip())
            rest = rest[end:]
        if self.has_labels and self.labels and fields[str(self.target)] not in self.labels:
            raise ParseError("unknown label")
        return fields

    def input_text(self, example: Example) -> str:
        """What a student reads: the inputs, one after the other."""
        return "\n".join(self._show(name, example.fields[name]) for name in self.inputs)

    def body(self, fields: Fields) -> str:
        """What was generated and is not a label: the text that filters and metrics compare with real rows."""
        skip = {*self.given_columns, *((self.target,) if self.has_labels else ())}
        names = [n for n in self.columns if n not in skip] or list(self.columns)
        return "\n".join(self._show(n, fields[n]) for n in names)

    def score(self, predictions: Sequence[str], examples: Sequence[Example]) -> list[Measure]:
        """The task's scores of predicted targets against real ones, in points (0 to 100); the first decides the gain."""
        if len(predictions) != len(examples):
            raise ValueError(f"one prediction an example. Got {len(predictions)} predictions, {len(examples)} examples.")
        if not self.target or not examples:
            reason = "a plain task has no target" if not self.target else "no examples"
            return [Measure("score", None, "points", n=len(examples), note=reason)]
        gold = [str(e.fields[self.target]) for e in examples]
        if self.has_labels:
            return scores.labels(predictions, gold, [str(e.fields[self.group]) for e in examples] if self.group else None)
        if self.kind == "math":
            return [scores.mean("accuracy", [scores.same_number(p, g) for p, g in zip(predictions, gold, strict=True)])]
        if self.kind == "code":
            if not self.tests:
                return [Measure("pass@1", None, "points", n=len(gold), note="pass@1 needs the column of asserts: write tests in [task]")]
            return [scores.programs(predictions, [e.fields[self.tests] for e in examples])]
        references = [self.references_of(e) for e in examples]
        rouge_l = scores.rouge_l(predictions, references)
        if self.kind == "text2text":
            return [scores.mean("exact_match", [scores.exact_match(p, r) for p, r in zip(predictions, references, strict=True)]), rouge_l]
        values = [scores.slot_values({name: e.fields[name] for name in self.inputs}) for e in examples]
        slots = [scores.slot_error_rate(predictions, values)] if any(values) else []
        return [scores.bleu(predictions, references), rouge_l, *slots]

    def references_of(self, example: Example) -> list[str]:
        """The texts that a prediction may equal: the row's references, or its target where it has none."""
        return list(example.fields.get(self.references or "") or [str(example.fields[str(self.target)])])

    def _show(self, name: str, value: Any) -> str:
        return json.dumps(value, ensure_ascii=False) if name in self.structured else str(value)

    def _read(self, name: str, text: str) -> Any:
        if not text:
            raise ParseError("empty section")
        if name not in self.structured:
            return text
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ParseError("broken JSON") from error
        if not isinstance(value, list):
            raise ParseError("not a list")
        return value

    @cached_property
    def _mark(self) -> re.Pattern[str]:
        names = "|".join(re.escape(_title(n)) for n in self.order)
        return re.compile(rf"^(\\*(?:{names}):)", re.M)

    @cached_property
    def _escaped(self) -> re.Pattern[str]:
        names = "|".join(re.escape(_title(n)) for n in self.order)
        return re.compile(rf"^\\(\\*(?:{names}):)", re.M)

    def _escape(self, value: str) -> str:
        """A line of a value that looks like a section gets a backslash; the value's own first line cannot be one."""
        head, newline, tail = value.partition("\n")
        return head + newline + self._mark.sub(r"\\\1", tail)

    def _unescape(self, value: str) -> str:
        head, newline, tail = value.partition("\n")
        return head + newline + self._escaped.sub(r"\1", tail)


@cache
def _title(name: str) -> str:
    """A column's name as it stands in a text: `scenario_action` -> `Scenario action`."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:].lower()


def read_candidate(task: Task, row: Row, text: str, finished: bool, provenance: Fields) -> Candidate:
    """The candidate of one whole text, parsed or with its problem."""
    fields, problem = None, ""
    try:
        fields = task.parse(text)
    except ParseError as error:
        problem = error.reason
    return Candidate(f"c{row.index:07d}", row.index, text, fields, finished, problem, provenance)


def labels_of(task: Task, examples: Sequence[Example]) -> tuple[str, ...]:
    """The task's labels, or the sorted targets of the examples where the task names none; () for other kinds."""
    if not task.has_labels or not task.target:
        return ()
    return task.labels or tuple(sorted({str(e.fields[task.target]) for e in examples}))


def columns_used(task: Task) -> Mapping[str, str]:
    """Column -> its role, for messages and cards."""
    roles = dict.fromkeys(task.inputs, "input")
    return roles | ({task.target: "target"} if task.target else {}) | dict.fromkeys((*task.extras, *([task.tests] if task.tests else [])), "scoring")
