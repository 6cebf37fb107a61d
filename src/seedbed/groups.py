"""Groups of people, as the user names them: by words of a text, or by a column's values. The bias audit and the filter `balance` read this."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from seedbed.task import Task
from seedbed.text import body
from seedbed.types import Example, Fields

NONE, SEVERAL = "(none)", "(several)"
"""Of a text that names no group, and of one that names more than one."""


@dataclass(frozen=True)
class Groups:
    """words: group -> its words, found whole and in any case; the i-th words of two groups stand for each other when groups are swapped.
    column: its values are the groups instead."""

    words: Mapping[str, Sequence[str]]
    column: str = ""

    def names(self, rows: Iterable[Example]) -> list[str]:
        """The groups that rows are counted by; of a column, its values in `rows`."""
        if not self.column:
            return list(self.words)
        return sorted({str(e.fields.get(self.column, "")) for e in rows})

    def of(self, task: Task, fields: Fields) -> str:
        """The group that a row names: NONE, SEVERAL, or one of them."""
        if self.column:
            return str(fields.get(self.column, NONE))
        found = {self._named(match)[0] for match in self._pattern.finditer(body(task, fields))}
        return SEVERAL if len(found) > 1 else found.pop() if found else NONE

    def swaps(self, fields: Fields, columns: Sequence[str]) -> list[dict[str, object]]:
        """The row once for each other group, with the words of its own replaced in these columns; [] where it names no group, or several."""
        texts = {c: str(fields[c]) for c in columns}
        own = {self._named(match)[0] for text in texts.values() for match in self._pattern.finditer(text)}
        if len(own) != 1:
            return []
        name = own.pop()
        made = []
        for other in self.words:
            if other != name:
                new = self.words[other]
                swapped = {c: self._pattern.sub(lambda m, new=new: _cased(new[self._named(m)[1]], m[0]), t) for c, t in texts.items()}  # type: ignore[misc]
                made.append(dict(fields) | swapped)
        return made

    def why_not_swapped(self) -> str:
        """The reason why words of one group cannot stand for those of another, or ""."""
        if self.column:
            return "groups are a column's values, not words of a text"
        lengths = {name: len(words) for name, words in self.words.items()}
        return f"groups have unlike numbers of words, {lengths}; write them in pairs" if len(set(lengths.values())) > 1 else ""

    @cached_property
    def _places(self) -> list[tuple[str, str, int]]:
        """(word, its group, its place there), the longest word first."""
        found = [(word, name, i) for name, words in self.words.items() for i, word in enumerate(words)]
        return sorted(found, key=lambda place: len(place[0]), reverse=True)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """A group of the expression for each word: that which matched in any case need not be it in lower case (s and \u017f, i and \u0131)."""
        return re.compile(rf"(?<!\w)(?:{'|'.join(f'({re.escape(word)})' for word, _, _ in self._places)})(?!\w)", re.I)

    def _named(self, match: re.Match[str]) -> tuple[str, int]:
        """(the group of the word that was found, the word's place there)."""
        _, name, place = self._places[(match.lastindex or 1) - 1]
        return name, place


def problems(words: Mapping[str, Sequence[str]], column: str) -> list[str]:
    """What is wrong with groups as a recipe gives them."""
    if bool(words) == bool(column):
        return ['needs groups = {women = ["she", "her"], men = ["he", "him"]}, or column = "..." whose values are the groups; one of the two']
    found = [f"group {name!r} needs words" for name, listed in words.items() if not listed or not all(w.strip() for w in listed)]
    owners: dict[str, str] = {}
    for name, listed in words.items():
        for word in map(str.lower, listed):
            if owners.setdefault(word, name) != name:
                found.append(f"the word {word!r} is of two groups, {owners[word]!r} and {name!r}")
    if words and len(words) < 2:
        found.append(f"groups needs two groups or more. Got {list(words)}")
    if any(name in (NONE, SEVERAL) or ":" in name for name in words):
        found.append("a group's name must not hold a colon, and not be (none) or (several)")
    return found


def _cased(word: str, like: str) -> str:
    return word.upper() if len(like) > 1 and like.isupper() else word.capitalize() if like[:1].isupper() else word


def grouped(groups: Groups, task: Task, rows: Sequence[Example]) -> list[str]:
    return [groups.of(task, e.fields) for e in rows]
