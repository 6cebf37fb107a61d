"""The nouns of seedbed and the roles a component can play. Values are frozen; roles are Protocols, nothing to inherit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from seedbed.limits import NEVER, Deadline, Purse

if TYPE_CHECKING:
    from seedbed.task import Task

Fields = Mapping[str, Any]
"""Column name -> value. Text columns hold stripped strings; structured columns (triples, acts, tests) hold lists."""


def seed_for(seed: int, *parts: object) -> int:
    """A 63-bit seed for one named use of randomness, e.g. `seed_for(7, "row", 12)`; equal on every machine."""
    text = "\x1f".join([str(seed), *(str(p) for p in parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Example:
    """One real or kept record. `weight` and `target_probs` are for training a student."""

    id: str
    fields: Fields
    weight: float = 1.0
    target_probs: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Sample:
    """The user's examples. Only `fit` is learned from, choices use `dev`; metrics, students and the overlap filter alone read `test`.

    `pool`: inputs without targets. `more`: real rows left out by `rows` or `fraction`; only the gain's `full` arm reads them. `canaries`: planted
    rows that a teacher learns with fit, each `canary_repeats` times, and the membership audit looks for; nothing else reads them. `folds`: the same
    rows divided anew, so that each is in the test of one; `test` is then empty, and the gain is that of rows grown in each fold.
    """

    task: Task
    fit: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    pool: tuple[Example, ...] = ()
    more: tuple[Example, ...] = ()
    canaries: tuple[Example, ...] = ()
    canary_repeats: int = 1
    folds: tuple[Sample, ...] = ()

    @property
    def n(self) -> int:
        """Labelled rows the user had: fit + dev."""
        return len(self.fit) + len(self.dev)

    @property
    def tested(self) -> tuple[Example, ...]:
        """The rows that a gain is measured on: test, or those of all folds."""
        return tuple(e for fold in self.folds for e in fold.test) if self.folds else self.test


@dataclass(frozen=True)
class SoftRef:
    """A reference to a contextual soft prompt: P_theta of the weighted mean of the sources' embeddings. Vectors are never stored.

    With a noise_seed it is a draw near it, from a density of all contexts (lm/density.py), in which it keeps 1 - noise of its place.
    """

    sources: tuple[str, ...]
    weights: tuple[float, ...]
    noise_seed: int | None = None
    noise: float = 0.0


@dataclass(frozen=True)
class Ask:
    """Another engine (its settings, hashable) than the recipe's, and a model's name there."""

    engine: Engine
    model: str


@dataclass(frozen=True)
class Prompt:
    """What an engine completes: text, and/or a soft prefix, and/or a LoRA adapter folder. stop: a string that ends the completion. ask: who is
    to complete it, where that is not the recipe's engine.

    shared: characters at the text's start that many prompts have alike, few-shot examples say; an engine may read and keep them once.
    """

    text: str
    seed: int
    soft: SoftRef | None = None
    adapter: str | None = None
    stop: str = ""
    ask: Ask | None = None
    shared: int = 0


@dataclass(frozen=True)
class Sampling:
    """How an engine draws tokens. temperature 0 is greedy; top_p in (0, 1]; max_tokens counts generated tokens."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 128


@dataclass(frozen=True)
class Completion:
    """An engine's answer. `finished`: the model ended by itself (False: cut at max_tokens or at the context's end). problem: why there is none.

    cost: money, by the engine's prices. again: it was paid in an earlier call, and not in this one. Neither makes it another completion.
    """

    text: str
    tokens: int
    finished: bool
    problem: str = ""
    cost: float = field(default=0.0, compare=False)
    again: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Row:
    """One unit of generation. `given`: fields already known; `source`: the fit or pool example behind it; `turns`: completions so far."""

    index: int
    seed: int
    given: Fields = field(default_factory=dict)
    source: str = ""
    turns: tuple[Completion, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """One generated record before filters. `fields` is None when the text could not be parsed, and then `problem` says why.

    A real input that got a target (see `answers`) has "annotate" as the generator of its provenance.

    annotations: kind of annotator -> label -> probability, the likeliest first; empty before the annotations step.
    """

    id: str
    index: int
    text: str
    fields: Fields | None
    finished: bool
    problem: str = ""
    provenance: Fields = field(default_factory=dict)
    annotations: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def annotated(self) -> bool:
        """Whether its inputs are a real row's."""
        return self.provenance.get("generator") == "annotate"


@dataclass(frozen=True)
class Annotations:
    """What an annotator says: one distribution a candidate, label -> probability, empty where it has no fields. facts: plain values, of the fit."""

    rows: Sequence[Mapping[str, float]]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Keep or drop; a drop has a short reason (a category, counted as `filter:reason`)."""

    keep: bool
    reason: str = ""


EVIDENCE = 20
"""Rows shown behind one number at most."""


@dataclass(frozen=True)
class Evidence:
    """One row behind a number, to look at: a kept row's id, a real row's and its split, and what they have in common; "" where there is none.

    text, near: of the kept and the real row, where showing them is no leak in itself.
    """

    what: str
    id: str = ""
    real: str = ""
    split: str = ""
    text: str = ""
    near: str = ""


@dataclass(frozen=True)
class Measure:
    """A number with all that is needed to read it. `value` is None when it could not be measured, and then `note` says why.

    better: "higher", "lower" or "closer" (to `real`). low, high: 95 % interval. real: the same number of real against real at the same n.
    p: how often exchangeable rows (kept ones no different from real ones) would look as unlike or more so, exact at any n; None where no
    such test is made. p <= ALARM of `stats` is an alarm. rows: some of those that make the number, where it is a leak.
    """

    name: str
    value: float | None
    unit: str = ""
    better: Literal["higher", "lower", "closer"] = "higher"
    n: int = 0
    low: float | None = None
    high: float | None = None
    real: float | None = None
    note: str = ""
    p: float | None = None
    rows: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class ModelRef:
    """What an engine must load. name: a shipped model, hub name or folder. soft: the fitted prompt's folder, if any. adapter: a LoRA folder."""

    name: str
    soft: Path | None = None
    adapter: Path | None = None


@runtime_checkable
class Teacher(Protocol):
    """A source of prompts. Its methods are pure.

    One that must see what it writes before it chooses its rows has an attribute `looks`, the number of rows to complete first, and a method
    `having_seen(sample, candidates)` that returns the teacher whose rows are made. They are a step of their own and no rows of the dataset.
    """

    @property
    def model(self) -> ModelRef: ...

    def rows(self, sample: Sample, count: int, seed: int) -> Iterator[Row]:
        """Row i is the same whatever `count` is."""
        ...

    def prompt(self, row: Row) -> Prompt | None:
        """The next prompt of the row, or None when the row is finished."""
        ...

    def read(self, row: Row) -> list[Candidate]: ...


@runtime_checkable
class Generator(Protocol):
    """Settings of a way to make a teacher. `needs` is what its prompts ask of an engine, e.g. {"text", "soft"}.

    One whose teacher also answers, that is prompts for the target of a row with all inputs given, has an attribute `answers = True`.
    One that cannot do every task has a method `supports`, as a student has.
    """

    @property
    def needs(self) -> frozenset[str]: ...

    def fit(self, sample: Sample, model: str, seed: int, out: Path, deadline: Deadline = NEVER) -> Mapping[str, Any] | None:
        """Writes all that `load` needs into the existing folder `out`; called again after a stop, it goes on where it stood.

        None or an empty mapping: the fit is whole. Else the deadline cut it, the mapping says where (equal facts, equal teacher), and
        files named `checkpoint-*`, which are no part of the teacher, are what a later call goes on from.
        """
        ...

    def load(self, folder: Path, task: Task, model: str) -> Teacher: ...


@runtime_checkable
class Engine(Protocol):
    """Completes a stream of prompts and scores continuations. `can` states what works: text, soft, adapter, and score: with each."""

    @property
    def can(self) -> frozenset[str]: ...

    def open(self, model: ModelRef) -> Session: ...


@runtime_checkable
class Session(Protocol):
    """An engine with its model loaded. One that costs money has a method `most(prompt, sampling)`: what the completion can cost."""

    def complete(self, prompts: Iterable[tuple[int, Prompt]], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Yields (key, completion) as rows finish, in any order; reads `prompts` as slots become free."""
        ...

    def score(self, prompt: Prompt, continuations: Sequence[str], ended: bool = False) -> list[tuple[float, int]]:
        """Log-likelihood in nats, and number of tokens, of each continuation after the prompt. ended: end-of-text after it counts as one more."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Facts for the manifest: hashes, device, precision."""
        ...


@runtime_checkable
class Filter(Protocol):
    """scope "row": a verdict depends on the candidate and the sample alone. scope "set": on all candidates, in their order.

    A filter that looks at annotations has an attribute `reads`, the kinds of annotator that its recipe must hold. One for some tasks alone has a
    method `supports`, as a student has: a recipe with another task is refused.
    """

    @property
    def scope(self) -> Literal["row", "set"]: ...

    def judge(self, candidates: Sequence[Candidate], sample: Sample) -> list[Verdict]:
        """One verdict a candidate, in order."""
        ...


@runtime_checkable
class Metric(Protocol):
    def measure(self, sample: Sample, kept: Sequence[Example], seed: int) -> list[Measure]: ...


@runtime_checkable
class Predictor(Protocol):
    """cut(examples), where it has one, says how many of them are longer than it reads: such rows are then reported."""

    def predict(self, examples: Sequence[Example]) -> list[str]: ...


@runtime_checkable
class Student(Protocol):
    def supports(self, task: Task) -> str:
        """The reason why the student cannot learn the task, or "" when it can."""
        ...

    def learn(self, task: Task, examples: Sequence[Example], dev: Sequence[Example], seed: int) -> Predictor: ...


@dataclass(frozen=True)
class Backing:
    """Whom an annotator can ask. model: the recipe's. teacher: the run's, or None where no part of the recipe needs one. open: the run's engine
    with a model loaded, each model once. purse: what asking may still cost; `seedbed.paid.within` asks as far as it goes. remember(model's name,
    session): the session, whose answers a stop does not lose."""

    model: str
    teacher: Teacher | None
    open: Callable[[ModelRef], Session]
    purse: Purse = field(default_factory=Purse, compare=False)
    remember: Callable[[str, Session], Session] = field(default=lambda model, session: session, compare=False)


@runtime_checkable
class Annotator(Protocol):
    """Gives each candidate's input a distribution over targets; drops nothing, and reads neither the candidates' targets nor `test`.

    One that asks an engine has an attribute `needs`, as a generator has; one that asks the teacher, `asks_teacher = True`.
    """

    def supports(self, task: Task) -> str:
        """The reason why the annotator cannot do the task, or "" when it can."""
        ...

    def annotate(self, candidates: Sequence[Candidate], sample: Sample, seed: int, backing: Backing) -> Annotations: ...
