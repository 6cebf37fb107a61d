"""Hard prompts: words instead of vectors. Zero-shot and few-shot from Jinja templates that a user can copy."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from seedbed.catalog import guarded
from seedbed.errors import ComponentError
from seedbed.limits import NEVER, Deadline
from seedbed.store import read_lines, write_lines
from seedbed.task import Task, columns_used, read_candidate
from seedbed.types import Candidate, ModelRef, Prompt, Row, Sample, seed_for

STOP = "\n---"
"""Stands between records in the templates; the model's record ends where it writes one."""
TEMPLATES = Path(__file__).resolve().parent / "templates"


@dataclass(frozen=True)
class Hard:
    """Instructions and examples in words.

    template: "few-shot", "zero-shot", or the path of a Jinja file (variables: `examples`, rendered records; `columns`, name -> role;
    `labels`; `given`, the record's known part). shots: fit examples drawn anew for each row; zero-shot uses none.
    """

    version: ClassVar[int] = 2
    answers: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"text"})
    files: ClassVar[tuple[str, ...]] = ("template",)

    template: str = "few-shot"
    shots: Annotated[int, Field(ge=0, le=64)] = 5

    def fit(self, sample: Sample, model: str, seed: int, out: Path, deadline: Deadline = NEVER) -> None:
        """Copies the template and the rendered fit examples into `out`; nothing is learned."""
        shipped = TEMPLATES / f"{self.template}.jinja"
        source = shipped if shipped.is_file() else Path(self.template)
        if not source.is_file():
            names = sorted(p.stem for p in TEMPLATES.glob("*.jinja"))
            raise ComponentError(
                f"[generator] template = {self.template!r} is neither a file nor one of {names}. Copy one of those and give its path."
            )
        (out / "template.jinja").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
        task = sample.task
        entries = [{"id": e.id, "fields": {c: e.fields[c] for c in task.columns}} for e in sample.fit]
        write_lines(out / "sources.jsonl", entries)
        (out / "seed.json").write_text(json.dumps({"seed": seed}))

    def load(self, folder: Path, task: Task, model: str) -> HardTeacher:
        return HardTeacher(ModelRef(model), task, folder, 0 if self.template == "zero-shot" else self.shots)


@dataclass(frozen=True)
class HardTeacher:
    model: ModelRef
    task: Task
    folder: Path
    shots: int

    @cached_property
    def sources(self) -> list[dict[str, Any]]:
        return read_lines(self.folder / "sources.jsonl")

    @cached_property
    def _template(self) -> Any:
        from jinja2 import StrictUndefined, TemplateError
        from jinja2.sandbox import SandboxedEnvironment

        environment = SandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        try:
            return environment.from_string((self.folder / "template.jinja").read_text(encoding="utf-8"))
        except TemplateError as error:
            raise ComponentError(
                f"[generator] the template is broken: {error}. Correct it; shipped ones are in seedbed/generators/templates."
            ) from error

    def rows(self, sample: Sample, count: int, seed: int) -> Iterator[Row]:
        """Given fields come from the fit examples in turn."""
        for index in range(count):
            source = self.sources[index % len(self.sources)]
            yield Row(index, seed_for(seed, "row", index), {c: source["fields"][c] for c in self.task.given_columns}, source["id"])

    def _shots(self, row: Row) -> list[dict[str, Any]]:
        return random.Random(seed_for(row.seed, "shots")).sample(self.sources, min(self.shots, len(self.sources)))

    def prompt(self, row: Row) -> Prompt | None:
        if row.turns:
            return None
        task = self.task.known(row.given)
        given, shots = task.prefix(row.given), [task.render(s["fields"]) for s in self._shots(row)]
        known = {"examples": shots, "columns": dict(columns_used(task)), "labels": list(task.labels)}
        text = guarded("[generator] the template", lambda: self._template.render(given=given, **known))
        return Prompt(text, row.seed, stop=STOP)

    def read(self, row: Row) -> list[Candidate]:
        provenance = {"generator": "hard", "form": "words", "model": self.model.name, "sources": [s["id"] for s in self._shots(row)]}
        turn = row.turns[0]
        task = self.task.known(row.given)
        return [read_candidate(task, row, (task.prefix(row.given) + turn.text).strip("\n"), turn.finished, provenance)]
