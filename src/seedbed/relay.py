"""One stream of prompts to several engines: a draft by the recipe's, a later turn by one that the generator names.

The engines work by turns, so that two models here do not share the processor; each reads its prompts as slots become free, until BLOCK of
another's are waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from seedbed.limits import NEVER, Deadline, ended_by
from seedbed.paid import most
from seedbed.types import Ask, Completion, ModelRef, Prompt, Sampling, Session

BLOCK = 500
"""Prompts that wait for one engine while another works: fewer would leave slots empty more often, more would hold more rows in memory."""


@dataclass(frozen=True)
class Relay:
    """A session whose prompts may name other engines; these are opened when first asked. Prompts that name none go to `own` as they come."""

    own: Session
    others: dict[Ask, Session] = field(default_factory=dict, compare=False)
    deadline: Deadline = field(default=NEVER, compare=False)

    def until(self, deadline: Deadline) -> Relay:
        """This session, each of whose engines gives up at the deadline what waits for a server."""
        return replace(self, deadline=deadline)

    def describe(self) -> Mapping[str, Any]:
        """The facts of `own`, and of `others` where any was asked."""
        others = [dict(session.describe()) for session in self.others.values()]
        return dict(self.own.describe()) | ({"others": others} if others else {})

    def most(self, prompt: Prompt, sampling: Sampling) -> float:
        """Money that the completion can cost."""
        return most(self._session(prompt.ask), prompt, sampling)

    def score(self, prompt: Prompt, continuations: Sequence[str], ended: bool = False) -> list[tuple[float, int]]:
        return self._session(prompt.ask).score(prompt, continuations, ended)

    def complete(self, prompts: Iterable[tuple[int, Prompt]], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        stream = iter(prompts)
        queues: dict[Ask | None, deque[tuple[int, Prompt]]] = {None: deque()}

        def of(ask: Ask | None) -> Iterator[tuple[int, Prompt]]:
            """Its prompts, until the stream ends or another engine has enough to do."""
            while True:
                if queues[ask]:
                    yield queues[ask].popleft()
                elif max(map(len, queues.values())) >= BLOCK or (following := next(stream, None)) is None:
                    return
                else:
                    queues.setdefault(following[1].ask, deque()).append(following)

        while True:
            ask = max(queues, key=lambda name: len(queues[name]))  # the first of equals: its own
            yield from ended_by(self._session(ask), self.deadline).complete(of(ask), sampling)
            if not any(queues.values()):
                return

    def _session(self, ask: Ask | None) -> Session:
        if ask is None:
            return self.own
        if ask not in self.others:
            self.others[ask] = ask.engine.open(ModelRef(ask.model))
        return self.others[ask]
