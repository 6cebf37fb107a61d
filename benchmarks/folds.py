"""Is the gain that folds measure true? 30 to 120 real rows in five folds, "synthetic" rows whose worth is known from 2,000 other test rows.

`python benchmarks/folds.py --data DATA [--draws N] [--rows 30,60]`: SLURP's ten most frequent intents. In each draw n rows are the user's; the
synthetic ones are either copies of the fold's own training rows, or other real rows of which a share got a random label. For each: the mean gain
on those of the 2,000 rows whose label the draw tests, the mean that the folds gave, the share of draws whose interval held the former (95 % where
intervals are true), and how often a gain or a loss was called. Prints a table and, last, one JSON object; writes nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sets import Rows, each_once, rows_of

from seedbed.data import SampleSpec, load_sample
from seedbed.gain import FOLDS, measure_gain
from seedbed.stats import equal_draw, wilson
from seedbed.students.linear import Linear
from seedbed.task import Task
from seedbed.types import Example, Sample, seed_for

TASK = Task("classification", ("text",), "label")
STUDENT = Linear()
TIMES = 3
"""Synthetic rows for each row of the user."""
CASES = ("copies", "0", "0.4")
"""Copies of the training rows, or the share of other rows whose label is random."""


@dataclass(frozen=True)
class Drawn:
    """Of one draw: the folds' gain with its interval, and the gain on the large test of the same students."""

    mean: float
    low: float
    high: float
    true: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--rows", default="30,60")
    given = parser.parse_args()
    pool, test = pools(given.data)
    found = []
    print("| rows | synthetic | true gain | folds say | interval holds it | a gain | a loss |\n" + "|---" * 7 + "|")
    for n in map(int, given.rows.split(",")):
        for case in CASES:
            draws = [one(pool, test, n, case, seed_for(1, n, case, i)) for i in range(given.draws)]
            true = float(np.mean([d.true for d in draws]))
            held = sum(d.low <= true <= d.high for d in draws)
            low, high = wilson(held, len(draws))
            better, worse = (sum(sign * (d.low if sign > 0 else d.high) > 0 for d in draws) for sign in (1, -1))
            row = {"rows": n, "synthetic": case, "draws": len(draws), "true": true, "mean": float(np.mean([d.mean for d in draws])), "held": held}
            found.append(row | {"better": better, "worse": worse})
            share = f"{held / len(draws):.2f} ({low:.2f} to {high:.2f})"
            print(f"| {n} | {case} | {true:.1f} | {row['mean']:.1f} | {share} | {better / len(draws):.2f} | {worse / len(draws):.2f} |", flush=True)
    print(json.dumps(found))


def pools(data: Path) -> tuple[Rows, list[Example]]:
    splits = each_once({split: rows_of(data, "slurp", split) for split in ("test", "train")}, "text", 10**6)
    top = {label for label, _ in Counter(r["label"] for r in splits["train"]).most_common(10)}
    kept = {split: [{"text": r["text"], "label": r["label"]} for r in rows if r["label"] in top] for split, rows in splits.items()}
    # SLURP's test has some 800 rows of these labels: rows of train that no draw is made of fill it up.
    train = random.Random(0).sample(kept["train"], len(kept["train"]))
    lacking = max(0, 2000 - len(kept["test"]))
    return train[lacking:], [Example(f"t{i}", row) for i, row in enumerate(kept["test"] + train[:lacking])]


def one(pool: Rows, test: list[Example], n: int, case: str, seed: int) -> Drawn:
    drawn = random.Random(seed).sample(pool, n * (1 + TIMES))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in drawn[:n]), encoding="utf-8")
        sample = load_sample(SampleSpec(path="rows.jsonl", folds=FOLDS), TASK, seed, Path(folder))
    made = [synthetic(fold, drawn[n:], case, seed) for fold in sample.folds]
    gain = measure_gain(sample, [], STUDENT, seed, seeds=1, volumes=(), folds=made)
    assert gain.difference is not None, gain.note
    asked = {e.fields["label"] for e in sample.tested}  # a label of a single row is in no fold's test
    test = [e for e in test if e.fields["label"] in asked]
    real, both = (np.mean([right(fold, rows, test) for fold, rows in zip(sample.folds, sets, strict=True)]) for sets in ([[]] * FOLDS, made))
    return Drawn(gain.difference.mean, gain.difference.low, gain.difference.high, float(both - real))


def synthetic(fold: Sample, others: Rows, case: str, seed: int) -> list[Example]:
    if case == "copies":
        return [Example(f"n{i}", e.fields) for i, e in enumerate(equal_draw(fold.fit, len(fold.fit), seed))]
    rng, labels = random.Random(seed), sorted({row["label"] for row in others})
    return [Example(f"n{i}", row | {"label": rng.choice(labels)} if rng.random() < float(case) else row) for i, row in enumerate(others)]


def right(fold: Sample, more: list[Example], test: list[Example]) -> float:
    """Points on the large test of a student of the fold's training rows and these."""
    said = STUDENT.learn(fold.task, [*fold.fit, *more], fold.dev, 0).predict(test)
    return 100 * float(np.mean([p == e.fields["label"] for p, e in zip(said, test, strict=True)]))


if __name__ == "__main__":
    main()
