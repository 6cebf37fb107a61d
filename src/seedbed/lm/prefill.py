"""Reads prompts into keys and values: in groups, in pieces, and each shared beginning once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from seedbed.lm.decode import SoftVectors
from seedbed.lm.forward import Forward
from seedbed.lm.load import LM
from seedbed.lm.shapes import Shapes, at_least
from seedbed.lm.slots import KV, Step
from seedbed.types import Prompt, SoftRef

SHARED = 32
"""Tokens that two prompts must start with alike before their beginning is kept."""
APART = 64
"""Tokens from which a beginning that prompts say they share stays outside the slots."""
KEPT = 8
"""Beginnings kept at a time."""
RESOLVED = 16
"""Soft references resolved at once; always so many, so that their bits do not depend on how many were asked for."""


@dataclass(frozen=True)
class Job:
    """One prompt to complete. ids: its text's tokens, after the t vectors of its soft prompt. room: tokens it may draw. shared: tokens
    at its start that it says are those of others."""

    key: int
    prompt: Prompt
    ids: list[int]
    room: int
    shared: int = 0


class Prefill:
    """Fills the first rows of its own cache with prompts; `kv` holds them until the next call: row i that of prompt `order[i]`. `apart`: each
    prompt's beginning that stays outside the slots, or None. Whether one does is the prompt's own saying, since it changes the last bits;
    what is read only once and copied is found by comparing, since it does not."""

    def __init__(self, lm: LM, soft: SoftVectors | None, forward: Forward, shapes: Shapes) -> None:
        self.lm, self.soft, self.forward, self.shapes = lm, soft, forward, shapes
        self.kv = forward.kv(shapes.groups[-1], shapes.extents[-1] + max(shapes.pieces))  # a last piece may stand out beyond the cache
        self.known: OrderedDict[bytes, KV] = OrderedDict()
        self.held: list[bytes] = [b""] * self.kv.rows
        self.order, self.apart = np.zeros(0, dtype=np.int64), list[KV | None]()

    def __call__(self, jobs: Sequence[Job]) -> tuple[torch.Tensor, np.ndarray]:
        """Logits (n, V) after each prompt, and the prompts' lengths (n,). At most `shapes.groups[-1]` prompts."""
        table, codes = self._codes(jobs)
        texts = [c for c, job in zip(codes, jobs, strict=True) if not job.prompt.soft]
        self.apart = [self._known(c[:n]) if (n := self._apart(job)) else None for c, job in zip(codes, jobs, strict=True)]
        for start in _shared(texts):
            self._known(start)
        return self._read(codes, table)

    def _apart(self, job: Job) -> int:
        """Tokens of the prompt's beginning that stays outside its slot: by what the prompt says alone, in whole pieces of 16."""
        length = min(job.shared, len(job.ids) - 1) // 16 * 16
        able = self.forward.sharing is not None and self.forward.sharing[1] <= APART
        return length if able and length >= APART and not job.prompt.soft else 0

    def _known(self, start: np.ndarray) -> KV:
        """A beginning's keys and values, read now unless they are known."""
        name = start.tobytes()
        if name not in self.known:
            self._read([start], None)
            self._keep(start)
        return self.known[name]

    def _codes(self, jobs: Sequence[Job]) -> tuple[torch.Tensor | None, list[np.ndarray]]:
        """Each prompt as int64 codes: a token's id, or -1 - i for row i of the table of soft vectors (m, d)."""
        places: dict[SoftRef, int] = {}
        for job in jobs:
            if job.prompt.soft:
                places.setdefault(job.prompt.soft, len(places))
        if not places or self.soft is None:
            return None, [np.array(job.ids, dtype=np.int64) for job in jobs]
        table, t = resolve(self.soft, list(places)).flatten(0, 1), self.soft.net.t
        starts = [places[job.prompt.soft] * t if job.prompt.soft else None for job in jobs]
        soft = [[] if start is None else range(-1 - start, -1 - start - t, -1) for start in starts]
        return table, [np.array([*s, *job.ids], dtype=np.int64) for s, job in zip(soft, jobs, strict=True)]

    def _read(self, codes: Sequence[np.ndarray], table: torch.Tensor | None) -> tuple[torch.Tensor, np.ndarray]:
        lengths = np.array([len(c) for c in codes])
        starts = np.array([0 if c[0] < 0 else self._known_length(c) for c in codes])
        order = np.argsort(starts - lengths, kind="stable")  # the one with most left to read first: those that read on stay together
        self._recall([codes[i] for i in order], starts[order])
        grid = np.zeros((self.kv.rows, self.kv.length), dtype=np.int64)
        for row, i in enumerate(order):
            grid[row, : lengths[i]] = codes[i]
        at, ends = np.zeros(self.kv.rows, dtype=np.int64), np.zeros(self.kv.rows, dtype=np.int64)
        at[: len(order)], ends[: len(order)] = starts[order], lengths[order]
        logits: torch.Tensor | None = None
        while (reading := int((at < ends).sum())) > 0:
            piece = max(p for p in self.shapes.pieces if p <= max(self.shapes.pieces[0], -(-int(ends[reading - 1] - at[reading - 1]) // 16) * 16))
            n = at_least(self.shapes.groups, reading)
            found = self._piece(grid, at[:n], ends[:n], piece, reading, table)
            if found is not None:
                logits = found.new_zeros(len(order), found.shape[-1]) if logits is None else logits
                last = np.flatnonzero((at[:reading] < ends[:reading]) & (at[:reading] + piece >= ends[:reading]))
                logits[order[last]] = found[last]
            at = np.minimum(at + piece, self.kv.length - max(self.shapes.pieces))
        assert logits is not None  # every prompt has a token
        self.held[len(order) :] = [b""] * (self.kv.rows - len(order))  # rows that fill up a shape are written to as well
        self.order = order
        return logits, lengths

    def _piece(self, grid: np.ndarray, at: np.ndarray, ends: np.ndarray, piece: int, reading: int, table: torch.Tensor | None) -> torch.Tensor | None:
        """The next `piece` tokens of each row, from place `at`; logits where a prompt ends."""
        positions = at[:, None] + np.arange(piece)
        codes = torch.from_numpy(np.take_along_axis(grid[: len(at)], positions, axis=1)).to(self.kv.device)
        vectors = self.lm.vectors(codes.clamp(min=0))
        if table is not None:
            vectors = torch.where((codes < 0)[..., None], table[(-1 - codes).clamp(min=0)].to(vectors.dtype), vectors)
        left = (ends - at)[:reading]
        extent = at_least(self.shapes.extents, int(np.minimum(at + piece, ends)[:reading].max()))
        keep = torch.from_numpy(np.clip(ends - at - 1, 0, piece - 1)).to(self.kv.device) if (left <= piece).any() else None
        step = Step(torch.from_numpy(positions).to(self.kv.device), [(0, len(at), extent)], keep)
        return self.forward(vectors, step, self.kv)

    def _known_length(self, codes: np.ndarray) -> int:
        """Tokens of the longest known beginning that leaves a token to read: known ones hold whole pieces, so that bits stay the same."""
        fits = [start for start in map(_array, self.known) if len(start) < len(codes) and np.array_equal(start, codes[: len(start)])]
        return max(map(len, fits), default=0)

    def _recall(self, codes: Sequence[np.ndarray], starts: np.ndarray) -> None:
        """Copies known beginnings into the rows that start with them, unless they stand there from the call before."""
        rows: dict[bytes, list[int]] = {}
        for row, (c, start) in enumerate(zip(codes, starts, strict=True)):
            name, before = c[:start].tobytes(), self.held[row]
            self.held[row] = name
            if start:
                self.known.move_to_end(name)
                if name != before:
                    rows.setdefault(name, []).append(row)
        for name, found in rows.items():
            to = torch.tensor(found, device=self.kv.device)
            self.kv.copy(to, self.known[name], torch.zeros_like(to), len(_array(name)))

    def _keep(self, codes: np.ndarray) -> None:
        kept = self.forward.kv(1, len(codes))
        first = torch.zeros(1, dtype=torch.long, device=self.kv.device)
        kept.copy(first, self.kv, first, len(codes))
        self.known[codes.tobytes()] = kept
        if len(self.known) > KEPT:
            self.known.popitem(last=False)


def resolve(soft: SoftVectors, refs: Sequence[SoftRef]) -> torch.Tensor:
    """(n, t, d): the vectors of soft references, a fixed number at a time."""
    found = []
    for start in range(0, len(refs), RESOLVED):
        part = list(refs[start : start + RESOLVED])
        found.append(soft.resolve(part + [part[0]] * (RESOLVED - len(part)))[: len(part)])
    return torch.cat(found)


def _array(name: bytes) -> np.ndarray:
    return np.frombuffer(name, dtype=np.int64)


def _shared(codes: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Beginnings, in whole pieces of 16 tokens and at least SHARED, that two or more prompts have in common; shorter ones first."""
    ordered = sorted(codes, key=lambda c: c.tolist())
    common = [_common(a, b) // 16 * 16 for a, b in pairwise(ordered)]

    def runs(first: int, last: int, floor: int) -> Iterator[np.ndarray]:
        start = first
        while start < last:
            stop = start
            while stop < last and common[stop] >= floor:
                stop += 1
            if stop > start:
                length = min(common[start:stop])
                yield ordered[start][:length]
                yield from runs(start, stop, length + SHARED)
            start = stop + 1

    return runs(0, len(common), SHARED)


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """Number of leading codes in which a and b are equal; each keeps at least one for itself."""
    n = min(len(a), len(b)) - 1
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n
