"""Rows and hands: where work is done. `here` is this process, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def map_parts(work: Callable[[A], B], parts: Iterable[A]) -> Iterator[B]:
    """work(part) for each part, in the parts' order."""
    for part in parts:
        yield work(part)
