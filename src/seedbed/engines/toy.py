"""A real, tiny, deterministic engine: a character Markov chain over the text that its prompt names. For tests and plug-in authors.

What it reads: a text prompt's own words, a soft reference's source texts, the `sources.jsonl` beside an adapter's folder. Nothing else.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
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

START, END = "\x02", "\x03"
"""What stands before and after a text of the chain; cannot occur in a rendered text."""
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
    _chains: dict[str, _Chain] = field(default_factory=dict, compare=False)

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
                counts = chain.after(seen)
                mass = sum(counts.values())
                share = (1 - self.smooth) * counts[character] / mass if mass else 0.0
                total += math.log(share + self.smooth / 1_114_112)  # the rest is spread over all of Unicode
                seen += character
            scores.append((total, len(text)))
        return scores

    def _one(self, prompt: Prompt, sampling: Sampling) -> Completion:
        chain, rng = self._chain(prompt), random.Random(prompt.seed)
        recent, out, stop = self._start(prompt)[-self.order :], list[str](), prompt.stop
        while len(out) < sampling.max_tokens:
            character = chain.draw(recent, rng.random(), sampling)
            if character == END:
                return Completion("".join(out), len(out), True)
            out.append(character)
            recent = (recent + character)[-self.order :]
            if stop and character == stop[-1] and (text := "".join(out)).endswith(stop):
                return Completion(text.removesuffix(stop), len(out), True)
        return Completion("".join(out), len(out), False)

    def _start(self, prompt: Prompt) -> str:
        """What stands before the first drawn character: the record's known part, after the examples of a text prompt."""
        if prompt.soft or prompt.adapter:
            return START * self.order + prompt.text
        return START * self.order + (prompt.text.rsplit(prompt.stop, 1)[-1].lstrip("\n") if prompt.stop else "")

    def _chain(self, prompt: Prompt) -> _Chain:
        if prompt.soft:
            unknown = [s for s in prompt.soft.sources if s not in self._sources]
            if unknown:
                raise EngineError(f"the soft prompt has no source {unknown[0]!r}. Allowed: ids in its sources.jsonl.")
            key = "\x1f".join(prompt.soft.sources)
        else:
            key = prompt.adapter or prompt.text
        if key not in self._chains:
            if len(self._chains) >= CHAINS:
                del self._chains[next(iter(self._chains))]
            self._chains[key] = _Chain([t.strip("\n") for t in self._texts(prompt) if t.strip()], self.order)
        return self._chains[key]

    def _texts(self, prompt: Prompt) -> list[str]:
        if prompt.soft:
            return [self._sources[s] for s in prompt.soft.sources]
        if prompt.adapter:
            return [text for s in read_lines(Path(prompt.adapter).parent / "sources.jsonl") for text in s["texts"]]
        return prompt.text.split(prompt.stop) if prompt.stop else [prompt.text]

    @cached_property
    def _sources(self) -> dict[str, str]:
        if not self.model.soft:
            raise EngineError("a soft prompt was asked for, but the engine was opened without one (ModelRef.soft).")
        return {entry["id"]: entry["text"] for entry in read_lines(self.model.soft / "sources.jsonl")}


class _Chain:
    """What follows each context of 1 to `order` characters in the texts. Contexts are looked up when they are first asked for: a prompt whose
    examples were drawn for one row alone has a thousand of them, and a completion visits eighty."""

    def __init__(self, texts: Sequence[str], order: int) -> None:
        self.joined, self.order = "".join(START * order + text + END for text in texts), order
        self.counts: dict[str, Counter[str]] = {}
        self.ranked: dict[tuple[str, Sampling], tuple[str, list[float], float]] = {}

    def after(self, seen: str) -> Counter[str]:
        """Counts after the longest known context of at most `order` characters."""
        for length in range(self.order, 0, -1):
            if found := self._follow(seen[-length:]):
                return found
        return Counter()

    def draw(self, seen: str, uniform: float, sampling: Sampling) -> str:
        """Inverse CDF over characters in order of count, then of code point; greedy at temperature 0."""
        key = (seen, sampling)
        if key not in self.ranked:
            self.ranked[key] = _ranked(self.after(seen), sampling)
        characters, masses, mass = self.ranked[key]
        return characters[min(bisect_right(masses, uniform * mass), len(characters) - 1)]

    def _follow(self, context: str) -> Counter[str]:
        found = self.counts.get(context)
        if found is None:
            found, at = Counter(), self.joined.find(context)
            while at >= 0:
                found[self.joined[at + len(context)]] += 1
                at = self.joined.find(context, at + 1)
            self.counts[context] = found
        return found


def _ranked(counts: Counter[str], sampling: Sampling) -> tuple[str, list[float], float]:
    """(characters that can be drawn, the likeliest first; their mass and that of those before, of each; their mass together)."""
    if not counts:
        return END, [1.0], 1.0
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    if sampling.temperature == 0:
        return ranked[0][0], [1.0], 1.0
    weights = [count ** (1 / sampling.temperature) for _, count in ranked]
    wanted, mass, masses = sampling.top_p * sum(weights), 0.0, list[float]()
    for weight in weights:
        if mass >= wanted:
            break
        mass += weight
        masses.append(mass)
    return "".join(character for character, _ in ranked[: len(masses)]), masses, mass
