"""Rows and hands: where work is done. `here` is this process, in order; `ray` is actors of a Ray cluster, and this is the one file that knows it.

On Ray each hand is an actor that keeps a teacher and an engine. It is given rows (an index, a seed, fields already known), builds their prompts
and completes them in one stream that never drains at a batch's end; completions come back, and this process alone writes them down: a row is
accepted once, whatever happens to a hand. Rows of a hand that died, alone or with its node, go to the others.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from seedbed.errors import EngineError, SeedbedError
from seedbed.limits import NEVER, STOPPED, Deadline, ended_by
from seedbed.types import Completion, Prompt, Row, Sampling, Session, Teacher

HERE = "here"
WINDOW = 512
"""Rows under way at one hand: an engine on a GPU keeps some hundreds in its batch, and so many are made again where a hand dies."""
BATCH = 32
"""Rows that are handed out together: few, so that a short run is spread over all hands."""
SPELL_S = 0.25
"""How long a hand works before it says what is finished, where that is not a whole batch."""
CALLS = 2
"""Calls under way at one hand: it works on one while another's answer travels."""
PATIENCE_S = 600.0
"""How long to wait for a cluster that offers no place for a hand."""
DEATHS = 5
"""Hands that may die one after the other without a row finished in between."""


class _Worker:
    """What an actor is: a teacher, an engine, and the rows that it has been given."""

    def __init__(self, hire: Callable[[], tuple[Teacher, Session]]) -> None:
        self.teacher, self.session = hire()
        self.waiting: deque[Row] = deque()
        self.stream: Iterator[tuple[int, Completion]] | None = None
        self.deadline = NEVER

    def ready(self) -> dict[str, Any]:
        return dict(self.session.describe())

    def work(self, rows: list[Row], sampling: Sampling, left_s: float = math.inf) -> list[tuple[int, Completion]]:
        """Takes rows on, and gives what was finished in a spell; the stream goes on at the next call. left_s: seconds after which no row is
        begun; those that were not have the problem STOPPED."""
        self.waiting.extend(rows)
        self.deadline = Deadline(time.monotonic() + left_s)
        found, end = list[tuple[int, Completion]](), time.monotonic() + SPELL_S
        while len(found) < BATCH and time.monotonic() < end:
            if self.stream is None and (not self.waiting or self.deadline.over()):
                break
            self.stream = self.stream or iter(ended_by(self.session, self.deadline).complete(self._prompts(), sampling))
            step = next(self.stream, None)
            if step is None:
                self.stream = None
            else:
                found.append(step)
        if self.deadline.over():
            found += [(row.index, Completion("", 0, False, STOPPED)) for row in self.waiting]
            self.waiting.clear()
        return found

    def _prompts(self) -> Iterator[tuple[int, Prompt]]:
        while self.waiting and not self.deadline.over():
            row = self.waiting.popleft()
            prompt = self.teacher.prompt(row)
            assert prompt is not None, "rows that are finished are not handed out"
            yield row.index, prompt


@dataclass(eq=False)
class _Hand:
    """An actor as this process sees it. fresh: rows not sent yet; rows: all that it has not answered; calls: under way."""

    actor: Any
    ready: bool = False
    calls: int = 0
    fresh: list[Row] = field(default_factory=list)
    rows: dict[int, Row] = field(default_factory=dict)


class Fleet:
    """A session whose prompts are rows: `ask` and `complete` as `candidates.complete` uses them. Close it."""

    def __init__(self, address: str, hire: Callable[[], tuple[Teacher, Session]], teacher: Teacher, cpus: float = 1.0) -> None:
        """address: "ray" (the cluster that RAY_ADDRESS names, else one on this machine) or ray://host:port. hire: makes a hand's teacher and
        engine, there. cpus: of one hand, where the cluster has no GPU. Raises EngineError where there is no Ray or no such cluster."""
        try:
            import ray
        except ImportError as error:
            raise EngineError(f"--on {address} needs Ray: pip install 'seedbed[ray]'") from error
        self.ray, self.teacher, self.deadline = ray, teacher, NEVER
        self.ours = not ray.is_initialized()
        if self.ours:
            os.environ.setdefault("RAY_worker_niceness", "0")  # of a cluster started here: hands do the run's work, not background work
            try:
                ray.init(address if address != "ray" else None, include_dashboard=None if address != "ray" else False, log_to_driver=False)
            except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
                raise EngineError(
                    f"--on {address}: no Ray cluster answers there ({str(error).splitlines()[0]}). Start it, or use --on ray."
                ) from error
        offered = ray.cluster_resources()
        gpus = int(offered.get("GPU", 0))
        self.share = {"num_gpus": 1} if gpus else {"num_cpus": cpus}
        self.hire = ray.put(hire)
        self.lost, self.deaths = deque[Row](), 0
        self.facts: dict[str, Any] | None = None
        self.calls: dict[Any, _Hand] = {}
        self.hands = [self._hired() for _ in range(max(1, gpus or int(offered.get("CPU", 1) // cpus)))]

    def ask(self, row: Row) -> Row | None:
        """What stands for the row's next prompt: the row, until it is finished."""
        return row if not row.turns or self.teacher.prompt(row) is not None else None

    def until(self, deadline: Deadline) -> Fleet:
        """This fleet, whose hands begin no row when the deadline is over."""
        self.deadline = deadline
        return self

    def complete(self, rows: Iterable[tuple[int, Row]], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Completions as they come, of each row once."""
        stream = (row for _, row in rows)
        while True:
            if self._hand_out(stream, sampling) and not any(hand.rows for hand in self.hands):
                return
            hand, found = self._next()
            for index, completion in found:
                if hand.rows.pop(index, None) is not None:
                    self.deaths = 0
                    yield index, completion

    def describe(self) -> Mapping[str, Any]:
        """The facts of the first hand; all have the same engine."""
        while self.facts is None:
            self._next()
        return self.facts

    def close(self) -> None:
        for hand in self.hands:
            self.ray.kill(hand.actor)
        if self.ours:
            self.ray.shutdown()

    def _hired(self) -> _Hand:
        remote = self.ray.remote(max_restarts=0, **self.share)(_Worker)
        hand = _Hand(remote.remote(self.hire))
        self.calls[hand.actor.ready.remote()] = hand
        return hand

    def _hand_out(self, stream: Iterator[Row], sampling: Sampling) -> bool:
        """Rows to the hands that have the fewest, and calls to all that have some; whether no row is left. A hand not ready is given none."""
        ready, ended = [hand for hand in self.hands if hand.ready], False
        while ready and not ended:
            hand = min(ready, key=lambda hand: len(hand.rows))
            room = min(BATCH, WINDOW - len(hand.rows))
            if not room:
                break
            batch = [self.lost.popleft() for _ in range(min(room, len(self.lost)))]
            batch += islice(stream, room - len(batch))
            ended = not batch
            hand.fresh += batch
            hand.rows |= {row.index: row for row in batch}
        for hand in ready:
            while hand.rows and hand.calls < CALLS:
                self.calls[hand.actor.work.remote(hand.fresh, sampling, self.deadline.left())] = hand
                hand.fresh, hand.calls = [], hand.calls + 1
        return ended

    def _next(self) -> tuple[_Hand, list[tuple[int, Completion]]]:
        """What one call brought; nothing where its hand has just come, or died."""
        done, _ = self.ray.wait(list(self.calls), timeout=PATIENCE_S)
        if not done:
            raise EngineError(f"no hand answered for {PATIENCE_S:.0f} s: each needs {self.share}, the cluster has {self.ray.available_resources()}.")
        hand = self.calls.pop(done[0])
        try:
            found = self.ray.get(done[0])
        except self.ray.exceptions.RayTaskError as error:
            cause = error.as_instanceof_cause()
            raise (cause if isinstance(cause, SeedbedError) else EngineError(f"a hand failed: {error.cause!r}")) from error
        except self.ray.exceptions.RayError as error:
            self._gone(hand, error)
            return hand, []
        if not hand.ready:
            hand.ready, self.facts = True, self.facts or found
            return hand, []
        hand.calls -= 1
        return hand, found

    def _gone(self, hand: _Hand, error: Exception) -> None:
        """Its rows go to others, and another hand is hired where there is room for one."""
        self.deaths += 1
        if self.deaths > DEATHS + len(self.hands):
            raise EngineError(f"{self.deaths} hands died one after the other; the last: {str(error).splitlines()[0]}. Look at Ray's logs.") from error
        self.calls = {call: other for call, other in self.calls.items() if other is not hand}
        self.lost.extend(row for _, row in sorted(hand.rows.items()))
        self.hands[self.hands.index(hand)] = self._hired()
