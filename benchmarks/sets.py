"""Real sets as files that a recipe's [sample] names."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


def rows_of(data: Path, name: str, split: str) -> Rows:
    with gzip.open(data / name / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def each_once(splits: Mapping[str, Sequence[dict[str, Any]]], column: str, most: int) -> dict[str, Rows]:
    """Each text stands once, in the first split that has it: train comes last, so that no text is learned that is judged by. Of the others at
    most so many rows, drawn the same each time."""
    found, seen = {}, set[str]()
    for split, rows in splits.items():
        first = []
        for row in rows:
            if row[column] not in seen:
                seen.add(row[column])
                first.append(row)
        found[split] = random.Random(0).sample(first, most) if split != "train" and len(first) > most else first
    return found


def written(work: Path, name: str, splits: Mapping[str, Rows]) -> dict[str, str]:
    """The files of a [sample]; train is its fit."""
    work.mkdir(parents=True, exist_ok=True)
    found = {}
    for split, rows in splits.items():
        path = work / f"{name}-{split}.jsonl"
        path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
        found["fit" if split == "train" else split] = str(path)
    return found
