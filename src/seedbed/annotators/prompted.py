"""A language model asked in words for the label of a candidate, several times; its answers vote."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from seedbed.paid import within
from seedbed.parts import Component
from seedbed.progress import bar
from seedbed.prompting import STOP, compiled, template_text, written
from seedbed.task import Task
from seedbed.types import Annotations, Backing, Candidate, ModelRef, Prompt, Sample, Sampling, seed_for

TEMPLATES = Path(__file__).resolve().parent / "templates"


@dataclass(frozen=True)
class Prompted:
    """Asks in a few-shot prompt for each candidate's label; a label's probability is its share of the votes.

    votes: answers asked for each candidate, each with examples drawn anew. shots: fit rows in a prompt. temperature: of the answers; 0 is
    greedy, and votes then differ by their examples alone. max_tokens: of an answer. template: the path of a Jinja file (variables:
    `examples`, rendered records with the label last; `given`, the candidate's inputs; `mark`, what stands before a label; `labels`), or
    "label", the shipped one. engine, model: whom it asks, such as {kind = "openai"} and a model's name there; the recipe's [engine] and [model],
    as it is, where not given.
    """

    version: ClassVar[int] = 2
    files: ClassVar[tuple[str, ...]] = ("template",)
    parts: ClassVar[Mapping[str, str]] = {"engine": "engine"}

    votes: Annotated[int, Field(ge=1, le=101)] = 5
    shots: Annotated[int, Field(ge=0, le=64)] = 5
    temperature: Annotated[float, Field(ge=0, le=5)] = 0.7
    max_tokens: Annotated[int, Field(ge=1)] = 24
    template: str = "label"
    engine: Component | None = None
    model: str = ""

    @property
    def needs(self) -> frozenset[str]:
        """Of the recipe's engine: nothing where it has its own."""
        return frozenset() if self.engine else frozenset({"text"})

    def supports(self, task: Task) -> str:
        """The reason why not, or "" for a task with labels."""
        return "" if task.has_labels else f"the prompted annotator votes for labels, and a {task.kind} task has none"

    def annotate(self, candidates: Sequence[Candidate], sample: Sample, seed: int, backing: Backing) -> Annotations:
        """Rows of label -> share of the valid votes, empty where no answer was a label. facts: `votes`, and of these `invalid`; `cost`, where any."""
        open_model = self.engine.settings.open if self.engine else backing.open
        model, place = ModelRef(self.model or backing.model), {label.lower(): label for label in sample.task.labels}
        session = backing.remember(model.name, open_model(model))
        valid: list[Counter[str]] = [Counter() for _ in candidates]
        asked = answers = 0
        cost = 0.0
        with bar("votes", self.votes * len(candidates)) as update:
            how = Sampling(self.temperature, 1.0, self.max_tokens)
            for key, completion in within(backing.purse, session, self._prompts(candidates, sample), how):
                lines = completion.text.strip().splitlines()
                label = place.get(lines[0].strip().lower()) if lines else None
                valid[key // self.votes].update([label] if label else [])
                asked, answers, cost = asked + 1, answers + bool(label), cost + completion.cost
                update(asked, "")
        rows = [{label: count / votes.total() for label, count in votes.items()} for votes in valid]
        return Annotations(rows, {"votes": asked, "invalid": asked - answers} | ({"cost": round(cost, 6)} if cost else {}))

    def _prompts(self, candidates: Sequence[Candidate], sample: Sample) -> Iterator[tuple[int, Prompt]]:
        task = sample.task.known(dict.fromkeys(sample.task.inputs))
        shown, where = [task.render(e.fields) for e in sample.fit], "[annotator] template"
        template = compiled(template_text(self.template, TEMPLATES, where), where)
        mark = task.mark(str(task.target))
        for i, candidate in enumerate(candidates):
            if candidate.fields is None:
                continue
            given = task.prefix(candidate.fields)
            for vote in range(self.votes):
                drawn = seed_for(0, "vote", candidate.id, vote)
                examples = random.Random(drawn).sample(shown, min(self.shots, len(shown)))
                known = {"examples": examples, "given": given, "mark": mark, "labels": list(task.labels)}
                yield i * self.votes + vote, Prompt(written(template, known, where), drawn, stop=STOP)
