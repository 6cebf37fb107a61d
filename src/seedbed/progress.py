"""Progress on standard error: a bar with time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Update = Callable[[float, str], None]
"""update(done, note): how many of `total` are done, and a short remark."""
PLAIN_EVERY_S = 10.0
_PART: ContextVar[str] = ContextVar("part", default="")


@contextmanager
def within(part: str) -> Iterator[None]:
    """Names the part of a longer work that the activities in it belong to, such as "fold 2 of 5"; "": none."""
    token = _PART.set(f"{part}, " if part else "")
    try:
        yield
    finally:
        _PART.reset(token)


@contextmanager
def bar(label: str, total: float) -> Iterator[Update]:
    """Shows one activity; `total` in any unit."""
    label = _PART.get() + label
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description:>12}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            shown = progress.add_task(label, total=total, note="")

            def move(done: float, note: str = "") -> None:
                progress.update(shown, completed=done, note=note)

            yield move
        return
    start = last = time.monotonic()

    def line(done: float, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < PLAIN_EVERY_S:
            return
        last = now
        left = (now - start) * (total - done) / done if done else float("nan")
        remaining = f", about {left:.0f} s left" if left == left else ""
        print(f"{label}: {done:,.0f} of {total:,.0f} {note}{remaining}", file=sys.stderr, flush=True)

    yield line
