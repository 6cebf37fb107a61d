"""What a text says of its data: which words of a row's lists a text names, held against what the texts of real rows name of theirs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from seedbed.task import Task
from seedbed.text import words
from seedbed.types import Fields

TOLD = 0.5
"""A place in the data is told where real texts name at least this share of its words: subjects and objects, but not what relates them."""
LEAST = 0.1
"""Share of real rows that may name less of their data than a text has to."""

Place = tuple[str | int, ...]


class Naming:
    """Learns from real rows of a data2text task, one or more, which places of the data their texts name, and how much of it.

    A place is the column and the keys and positions within an item of its list: the first, second and third of each triple, or the slot and the
    values of each dialogue act. least: share of told words, in [0, 1], that nine of ten real texts name.
    """

    def __init__(self, task: Task, rows: Sequence[Fields]) -> None:
        self.task = task
        counts: dict[Place, list[int]] = defaultdict(lambda: [0, 0])
        for fields in rows:
            said = self._said(fields)
            for place, word in self._words(fields):
                counts[place][0] += word in said
                counts[place][1] += 1
        self.told = {place for place, (named, every) in counts.items() if named >= TOLD * every}
        shares = sorted(share for fields in rows if (share := self.share(fields)) is not None)
        self.least = shares[int(LEAST * len(shares))] if shares else 0.0

    def share(self, fields: Fields) -> float | None:
        """Of the different words at told places, the share that the text names; None where there are none."""
        asked, said = {word for place, word in self._words(fields) if place in self.told}, self._said(fields)
        return len(asked & said) / len(asked) if asked else None

    def _said(self, fields: Fields) -> set[str]:
        return set(words(str(fields[str(self.task.target)])))

    def _words(self, fields: Fields) -> Iterator[tuple[Place, str]]:
        for column in self.task.inputs:
            for item in fields[column]:
                for place, text in _leaves(item, (column,)):
                    yield from ((place, word) for word in words(text.replace("_", " ")))


def _leaves(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, (*place, str(key)))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _leaves(part, (*place, i))
    elif value is not None:
        yield place, str(value)
