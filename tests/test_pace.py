"""The number of requests under way follows what a server bears; times come from a clock of the test, and nobody waits."""

from __future__ import annotations

import math
import threading
from datetime import UTC, datetime

import pytest

from seedbed.pace import START, Pace, retry_after


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def paced(most: int) -> tuple[Pace, Clock]:
    clock = Clock()
    return Pace(most, clock), clock


def entered(pace: Pace) -> int:
    ticket = pace.enter(threading.Event())
    assert ticket is not None
    return ticket


def fill(pace: Pace) -> list[int]:
    return [entered(pace) for _ in range(int(pace.limit) - pace.under_way)]


def test_it_starts_low_doubles_each_round_and_never_passes_the_most() -> None:
    pace, _ = paced(100)
    seen = []
    for _ in range(6):
        seen.append(int(pace.limit))
        for ticket in fill(pace):
            pace.leave(ticket)
    assert seen[:2] == [START, 2 * START] and seen == sorted(seen) and seen[-1] == 100
    assert paced(3)[0].limit == 3


def test_a_busy_server_halves_it_once_a_burst_and_then_it_grows_by_one_a_round() -> None:
    pace, _ = paced(64)
    for _ in range(4):
        for ticket in fill(pace):
            pace.leave(ticket)
    assert pace.limit == 64
    burst = fill(pace)
    for ticket in burst:
        pace.leave(ticket, busy=True)
    assert (pace.limit, pace.under_way, pace.cuts) == (32, 0, 1)
    for ticket in fill(pace):
        pace.leave(ticket)
    assert 32.5 < pace.limit <= 33
    for _ in range(20):
        pace.leave(entered(pace), busy=True)
    assert pace.limit == 1, "one request is always allowed"


def test_a_number_that_nobody_uses_does_not_grow() -> None:
    pace, _ = paced(64)
    for _ in range(50):
        pace.leave(entered(pace))
    assert pace.limit == START


def test_nobody_enters_while_the_server_rests_or_all_places_are_taken() -> None:
    pace, clock = paced(2)
    first, second = fill(pace)
    assert pace.wait() == math.inf
    pace.leave(first, busy=True, rest_s=7.0)
    assert pace.wait() == math.inf, "one is allowed now, and one is under way"
    pace.leave(second)
    assert pace.wait() == 7.0
    pace.opens = max(pace.opens, 103.0)
    clock.now = 106.5
    assert pace.wait() == 0.5
    clock.now = 107.0
    assert pace.wait() == 0.0
    stop = threading.Event()
    stop.set()
    assert pace.enter(stop) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Wed, 25 Nov 2026 03:00:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 25 Nov 2026 02:59:00 GMT"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, 0.0),
        ({"retry-after": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_both_forms_of_retry_after_are_read(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(headers, lambda: datetime(2026, 11, 25, 3, 0, tzinfo=UTC)) == seconds
