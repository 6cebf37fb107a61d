"""Stand-ins for engines that ask a server: what a run would be charged is then worked out without one request.

An answer is a real row's own text, and its price follows from the lengths of prompt and answer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from seedbed.flops import CHARACTERS_A_TOKEN
from seedbed.parts import Component
from seedbed.recipe import Recipe
from seedbed.types import Completion, ModelRef, Prompt, Sample, Sampling

SPEED = 50.0
"""Tokens a second that a server is taken to write in each request."""
TEXTS = 256
"""Fit rows whose texts are answers."""


@dataclass(frozen=True)
class Unasked:
    """An engine and its session. engine: whose prices hold. answers: texts, of which a prompt's seed picks one. soft: tokens of a soft
    prompt. written: "tokens" of all answers so far."""

    engine: Any
    answers: tuple[str, ...]
    soft: int = 0
    written: Counter[str] = field(default_factory=Counter, compare=False)

    def open(self, model: ModelRef) -> Unasked:
        return self

    def describe(self) -> Mapping[str, Any]:
        return {"engine": "unasked"}

    def score(self, prompt: Prompt, continuations: Sequence[str], ended: bool = False) -> list[tuple[float, int]]:
        """All continuations are equally likely."""
        return [(0.0, math.ceil(len(text) / CHARACTERS_A_TOKEN)) for text in continuations]

    def complete(self, prompts: Iterable[tuple[int, Prompt]], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        price, system = getattr(self.engine, "price", None), getattr(self.engine, "system", "")
        for key, prompt in prompts:
            text = self.answers[prompt.seed % len(self.answers)][: round(sampling.max_tokens * CHARACTERS_A_TOKEN)]
            read = math.ceil(len(system + prompt.text) / CHARACTERS_A_TOKEN) + self.soft * bool(prompt.soft)
            tokens = min(sampling.max_tokens, math.ceil(len(text) / CHARACTERS_A_TOKEN) + 1)
            self.written["tokens"] += tokens
            yield key, Completion(text, tokens, True, cost=price(read, tokens) if price else 0.0)

    def seconds(self, tokens: float) -> float:
        """That a server takes to write so many."""
        return tokens / SPEED / getattr(self.engine, "concurrency", 1)


def unasked(recipe: Recipe, sample: Sample) -> Recipe:
    """The recipe with a stand-in for each engine that asks a server (`served`), in whatever part."""
    generator, task, rows = recipe.generator.settings, sample.task, sample.fit[:TEXTS]
    records = generator.k if getattr(generator, "template", "") == "verbalized" else 1
    texts = tuple("\n\n".join([task.split(e.fields)[1]] * records) for e in rows)
    labels, soft = task.labels or tuple(str(e.fields[task.target]) for e in rows if task.target), getattr(generator, "tokens", 0)
    return replace(
        recipe,
        engine=_standing(recipe.engine, texts, soft),
        generator=_standing(recipe.generator, texts, soft),
        annotators=tuple(_standing(a, labels, soft) for a in recipe.annotators),
    )


def standing(*components: Component) -> list[Unasked]:
    """The stand-ins in these parts."""
    return [part.settings for component in components for part in component.all() if isinstance(part.settings, Unasked)]


def _standing(component: Component, answers: tuple[str, ...], soft: int) -> Component:
    settings = component.settings
    if getattr(settings, "served", False):
        return replace(component, settings=Unasked(settings, answers, soft))
    parts = {f.name: part for f in fields(settings) if isinstance(part := getattr(settings, f.name), Component)}
    made = {name: _standing(part, answers, soft) for name, part in parts.items()}
    return replace(component, settings=replace(settings, **made)) if made != parts else component
