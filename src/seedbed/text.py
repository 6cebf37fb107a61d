"""How texts are compared: what counts as the same, as nearly the same, and as a shared run of words. Filters and metrics both read this."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from seedbed.task import Task
    from seedbed.types import Fields, Sample

SHINGLE = 5
"""Characters of a shingle. Letters and not words, so that texts of a few words still have a graded similarity."""
Split = Literal["test", "dev", "fit", "other"]
SPLITS: tuple[Split, ...] = ("test", "dev", "fit", "other")
"""Where a real row stands, the gravest place to copy from first; "other" is `pool` and `more`."""


class _Signs(dict[int, str]):
    """Code point -> what stands for it: letters, marks, numbers and pictures; each Han or kana sign as a word of its own; else a space."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        kept = category[0] in "LMN" or category == "So"
        self[code] = f" {char} " if kept and "\u3040" <= char <= "\u9fff" else char if kept else " "
        return self[code]


_signs = _Signs()


def normalise(text: str) -> str:
    """Casefolded (Unicode NFKC), punctuation and white space each turned into one space; idempotent.

    A text that holds nothing but punctuation keeps it, so that "?" and "!" differ. "" is the form of blank texts alone.
    """
    folded = text.casefold() if text.isascii() else unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.translate(_signs).split()) or " ".join(folded.split())


def words(text: str) -> list[str]:
    """The words of the normalised text."""
    return normalise(text).split()


def shingles(text: str, size: int = SHINGLE) -> frozenset[str]:
    """Runs of `size` characters of the normalised text; the whole of a shorter one, and nothing of a blank one."""
    plain = normalise(text)
    return frozenset(plain[i : i + size] for i in range(max(1, len(plain) - size + 1))) if plain else frozenset()


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """|a and b| / |a or b| in [0, 1]; 0 for two empty sets."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if shared else 0.0


def word_runs(text: str, length: int) -> list[str]:
    """Every run of `length` words of the text, in order; none of a shorter text."""
    found = words(text)
    return [" ".join(found[i : i + length]) for i in range(len(found) - length + 1)]


def body(task: Task, fields: Fields) -> str:
    """`task.body` of a row that may lack columns, as rows of the pool do; a missing one is blank."""
    return task.body(dict.fromkeys(task.columns, "") | dict(fields))


def real_texts(sample: Sample) -> Iterator[tuple[Split, str, str]]:
    """(split, id, text) of every real row's body, in the order of SPLITS; a row with several reference texts gives each."""
    task = sample.task
    rows = {"test": sample.test, "dev": sample.dev, "fit": sample.fit, "other": (*sample.pool, *sample.more)}
    for split in SPLITS:
        for example in rows[split]:
            yield split, example.id, body(task, example.fields)
            for reference in example.fields.get(task.references or "", ()):
                yield split, example.id, body(task, dict(example.fields) | {str(task.target): reference})


def longest_runs(texts: Sequence[str], others: Sequence[str]) -> list[int]:
    """For each text, the words of the longest run that it shares with any of `others`.

    Joint suffix array by prefix doubling (Manber and Myers 1993): O(n log^2 n) for n words in all.
    """
    import numpy as np

    numbers: dict[str, int] = {}
    sequence: list[int] = []
    owner: list[int] = []
    for text, content in enumerate([*texts, *others]):
        ids = [numbers.setdefault(word, len(numbers)) for word in words(content)]
        sequence += [*ids, -1 - text]  # an end that stands nowhere else: no run goes past it
        owner += [text] * (len(ids) + 1)
    if not sequence:
        return []
    n = len(sequence)
    levels = [np.unique(np.array(sequence), return_inverse=True)[1]]
    while int(levels[-1].max()) < n - 1:  # levels[j][i]: the rank of the 2^j words from i; all differ at the last
        width = 2 ** (len(levels) - 1)
        after = np.concatenate([levels[-1][width:] + 1, np.zeros(min(width, n), dtype=np.int64)])
        levels.append(np.unique(levels[-1] * (n + 1) + after, return_inverse=True)[1])
    order = np.argsort(levels[-1])
    a, b, shared = order[:-1], order[1:], np.zeros(n - 1, dtype=np.int64)
    for level in range(len(levels) - 1, -1, -1):
        equal = levels[level][a] == levels[level][b]
        step = equal * 2**level
        a, b, shared = a + step, b + step, shared + step
    return _longest(np.array(owner)[order].tolist(), shared.tolist(), len(texts))


def _longest(owners: Sequence[int], shared: Sequence[int], count: int) -> list[int]:
    """The best shared run of each of the first `count` owners with any later one; shared[i]: words common to suffixes i and i + 1.

    The suffix of another text with most in common is the nearest one before or after, and what lies between limits what is shared.
    """
    best = [0] * count
    for places, gaps in ((owners, shared), (owners[::-1], shared[::-1])):
        reach = 0
        for place, gap in zip(places, (0, *gaps), strict=True):
            reach = min(reach, gap)
            if place >= count:
                reach = len(owners)
            else:
                best[place] = max(best[place], reach)
    return best


def alike(a: Sequence[object], b: Sequence[object]) -> int:
    """Number of leading items in which a and b are equal."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
