"""A language model asked in words for the label of a candidate, several times; its answers vote."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from seedbed.catalog import guarded
from seedbed.errors import ComponentError
from seedbed.progress import bar
from seedbed.task import Task
from seedbed.types import Annotations, Backing, Candidate, ModelRef, Prompt, Sample, Sampling, seed_for

STOP = "\n---"
TEMPLATE = Path(__file__).resolve().parent / "templates" / "label.jinja"


@dataclass(frozen=True)
class Prompted:
    """Asks the recipe's engine with its [model] as it is, in a few-shot prompt, for each candidate's label; a label's probability is its share of
    the votes.

    votes: answers asked for each candidate, each with examples drawn anew. shots: fit rows in a prompt. temperature: of the answers; 0 is
    greedy, and votes then differ by their examples alone. max_tokens: of an answer. template: the path of a Jinja file (variables:
    `examples`, rendered records with the label last; `given`, the candidate's inputs; `mark`, what stands before a label; `labels`); the
    shipped one where not given.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset({"text"})
    files: ClassVar[tuple[str, ...]] = ("template",)

    votes: Annotated[int, Field(ge=1, le=101)] = 5
    shots: Annotated[int, Field(ge=0, le=64)] = 5
    temperature: Annotated[float, Field(ge=0, le=5)] = 0.7
    max_tokens: Annotated[int, Field(ge=1)] = 24
    template: str = ""

    def supports(self, task: Task) -> str:
        """The reason why not, or "" for a task with labels."""
        return "" if task.has_labels else f"the prompted annotator votes for labels, and a {task.kind} task has none"

    def annotate(self, candidates: Sequence[Candidate], sample: Sample, seed: int, backing: Backing) -> Annotations:
        """Rows of label -> share of the valid votes, empty where no answer was a label. facts: `votes`, and of these `invalid`."""
        session, place = backing.open(ModelRef(backing.model)), {label.lower(): label for label in sample.task.labels}
        valid: list[Counter[str]] = [Counter() for _ in candidates]
        asked = answers = 0
        with bar("votes", self.votes * len(candidates)) as update:
            for key, completion in session.complete(self._prompts(candidates, sample), Sampling(self.temperature, 1.0, self.max_tokens)):
                lines = completion.text.strip().splitlines()
                label = place.get(lines[0].strip().lower()) if lines else None
                valid[key // self.votes].update([label] if label else [])
                asked, answers = asked + 1, answers + bool(label)
                update(asked, "")
        rows = [{label: count / votes.total() for label, count in votes.items()} for votes in valid]
        return Annotations(rows, {"votes": asked, "invalid": asked - answers})

    def _prompts(self, candidates: Sequence[Candidate], sample: Sample) -> Iterator[tuple[int, Prompt]]:
        task = sample.task.known(dict.fromkeys(sample.task.inputs))
        shown, template = [task.render(e.fields) for e in sample.fit], self._template()
        mark = task.mark(str(task.target))
        for i, candidate in enumerate(candidates):
            if candidate.fields is None:
                continue
            given = task.prefix(candidate.fields)
            for vote in range(self.votes):
                drawn = seed_for(0, "vote", candidate.id, vote)
                examples = random.Random(drawn).sample(shown, min(self.shots, len(shown)))
                known = {"examples": examples, "given": given, "mark": mark, "labels": list(task.labels)}
                text = guarded("[annotator] the template", partial(template.render, **known))
                yield i * self.votes + vote, Prompt(text, drawn, stop=STOP)

    def _template(self) -> Any:
        from jinja2 import StrictUndefined, TemplateError
        from jinja2.sandbox import SandboxedEnvironment

        place = Path(self.template) if self.template else TEMPLATE
        if not place.is_file():
            raise ComponentError(f"[annotator] template = {self.template!r} is no file. Leave it out, or copy {TEMPLATE.name} and give its path.")
        try:
            return SandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
                place.read_text(encoding="utf-8")
            )
        except TemplateError as error:
            raise ComponentError(f"[annotator] the template is broken: {error}. Correct it.") from error
