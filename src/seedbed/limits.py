"""What one call may spend before it has to come to an end with what is there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

FIT_SHARE, GENERATE_SHARE = 0.5, 0.6
"""Of the time left: what a fit, and after it generating, may take. The rest is for filters, scores and the report, which are not cut short."""


@dataclass(frozen=True)
class Deadline:
    """A moment at which work ends with the best so far. at: seconds of `clock`; infinity: never."""

    at: float = math.inf
    clock: Callable[[], float] = time.monotonic

    def over(self) -> bool:
        return self.clock() >= self.at

    def share(self, part: float) -> Deadline:
        """The deadline of a piece of work that may take `part`, in (0, 1], of the time left."""
        now = self.clock()
        return Deadline(now + part * (self.at - now), self.clock)

    def left(self) -> float:
        """Seconds."""
        return max(0.0, self.at - self.clock())


NEVER = Deadline()
STOPPED = "stopped at a limit"
"""The problem of a completion that is not one: the deadline was over before its request was sent, or sent again. Its row is asked for later."""


def ended_by(session: Any, deadline: Deadline) -> Any:
    """The session, which at the deadline gives up what waits for a server: only such a session has an `until`."""
    until = getattr(session, "until", None)
    return until(deadline) if until else session


@dataclass(frozen=True)
class Limits:
    """minutes: of one call of `run`, above 0. tokens: that the engine may generate in one call, 1 or more. cost: money that engines with a price may
    cost in one call, above 0. None: no limit."""

    minutes: float | None = None
    tokens: int | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"a limit of minutes must be above 0. Got {self.minutes}.")
        if self.tokens is not None and self.tokens < 1:
            raise ValueError(f"a limit of tokens must be 1 or more. Got {self.tokens}.")
        if self.cost is not None and not self.cost > 0:
            raise ValueError(f"a limit of money must be above 0. Got {self.cost}.")

    def deadline(self) -> Deadline:
        """Of a call that starts now."""
        return NEVER if self.minutes is None else Deadline(time.monotonic() + 60 * self.minutes)

    def left(self, deadline: Deadline, tokens: int) -> Limits | None:
        """What is left of them, None where that is nothing. deadline: of the call. tokens: generated so far in it."""
        minutes = None if self.minutes is None else deadline.left() / 60
        rest = None if self.tokens is None else self.tokens - tokens
        return Limits(minutes, rest, self.cost) if (minutes is None or minutes > 0) and (rest is None or rest > 0) else None

    def __str__(self) -> str:
        given = [f"--max-minutes {self.minutes:g}"] if self.minutes is not None else []
        given += [f"--max-tokens {self.tokens}"] if self.tokens is not None else []
        return " or ".join(given + ([f"--max-cost {self.cost:g}"] if self.cost is not None else []))

    def cut(self, rows: int, of: int, fit: Mapping[str, Any]) -> dict[str, Any]:
        """What scores.json and manifest.json hold more where a limit cut the run: nothing when it did not. fit: form -> {"step", "of"}."""
        return {"cut": {"limits": str(self), "rows": rows, "of": of, "fit": dict(fit)}} if fit or rows < of else {}


UNLIMITED = Limits()


def said(cut: Mapping[str, Any]) -> str:
    """What `Limits.cut` added, as a sentence to stand after another; "" for a whole run."""
    if "cut" not in cut:
        return ""
    what = cut["cut"]
    where = f" of fold {what['fold']}" if "fold" in what else ""
    fits = "".join(f", the fit of {form} at step {at['step']} of at most {at['of']}" for form, at in what["fit"].items())
    return f". Stopped at {what['limits']}: {what['rows']} of {what['of']} rows{where}{fits}; the same command without the limit goes on"


class Purse:
    """Money that one call may still spend. What a completion can cost at most is held until what it did cost is known."""

    def __init__(self, money: float | None = None, spent: float = 0.0) -> None:
        """money None: no limit. spent: by earlier calls; goes on counting."""
        self.money = self.left = math.inf if money is None else money
        self.spent = spent

    def hold(self, most: float) -> bool:
        """Whether so much is there; it is then held."""
        if self.left < most:
            return False
        self.left -= most
        return True

    def settle(self, held: float, cost: float) -> None:
        self.left += held - cost
        self.spent += cost


class Allowance:
    """Hands out a budget of tokens and money to rows: a row starts only if all rows under way can end at their longest. tokens None: no limit."""

    def __init__(self, longest: int, tokens: int | None = None, deadline: Deadline = NEVER, purse: Purse | None = None) -> None:
        """longest: tokens of one completion at most."""
        self.longest, self.left, self.deadline = longest, math.inf if tokens is None else tokens, deadline
        self.purse = purse or Purse()
        self.started = 0

    def start(self, most: float = 0.0) -> bool:
        """Whether one more completion may start; it then holds back its longest length, and the money that it can cost, until `end`."""
        if self.left < self.longest or self.deadline.over() or not self.purse.hold(most):
            return False
        self.left -= self.longest
        self.started += 1
        return True

    def end(self, tokens: int, most: float = 0.0, cost: float = 0.0) -> None:
        """most: as at its start. cost: what was paid for it."""
        self.left += self.longest - tokens
        self.purse.settle(most, cost)


class Hours:
    """What is left of the hours of a call that makes many runs; None: no end."""

    def __init__(self, hours: float | None) -> None:
        self.hours, self.end = hours, math.inf if hours is None else time.monotonic() + 3600 * hours

    def over(self) -> bool:
        return time.monotonic() >= self.end

    def limits(self) -> Limits:
        """Of the next run."""
        return Limits() if self.hours is None else Limits(minutes=max(1e-3, (self.end - time.monotonic()) / 60))

    def __str__(self) -> str:
        return "" if self.hours is None else f"stopped at --hours {self.hours:g}; the same command goes on"
