"""Continuous batching: slots that are refilled as rows finish, all bookkeeping in arrays.

Slots stand in order of the length they have reached, so that each attends about as far as it must, and empty ones stand last, where the
batch leaves them out. Those whose prompts share a beginning that stays outside the slots stand together.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise

import numpy as np
import torch

from seedbed.lm.forward import Forward
from seedbed.lm.load import LM
from seedbed.lm.prefill import Job, Prefill
from seedbed.lm.sampling import draw
from seedbed.lm.shapes import Shapes, at_least, sharing_sizes
from seedbed.lm.slots import KV, Shared, Span, Step
from seedbed.types import Completion, Sampling

REFILL = 16
"""Slots are refilled when at least one in so many is free: reading prompts together costs less than the free slots do."""
SORT_EVERY = 16
"""Steps between two sortings of the slots."""
BOUNDS = np.array([64, 128, 256, 512, 1024, 2048, 4096])
"""Slots that reached lengths within the same bounds attend together."""

Done = tuple[int, Completion]


class Stops:
    """Where a stop string can end: a token whose text lacks its last character cannot bring it about."""

    def __init__(self, lm: LM, vocabulary: int) -> None:
        self.lm = lm
        self.strings = [""]
        self.tables = np.full((1, vocabulary), -1, dtype=np.int8)  # per string and token: -1 cannot end, 1 may end, 0 not looked at yet
        self.anchor = lm.encode("a")[:1]
        self.before = lm.decode(self.anchor)

    def index(self, stop: str) -> int:
        if stop not in self.strings:
            self.strings.append(stop)
            self.tables = np.concatenate([self.tables, np.zeros_like(self.tables[:1])])
        return self.strings.index(stop)

    def may_end(self, which: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """bool (n,)"""
        found = self.tables[which, tokens]
        for place in np.flatnonzero(found == 0):
            index, token = int(which[place]), int(tokens[place])
            text = self.lm.decode([*self.anchor, token])
            own = text[len(self.before) :]
            # U+FFFD: a part of a character, which later tokens may complete to any.
            may = not text.startswith(self.before) or "\ufffd" in own or self.strings[index][-1] in own
            self.tables[index, token] = found[place] = 1 if may else -1
        result: np.ndarray = found == 1
        return result


class Rows:
    """What each slot holds. A free slot stands at position 0 with token 0.

    beginning: number of the shared beginning outside the slot, 0 for none (a free slot keeps its last). offset: a token's position less its
    column in the slot.
    """

    def __init__(self, lm: LM, slots: int, most: int, vocabulary: int) -> None:
        """most: tokens that a row may draw."""
        self.lm, self.stops = lm, Stops(lm, vocabulary)
        self.alive = np.zeros(slots, dtype=bool)
        self.key, self.position, self.token, self.count, self.room, self.stop = (np.zeros(slots, dtype=np.int64) for _ in range(6))
        self.beginning, self.offset = np.zeros(slots, dtype=np.int64), np.zeros(slots, dtype=np.int64)
        self.ids = np.zeros((slots, most), dtype=np.int64)
        self.uniforms = np.zeros((slots, most + 1))

    def start(self, slots: np.ndarray, jobs: list[Job], lengths: np.ndarray) -> None:
        self.alive[slots], self.position[slots], self.count[slots] = True, lengths, 0
        for slot, job in zip(slots, jobs, strict=True):
            self.key[slot], self.room[slot], self.stop[slot] = job.key, job.room, self.stops.index(job.prompt.stop)
            self.uniforms[slot, : job.room] = np.random.Generator(np.random.PCG64(job.prompt.seed)).random(job.room)

    def next_uniforms(self, slots: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.uniforms[slots, self.count[slots]]
        return found

    def push(self, slots: np.ndarray, tokens: np.ndarray) -> list[Done]:
        """Appends a drawn token to each slot that lives; the completions of those that end with it."""
        living = self.alive[slots]
        slots, tokens = slots[living], tokens[living]
        ended = np.isin(tokens, (self.lm.eos, *self.lm.ends))
        on, drawn = slots[~ended], tokens[~ended]
        self.ids[on, self.count[on]] = drawn
        self.count[on] += 1
        self.token[on] = drawn
        done = []
        for slot in on[self.stops.may_end(self.stop[on], drawn)]:
            text, stop = self._text(slot), self.stops.strings[self.stop[slot]]
            if stop in text:
                done.append(self._finish(slot, text.split(stop)[0], True))
        for slot in on[(self.count[on] >= self.room[on]) & self.alive[on]]:
            done.append(self._finish(slot, self._text(slot), False))
        return done + [self._finish(slot, self._text(slot), True) for slot in slots[ended]]

    def _text(self, slot: int) -> str:
        return self.lm.decode(self.ids[slot, : self.count[slot]].tolist())

    def _finish(self, slot: int, text: str, finished: bool) -> Done:
        self.alive[slot], self.position[slot], self.token[slot], self.offset[slot] = False, 0, 0, 0
        return int(self.key[slot]), Completion(text, int(self.count[slot]), finished)

    @property
    def column(self) -> np.ndarray:
        """int (slots,): where the next token stands in each slot."""
        found: np.ndarray = self.position - self.offset
        return found

    def classes(self) -> np.ndarray:
        """int (slots,): 0 for a free slot, more for longer rows, and much more for each beginning."""
        lengths = np.searchsorted(BOUNDS, self.column, side="right") + 1
        return np.where(self.alive, self.beginning * (len(BOUNDS) + 2) + lengths, 0)

    def move(self, to: np.ndarray, source: np.ndarray) -> None:
        for values in (
            self.alive,
            self.key,
            self.position,
            self.token,
            self.count,
            self.room,
            self.stop,
            self.ids,
            self.uniforms,
            self.beginning,
            self.offset,
        ):
            values[to] = values[source]


class Batch:
    """Completes jobs with one model."""

    def __init__(self, lm: LM, forward: Forward, prefill: Prefill, shapes: Shapes, sampling: Sampling) -> None:
        self.lm, self.forward, self.prefill, self.shapes, self.sampling = lm, forward, prefill, shapes, sampling
        self.slots = shapes.rows[-1]
        self.kv = forward.kv(self.slots, shapes.extents[-1])
        vocabulary = lm.model.get_output_embeddings().weight.shape[0]
        self.rows = Rows(lm, self.slots, min(sampling.max_tokens, shapes.extents[-1]), vocabulary)
        self.bounds: list[int] = []
        self.beginnings: dict[int, KV] = {}

    def complete(self, jobs: Iterator[Job]) -> Iterator[Done]:
        """Reads jobs as slots become free; yields completions as rows finish."""
        exhausted, steps = False, 0
        while True:
            while not exhausted and self._free() >= max(1, self.slots // REFILL):
                taken = list(islice(jobs, self._free()))
                exhausted = len(taken) == 0
                yield from self._fill(sorted(taken, key=lambda job: len(job.ids)))
            living = int(self.rows.alive.sum())
            if not living:
                return
            used = int(np.flatnonzero(self.rows.alive)[-1]) + 1
            if steps % SORT_EVERY == 0 or at_least(self.shapes.rows, living) < at_least(self.shapes.rows, used) or self._scattered():
                self._sort()
            steps += 1
            yield from self._step()

    def _free(self) -> int:
        return self.slots - int(self.rows.alive.sum())

    def _fill(self, jobs: list[Job]) -> Iterator[Done]:
        size = self.shapes.groups[-1]
        for start in range(0, len(jobs), size):
            group = jobs[start : start + size]
            logits, lengths = self.prefill(group)
            slots = np.flatnonzero(~self.rows.alive)[: len(group)]
            self.rows.start(slots, group, lengths)
            self._take(slots, lengths)
            yield from self.rows.push(slots, draw(logits, self.rows.next_uniforms(slots), self.sampling))

    def _take(self, slots: np.ndarray, lengths: np.ndarray) -> None:
        """Copies what was read into its slots, without the beginnings that stay outside."""
        apart = [self.prefill.apart[i] for i in self.prefill.order]
        to, lengths = slots[self.prefill.order], lengths[self.prefill.order]
        for beginning in dict.fromkeys(apart):
            found = np.array([i for i, other in enumerate(apart) if other is beginning])
            first = at = number = 0
            if beginning is not None and self.forward.sharing is not None:
                first, at, number = beginning.length, self.forward.sharing[1], self._number(beginning)
            self.rows.beginning[to[found]], self.rows.offset[to[found]] = number, first - at
            target, source = (torch.from_numpy(rows).to(self.kv.device) for rows in (to[found], found))
            self.kv.copy(target, self.prefill.kv, source, int(lengths[found].max()), first, at)

    def _number(self, beginning: KV) -> int:
        """Its number from 1; those in no slot are forgotten."""
        used = set(self.rows.beginning.tolist())
        self.beginnings = {number: kv for number, kv in self.beginnings.items() if number in used}
        number = next((n for n, kv in self.beginnings.items() if kv is beginning), max(self.beginnings, default=0) + 1)
        self.beginnings[number] = beginning
        return number

    def _scattered(self) -> bool:
        """Whether rows of one beginning stand apart."""
        found = self.rows.beginning[self.rows.alive]
        return int(np.count_nonzero(np.diff(found))) >= len(set(found.tolist()))

    def _sort(self) -> None:
        """By beginning, longest first, free last; only slots that stand among others' are moved."""
        classes = self.rows.classes()
        wanted = -np.sort(-classes)
        wrong = np.flatnonzero(classes != wanted)
        if len(wrong):
            source = wrong[np.argsort(-classes[wrong], kind="stable")]
            extent = int(self.rows.column[source].max()) + 1
            self.kv.copy(torch.from_numpy(wrong).to(self.kv.device), self.kv, torch.from_numpy(source).to(self.kv.device), extent)
            self.rows.move(wrong, source)
        self.bounds = (np.flatnonzero(np.diff(wanted)) + 1).tolist()
        living = int(self.rows.alive.sum())
        self.rows.beginning[living:] = self.rows.beginning[max(0, living - 1)]

    def _spans(self, used: int) -> tuple[list[Span], list[Shared]]:
        """Rows that attend together, and among them those that share a beginning."""
        numbers, reached = self.rows.beginning[:used], self.rows.column
        changes = (np.flatnonzero(np.diff(numbers)) + 1).tolist()
        cuts = sorted({0, used, *changes, *(b for b in self.bounds if b < used)})
        spans = [(a, b, at_least(self.shapes.extents, int(reached[a:b].max()) + 1)) for a, b in pairwise(cuts)]
        return spans, [self._shared(a, b, self.beginnings[numbers[a]]) for a, b in pairwise([0, *changes, used]) if numbers[a]]

    def _shared(self, start: int, stop: int, beginning: KV) -> Shared:
        assert self.forward.sharing is not None  # else no beginning stays outside
        sizes = sharing_sizes(self.slots, self.forward.sharing, beginning.length, self.shapes.exact)
        return Shared(start, stop, at_least(sizes, stop - start), beginning)

    def _step(self) -> list[Done]:
        """One token for every living row."""
        used = at_least(self.shapes.rows, int(np.flatnonzero(self.rows.alive)[-1]) + 1)
        device, slots = self.kv.device, np.arange(used)
        positions, columns = (torch.from_numpy(where[:used, None]).to(device) for where in (self.rows.position, self.rows.column))
        spans, shared = self._spans(used)
        vectors = self.lm.vectors(torch.from_numpy(self.rows.token[:used, None]).to(device))
        step = Step(positions, spans, torch.zeros(used, dtype=torch.long, device=device), columns, shared)
        logits = self.forward(vectors, step, self.kv)
        assert logits is not None  # the step keeps every row's token
        drawn = draw(logits, self.rows.next_uniforms(slots), self.sampling)
        self.rows.position += self.rows.alive
        return self.rows.push(slots, drawn)
