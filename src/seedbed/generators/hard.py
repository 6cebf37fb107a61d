"""Hard prompts: words instead of vectors, from Jinja templates that a user can copy: few-shot, zero-shot, verbalized, attributes.

Verbalized sampling (Zhang et al. 2025, arXiv 2510.01171): the prompt asks for several records with their probabilities, which makes a model
that was tuned towards its favourite answer name others too.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from seedbed.limits import NEVER, Deadline
from seedbed.prompting import STOP, compiled, template_text, written
from seedbed.store import read_lines, write_lines
from seedbed.task import Task, columns_used, read_candidate
from seedbed.text import alike
from seedbed.types import Candidate, ModelRef, Prompt, Row, Sample, seed_for

REFERENCES = 8
"""Prompts that are compared to find what all start with."""
TEMPLATES = Path(__file__).resolve().parent / "templates"
WHERE = "[generator] template"
OPEN = "<response>"
"""A template that asks for it is read as one record a pair of tags, each with its stated probability."""
ABOUT = {
    "classification": "a text and its label",
    "pair": "two texts and the label that says how they relate",
    "qa": "a passage, a question about it and the right answer",
    "data2text": "data and a text that says all of it and nothing else",
    "text2text": "a text and what it is turned into",
    "math": "a problem in words and its worked answer, which ends in the number asked for",
    "code": "the description of a function, tests that it has to pass, and its code",
    "plain": "a text",
}
"""What a record of each kind of task is, for the templates' `about`."""


@dataclass(frozen=True)
class Hard:
    """Instructions and examples in words.

    template: "few-shot", "zero-shot", "verbalized", "attributes", or the path of a Jinja file (variables: `examples`, rendered records;
    `columns`, name as it stands in a record -> role, none of a plain task; `labels`; `about`, what a record is; `given`, the record's known part;
    `k`; `attributes`). shots: fit examples drawn anew for each row; zero-shot uses none. k: records that a verbalized template asks of one
    completion; each becomes a candidate, and generate.max_tokens is of all together. attributes: name -> values, such as
    {length = ["short", "long"]}, of which one is drawn for each row and name. Where all rows' prompts start alike (long instructions, examples
    written into the template), the local engine reads that beginning once.
    """

    version: ClassVar[int] = 3
    answers: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"text"})
    files: ClassVar[tuple[str, ...]] = ("template",)

    template: str = "few-shot"
    shots: Annotated[int, Field(ge=0, le=64)] = 5
    k: Annotated[int, Field(ge=1, le=50)] = 5
    attributes: Mapping[str, Annotated[tuple[str, ...], Field(min_length=1)]] | None = None

    def __post_init__(self) -> None:
        if self.template == "attributes" and not self.attributes:
            raise ValueError('template = "attributes" needs them: attributes = {length = ["short", "long"], tone = ["angry", "calm"]}')
        if self.attributes and self.template in ("few-shot", "zero-shot", "verbalized"):
            raise ValueError(f'template = "{self.template}" says nothing of attributes: template = "attributes", or a file of your own')

    @property
    def instructs(self) -> bool:
        """Whether its prompts are instructions, which only a model tuned to follow some can show the worth of."""
        return self.template != "few-shot"

    def fit(self, sample: Sample, model: str, seed: int, out: Path, deadline: Deadline = NEVER) -> None:
        """Copies the template and the rendered fit examples into `out`; nothing is learned."""
        (out / "template.jinja").write_text(template_text(self.template, TEMPLATES, WHERE), encoding="utf-8")
        task = sample.task
        entries = [{"id": e.id, "fields": {c: e.fields[c] for c in task.columns}} for e in sample.fit]
        write_lines(out / "sources.jsonl", entries)

    def load(self, folder: Path, task: Task, model: str) -> HardTeacher:
        return HardTeacher(ModelRef(model), task, folder, 0 if self.template == "zero-shot" else self.shots, self.k, self.attributes or {})


@dataclass(frozen=True)
class HardTeacher:
    model: ModelRef
    task: Task
    folder: Path
    shots: int
    k: int
    attributes: Mapping[str, tuple[str, ...]]

    @cached_property
    def sources(self) -> list[dict[str, Any]]:
        return read_lines(self.folder / "sources.jsonl")

    @cached_property
    def _text(self) -> str:
        return (self.folder / "template.jinja").read_text(encoding="utf-8")

    @cached_property
    def _template(self) -> Any:
        return compiled(self._text, WHERE)

    def rows(self, sample: Sample, count: int, seed: int) -> Iterator[Row]:
        """Given fields come from the fit examples in turn."""
        for index in range(count):
            source = self.sources[index % len(self.sources)]
            yield Row(index, seed_for(seed, "row", index), self._given(source), source["id"])

    def _given(self, source: dict[str, Any]) -> dict[str, Any]:
        return {c: source["fields"][c] for c in self.task.given_columns}

    def shots_of(self, row: Row) -> list[dict[str, Any]]:
        return random.Random(seed_for(row.seed, "shots")).sample(self.sources, min(self.shots, len(self.sources)))

    def _drawn(self, row: Row) -> dict[str, str]:
        return {name: random.Random(seed_for(row.seed, "attribute", name)).choice(values) for name, values in self.attributes.items()}

    @cached_property
    def _beginning(self) -> str:
        """What prompts start with alike: found from rows of this folder alone, so that it is the same for every run, stop and part of one."""
        first, *others = (self._written(Row(i, i, self._given(source))) for i, source in enumerate(self.sources[:REFERENCES]))
        return first[: min((alike(first, other) for other in others), default=len(first))]

    def prompt(self, row: Row) -> Prompt | None:
        if row.turns:
            return None
        text = self._written(row)
        return Prompt(text, row.seed, stop="" if OPEN in self._text else STOP, shared=alike(text, self._beginning))

    def _written(self, row: Row) -> str:
        task = self.task.known(row.given)
        given, shots = task.prefix(row.given), [task.render(s["fields"]) for s in self.shots_of(row)]
        return written(self._template, {"examples": shots, "given": given, "k": self.k, "attributes": self._drawn(row)} | words_of(task), WHERE)

    def read(self, row: Row) -> list[Candidate]:
        """One candidate, or one for each record of a verbalized completion; ids are then ROW.0, ROW.1 and so on."""
        provenance: dict[str, Any] = {
            "generator": "hard",
            "form": "words",
            "model": self.model.name,
            "sources": [s["id"] for s in self.shots_of(row)],
        }
        provenance |= {"attributes": drawn} if (drawn := self._drawn(row)) else {}
        turn, task = row.turns[0], self.task.known(row.given)
        given = task.prefix(row.given)
        if OPEN not in self._text:
            return [read_candidate(task, row, (given + turn.text).strip("\n"), turn.finished, provenance)]
        found = []
        for i, (text, probability, problem) in enumerate(responses(turn.text)):
            whole = text if text.startswith(given) else given + text
            one = read_candidate(
                task, row, whole.strip("\n"), turn.finished or problem != "response not closed", provenance | {"probability": probability}
            )
            one = replace(one, id=f"{one.id}.{i}")
            found.append(replace(one, fields=None, problem=problem) if problem else one)
        return found


def words_of(task: Task) -> dict[str, Any]:
    """The task's own words for a template."""
    roles, lists = columns_used(task), task.structured
    columns = {task.mark(c).removesuffix(":"): roles[c] + ", a JSON list" * (c in lists) for c in task.order if task.kind != "plain"}
    return {"columns": columns, "labels": list(task.labels), "about": ABOUT[task.kind]}


def responses(text: str) -> list[tuple[str, float | None, str]]:
    """(text, stated probability, problem) of each <response> of a completion; one of the whole completion where there is none."""
    found: list[tuple[str, float | None, str]] = []
    for part in text.split(OPEN)[1:]:
        body, closed, _ = part.partition("</response>")
        record = re.search(r"<text>(.*?)</text>", body, re.S)
        stated = re.search(r"<probability>\s*(\d*\.?\d+)\s*(%?)\s*</probability>", body)
        probability = float(stated[1]) / (100 if stated[2] else 1) if stated else None
        if record is None:
            found.append((body.strip(), probability, "response without text" if closed else "response not closed"))
        elif probability is None or probability > 1:
            found.append((record[1].strip("\n "), None, "response without probability"))
        else:
            found.append((record[1].strip("\n "), probability, ""))
    return found or [(text.strip(), None, "no response")]
