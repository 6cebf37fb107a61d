"""How much of an evaluation set stands in the training corpus, counted in runs of 13 words (Brown et al. 2020, appendix C).

    python pretrain/overlap.py CORPUS EVALDATA

CORPUS holds `part-*.txt.xz`. EVALDATA is a folder of sets, each `<name>/<split>.jsonl.gz`, or one `.txt` file whose rows are its lines.
Words are lower-cased, without punctuation; a run lies within one field of a row and within one document. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from corpus import documents

N = 13  # words
WORD = re.compile(r"[^\W_]+")
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses no bits
CHUNK = 20_000  # documents hashed at once: about 1.8 M words, 60 MB


@dataclass(frozen=True)
class Overlap:
    """rows of a set; long: those with a run of 13 words at all; shared: those with a run that the corpus has too."""

    name: str
    rows: int
    long: int
    shared: int


def grams(texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """uint64 (m,): a hash of every run of 13 words within one text; int32 (m,): the index of its text."""
    hashes: list[int] = []
    counts: list[int] = []
    for text in texts:
        words = WORD.findall(text.lower().replace("'", "").replace("\u2019", ""))
        hashes.extend(map(hash, words))
        counts.append(len(words))
    word = np.array(hashes, dtype=np.int64).view(np.uint64)
    owner = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    total = max(0, len(word) - N + 1)
    rolled = np.zeros(total, dtype=np.uint64)
    for i in range(N):  # the polynomial hash of the run, modulo 2^64
        rolled = rolled * FACTOR + word[i : i + total]
    whole = owner[:total] == owner[N - 1 :] if total else np.zeros(0, dtype=bool)
    return rolled[whole], owner[:total][whole]


def strings(value: object) -> Iterator[str]:
    """Every string in a JSON value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from chain.from_iterable(map(strings, value.values()))
    elif isinstance(value, list):
        yield from chain.from_iterable(map(strings, value))


def rows_of(place: Path) -> dict[str, Iterator[list[str]]]:
    """The texts of every row, by the name of the set."""
    if place.is_file():
        return {place.name: ([line] for line in place.read_text(encoding="utf-8").splitlines() if line.strip())}
    return {folder.name: _set_rows(folder) for folder in sorted(p for p in place.iterdir() if p.is_dir())}


def _set_rows(folder: Path) -> Iterator[list[str]]:
    for split in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(split, "rt", encoding="utf-8") as file:
            for line in file:
                yield list(strings(json.loads(line)))


def overlaps(corpus: Path, place: Path) -> list[Overlap]:
    """One record a set, in name order, then the training parts' share of each."""
    sets: dict[str, tuple[int, np.ndarray, np.ndarray]] = {}  # name: rows, hashes, the row of each hash
    for name, rows in rows_of(place).items():
        texts: list[str] = []
        row_of: list[int] = []
        count = 0
        for count, row in enumerate(rows, start=1):
            texts += row
            row_of += [count - 1] * len(row)
        hashes, owner = grams(texts)
        sets[name] = (count, hashes, np.array(row_of, dtype=np.int32)[owner])
    wanted = np.unique(np.concatenate([hashes for _, hashes, _ in sets.values()]))
    met = np.zeros(len(wanted), dtype=bool)
    stream = chain.from_iterable(documents(part) for part in sorted(corpus.glob("part-*.txt.xz")))
    while chunk := list(islice(stream, CHUNK)):
        seen = grams(chunk)[0]
        at = np.searchsorted(wanted, seen).clip(max=len(wanted) - 1)
        met[at[wanted[at] == seen]] = True
    found = wanted[met]
    return [
        Overlap(name, count, len(np.unique(owner)), len(np.unique(owner[np.isin(hashes, found)]))) for name, (count, hashes, owner) in sets.items()
    ]


def table(found: list[Overlap]) -> str:
    """Markdown, one row a set."""
    lines = [f"| set | rows | of {N} words or more | sharing a run with the corpus | share of all rows |", "|---|---|---|---|---|"]
    lines += [f"| {o.name} | {o.rows:,} | {o.long:,} | {o.shared:,} | {100 * o.shared / max(1, o.rows):.2f} % |" for o in found]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("evaldata", type=Path)
    args = parser.parse_args()
    print(table(overlaps(args.corpus, args.evaldata)))


if __name__ == "__main__":
    main()
