"""A real, tiny, deterministic engine: a character Markov chain over the text that its prompt names. For tests and plug-in authors.

What it reads: a text prompt's own words, a soft reference's source texts, the `sources.jsonl` beside an adapter's folder. Nothing else.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from seedbed.errors import EngineError
from seedbed.store import read_lines
from seedbed.types import Completion, ModelRef, Prompt, Sampling

END = "\x03"
"""The chain's end-of-text; cannot occur in a rendered text."""
CHAINS = 512
"""Chains kept, the newest: prompts with examples drawn for each row would never stop adding some."""


@dataclass(frozen=True)
class Toy:
    """Character Markov chain. order: characters of context. smooth: mass of characters never seen after a context."""

    version: ClassVar[int] = 1
    can: ClassVar[frozenset[str]] = frozenset({"text", "soft", "adapter", "score:text", "score:soft", "score:adapter"})

    order: Annotated[int, Field(ge=1, le=16)] = 4
    smooth: Annotated[float, Field(gt=0, le=1)] = 0.01

    def open(self, model: ModelRef) -> ToySession:
        return ToySession(self.order, self.smooth, model)


@dataclass(frozen=True)
class ToySession:
    order: int
    smooth: float
    model: ModelRef
    _chains: dict[str, dict[str, Counter[str]]] = field(default_factory=dict, compare=False)

    def describe(self) -> Mapping[str, Any]:
        return {"engine": "toy", "model": self.model.name, "order": self.order}

    def complete(self, prompts: Iterable[tuple[int, Prompt]], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        for key, prompt in prompts:
            yield key, self._one(prompt, sampling)

    def score(self, prompt: Prompt, continuations: Sequence[str], ended: bool = False) -> list[tuple[float, int]]:
        chain = self._chain(prompt)
        scores = []
        for text in (c + END * ended for c in continuations):
            seen, total = self._start(prompt), 0.0
            for character in text:
                counts = self._after(chain, seen)
                mass = sum(counts.values())
                share = (1 - self.smooth) * counts[character] / mass if mass else 0.0
                total += math.log(share + self.smooth / 1_114_112)  # the rest is spread over all of Unicode
                seen += character
            scores.append((total, len(text)))
        return scores

    def _one(self, prompt: Prompt, sampling: Sampling) -> Completion:
        chain, rng = self._chain(prompt), random.Random(prompt.seed)
        seen, out = self._start(prompt), ""
        while len(out) < sampling.max_tokens:
            counts = self._after(chain, seen + out)
            character = _draw(counts, rng.random(), sampling) if counts else END
            if character == END:
                return Completion(out, len(out), True)
            out += character
            if prompt.stop and out.endswith(prompt.stop):
                return Completion(out.removesuffix(prompt.stop), len(out), True)
        return Completion(out, len(out), False)

    def _start(self, prompt: Prompt) -> str:
        """What stands before the first drawn character: the record's known part, after the examples of a text prompt."""
        if prompt.soft or prompt.adapter:
            return END * self.order + prompt.text
        return END * self.order + (prompt.text.rsplit(prompt.stop, 1)[-1].lstrip("\n") if prompt.stop else "")

    def _after(self, chain: dict[str, Counter[str]], seen: str) -> Counter[str]:
        """Counts after the longest known context of at most `order` characters."""
        for length in range(self.order, 0, -1):
            if found := chain.get(seen[-length:]):
                return found
        return Counter()

    def _chain(self, prompt: Prompt) -> dict[str, Counter[str]]:
        if prompt.adapter:
            key, texts = prompt.adapter, [text for s in read_lines(Path(prompt.adapter).parent / "sources.jsonl") for text in s["texts"]]
        elif prompt.soft:
            unknown = [s for s in prompt.soft.sources if s not in self._sources]
            if unknown:
                raise EngineError(f"the soft prompt has no source {unknown[0]!r}. Allowed: ids in its sources.jsonl.")
            key, texts = "\x1f".join(prompt.soft.sources), [self._sources[s] for s in prompt.soft.sources]
        else:
            key, texts = prompt.text, prompt.text.split(prompt.stop) if prompt.stop else [prompt.text]
        if key not in self._chains:
            if len(self._chains) >= CHAINS:
                del self._chains[next(iter(self._chains))]
            self._chains[key] = _count([t.strip("\n") for t in texts if t.strip()], self.order)
        return self._chains[key]

    @cached_property
    def _sources(self) -> dict[str, str]:
        if not self.model.soft:
            raise EngineError("a soft prompt was asked for, but the engine was opened without one (ModelRef.soft).")
        return {entry["id"]: entry["text"] for entry in read_lines(self.model.soft / "sources.jsonl")}


def _count(texts: Sequence[str], order: int) -> dict[str, Counter[str]]:
    """Context of 1 to `order` characters -> counts of the next."""
    chain: dict[str, Counter[str]] = {}
    for text in texts:
        padded = END * order + text + END
        for i in range(order, len(padded)):
            for length in range(1, order + 1):
                chain.setdefault(padded[i - length : i], Counter())[padded[i]] += 1
    return chain


def _draw(counts: Counter[str], uniform: float, sampling: Sampling) -> str:
    """Inverse CDF over characters in order of count, then of code point; greedy at temperature 0."""
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    if sampling.temperature == 0:
        return ranked[0][0]
    weights = [count ** (1 / sampling.temperature) for _, count in ranked]
    total, inside = sum(weights), 0
    mass = 0.0
    while inside < len(ranked) and mass < sampling.top_p * total:
        mass += weights[inside]
        inside += 1
    wanted, seen = uniform * mass, 0.0
    for (character, _), weight in zip(ranked[:inside], weights[:inside], strict=True):
        seen += weight
        if wanted < seen:
            return character
    return ranked[inside - 1][0]
