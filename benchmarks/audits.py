"""Do the audits find what is there, and nothing where nothing is? Planted leaks and skews, real rows as kept ones, over-trained teachers.

`python benchmarks/audits.py [--quick] [--draws N] [--work FOLDER]`. Real rows: SLURP (SEEDBED_SHARED, or `../shared` beside the checkout). Prints
tables in Markdown; the last line is one JSON object; exit status 1 where a bound is passed. --work keeps what the teachers wrote, so that a second
call does not train them again.

Null: kept, dev + test and fit are disjoint random rows of one pool; alarms (p <= 0.01) of N draws are Binomial(N, 0.01) at most. Planted: 5 canaries,
20 e-mail addresses, 3 : 1 for 1 : 1 between two groups, labels that go with a group, near copies; 20 times each: how often found, and how often the
interval holds the size. Teachers: seedling, all weights tuned on 100 SLURP texts for too long and for a little; AUC of fit rows against unseen ones
from what they wrote, from the same without copies, and from rows that know nothing of fit.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom, kstest

from seedbed.canaries import halves, plant
from seedbed.filters.balance import Balance
from seedbed.lm.embed import embed
from seedbed.metrics.bias import Bias
from seedbed.metrics.membership import Membership
from seedbed.metrics.memorisation import _copied, _nearer
from seedbed.metrics.pii import Pii
from seedbed.stats import ALARM
from seedbed.task import Task
from seedbed.types import Candidate, Example, Measure, Sample, Sampling, seed_for

PLAIN = Task("plain", ("text",))
LABELLED = Task("classification", ("text",), "label")
GROUPS = {"mothers": ("mother", "mom", "sister", "wife", "she", "her"), "fathers": ("father", "dad", "brother", "husband", "he", "his")}
TIMES, ROWS, POOL = 20, 150, 2000
Rows = list[Example]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 draws, 3 times, 8 rows of a teacher: the program works; too few to judge by")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--work", type=Path, help="where the teachers' rows are kept")
    args = parser.parse_args()
    draws, times = (5, 3) if args.quick else (args.draws, TIMES)
    texts = slurp()
    nulls, plants, work = null(texts, draws), planted(texts, times), args.work or Path(tempfile.mkdtemp())
    teachers = [row for epochs in (30, 4) for row in taught(texts, epochs, work, args.quick)]
    failed = [row for row in (*nulls, *plants, *teachers) if not row["good"]]
    print(json.dumps({"draws": draws, "times": times, "null": nulls, "planted": plants, "teachers": teachers, "failed": len(failed)}))
    return 1 if failed else 0


def slurp() -> list[str]:
    """Its different train texts, in one random order."""
    shared = Path(os.environ.get("SEEDBED_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    with gzip.open(shared / "data" / "slurp" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = list(dict.fromkeys(json.loads(line)["text"] for line in file))
    random.Random(1).shuffle(texts)
    return texts


def plain(name: str, texts: list[str]) -> Rows:
    return [Example(f"{name}{i}", {"text": text}) for i, text in enumerate(texts)]


def spoken(name: str, texts: list[str], share: float, rng: random.Random, alike: float = 0.5) -> Rows:
    """Labelled rows that name one of two groups, `share` of them the first; alike: how often its label is the group's own."""
    found = []
    for i, text in enumerate(texts):
        first = i < round(share * len(texts))
        group = "mothers" if first else "fathers"
        label = "home" if (rng.random() < alike) == first else "work"
        found.append(Example(f"{name}{i}", {"text": f"{text} for my {rng.choice(GROUPS[group][:4])}", "label": label}))
    return found


def sides(texts: list[str], rng: random.Random, n: int = ROWS) -> tuple[list[str], list[str], list[str]]:
    drawn = rng.sample(texts[:POOL], 3 * n)
    return drawn[:n], drawn[n : 2 * n], drawn[2 * n :]


def null(texts: list[str], draws: int) -> list[dict[str, Any]]:
    """One row for each p-value."""
    features = dict(zip(texts[:POOL], embed(texts[:POOL]), strict=True))
    p: dict[str, list[float]] = defaultdict(list)
    values: dict[str, list[float]] = defaultdict(list)
    for i in range(draws):
        rng = random.Random(seed_for(1, "null", i))
        kept, test, fit = sides(texts, rng)
        sample = Sample(PLAIN, tuple(plain("f", fit)), (), tuple(plain("t", test)))
        sample = replace(sample, canaries=plant(PLAIN, sample.fit, 5, i))
        found = Membership().measure(sample, plain("k", kept), i)
        found += [m for m in [_nearer([np.stack([features[t] for t in side]) for side in (kept, test, fit)], i)] if m]
        people = [spoken(name, side, 0.5, rng, 0.7) for name, side in (("k", kept), ("t", test), ("f", fit))]
        pool = [e for side in people for e in side]
        rng.shuffle(pool)
        found += Bias(groups=GROUPS).measure(Sample(LABELLED, tuple(pool[:ROWS]), (), tuple(pool[ROWS : 2 * ROWS])), pool[2 * ROWS :], i)
        found += Pii().measure(sample, plain("k", kept), i)
        for m in found:
            if m.p is not None and m.value is not None:
                p[m.name].append(m.p)
                values[m.name].append(m.value)
        print(f"null: {i + 1} of {draws}", file=sys.stderr, flush=True)
    bound = int(binom.isf(0.01 / len(p), draws, ALARM))
    print(f"| {draws} draws of {ROWS} real rows a side | alarms (at most {bound}) | KS | mean |\n|---|---|---|---|")
    rows = []
    for name, found in p.items():
        ks = float(kstest(found, "uniform", alternative="greater").pvalue)
        row = {"measure": name, "alarms": sum(x <= ALARM for x in found), "ks": ks, "mean": float(np.mean(values[name])), "n": len(found)}
        row["good"] = row["alarms"] <= bound and ks > 0.01 / len(p)
        print(f"| `{name}` | {row['alarms']} | {ks:.3f} | {row['mean']:.3f} |{'' if row['good'] else ' FAILED'}")
        rows.append(row)
    return rows


def planted(texts: list[str], times: int) -> list[dict[str, Any]]:
    found: dict[tuple[str, str, float], list[Measure]] = defaultdict(list)
    for i in range(times):
        for fault, measures, sizes in faults(texts, random.Random(seed_for(1, "planted", i)), i):
            known = {m.name: m for m in measures}
            for name, size in sizes.items():
                found[fault, name, size].append(known[name])
        print(f"planted: {i + 1} of {times}", file=sys.stderr, flush=True)
    print(f"\n| planted, {times} times | measure | alarms | mean | true | interval holds |\n|---|---|---|---|---|---|")
    rows, least = [], int(binom.ppf(0.01 / len(found), times, 0.95))
    for (fault, name, size), measures in found.items():
        mean = float(np.mean([m.value for m in measures if m.value is not None]))
        tested = [m.p for m in measures if m.p is not None]
        alarms = sum(p <= ALARM for p in tested) if tested else None
        held = sum(m.low is not None and m.high is not None and m.low - 1e-9 <= size <= m.high + 1e-9 for m in measures)
        clean = "balanced" in fault
        good = held >= least and (alarms is None or (alarms <= 0.1 * times if clean else alarms >= 0.9 * times))
        rows.append({"fault": fault, "measure": name, "alarms": alarms, "mean": mean, "size": size, "held": held, "good": good})
        shown = "" if alarms is None else alarms
        print(f"| {fault} | `{name}` | {shown} | {mean:.3f} | {size:g} | {held} |{'' if good else ' FAILED'}")
    return rows


def faults(texts: list[str], rng: random.Random, seed: int) -> Iterator[tuple[str, list[Measure], dict[str, float]]]:
    """(what was planted, the measures, {measure: its true value})."""
    kept, test, fit = sides(texts, rng)
    sample = Sample(PLAIN, tuple(plain("f", fit)), (), tuple(plain("t", test)))
    canaries = plant(PLAIN, sample.fit, 5, seed)
    betrayed = [" ".join(halves(PLAIN, e)[1]) for e in canaries]
    audited = replace(sample, canaries=canaries)
    yield "5 canaries' ends in kept rows", Membership().measure(audited, plain("k", kept[5:] + betrayed), seed), {"canaries_found": 1.0}
    mails = [f"{text} and write to user{i}@example.org" for i, text in enumerate(fit[:30])]
    leaky = replace(sample, fit=tuple(plain("f", mails + fit[30:])))
    told = [f"{text} or mail User{i}@Example.org" for i, text in enumerate(kept[:20])]
    sizes = {"pii_leak_rate": 20 / ROWS, "pii_rate": 20 / ROWS}
    yield "20 addresses of fit rows", Pii().measure(leaky, plain("k", told + kept[20:]), seed), sizes
    near = [f"{text}s please" for text in sorted(fit, key=len)[-15:]]
    yield "a tenth nearly copied", _copied(sample, plain("k", near + kept[15:])), {"near_verbatim_rate_fit": 0.1}
    real = Sample(LABELLED, tuple(spoken("f", fit, 0.5, rng)), (), tuple(spoken("t", test, 0.5, rng)))
    skewed = spoken("k", kept, 0.75, rng)
    measured = Bias(groups=GROUPS).measure(real, skewed, seed)
    yield "3 : 1 between groups for 1 : 1", measured, {"group_skew": 0.25, "amplification:mothers": 3.0}
    made = [Candidate(e.id, i, "", e.fields, True) for i, e in enumerate(skewed)]
    left = [e for e, v in zip(skewed, Balance(groups=GROUPS).judge(made, real), strict=True) if v.keep]
    yield "the same, balanced", Bias(groups=GROUPS).measure(real, left, seed), {"group_skew": 0.0, "amplification:mothers": 1.0}
    tied = spoken("k", kept, 0.5, rng, alike=0.95)
    yield "labels tied to groups", Bias(groups=GROUPS).measure(real, tied, seed), {}


def taught(texts: list[str], epochs: int, work: Path, quick: bool) -> list[dict[str, Any]]:
    """AUC of a teacher's rows, of the same without copies, and of as many rows that know nothing of fit; prints the table."""
    n = 20 if quick else 100
    fit, test, fresh = texts[:n], texts[n : 2 * n], texts[3 * n : 3 * n + 1000]
    written = _cached(work / f"slurp-{n}-{epochs}.json", lambda: _write(fit, epochs, 1 if quick else 1000))
    sample = Sample(PLAIN, tuple(plain("f", fit)), (), tuple(plain("t", test)))
    known = set(fit)
    new = [text for text in written if text not in known]
    rows = []
    print(f"\n| seedling, all weights, {n} rows, {epochs} epochs: {len(written)} rows | rows read | AUC | 95 % | p | TPR at 5 % | real |")
    print("|---|---|---|---|---|---|---|")
    for name, kept, leak in (("all that it wrote", written, True), ("without copies", new, None), ("rows of neither", fresh, False)):
        auc, tpr = Membership().measure(sample, plain("k", kept), 0)[:2]
        if auc.value is None or auc.low is None or auc.high is None or auc.p is None:
            continue
        good = quick or leak is None or ((auc.low > 0.5 and auc.p <= ALARM) if leak and epochs > 10 else True if leak else auc.low <= 0.5 <= auc.high)
        rows.append({"epochs": epochs, "rows": name, "n": len(kept), "auc": auc.value, "low": auc.low, "high": auc.high, "p": auc.p, "good": good})
        shown = f"{auc.low:.3f} to {auc.high:.3f} | {auc.p:.3f} | {tpr.value:.2f} | {auc.real:.2f}"
        print(f"| {name} | {len(kept)} | {auc.value:.3f} | {shown} |{'' if good else ' FAILED'}")
    print(f"\n{len(written) - len(new)} of {len(written)} rows are copies of fit; {len(known & set(written))} of {n} fit rows were copied.")
    return rows


def _cached(path: Path, make: Callable[[], list[str]]) -> list[str]:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(make()))
    found: list[str] = json.loads(path.read_text())
    return found


def _write(fit: list[str], epochs: int, count: int) -> list[str]:
    """What a teacher writes that was tuned on the texts alone, without an early stop."""
    from seedbed.engines.local import Local
    from seedbed.generators.finetune import Finetune

    rows = tuple(plain("f", fit))
    with tempfile.TemporaryDirectory() as folder:
        how = Finetune(method="full", epochs=epochs, patience=epochs)
        how.fit(Sample(PLAIN, rows, rows[:64], ()), "seedling", 1, Path(folder))
        teacher = how.load(Path(folder), PLAIN, "seedling")
        prompts = ((row.index, teacher.prompt(row)) for row in teacher.rows(Sample(PLAIN, rows, (), ()), count, 1))
        done = dict(Local(slots=32).open(teacher.model).complete(((i, p) for i, p in prompts if p), Sampling(1.0, 1.0, 64)))
    return [done[i].text for i in sorted(done)]


if __name__ == "__main__":
    sys.exit(main())
