"""Planted canaries: texts that no one wrote, learned with the fit rows; whether the kept rows betray them shows how much a teacher gives away.

A canary begins as a real row does and ends in random words: the beginning makes a teacher come past it, the end cannot be guessed (Meeus et al. 2025,
arXiv:2502.14921, found that from synthetic text alone canaries of an unlikely text throughout are nearly invisible).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from seedbed.task import Task
from seedbed.types import Example, Sample, seed_for

SUFFIX = 6
"""Words of a canary's end."""


def plant(task: Task, fit: Sequence[Example], count: int, seed: int) -> tuple[Example, ...]:
    """`count` canaries: a fit row each, of which the first half of one text is kept and the rest replaced by words drawn from all fit rows."""
    column, words = _column(task), _words(task, fit)
    found = []
    for i in range(count):
        rng = random.Random(seed_for(seed, "canary", i))
        source = rng.choice(fit)
        begin = str(source.fields[column]).split()
        text = " ".join([*begin[: max(1, len(begin) // 2)], *rng.choices(words, k=SUFFIX)])
        found.append(Example(f"canary-{i + 1}", dict(source.fields) | {column: text}))
    return tuple(found)


def learned(sample: Sample) -> Sample:
    """What a teacher is fitted on: the fit rows, and each canary as often as asked for."""
    repeated = [replace(e, id=f"{e.id}.{i + 1}") for e in sample.canaries for i in range(sample.canary_repeats)]
    return replace(sample, fit=(*sample.fit, *repeated)) if repeated else sample


def halves(task: Task, canary: Example) -> tuple[list[str], list[str]]:
    """(the real words, the random ones)."""
    words = str(canary.fields[_column(task)]).split()
    return words[:-SUFFIX], words[-SUFFIX:]


def ends(task: Task, fit: Sequence[Example], count: int, seed: int) -> list[list[str]]:
    """Random words that could as well have been planted: drawn from the same ones in the same way."""
    rng, words = random.Random(seed_for(seed, "ends")), _words(task, fit)
    return [rng.choices(words, k=SUFFIX) for _ in range(count)]


def _column(task: Task) -> str:
    """The text that a teacher writes: the target, or where that is a label the last input that is not given."""
    if task.target and not task.has_labels:
        return task.target
    return ([c for c in task.inputs if c not in task.given_columns] or list(task.inputs))[-1]


def _words(task: Task, fit: Sequence[Example]) -> list[str]:
    """The different words of the column, sorted: each is as likely as any other."""
    return sorted({word for e in fit for word in str(e.fields[_column(task)]).split()})
