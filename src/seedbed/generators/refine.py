"""Self-refinement (Madaan et al. 2023; the rival HP_SR of SoftSRV, arXiv 2410.16534): a draft, its critique, a rewrite, as turns of one row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from seedbed.generators.hard import TEMPLATES, Hard, HardTeacher, words_of
from seedbed.limits import NEVER, Deadline
from seedbed.parts import Component
from seedbed.prompting import STOP, begun, compiled, template_text, written
from seedbed.task import Task, read_candidate
from seedbed.types import Ask, Candidate, Completion, ModelRef, Prompt, Row, Sample, Teacher, seed_for

NOTHING = "nothing"
"""A critique that says no more leaves the record as it is."""
FORMS = ("critique", "rewrite")


@dataclass(frozen=True)
class Refine:
    """Each record is drafted, criticised and written again.

    rounds: of critique and rewrite; a critique that says "nothing" ends them. shots: fit examples in a prompt, drawn anew for each row.
    draft: the generator of the drafts, such as {kind = "soft"}; few-shot words with `shots` where not given. critique, rewrite: "critique" and
    "rewrite", or paths of Jinja files (variables of `hard`, and `record`, the text so far, and `critique`). engine, model: whom the later turns
    ask, such as {kind = "openai"} and a model's name there; the recipe's [engine], with what it loaded for the drafts, where not given.
    """

    version: ClassVar[int] = 1
    later: ClassVar[tuple[str, ...]] = ("rounds", "engine", "model")
    files: ClassVar[tuple[str, ...]] = ("critique", "rewrite")
    parts: ClassVar[Mapping[str, str]] = {"draft": "generator", "engine": "engine"}
    instructs: ClassVar[bool] = True

    rounds: Annotated[int, Field(ge=1, le=10)] = 1
    shots: Annotated[int, Field(ge=0, le=64)] = 5
    draft: Component | None = None
    critique: str = "critique"
    rewrite: str = "rewrite"
    engine: Component | None = None
    model: str = ""

    def __post_init__(self) -> None:
        one_record(self._drafts, "draft")
        if "adapter" in self._drafts.needs and not self.engine:
            raise ValueError("draft loads an adapter, which prompts in words do not fit: name an engine and a model for the later turns")
        if self.model and not self.engine:
            raise ValueError('model is a name for engine, such as engine = {kind = "openai"}')

    @property
    def needs(self) -> frozenset[str]:
        """Of the recipe's engine."""
        return frozenset(self._drafts.needs) | frozenset(() if self.engine else {"text"})

    @property
    def answers(self) -> bool:
        return bool(getattr(self._drafts, "answers", False))

    @property
    def _drafts(self) -> Any:
        return self.draft.settings if self.draft else Hard(shots=self.shots)

    def fit(self, sample: Sample, model: str, seed: int, out: Path, deadline: Deadline = NEVER) -> Mapping[str, Any] | None:
        """Fits the drafts' generator in draft/, and copies templates and rows; gives back what that fit does."""
        words = out / "words"
        for folder in (out / "draft", words):
            folder.mkdir(exist_ok=True)
        Hard(shots=self.shots).fit(sample, model, seed, words)
        for form in FORMS:
            (out / f"{form}.jinja").write_text(template_text(getattr(self, form), TEMPLATES, f"[generator] {form}"), encoding="utf-8")
        short: Mapping[str, Any] | None = self._drafts.fit(sample, model, seed, out / "draft", deadline)
        return short

    def load(self, folder: Path, task: Task, model: str) -> RefineTeacher:
        drafts = self._drafts.load(folder / "draft", task, model)
        ask = Ask(self.engine.settings, self.model or model) if self.engine else None
        return RefineTeacher(drafts, Hard(shots=self.shots).load(folder / "words", task, model), folder, self.rounds, ask)


def one_record(generator: Any, setting: str) -> None:
    """Raises ValueError for a generator that makes several candidates of a row, or looks at whole ones before it makes any."""
    if getattr(generator, "template", "") == "verbalized":
        raise ValueError(f'{setting} must make one record a row, and template = "verbalized" asks for several')
    if getattr(generator, "cover", False):
        raise ValueError(f"{setting} cannot have cover = true, which looks at finished records first")


@dataclass(frozen=True)
class RefineTeacher:
    """drafts: makes the first turns. words: draws examples. ask: whom the later turns ask, or None."""

    drafts: Teacher
    words: HardTeacher
    folder: Path
    rounds: int
    ask: Ask | None

    @property
    def model(self) -> ModelRef:
        return self.drafts.model

    @cached_property
    def _templates(self) -> tuple[Any, ...]:
        return tuple(compiled((self.folder / f"{form}.jinja").read_text(encoding="utf-8"), f"[generator] {form}") for form in FORMS)

    def rows(self, sample: Sample, count: int, seed: int) -> Iterator[Row]:
        return self.drafts.rows(sample, count, seed)

    def prompt(self, row: Row) -> Prompt | None:
        own = begun(self.drafts, row)
        if own is None:
            return self.drafts.prompt(row)
        draft, turns = own
        if len(turns) == 2 * self.rounds or (len(turns) % 2 and _settled(turns[-1])):
            return None
        texts = self._texts(draft, turns)
        task, shots = self.words.task.known(row.given), self.words.shots_of(row)
        known = {"examples": [self.words.task.render(s["fields"]) for s in shots], "given": task.prefix(row.given)} | words_of(task)
        known |= {"record": texts[-1], "critique": turns[-1].text.strip() if len(turns) % 2 else ""}
        form = len(turns) % 2
        text = written(self._templates[form], known, f"[generator] {FORMS[form]}")
        return Prompt(text, seed_for(row.seed, FORMS[form], len(turns)), stop=STOP, ask=self.ask)

    def read(self, row: Row) -> list[Candidate]:
        """The last rewrite; provenance keeps the draft's own, its text, the critiques, and by whom they are."""
        own = begun(self.drafts, row)
        if own is None:
            return self.drafts.read(row)
        draft, turns = own
        first = self.drafts.read(draft)[0]
        rewrites = turns[1::2]
        provenance = dict(first.provenance) | {"generator": "refine", "made_by": first.provenance.get("generator"), "draft": first.text}
        provenance |= {"critiques": [turn.text.strip() for turn in turns[::2]]} | ({"refined_by": self.ask.model} if self.ask else {})
        if not rewrites:
            return [replace(first, provenance=provenance)]
        task = self.words.task.known(row.given)
        return [read_candidate(task, row, self._texts(draft, turns)[-1], rewrites[-1].finished, provenance)]

    def _texts(self, draft: Row, turns: tuple[Completion, ...]) -> list[str]:
        """The record: as drafted, and after each rewrite."""
        given = self.words.task.known(draft.given).prefix(draft.given)
        return [self.drafts.read(draft)[0].text, *(_whole(given, turn.text) for turn in turns[1::2])]


def _whole(given: str, text: str) -> str:
    """With what is given, which a model may have written again."""
    text = text.strip("\n")
    return (text if text.startswith(given) else given + text).strip("\n")


def _settled(critique: Completion) -> bool:
    return critique.text.strip().strip(".\"'*").lower() == NOTHING
