"""A fitted soft prompt that asks for rows: which context each is written from, what is asked, and what was answered."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from seedbed.store import read_lines
from seedbed.task import Task, read_candidate
from seedbed.types import Candidate, Fields, ModelRef, Prompt, Row, Sample, SoftRef, seed_for

NEAR = 5
"""Neighbours that a context is mixed with one of."""
LOOKS, MOST_LOOKS = 4, 1000
"""Texts written from each fit row before `cover` chooses, at most; and from all of them, but for one a row."""


@dataclass(frozen=True)
class SoftTeacher:
    """Prompts a frozen model by reference to fitted soft prompts: one for each source of context."""

    model: ModelRef
    task: Task
    form: str
    contexts: Literal["sample", "mix", "kernel"] = "sample"
    spread: float = 0.3
    cover: bool = False
    shares: tuple[float, ...] = ()

    @cached_property
    def sources(self) -> list[dict[str, Any]]:
        return read_lines(self._folder / "sources.jsonl")

    @property
    def _folder(self) -> Path:
        assert self.model.soft is not None  # set by Soft.load, the only maker
        return self.model.soft

    @property
    def looks(self) -> int:
        """Rows to complete for `having_seen`."""
        return looks(len(self.sources)) if self.cover else 0

    def having_seen(self, sample: Sample, written: Iterable[Candidate]) -> SoftTeacher:
        """The teacher that draws its contexts by what the first `looks` rows became."""
        import numpy as np

        from seedbed.lm.cover import shares
        from seedbed.lm.embed import embed

        embedder = json.loads((self._folder / "prompt.json").read_text())["embedder"]
        body, place = {e.id: self.task.body(e.fields) for e in sample.fit}, {s["id"]: i for i, s in enumerate(self.sources)}
        seen = [(place[c.provenance["sources"][0]], self.task.body(c.fields)) for c in written if c.fields is not None and c.finished]
        real = embed([body[s["id"]] for s in self.sources], embedder)
        texts = embed([text for _, text in seen], embedder) if seen else np.empty((0, real.shape[1]))
        found = shares(real, texts, np.array([i for i, _ in seen], dtype=int), [str(s["label"]) for s in self.sources])
        return replace(self, shares=tuple(found.tolist()))

    def rows(self, sample: Sample, count: int, seed: int) -> Iterator[Row]:
        """Every fit example is the context equally often: round r is a permutation of all. With shares a round is n draws by them, as even as can
        be (systematic resampling; Kitagawa 1996)."""
        import numpy as np

        n = len(self.sources)
        for start in range(0, count, n):
            rng = np.random.default_rng(seed_for(seed, "round", start // n))
            order = rng.permutation(n)
            if self.shares:
                drawn = np.searchsorted(np.cumsum(self.shares), (rng.random() + np.arange(n)) / n)
                order = np.minimum(drawn, n - 1)[order]
            for index, place in zip(range(start, min(start + n, count)), order.tolist(), strict=False):
                source = self.sources[place]
                label = {str(self.task.target): source["label"]} if self._knows and self.task.has_labels else {}
                yield Row(index, seed_for(seed, "row", index), source["given"] | label, source["id"])

    def prompt(self, row: Row) -> Prompt | None:
        adapter = str(self.model.adapter) if self.model.adapter else None
        return None if row.turns else Prompt(self._asked(row), row.seed, self._context(row), adapter)

    @property
    def _knows(self) -> bool:
        """Whether its rows are given their label."""
        return self.form.startswith("amortised")

    def _asked(self, row: Row) -> str:
        known = with_label(self.task)
        return known.prefix(row.given) + first_mark(known) if self._knows else self.task.prefix(row.given)

    def _context(self, row: Row) -> SoftRef:
        """The row's own, drawn by its seed."""
        rng = random.Random(seed_for(row.seed, "context"))
        if self.contexts == "kernel":
            return SoftRef((row.source,), (1.0,), rng.getrandbits(62), self.spread)
        near = self._neighbours[row.source] if self.contexts == "mix" else []
        if not near:
            return SoftRef((row.source,), (1.0,))
        weight = self.spread * rng.random()
        return SoftRef((row.source, rng.choice(near)), (1 - weight, weight))

    @cached_property
    def _neighbours(self) -> dict[str, list[str]]:
        """Source -> the `NEAR` sources of its label whose embeddings are nearest to its own."""
        import numpy as np
        from safetensors.numpy import load_file

        z = load_file(self._folder / "prompt.safetensors")["contexts"]
        labels, ids = np.array([str(s["label"]) for s in self.sources]), [s["id"] for s in self.sources]
        found = {}
        for i, name in enumerate(ids):
            cosines = np.where(labels == labels[i], z @ z[i], -np.inf)
            cosines[i] = -np.inf
            found[name] = [ids[j] for j in np.argsort(-cosines, kind="stable")[:NEAR] if np.isfinite(cosines[j])]
        return found

    def read(self, row: Row) -> list[Candidate]:
        context = self._context(row)
        provenance: dict[str, Any] = {
            "generator": "soft",
            "form": self.form,
            "model": self.model.name,
            "sources": list(context.sources),
            "weights": list(context.weights),
        }
        provenance |= {"noise": context.noise} if context.noise else {}
        turn, task = row.turns[0], with_label(self.task) if self._knows else self.task
        return [read_candidate(task, row, self._asked(row) + turn.text, turn.finished, provenance)]


def looks(rows: int) -> int:
    """Texts that are written before `cover` chooses among so many fit rows."""
    return rows * max(1, min(LOOKS, MOST_LOOKS // rows))


def asked(task: Task, fields: Fields) -> tuple[str, str]:
    """`Task.split` where a label is given too, and the name of what is generated first: (what is asked, the answer)."""
    known = with_label(task)
    given, rest = known.split(fields)
    mark = first_mark(known)
    return given + mark, rest[len(mark) :]


def with_label(task: Task) -> Task:
    return task.known(dict.fromkeys((*task.given_columns, str(task.target)))) if task.has_labels else task


def first_mark(task: Task) -> str:
    return "" if task.kind == "plain" else task.mark(next(c for c in task.order if c not in task.given_columns))
