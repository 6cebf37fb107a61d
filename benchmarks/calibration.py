"""Are the metrics' p-values and intervals true? Real rows in the place of kept ones must raise no alarm, planted faults must be found.

`python benchmarks/calibration.py [--quick] [--draws N] [--rows N] [--seed N] [--only KIND,...]`; --draws 0: planted faults alone. Real rows: SLURP
and GSM8K questions, from the folder that SEEDBED_SHARED names or `../shared` beside the checkout. Prints tables, writes nothing; the last line
is one JSON object; exit status 1 where a bound is passed.

Null: three disjoint random sets of rows of one pool stand for kept, test and fit. Given the rows, who is kept is random, so that every p is
exact and the draws are independent: alarms (p <= 0.01) of N draws are Binomial(N, 0.01) at most. Bound: the smallest b with
P(X > b) < 0.01 / number of p-values. KS: Kolmogorov and Smirnov's test against p-values that are too small. Interval: the share of draws whose
interval holds the mean of all draws, 95 % where intervals are true. Planted: a fault of known size; how often its p is an alarm, and how often
the interval holds the size.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom, kstest

from seedbed.metrics.coverage import Coverage
from seedbed.metrics.diversity import Diversity
from seedbed.metrics.frechet import Frechet
from seedbed.metrics.labels import Labels
from seedbed.metrics.marginals import Marginals
from seedbed.metrics.mauve import Mauve
from seedbed.metrics.memorisation import Memorisation
from seedbed.stats import ALARM
from seedbed.task import Task
from seedbed.text import words
from seedbed.types import Example, Measure, Sample, seed_for

METRICS = (Mauve(draws=1), Diversity(draws=1), Coverage(draws=1), Memorisation(), Frechet(draws=1), Marginals(draws=1), Labels(draws=1))
"""One draw: a p is of the first draw alone."""
MAUVE, DIVERSITY, COVERAGE, MEMORISATION, FRECHET, MARGINALS, LABELS = METRICS
POOL = 2000
SAME = "the real rows themselves"
"""The one plant that is no fault: no alarm is right."""
Pool = list[dict[str, Any]]
Metrics = tuple[Any, ...]
Sizes = dict[str, float | None]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 draws of 100 rows, from pools of 400: the program works; too few to judge by")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--rows", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="kinds of metric, separated by commas")
    args = parser.parse_args()
    metrics = tuple(m for m in METRICS if not args.only or type(m).__name__.lower() in args.only.split(","))
    draws, n, size, times = (5, 100, 400, 2) if args.quick else (args.draws, args.rows, POOL, 20)
    start = time.monotonic()
    pools = {"slurp": load("slurp", "text", size, args.seed), "gsm8k": load("gsm8k", "question", size, args.seed)}
    null = {name: nulls(name, pool, draws, n, args.seed, metrics) for name, pool in pools.items()} if draws else {}
    plants = planted(pools, times, n, args.seed, metrics)
    failed = [row for rows in null.values() for row in rows if not row["good"]] + [row for row in plants if not row["good"]]
    found = {"rows": n, "draws": draws, "null": null, "planted": plants, "failed": len(failed), "seconds": round(time.monotonic() - start)}
    print(json.dumps(found))
    return 1 if failed else 0


def load(name: str, column: str, size: int | None, seed: int) -> Pool:
    """`size` random train rows of different texts (None: all), each {"text"} and, where there is one, {"label"}."""
    shared = Path(os.environ.get("SEEDBED_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    with gzip.open(shared / "data" / name / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = {row[column]: {"text": row[column], "label": row.get("label", "")} for row in map(json.loads, file)}
    return random.Random(seed_for(seed, name)).sample(list(rows.values()), size or len(rows))


def measured(kept: Pool, test: Pool, fit: Pool, seed: int, metrics: Metrics = METRICS) -> dict[str, Measure]:
    labelled = all(row["label"] for row in fit)
    task = Task("classification", ("text",), "label") if labelled else Task("plain", ("text",))
    parts = [tuple(Example(f"{name}{i}", row) for i, row in enumerate(side)) for name, side in (("k", kept), ("t", test), ("f", fit))]
    return {m.name: m for metric in metrics for m in metric.measure(Sample(task, parts[2], (), parts[1]), parts[0], seed)}


def sides(pool: Pool, n: int, seed: int) -> tuple[Pool, Pool, Pool]:
    drawn = random.Random(seed).sample(pool, 3 * n)
    return drawn[:n], drawn[n : 2 * n], drawn[2 * n :]


def nulls(name: str, pool: Pool, draws: int, n: int, seed: int, metrics: Metrics) -> list[dict[str, Any]]:
    """One row for each measure that has a value; prints them."""
    runs = []
    for i in range(draws):
        runs.append(measured(*sides(pool, n, seed_for(seed, name, i)), seed_for(seed, name, "measure", i), metrics))
        print(f"{name}: draw {i + 1} of {draws}", file=sys.stderr, flush=True)
    names = [m for m in runs[0] if runs[0][m].value is not None]
    tests = sum(runs[0][m].p is not None for m in names)
    bound = int(binom.isf(0.01 / tests, draws, ALARM))
    print(f"\n{name}: {draws} draws of {n} real rows a side; {tests} p-values; bound on alarms {bound}")
    print(f"{'measure':22}{'alarms':>8}{'mean p':>9}{'KS':>8}{'mean':>10}{'interval':>10}")
    rows = []
    for m in names:
        values = np.array([run[m].value for run in runs])
        held = float(np.mean([run[m].low <= values.mean() <= run[m].high for run in runs]))  # type: ignore[operator]
        row: dict[str, Any] = {"measure": m, "mean": float(values.mean()), "interval": held, "good": True}
        if runs[0][m].p is not None:
            p = np.array([run[m].p for run in runs], dtype=float)
            row |= {"alarms": int((p <= ALARM).sum()), "mean_p": float(p.mean()), "ks": float(kstest(p, "uniform", alternative="greater").pvalue)}
            row["good"] = row["alarms"] <= bound and row["ks"] > 0.01 / tests
            shown = f"{row['alarms']:8}{row['mean_p']:9.3f}{row['ks']:8.3f}"
        else:
            shown = f"{'-':>8}{'-':>9}{'-':>8}"
        print(f"{m:22}{shown}{row['mean']:10.3f}{held:10.2f}{'' if row['good'] else '  FAILED'}")
        rows.append(row)
    return rows


def planted(pools: dict[str, Pool], times: int, n: int, seed: int, wanted: Metrics) -> list[dict[str, Any]]:
    """Faults of known size in SLURP rows; prints how often each was found, and its size held."""
    by_label: dict[str, Pool] = defaultdict(list)
    for row in load("slurp", "text", None, seed):
        by_label[row["label"]].append(row)
    common = sorted(by_label.values(), key=len, reverse=True)[:5]
    results: dict[tuple[str, str, float | None], list[Measure]] = defaultdict(list)
    for i in range(times):
        rng = random.Random(seed_for(seed, "planted", i))
        for fault, metrics, (kept, test, fit), sizes in faults(pools["slurp"], pools["gsm8k"], common, n, rng):
            found = measured(kept, test, fit, seed_for(seed, fault, i), tuple(m for m in metrics if m in wanted))
            for name, size in sizes.items() if found else ():
                if name in found:
                    results[fault, name, size].append(above_real(found[name]) if name == "label_disagreement" else found[name])
        print(f"planted: {i + 1} of {times}", file=sys.stderr, flush=True)
    return report(results, times)


def faults(pool: Pool, other: Pool, common: list[Pool], n: int, rng: random.Random) -> list[tuple[str, Metrics, tuple[Pool, Pool, Pool], Sizes]]:
    """(name, metrics, (kept, test, fit), {measure: its true value, or None where none is known})."""
    kept, test, fit = sides(pool, n, rng.getrandbits(60))
    tenth, third, half = n // 10, 3 * n // 10, n // 2
    foreign = [{**row, "label": kept[i]["label"]} for i, row in enumerate(rng.sample(other, third))]

    def two(first: int) -> Pool:
        return rng.sample(common[0], first) + rng.sample(common[1], n - first)

    four, five = ([row for rows in part for row in rows] for part in (common[1:], common))
    both = dict.fromkeys(("distinct_2", "distinct_3", "self_bleu", "vendi", "compression_ratio"))
    # A perfect classifier ranks the foreign 3 in 10 above all real rows and the rest at random: 0.3 + 0.7 / 2.
    away = {"c2st_auc": 0.65, "knn_density": 0.7, "mmd": None, "mauve": None, "frechet_distance": None, "bigram_divergence": None}
    same: Sizes = {"verbatim_rate": 1.0, "label_coverage": 1.0, "label_divergence": 0.0, "unigram_divergence": 0.0, "frechet_distance": 0.0}
    same |= {"mauve": 1.0, "knn_precision": 1.0, "knn_recall": 1.0}
    apart: Sizes = {"verbatim_rate": 0.0, "label_coverage": 0.0, "label_divergence": 1.0, "c2st_auc": 1.0, "knn_precision": 0.0, "knn_coverage": 0.0}
    apart |= {"unigram_divergence": 1.0, "bigram_divergence": 1.0, "mauve": None, "frechet_distance": None}
    coded = [{"text": " ".join(f"x{word}" for word in words(row["text"])), "label": f"x{row['label']}"} for row in other[:n]]
    clean = [rng.sample(five, n) for _ in range(3)]
    wrong = [{**row, "label": rng.choice([c[0]["label"] for c in common if c[0]["label"] != row["label"]])} for row in clean[0]]
    longer = [{**row, "text": f"please would you {row['text']}"} for row in kept]
    return [
        (SAME, METRICS[:-1], (test, test, fit), same),
        ("another set, no word shared", METRICS[:-1], (coded, test, fit), apart),
        ("a tenth copied from fit", (MEMORISATION,), (fit[:tenth] + kept[tenth:], test, fit), {"verbatim_rate": 0.1, "verbatim_rate_fit": 0.1}),
        ("half of the rows twice", (DIVERSITY,), (kept[:half] * 2, test, fit), both),
        ("3 in 10 rows of another set", (MAUVE, COVERAGE, FRECHET, MARGINALS), (kept[third:] + foreign, test, fit), away),
        ("labels 3 : 1 for 1 : 1", (COVERAGE,), (two(3 * n // 4), two(n // 2), two(n // 2)), {"label_divergence": 0.25}),
        ("one of 5 labels missing", (COVERAGE,), (rng.sample(four, n), rng.sample(five, n), rng.sample(five, n)), {"label_coverage": 0.8}),
        # Above `real` by the share of wrong labels.
        ("a tenth of the labels wrong", (LABELS,), ([*wrong[:tenth], *clean[0][tenth:]], clean[1], clean[2]), {"label_disagreement": 0.1}),
        ("3 in 10 labels wrong", (LABELS,), ([*wrong[:third], *clean[0][third:]], clean[1], clean[2]), {"label_disagreement": 0.3}),
        ("three words more in each text", (MARGINALS,), (longer, test, fit), {"length_distance": 3.0}),
    ]


def above_real(m: Measure) -> Measure:
    assert m.value is not None and m.low is not None and m.high is not None and m.real is not None
    return replace(m, value=m.value - m.real, low=m.low - m.real, high=m.high - m.real)


def report(results: dict[tuple[str, str, float | None], list[Measure]], times: int) -> list[dict[str, Any]]:
    print(f"\nplanted faults, {times} times each\n{'fault':30}{'measure':20}{'alarms':>8}{'mean':>8}{'size':>7}{'held':>7}")
    rows = []
    least = int(binom.ppf(0.01 / len(results), times, 0.95))
    for (fault, name, size), found in results.items():
        values = [m.value for m in found if m.value is not None]
        p = [m.p for m in found if m.p is not None]
        alarms = sum(x <= ALARM for x in p)
        held = None if size is None else sum(m.low is not None and m.high is not None and m.low - 1e-9 <= size <= m.high + 1e-9 for m in found)
        seen = not p or (alarms >= 0.9 * times if fault != SAME else alarms == 0)
        good = seen and (held is None or held >= least)
        row = {"fault": fault, "measure": name, "alarms": alarms if p else None, "mean": float(np.mean(values)), "held": held, "good": good}
        row["size"] = size
        shown = f"{'-' if not p else alarms:>8}{row['mean']:8.3f}{'-' if held is None else f'{size:.2f}':>7}{'-' if held is None else held:>7}"
        print(f"{fault:30}{name:20}{shown}{'' if good else '  FAILED'}")
        rows.append(row)
    return rows


if __name__ == "__main__":
    sys.exit(main())
