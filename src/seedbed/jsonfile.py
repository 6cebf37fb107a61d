"""The rows of a JSON file that is one value, each with the line it begins at."""

from __future__ import annotations

import json
import re
from typing import Any

WHITE = re.compile(r"[ \t\n\r]*")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a key that stands twice would lose a value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"an object with the key {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_once)
Items = list[tuple[int, Any]]
"""(offset, value) of each item of a list."""


def rows_of(text: str) -> list[tuple[Any, int]]:
    """(value, line from 1) of each item of a list; of an object, of that one of its values that is a list of objects.

    Raises json.JSONDecodeError for broken JSON, ValueError where an object holds no such list, or several.
    """
    start = _skip(text, 0)
    if text.startswith("{", start):
        lists, end = _object(text, start)
        found = {name: items for name, items in lists.items() if items and all(isinstance(value, dict) for _, value in items)}
    else:
        items, end = _list(text, start)
        found = {"": items}
    if _skip(text, end) < len(text):
        raise json.JSONDecodeError("Extra data", text, _skip(text, end))
    if len(found) != 1:
        raise ValueError(f"an object must hold one list of objects. Got {len(found)}{': ' * bool(found)}{', '.join(found)}")
    rows, line, before = [], 1, 0
    for offset, value in next(iter(found.values())):
        line += text.count("\n", before, offset)
        before = offset
        rows.append((value, line))
    return rows


def _skip(text: str, at: int) -> int:
    """Where the white space from `at` on ends."""
    found = WHITE.match(text, at)
    assert found is not None  # the pattern matches nothing, too
    return found.end()


def _after(text: str, at: int, close: str) -> tuple[int, bool]:
    """(the offset behind a comma, False) or (the offset behind the closing sign, True)."""
    at = _skip(text, at)
    if text.startswith((",", close), at):
        return at + 1, text[at] == close
    raise json.JSONDecodeError(f"Expecting ',' or {close!r}", text, at)


def _list(text: str, at: int) -> tuple[Items, int]:
    """The items of the list that begins at `at`, and where it ends."""
    if not text.startswith("[", at):
        raise json.JSONDecodeError("Expecting a list or an object", text, at)
    at, items, done = at + 1, Items(), False
    if text.startswith("]", _skip(text, at)):
        return items, _skip(text, at) + 1
    while not done:
        start = _skip(text, at)
        value, at = DECODER.raw_decode(text, start)
        items.append((start, value))
        at, done = _after(text, at, "]")
    return items, at


def _object(text: str, at: int) -> tuple[dict[str, Items], int]:
    """The lists among the values of the object that begins at `at`, and where it ends."""
    at, lists, done = at + 1, dict[str, Items](), False
    if text.startswith("}", _skip(text, at)):
        return lists, _skip(text, at) + 1
    while not done:
        at = _skip(text, at)
        if not text.startswith('"', at):
            raise json.JSONDecodeError("Expecting a name in double quotes", text, at)
        name, at = DECODER.raw_decode(text, at)
        at = _skip(text, at)
        if not text.startswith(":", at):
            raise json.JSONDecodeError("Expecting ':'", text, at)
        at = _skip(text, at + 1)
        if text.startswith("[", at):
            lists[name], at = _list(text, at)
        else:
            lists.pop(name, None)  # of a name that stands twice the last one counts, as json has it
            _, at = DECODER.raw_decode(text, at)
        at, done = _after(text, at, "}")
    return lists, at
