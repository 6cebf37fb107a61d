"""How many requests a server gets at once: one more while it keeps up, half as many when it is too busy (AIMD, Chiu and Jain 1989)."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from seedbed.limits import NEVER, Deadline

START = 8
"""Requests at first. Their number doubles from round to round until the server is busy for the first time."""


class Pace:
    """Threads enter before a request and leave after it. `limit`: requests under way at most now, from 1 to `most`."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.clock = most, clock
        self.limit = float(min(START, most))
        self.under_way = self.cuts = self.used = 0
        self.opens = -math.inf
        self._changed = threading.Condition()

    def wait(self) -> float:
        """Seconds until one more request may go; infinity: not before another has left."""
        if self.under_way >= int(self.limit):
            return math.inf
        return max(0.0, self.opens - self.clock())

    def enter(self, stop: threading.Event, deadline: Deadline = NEVER) -> int | None:
        """Waits for its turn. The ticket that `leave` wants back, or None at the deadline or when `stop` was set; whoever sets it calls `wake`."""
        with self._changed:
            while not (stop.is_set() or deadline.over()) and (seconds := min(self.wait(), deadline.left())) > 0:
                self._changed.wait(None if seconds == math.inf else seconds)
            if stop.is_set() or deadline.over():
                return None
            self.under_way += 1
            if self.under_way >= int(self.limit):
                self.used = self.under_way
            return self.cuts

    def leave(self, ticket: int, busy: bool = False, rest_s: float = 0.0) -> None:
        """busy: the server said so, or did not answer in time. rest_s: how long it wants no request at all.

        What was sent before the last cut says nothing about the number since: a burst of refusals halves it once. And a number that was not
        reached does not grow: `used` requests have been under way together and not left yet.
        """
        with self._changed:
            full, self.used = self.used > 0, max(0, self.used - 1)
            self.under_way -= 1
            self.opens = max(self.opens, self.clock() + rest_s) if rest_s else self.opens
            if busy and ticket == self.cuts:
                self.cuts += 1
                self.limit = max(1.0, self.limit / 2)
            elif not busy and full:
                self.limit = min(float(self.most), self.limit + (1 / self.limit if self.cuts else 1.0))
            self._changed.notify_all()

    def wake(self) -> None:
        """Whoever waits looks again."""
        with self._changed:
            self._changed.notify_all()


def retry_after(headers: Mapping[str, str], now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float:
    """Seconds that a server asks to wait (RFC 9110, section 10.2.3: a number, or a date); 0 where it does not, or not so that it can be read."""
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            return max(0.0, float(headers[name]) / divisor)
    with suppress(KeyError, ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(headers["retry-after"]) - now()).total_seconds())
    return 0.0
