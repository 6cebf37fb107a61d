"""Near-duplicates among short texts: ours (every pair found, decided by exact similarity) against datasketch's MinHash LSH."""

from __future__ import annotations

import csv
import json
import random
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from common import child, peak_bytes, quick, race

from seedbed.filters.dedup import near_duplicates
from seedbed.text import jaccard, normalise, shingles

THRESHOLD = 0.8
SAMPLE = 3000
LIMIT = 2e9
"""Bytes that a process with the texts and their judgement may hold at 1 M."""


def texts(count: int) -> list[str]:
    """Walks of 8 to 16 words over the example's pairs of neighbouring words; every tenth one a change of a word of an earlier text."""
    after: dict[str, list[str]] = defaultdict(list)
    with (Path(__file__).parent.parent / "examples/helpdesk.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            words = normalise(row["message"]).split()
            for word, following in pairwise(words):
                after[word].append(following)
    rng, vocabulary, made = random.Random(0), sorted(after), []
    for i in range(count):
        if i % 10 == 9:
            words = rng.choice(made).split()
            words[rng.randrange(len(words))] = rng.choice(vocabulary)
        else:
            words = [rng.choice(vocabulary)]
            for _ in range(rng.randint(7, 15)):
                words.append(rng.choice(after.get(words[-1], vocabulary)))
        made.append(" ".join(words))
    return made


def ours(rows: list[str]) -> list[bool]:
    return near_duplicates(rows, [""] * len(rows), THRESHOLD)


def peer(rows: list[str]) -> list[bool]:
    """datasketch as its documentation shows it, the shingles of seedbed, one bulk sketch; no exact comparison after it."""
    from datasketch import MinHash, MinHashLSH

    index, found = MinHashLSH(threshold=THRESHOLD, num_perm=128), []
    for start in range(0, len(rows), 10_000):
        sets = [[s.encode() for s in shingles(row)] for row in rows[start : start + 10_000]]
        for i, sketch in enumerate(MinHash.generator(sets, num_perm=128), start):
            found.append(bool(index.query(sketch)))
            if not found[-1]:
                index.insert(i, sketch, check_duplication=False)
    return found


def exact(rows: list[str]) -> list[bool]:
    kept: list[frozenset[str]] = []
    found = []
    for row in rows:
        own = shingles(row)
        found.append(any(jaccard(own, other) >= THRESHOLD for other in kept))
        if not found[-1]:
            kept.append(own)
    return found


def scores(found: list[bool], truth: list[bool]) -> str:
    hits = sum(f and t for f, t in zip(found, truth, strict=True))
    return f"recall {hits / sum(truth):.4f}, precision {hits / max(1, sum(found)):.4f}"


def main() -> None:
    rows = texts(20_000 if quick() else 1_000_000)
    truth = exact(rows[:SAMPLE])
    against = {"ours": scores(ours(rows[:SAMPLE]), truth), "peer": scores(peer(rows[:SAMPLE]), truth)}
    held = child(__file__, "--memory", str(len(rows)))["peak"]

    def check(a: list[bool], b: list[bool]) -> str:
        assert against["ours"] == "recall 1.0000, precision 1.0000", against
        assert held < LIMIT, f"{held / 1e9:.2f} GB"
        agree = sum(x == y for x, y in zip(a, b, strict=True)) / len(a)
        assert agree > 0.9, agree  # datasketch's own recall is what keeps it from 1
        exactly = f"against exact Jaccard on {SAMPLE} rows ({sum(truth)} near): {against}"
        return f"{sum(a)} of {len(a)} dropped, {sum(b)} by the peer, {agree:.4f} alike; {exactly}"

    race(
        "dedup",
        lambda: ours(rows),
        lambda: peer(rows),
        check,
        goal=12,
        rounds=5 if len(rows) < 10**6 else 3,
        rows=len(rows),
        exact=against,
        peak_bytes=held,
    )


if __name__ == "__main__":
    if "--memory" in sys.argv:
        ours(texts(int(sys.argv[2])))
        print(json.dumps({"peak": peak_bytes()}))
    else:
        main()
