"""The rows that metrics compare: several draws of equally many rows of each side, the same ones for every metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, overload

import numpy as np

from seedbed.stats import equal_draw, spread_interval
from seedbed.store import Mapped
from seedbed.task import Task
from seedbed.types import Example, Measure, Sample, seed_for

TOGETHER = 10_000
"""Rows that are read at once."""

Rows = list[Example]


@dataclass(frozen=True)
class Drawn:
    """A number of one draw of rows, the same of real rows, the spread of the first about 0, and its p."""

    value: float
    real: float
    spread: np.ndarray
    p: float | None


def mean_of(
    name: str, draws: Sequence[Drawn], unit: str, better: Literal["higher", "lower", "closer"], n: int, note: str, most: float = math.inf
) -> Measure:
    """The mean of the draws, one or more, of a number in 0 to `most`; their spread is its interval, the first one's p its p."""
    value, real = (float(np.mean([getattr(d, side) for d in draws])) for side in ("value", "real"))
    low, high = spread_interval(value, [d.spread for d in draws])
    return Measure(name, value, unit, better, n, max(0.0, low), min(most, high), real, note, draws[0].p)


@dataclass(frozen=True)
class Sides:
    """n: rows a side, the size of the smallest of kept, dev + test and fit. got: their sizes in words. draws: (kept, dev + test, fit) each."""

    n: int
    got: str
    draws: list[tuple[Rows, Rows, Rows]]

    def few(self, least: int) -> str:
        """Why nothing is measured with fewer than so many rows a side; "" where there are enough."""
        return f"needs {least} rows on each side, {self.got}" if self.n < least else ""

    def cut(self, task: Task, embedder: str) -> str:
        """In words, how many texts of the first draw are longer than the embedder reads; "" where none is."""
        from seedbed.lm.embed import longer

        texts = [task.body(e.fields) for side in self.draws[0] for e in side] if self.draws else []
        long = sum(longer(texts, embedder))
        return f"; of {long} of {len(texts)} texts {embedder} reads the start alone" if long else ""


def equal_sides(sample: Sample, kept: Sequence[Example], draws: int, seed: int, most: int | None = None) -> Sides:
    """`draws` draws without replacement of n rows of each side, `most` of these at most; the rows' order changes nothing. No draw where n is 0."""
    sides = [in_order(sample.task, side) for side in (kept, (*sample.dev, *sample.test), sample.fit)]
    n = min(map(len, sides))
    got = f"got {len(sides[0])} kept, {len(sides[1])} dev + test and {len(sides[2])} fit"
    used = n if most is None else min(n, most)
    picked = []
    for i in range(draws if n else 0):
        # First n, then fewer of these: what one metric embeds, the next one has already.
        drawn = [equal_draw(side, n, seed_for(seed, "draw", i, j)) for j, side in enumerate(sides)]
        a, b, c = (equal_draw(side, used, seed_for(seed, "fewer", i, j)) for j, side in enumerate(drawn))
        picked.append((a, b, c))
    return Sides(used, got, picked)


class _Ordered(Sequence[Example]):
    """Rows in another order, each read when it is asked for."""

    def __init__(self, rows: Sequence[Example], places: Any) -> None:
        self.rows, self.places = rows, places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> Rows: ...
    def __getitem__(self, place: int | slice) -> Example | Rows:
        return [self.rows[i] for i in self.places[place].tolist()] if isinstance(place, slice) else self.rows[int(self.places[place])]


_last: list[tuple[Sequence[Example], Task, Sequence[Example]]] = []
"""The rows of a file that were put in order last: the metrics of a run ask for the same kept rows one after the other."""


def in_order(task: Task, rows: Sequence[Example]) -> Sequence[Example]:
    """The rows by text, then target. In memory are the texts and the order, not the rows; of these a draw reads its own."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for known, of, found in _last:
        if known is rows and of == task:
            return found
    columns: list[list[Any]] = [[], []]
    stream = iter(rows)
    while part := list(islice(stream, TOGETHER)):
        columns[0].append(pa.array([task.body(e.fields) for e in part], pa.large_string()))
        columns[1].append(pa.array([str(e.fields.get(task.target or "", "")) for e in part], pa.large_string()))
    table = pa.table([pa.chunked_array(column, pa.large_string()) for column in columns], names=["text", "target"])
    # Bytes of UTF-8 are in the order of code points, which Python's strings are in; equal rows stay in theirs.
    order = pc.sort_indices(table, [("text", "ascending"), ("target", "ascending")]).to_numpy()
    ordered = _Ordered(rows, order)
    if isinstance(rows, Mapped):
        _last[:] = [(rows, task, ordered)]
    return ordered
